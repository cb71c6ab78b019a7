"""Products of tensors that are summed up along some axes."""

import itertools
import string

import numpy as np
from keras import layers
from keras.src.ops import numpy as operations

from kprune.channels.rules.base import ChannelRule
from kprune.channels.rules.elementwise import meet
from kprune.channels.rules.reductions import reduced
from kprune.channels.value import Value
from kprune.registry import register


class ContractionRule(ChannelRule):
    """Multiplies tensors element by element and sums up, as `einsum` says.

    A channel of an axis that is summed up vanishes if it is zero on one side at least.
    """

    takes_variables = True

    def trace(self, operation, inputs, tracer):
        """Ties the channels that meet, and drops those that are summed up."""
        args, kwargs = tracer.arguments(inputs)
        operands = args[0] if isinstance(operation, layers.Layer) else args
        if kwargs or not all(np.ndim(one) or _is_value(one) for one in operands):
            return None
        values = [one if _is_value(one) else Value(np.shape(one)) for one in operands]
        terms = self.terms(operation, [len(value.shape) for value in values])
        if terms is None or any(len(set(term)) < len(term) for term in terms):
            return None
        *terms, result = terms
        summed = sorted(set().union(*terms) - set(result))
        order = [*result, *summed]
        values = [
            _spread(v, term, order) for v, term in zip(values, terms, strict=True)
        ]
        meetings = meet(values, tracer)
        return [self._summed(operation, values, meetings, len(result), tracer)]

    def terms(self, operation, ranks):
        """Returns the names of the axes of each tensor, and of the result.

        Args:
            operation: The layer or operation.
            ranks: List of ints, of the tensors that go in.

        Returns:
            List of strings or sequences of letters, or `None` if they can't be told.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `terms`.")

    def vanishes(self, operation, values, meeting):
        """Tells whether a product is zero once some channels are."""
        return any(values[member].silent for member in meeting.members)

    def _summed(self, operation, values, meetings, rank, tracer):
        axes = set(range(rank, len(values[0].shape)))
        maps, silent = [], True
        for meeting in meetings:
            vanishes = self.vanishes(operation, values, meeting)
            text = "products of all of them are summed up"
            array = reduced(meeting.array, axes, vanishes, tracer, text)
            if array is not None:
                extra = len(tracer.shape()) - rank  # `Dot` adds an axis to vectors
                maps.append(array.reshape(array.shape[:rank] + (1,) * extra))
                silent = silent and vanishes
        return Value(tracer.shape(), tuple(maps), silent)


def _is_value(operand):
    return isinstance(operand, Value)


def _spread(value, term, order):
    """Returns a tensor with its axes in another order, and size 1 along new ones."""
    places = [term.index(name) if name in term else None for name in order]

    def spread(array):
        own = [place for place in places if place is not None]
        shape = [1 if place is None else array.shape[place] for place in places]
        return array.transpose(own).reshape(shape)

    shape = tuple(1 if place is None else value.shape[place] for place in places)
    return Value(shape, tuple(map(spread, value.maps)), value.silent)


def _letters():
    return iter(string.ascii_letters)


@register("channel_rules", operations.Einsum)
class EinsumRule(ContractionRule):
    """Sums products up as its subscripts say."""

    def terms(self, operation, ranks):
        """Reads the subscripts, `...` included."""
        inputs, _, result = operation.subscripts.replace(" ", "").partition("->")
        terms = inputs.split(",")
        if len(terms) != len(ranks):
            return None
        pairs = list(zip(terms, ranks, strict=True))
        longest = max(
            [r - len(t.replace("...", "")) for t, r in pairs if "..." in t] + [0]
        )
        free = [name for name in _letters() if name not in operation.subscripts]
        between = free[:longest]
        filled = [
            _filled(term, between[longest - (rank - len(term.replace("...", ""))) :])
            for term, rank in pairs
        ]
        if "->" not in operation.subscripts:
            names = "".join(terms).replace(".", "")
            once = sorted(name for name in set(names) if names.count(name) == 1)
            result = "..." * ("..." in inputs) + "".join(once)
        return [*filled, _filled(result, between)]


def _filled(term, between):
    return term.replace("...", "".join(between))


@register("channel_rules", operations.Matmul)
class MatmulRule(ContractionRule):
    """Multiplies matrices."""

    def terms(self, operation, ranks):
        """Sums over the last axis of the first and the last but one of the second."""
        left, right = ranks
        if min(ranks) < 2:
            return None
        batch = string.ascii_uppercase[: max(ranks) - 2]
        ours, theirs = batch[max(ranks) - left :], batch[max(ranks) - right :]
        return [ours + "ik", theirs + "kj", batch + "ij"]


@register("channel_rules", operations.Dot)
class DotOperationRule(ContractionRule):
    """Multiplies matrices, each of the first with each of the second."""

    def terms(self, operation, ranks):
        """Sums over the last axis of the first and the last but one of the second."""
        left, right = ranks
        if left < 1 or right < 2:
            return None
        names = _letters()
        ours = list(itertools.islice(names, left))
        theirs = list(itertools.islice(names, right))
        theirs[-2] = ours[-1]
        return [ours, theirs, ours[:-1] + theirs[:-2] + theirs[-1:]]


@register("channel_rules", operations.Tensordot)
class TensordotRule(ContractionRule):
    """Multiplies all with all along given axes."""

    def terms(self, operation, ranks):
        """Sums over the axes that are given."""
        left, right = ranks
        axes = operation.axes
        if isinstance(axes, int):
            axes = range(left - axes, left), range(axes)
        ours_summed, theirs_summed = (np.atleast_1d(list_of(one)) for one in axes)
        names = _letters()
        ours = list(itertools.islice(names, left))
        theirs = list(itertools.islice(names, right))
        for our, their in zip(ours_summed, theirs_summed, strict=True):
            theirs[their] = ours[our]
        both = set(ours) & set(theirs)
        return [ours, theirs, [name for name in ours + theirs if name not in both]]


def list_of(axes):
    """Returns axes, one or several, as a list."""
    return [axes] if isinstance(axes, int) else list(axes)


@register("channel_rules", layers.Dot)
class DotRule(ContractionRule):
    """Multiplies two tensors of each example."""

    def terms(self, layer, ranks):
        """Sums over one axis of each."""
        axes = layer.axes if isinstance(layer.axes, (list, tuple)) else [layer.axes] * 2
        names = _letters()
        batch = next(names)
        ours = [batch, *itertools.islice(names, ranks[0] - 1)]
        theirs = [batch, *itertools.islice(names, ranks[1] - 1)]
        summed = ours[axes[0]]
        theirs[axes[1]] = summed
        return [ours, theirs, [n for n in ours + theirs[1:] if n != summed]]

    def vanishes(self, layer, values, meeting):
        """If it is normalized, each side is divided by a norm of all its channels."""
        silent = [values[member].silent for member in meeting.members]
        return all(silent) if layer.normalize else any(silent)
