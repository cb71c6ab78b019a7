"""Operations that take all places along some axes in, as means and softmax do."""

import numpy as np
from keras import ops
from keras.src.ops import math, nn
from keras.src.ops import numpy as operations

from kprune.channels.rules.base import ChannelRule
from kprune.channels.rules.common import types_of
from kprune.channels.rules.elementwise import is_zero_at_zero
from kprune.channels.value import Value
from kprune.registry import register


def reduced(array, axes, silent, tracer, text):
    """Returns the channels that are left once some axes are made one place.

    Channels that lie along such axes alone vanish if they are silent, and stay
    otherwise. Those that lie along others, too, are tied so that they lie along one.

    Args:
        array: Int array of channels, as in `Value.maps`.
        axes: Collection of ints, none negative.
        silent: Bool, whether a channel adds nothing once it is zero.
        tracer: `Tracer`.
        text: String, what takes them in.

    Returns:
        Int array with size 1 along `axes`, or `None`.
    """
    own = Value.axes(array)
    left = [axis for axis in own if axis not in axes]
    if len(left) == len(own):
        return array
    if not left:
        if not silent:
            tracer.fix(array, "statistics", text)
        return None
    axis = own[-1] if silent else left[-1]
    (line,) = tracer.pin(Value(array.shape, (array,)), axis)
    if axis in axes:
        return None
    return line.reshape([-1 if a == axis else 1 for a in range(array.ndim)])


def without_axes(array, axes):
    """Returns channels without axes along which they do not lie."""
    return array.reshape([n for a, n in enumerate(array.shape) if a not in axes])


class ReductionRule(ChannelRule):
    """Takes the mean, the largest, or some other number of many."""

    may_vanish = False  # whether zeros change nothing

    def trace(self, operation, inputs, tracer):
        """Keeps the channels along the axes; lets others through."""
        if len(inputs) != 1:
            return None
        (value,) = inputs
        rank = len(value.shape)
        axes = _axes(operation, rank)
        text = f"{type(operation).__name__.lower()} takes all of them in"
        silent = self.may_vanish and value.silent
        silent = silent or (value.uniform and isinstance(operation, _OF_ONE))
        maps = [reduced(m, axes, silent, tracer, text) for m in value.maps]
        maps = [m for m in maps if m is not None]
        if len(tracer.shape()) < rank:
            maps = [without_axes(m, axes) for m in maps]
        silent = value.silent and _is_zero_of_zeros(operation, rank)
        return [Value(tracer.shape(), tuple(maps), silent)]


class SumRule(ReductionRule):
    """Sums up; zeros count for nothing."""

    may_vanish = True


class AlongAxisRule(ChannelRule):
    """Computes each line along an axis from the whole line."""

    def trace(self, operation, inputs, tracer):
        """Keeps the channels that lie along the axis alone."""
        (value,) = inputs
        if operation.axis is None:
            return None
        axes = _axes(operation, len(value.shape))
        text = f"{type(operation).__name__.lower()} takes all of them in"
        maps = [reduced(m, axes, False, tracer, text) for m in value.maps]
        maps = [m for m in maps if m is not None] if tracer.exact else value.maps
        silent = value.silent and is_zero_at_zero(operation, tracer)
        return [Value(value.shape, tuple(maps), silent)]


def _axes(operation, rank):
    axis = operation.axis
    axes = range(rank) if axis is None else np.atleast_1d(axis).tolist()
    return {one % rank for one in axes}


def _is_zero_of_zeros(operation, rank):
    return not np.any(ops.convert_to_numpy(operation.call(ops.zeros((2,) * rank))))


_STATISTICS = """
    All Amax Amin Argmax Argmin Max Mean Median Min Nanmax Nanmean Nanmin Prod Ptp Std
    Var
"""
STATISTICS = [*types_of({operations: _STATISTICS}), math.Logsumexp]
# What one number says as well as many that are equal.
_OF_ONE = tuple(types_of({operations: "All Amax Amin Any Max Min"}))
SUMS = types_of({operations: "Any CountNonzero Nansum Sum"})
_ALONG_AXIS = {
    operations: "Argsort Cumprod Cumsum Sort",
    nn: "LogSoftmax Normalize Softmax Sparsemax",
}

for _rule, _kinds in (
    (ReductionRule, STATISTICS),
    (SumRule, SUMS),
    (AlongAxisRule, types_of(_ALONG_AXIS)),
):
    for _kind in _kinds:
        register("channel_rules", _kind)(_rule)
