"""Layers and operations that combine tensors element by element."""

import numpy as np
from keras import layers, tree
from keras.src.ops import numpy as operations

from kprune.registry import register
from kprune.shrinking.channels import NONE
from kprune.shrinking.rules.base import ChannelRule
from kprune.shrinking.value import Value, pairs


def combined(left, right, shape, tracer, silent):
    """Returns the tensor that two others make, element by element.

    Channels that meet are tied. One that meets places without channels, of a tensor
    that is not simply repeated along the axis, stays.

    Args:
        left: `Value`.
        right: `Value`.
        shape: Tuple of int or `None`, of the result.
        tracer: `Tracer`.
        silent: Bool, whether the result is zero where all that makes it is.
    """
    left, right = (_of_rank(value, len(shape)) for value in (left, right))
    maps = []
    for ours, theirs in pairs(left, right):
        if ours is None or theirs is None:
            alone, other = (theirs, left) if ours is None else (ours, right)
            if any(_covers(other.shape[a], shape[a]) for a in left.axes(alone)):
                text = "combined with a tensor that can't be narrowed"
                tracer.fix(alone, "partner", text)
            maps.append(alone)
            continue
        ours, theirs = np.broadcast_arrays(ours, theirs)
        tracer.channels.tie(ours, theirs)
        text = "combined with places that can't be removed"
        tracer.fix(ours[theirs == NONE], "partner", text)
        tracer.fix(theirs[ours == NONE], "partner", text)
        maps.append(np.where(ours == NONE, theirs, ours))
    return Value(shape, tuple(maps), silent)


def _of_rank(value, rank):
    """Returns a tensor with axes of size 1 in front, as broadcasting adds them."""
    missing = rank - len(value.shape)
    maps = tuple(m.reshape((1,) * missing + m.shape) for m in value.maps)
    return Value((1,) * missing + value.shape, maps, value.silent)


def _covers(size, result):
    return size == result and size != 1


def _all(values):
    return all(value.silent for value in values)


def _any(values):
    return any(value.silent for value in values)


def _first(values):
    return values[0].silent and not values[1].silent


class CombiningRule(ChannelRule):
    """Combines two tensors or more, element by element."""

    keeps_silence = staticmethod(_all)

    def trace(self, operation, inputs, tracer):
        """Ties the channels that meet."""
        values = list(_tensors(tracer, inputs))
        is_merging = isinstance(operation, layers.Layer)
        if is_merging and len({len(value.shape) for value in values}) > 1:
            return None  # Keras moves axes to make them fit
        silent = self.keeps_silence(values)
        result = values[0]
        for value in values[1:]:
            shape = _broadcast(result.shape, value.shape)
            result = combined(result, value, shape, tracer, silent)
        return [Value(tracer.shape(), result.maps, silent)]


class ProductRule(CombiningRule):
    """Multiplies tensors."""

    keeps_silence = staticmethod(_any)


class QuotientRule(CombiningRule):
    """Divides one tensor by another."""

    keeps_silence = staticmethod(_first)


def _tensors(tracer, inputs):
    """Yields the tensors and constants that a call combines, as values."""
    arguments = tracer.call.arguments(inputs)
    for one in tree.flatten(arguments):
        if isinstance(one, Value):
            yield one
        elif one is not None and not isinstance(one, (str, bool)):
            yield Value(tuple(np.shape(one)), silent=not np.any(one))


def _broadcast(left, right):
    """Returns the shape of what two tensors make, open sizes included."""
    missing = len(left) - len(right)
    left, right = (1,) * -missing + left, (1,) * missing + right
    return tuple(b if a == 1 else a for a, b in zip(left, right, strict=True))


for _rule, *_kinds in (
    (
        CombiningRule,
        layers.Add,
        layers.Average,
        layers.Maximum,
        layers.Minimum,
        layers.Subtract,
        operations.Add,
        operations.Maximum,
        operations.Minimum,
        operations.Subtract,
    ),
    (ProductRule, layers.Multiply, operations.Multiply),
    (QuotientRule, operations.Divide, operations.TrueDivide),
):
    for _kind in _kinds:
        register("channel_rules", _kind)(_rule)
