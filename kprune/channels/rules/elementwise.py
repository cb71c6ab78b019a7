"""Layers and operations that combine tensors element by element."""

import dataclasses

import keras
import numpy as np
from keras import layers, ops, tree
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from keras.src.ops import numpy as operations

from kprune.channels.numbers import NONE
from kprune.channels.rules.base import ChannelRule
from kprune.channels.rules.common import types_of
from kprune.channels.value import Value
from kprune.rebuilding import copy_operation
from kprune.registry import register


@dataclasses.dataclass
class Meeting:
    """Channels that lie along the same axes of several tensors.

    Attributes:
        array: Int array of channels, as in `Value.maps`.
        members: Set of int, the operands that have them.
    """

    array: np.ndarray
    members: set


def meet(values, tracer, may_slice=()):
    """Ties the channels that meet where tensors are combined element by element.

    One that meets places without channels, of a tensor that is not simply repeated
    along the axis, stays.

    Args:
        values: List of `Value` of one rank.
        tracer: `Tracer`.
        may_slice: Sequence of int, the operands that will be sliced along.

    Returns:
        List of `Meeting`, one for each array of channels of the result.
    """
    meetings = []
    for number, value in enumerate(values):
        for array in value.maps:
            _join(meetings, number, array, tracer)
    for meeting in meetings:
        others = set(range(len(values))) - meeting.members - set(may_slice)
        axes = Value.axes(meeting.array)
        if any(values[other].shape[a] != 1 for other in others for a in axes):
            text = "combined with a tensor that can't be narrowed"
            tracer.fix(meeting.array, "partner", text)
    return meetings


def _join(meetings, number, array, tracer):
    axes = set(Value.axes(array))
    free = [m for m in meetings if number not in m.members]
    same = [m for m in free if set(Value.axes(m.array)) == axes]
    # Channels along (4, 3) meet channels along the 3 alone, too.
    near = [m for m in free if axes and _is_nested(axes, set(Value.axes(m.array)))]
    found = next(iter(same + near), None)
    if found is None:
        meetings.append(Meeting(array, {number}))
        return
    ours, theirs = np.broadcast_arrays(found.array, array)
    tracer.channels.tie(ours, theirs)
    text = "combined with places that can't be removed"
    tracer.fix(ours[theirs == NONE], "partner", text)
    tracer.fix(theirs[ours == NONE], "partner", text)
    found.array = np.where(ours == NONE, theirs, ours)
    found.members.add(number)


def _is_nested(left, right):
    return bool(right) and (left < right or right < left)


def of_rank(value, rank, at=0):
    """Returns a tensor with more axes of size 1, in front or at another place."""
    missing = (1,) * (rank - len(value.shape))

    def widened(shape):
        return shape[:at] + missing + shape[at:]

    maps = tuple(m.reshape(widened(m.shape)) for m in value.maps)
    return dataclasses.replace(value, shape=widened(value.shape), maps=maps)


class CombiningRule(ChannelRule):
    """Combines two tensors or more, element by element."""

    takes_variables = True

    def trace(self, operation, inputs, tracer):
        """Ties the channels that meet."""
        operands = _operands(operation, tracer.arguments(inputs))
        if any(one is None for one in operands):
            return None
        rank = len(tracer.shape())
        is_layer = isinstance(operation, layers.Layer)
        if not is_layer:
            tensors = [one for one in operands if isinstance(one, Value)]
            keep_what_needs_numbers(tensors, operation, tracer)
        # Merging layers add what is missing behind the batch, operations in front.
        values = [of_rank(_as_value(one), rank, int(is_layer)) for one in operands]
        may_slice = [] if is_layer else _constants(operands)
        meetings = meet(values, tracer, may_slice)
        silent = all(
            self.keeps_zero(_zeros(operands, values, meeting), operation, tracer)
            for meeting in meetings
        )
        maps = tuple(meeting.array for meeting in meetings)
        uniform = all(_is_uniform(meeting, values) for meeting in meetings)
        return [Value(tracer.shape(), maps, silent, uniform)]

    def keeps_zero(self, zeros, operation, tracer):
        """Tells whether the result is zero where some operands are.

        Args:
            zeros: List of bool, which operands are; `None` for constants that are not.
            operation: The layer or operation.
            tracer: `Tracer`.
        """
        if False in zeros:
            return False
        return isinstance(operation, layers.Layer) or is_zero_at_zero(operation, tracer)

    def stand_in(self, operation, narrowed):
        """Slices constants that have the channels' axis."""
        kept = narrowed.outputs_of(operation)[0]
        rank = len(narrowed.output_of(operation))
        if not kept:
            return None
        new = copy_operation(operation)

        def combine(*args, **kwargs):
            args = [_left_of(one, kept, rank) for one in args]
            kwargs = {name: _left_of(one, kept, rank) for name, one in kwargs.items()}
            return new(*args, **kwargs)

        return combine


