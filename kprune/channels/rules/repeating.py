"""Operations that repeat places, move them on or add some at the margins."""

import numpy as np
from keras.src.ops import numpy as operations

from kprune.channels.rules.movement import CarryingRule, MovementRule
from kprune.channels.rules.picking import two_arguments
from kprune.channels.value import Value
from kprune.registry import register


@register("channel_rules", operations.Repeat)
class RepeatRule(MovementRule):
    """Repeats each place, each as often or each as often as is said."""

    is_sized = True

    def along(self, operation, inputs, tracer):
        """The axis, if its places are repeated by numbers of their own."""
        if operation.axis is None:
            return None
        return (operation.axis,) if np.size(operation.repeats) > 1 else ()

    def run(self, operation, arrays, tracer):
        """Repeats the channels."""
        return np.repeat(arrays[0], operation.repeats, operation.axis)

    def stand_in(self, operation, narrowed):
        """Leaves out the numbers of what is gone."""
        (kept,) = narrowed.inputs_of(operation)
        axis = operation.axis % len(narrowed.output_of(operation))
        if axis not in kept or np.size(operation.repeats) == 1:
            return None
        repeats = np.compress(kept[axis], operation.repeats).tolist()
        return operations.Repeat(repeats, operation.axis, name=operation.name)


@register("channel_rules", operations.Roll)
class RollRule(CarryingRule):
    """Moves places on, the last ones to the front."""

    is_sized = True

    def along(self, operation, inputs, tracer):
        """No size matters, but an axis must be given."""
        return None if operation.axis is None else ()

    def stand_in(self, operation, narrowed):
        """Moves on by as many places as are left."""
        (kept,) = narrowed.inputs_of(operation)
        rank = len(narrowed.output_of(operation))
        axes, shifts = np.atleast_1d(operation.axis, operation.shift)
        axes, shifts = np.broadcast_arrays(axes, shifts)
        new = [
            _shift_left(int(shift), kept.get(axis % rank))
            for axis, shift in zip(axes.tolist(), shifts.tolist(), strict=True)
        ]
        return operations.Roll(new, axes.tolist(), name=operation.name)


def _shift_left(shift, kept):
    if kept is None:
        return shift
    return int(kept[len(kept) - shift % len(kept) :].sum())


@register("channel_rules", operations.Pad)
class PadRule(MovementRule):
    """Adds places in front and behind."""

    def trace(self, operation, inputs, tracer):
        """Keeps the channels along axes that are padded with copies of them."""
        if len(inputs) > 1:
            return None  # the constant is computed
        (value,) = inputs
        _, constant = two_arguments(*tracer.call.arguments(inputs))
        is_constant = operation.mode == "constant"
        if not is_constant:
            widths = _widths(operation, len(value.shape))
            padded = [axis for axis, both in enumerate(widths) if any(both)]
            tracer.mix(value, *padded, text="some of them are copied to the margin")
        outputs = super().trace(operation, inputs, tracer)
        is_zero = not is_constant or constant is None or not np.any(constant)
        return [Value(v.shape, v.maps, v.silent and is_zero) for v in outputs]

    def along(self, operation, inputs, tracer):
        """No size matters; what is added along other axes is of the same channel."""
        return ()

    def run(self, operation, arrays, tracer):
        """Adds places of no channel along the axes that channels lie along."""
        (array,) = arrays
        pairs = zip(_widths(operation, array.ndim), array.shape, strict=True)
        return np.pad(array, [both if size > 1 else (0, 0) for both, size in pairs])


def _widths(operation, rank):
    """Returns what is added in front and behind, by axis."""
    widths = [(one[0], one[-1]) for one in operation.pad_width]
    return widths * rank if len(widths) == 1 else widths
