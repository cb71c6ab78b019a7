"""Operations that take some places of a tensor.

Their arguments count places along the channels' axis: without some channels they must
count anew.
"""

import numpy as np
from keras.src.ops import core
from keras.src.ops import numpy as operations

from kprune.channels.rules.movement import MovementRule
from kprune.channels.value import Value
from kprune.registry import register


def places_left(places, kept):
    """Returns where places of an axis are found once some of it are gone.

    Args:
        places: Int array, places that are still there. Negative ones count from
            the end.
        kept: Bool array of the axis' length.

    Returns:
        Int array of the shape of `places`, none of them negative.

    Example:
    >>> places_left(np.array([3, -3]), np.array([True, False, True, True, False]))
    array([2, 1])
    """
    return (np.cumsum(kept) - 1)[np.asarray(places) % len(kept)]


@register("channel_rules", operations.GetItem)
class GetItemRule(MovementRule):
    """Takes slices and single places."""

    is_sized = True

    def along(self, operation, inputs, tracer):
        """The axes that are not taken as a whole."""
        if len(inputs) > 1:
            return None  # the places are computed
        _, key = two_arguments(*tracer.call.arguments(inputs))
        by_axis = _by_axis(key, len(inputs[0].shape))
        return [a for a, one in by_axis if a is not None and one != slice(None)]

    def stand_in(self, operation, narrowed):
        """Takes the same channels from what is left."""
        (kept,) = narrowed.inputs_of(operation)
        if not kept:
            return None
        tensor, key = two_arguments(*narrowed.arguments_of(operation))
        by_axis = _by_axis(key, len(tensor.shape))
        takes, key = [], []
        for axis, one in by_axis:
            if axis in kept:
                one, take = _anew(one, axis, kept[axis], operation.name)
                takes += take
            key.append(one)
        get_item = operations.GetItem(name=operation.name)

        def call(x, key_of_all):
            for take, places in takes:
                x = take(x, places)
            return get_item(x, tuple(key))

        return call


def _by_axis(key, rank):
    """Lists pairs of an axis (`None` for a new one) and what is taken of it."""
    key = list(key) if isinstance(key, (list, tuple)) else [key]
    if not any(one is Ellipsis for one in key):
        key.append(Ellipsis)
    at = next(place for place, one in enumerate(key) if one is Ellipsis)
    taken = sum(one is not None for one in key) - 1
    key[at : at + 1] = [slice(None)] * (rank - taken)
    axes = iter(range(rank))
    return [(None if one is None else next(axes), one) for one in key]


def _anew(one, axis, kept, name):
    """Returns what to take of an axis, and a list of `(Take, places)` to come first."""
    if not isinstance(one, slice):
        return int(places_left(one, kept)), []
    places = np.arange(len(kept))[one]
    places = places_left(places[kept[places]], kept)
    if not places.size:
        return slice(0, 0), []
    if (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1), []
    take = operations.Take(axis, name=f"{name}_of_axis_{axis}")
    return slice(None), [(take, places.tolist())]