class ProductRule(CombiningRule):
    """Multiplies tensors."""

    def keeps_zero(self, zeros, operation, tracer):
        """One zero is enough."""
        return True in zeros


class QuotientRule(CombiningRule):
    """Divides one tensor by another."""

    def keeps_zero(self, zeros, operation, tracer):
        """Zero by something else is zero."""
        return bool(zeros[0]) and not zeros[1]


class ChoiceRule(CombiningRule):
    """Takes each element from one of two tensors, as a condition says."""

    def keeps_zero(self, zeros, operation, tracer):
        """Zero if both are, whatever the condition."""
        return bool(zeros[1] and zeros[2])


def _is_uniform(meeting, values):
    """Tells whether channels of one tensor that hold the same still do."""
    axes = Value.axes(meeting.array)
    own = [values[member] for member in meeting.members]
    alone = [v for v in values if all(v.shape[axis] == 1 for axis in axes)]
    return len(own) == 1 and own[0].uniform and len(alone) == len(values) - 1


def is_zero_at_zero(operation, tracer):
    """Tells whether the present call gives zeros for zeros.

    Args:
        operation: Its operation.
        tracer: `Tracer`.
    """
    return not np.any(_at(ops.zeros, operation, tracer))


def keep_what_needs_numbers(inputs, operation, tracer):
    """Fixes channels that an operation divides by, or takes the logarithm of.

    Where they are zero it would give no number.

    Args:
        inputs: List of `Value`, the tensors and variables that go in.
        operation: That of the present call.
        tracer: `Tracer`.
    """
    vanishing = [bool(value.maps) and value.silent for value in inputs]
    given = filter(_is_tensor, tree.flatten(tracer.call.given))
    if not any(vanishing) or not all("float" in x.dtype for x in given):
        return
    makers = iter([ops.zeros if one else ops.ones for one in vanishing])
    found = _at(
        lambda *args, **kwargs: next(makers)(*args, **kwargs), operation, tracer
    )
    if not np.isfinite(found).all():
        for value, vanishes in zip(inputs, vanishing, strict=True):
            if vanishes:
                text = "what it computes of them is no number where they are zero"
                tracer.fix(value.ids(), "mixed", text)


def _at(make, operation, tracer):
    """Returns what the present call gives for small tensors of its inputs' types."""

    def small(one):
        return make((1,) * len(one.shape), dtype=one.dtype) if _is_tensor(one) else one

    args, kwargs = tree.map_structure(small, tracer.call.given)
    return ops.convert_to_numpy(operation.call(*args, **kwargs))


def _is_tensor(argument):
    return isinstance(argument, (keras.KerasTensor, keras.Variable))


def _operands(operation, arguments):
    args, kwargs = arguments
    if isinstance(operation, layers.Layer):
        return list(args[0])
    return [*args, *kwargs.values()]


def _as_value(operand):
    return operand if isinstance(operand, Value) else Value(tuple(np.shape(operand)))


def _constants(operands):
    return [n for n, one in enumerate(operands) if not isinstance(one, Value)]


def _zeros(operands, values, meeting):
    return [
        number in meeting.members and values[number].silent
        if isinstance(one, Value)
        else (None if np.any(one) else True)
        for number, one in enumerate(operands)
    ]


def _left_of(operand, kept, rank):
    """Returns what is left of a constant; of all else, itself."""
    if _is_tensor(operand) or not np.ndim(operand):
        return operand
    missing = rank - np.ndim(operand)
    for axis, places in kept.items():
        if axis >= missing and np.shape(operand)[axis - missing] != 1:
            array = ops.convert_to_numpy(operand)
            operand = np.compress(places, array, axis - missing)
    return operand


_COMBINING = """
    Add Arctan2 BitwiseAnd BitwiseOr BitwiseXor Equal Fmax Fmin FloorDivide Fmod
    Greater GreaterEqual Heaviside Hypot Less LessEqual Logaddexp Logaddexp2
    LogicalAnd LogicalOr LogicalXor Maximum Minimum Mod NotEqual Power Subtract
"""
COMBINING = types_of({operations: _COMBINING})
_MERGING = (
    layers.Add,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Subtract,
    CustomScaleLayer,  # of InceptionResNetV2: x + scale * y
)
_QUOTIENTS = types_of({operations: "Divide DivideNoNan TrueDivide"})

for _rule, _kinds in (
    (CombiningRule, (*COMBINING, *_MERGING)),
    (ProductRule, (operations.Multiply, layers.Multiply)),
    (QuotientRule, _QUOTIENTS),
    (ChoiceRule, (operations.Where,)),
):
    for _kind in _kinds:
        register("channel_rules", _kind)(_rule)