@register("channel_rules", operations.Take)
class TakeRule(MovementRule):
    """Takes places by their numbers."""

    is_sized = True

    def trace(self, operation, inputs, tracer):
        """Keeps the channels along the axis if the numbers are computed."""
        tensor, indices = two_arguments(*tracer.call.arguments(inputs))
        if operation.axis is None or not isinstance(tensor, Value):
            return None
        if not isinstance(indices, Value):
            return super().trace(operation, inputs, tracer)
        tracer.fix(indices.ids(), "unknown", "they are numbers of places")
        text = "which of them are taken is computed"
        tracer.mix(tensor, operation.axis, text=text)
        axis = operation.axis % len(tensor.shape)
        new = (1,) * len(indices.shape)
        maps = tuple(
            m.reshape(m.shape[:axis] + new + m.shape[axis + 1 :])
            for m in tensor.maps
            if m.shape[axis] == 1
        )
        return [Value(tracer.shape(), maps, tensor.silent)]

    def along(self, operation, inputs, tracer):
        """The axis that places are taken of."""
        return (operation.axis,)

    def run(self, operation, arrays, tracer):
        """Takes the channels of the places."""
        array, indices = two_arguments(*tracer.call.arguments(arrays))
        return np.take(array, np.asarray(indices, int), operation.axis)

    def stand_in(self, operation, narrowed):
        """Counts the places anew."""
        kept, *others = narrowed.inputs_of(operation)
        tensor, indices = two_arguments(*narrowed.arguments_of(operation))
        axis = operation.axis % len(tensor.shape)
        if others or axis not in kept:
            return None
        indices = np.asarray(indices, int)
        for number, places in narrowed.outputs_of(operation)[0].items():
            if axis <= number < axis + indices.ndim:
                indices = np.compress(places, indices, number - axis)
        indices = places_left(indices, kept[axis]).tolist()
        take = operations.Take(operation.axis, name=operation.name)
        return lambda x, indices_of_all: take(x, indices)


@register("channel_rules", core.Slice)
class SliceRule(MovementRule):
    """Takes a block of a given shape."""

    is_sized = True

    def along(self, operation, inputs, tracer):
        """The axes that are not taken as a whole."""
        if len(inputs) > 1 or min(operation.shape) < 0:
            return None  # the places are computed
        sizes = zip(inputs[0].shape, tracer.shape(), strict=True)
        return [axis for axis, (old, new) in enumerate(sizes) if old != new]

    def run(self, operation, arrays, tracer):
        """Takes the channels of the block."""
        array, start = two_arguments(*tracer.call.arguments(arrays))
        pairs = zip(np.asarray(start).tolist(), tracer.shape(), strict=True)
        blocks = [slice(first, first + size) for first, size in pairs]
        # An axis that is taken as a whole may have been run with one place.
        return array[tuple(blocks)]

    def stand_in(self, operation, narrowed):
        """Counts the places anew."""
        (kept,) = narrowed.inputs_of(operation)
        if not kept:
            return None
        _, start = two_arguments(*narrowed.arguments_of(operation))
        start = np.array(start).tolist()
        for axis, places in kept.items():
            start[axis] = int(places[: start[axis]].sum())
        left = narrowed.output_of(operation)
        pairs = zip(operation.shape, left, strict=True)
        shape = tuple(old if new is None else new for old, new in pairs)
        new = core.Slice(shape, name=operation.name)
        return lambda inputs, start_of_all: new(inputs, start)


@register("channel_rules", operations.Split)
class SplitRule(MovementRule):
    """Cuts a tensor into several along an axis."""

    is_sized = True

    def along(self, operation, inputs, tracer):
        """The axis that is cut."""
        return (operation.axis,)

    def stand_in(self, operation, narrowed):
        """Cuts where the same channels are parted."""
        (kept,) = narrowed.inputs_of(operation)
        outputs = narrowed.outputs_of(operation)
        axis = operation.axis % len(narrowed.output_of(operation))
        if axis not in kept:
            return None
        sizes = [narrowed.output_of(operation, n)[axis] for n in range(len(outputs))]
        cuts = np.cumsum(sizes)[:-1].tolist()
        return operations.Split(cuts, operation.axis, name=operation.name)


register("channel_rules", operations.ArraySplit)(SplitRule)


@register("channel_rules", core.Unstack)
class UnstackRule(MovementRule):
    """Cuts a tensor into single places along an axis."""

    def along(self, operation, inputs, tracer):
        """The axis that is cut; channels along it are one a tensor, and stay."""
        return (operation.axis,)


def two_arguments(args, kwargs):
    """Returns the two arguments of a call, named or not; `None` for a missing one."""
    first, second, *_ = (*args, *kwargs.values(), None)
    return first, second
