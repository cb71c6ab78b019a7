"""What moves elements to other places and computes nothing.

The operation itself is run on the numbers of the channels, so that each result says
which channel it is of. Axes that it only carries along are run with one place.
"""

import dataclasses

import keras
import numpy as np
from keras import layers
from keras.src.ops import numpy as operations

from kprune.channels.rules.base import ChannelRule
from kprune.channels.value import Value, compressed
from kprune.registry import register

_OPEN_SIZES = (12, 24)  # what is run in the place of a size that is not known


class MovementRule(ChannelRule):
    """Moves elements, repeats them or drops some."""

    is_sized = False  # whether it holds sizes, and so must find the same everywhere

    def trace(self, operation, inputs, tracer):
        """Runs the operation on the channels."""
        outputs = self._outputs(operation, inputs, tracer)
        if outputs is not None and self.is_sized:
            tracer.same_at_all_calls(operation, [*inputs, *outputs])
        return outputs

    def _outputs(self, operation, inputs, tracer):
        shapes = [tracer.graph.shapes[n] for n in tracer.call.outputs]
        if not any(value.maps for value in inputs):
            return [Value(shape) for shape in shapes]
        ways = self.along(operation, inputs, tracer)
        if ways is None:
            return None
        axes = {axis % len(inputs[0].shape) for axis in ways}
        found = [[] for _ in shapes]
        for layer in range(max(len(value.maps) for value in inputs)):
            moved = self._moved(operation, inputs, layer, axes, tracer)
            if moved is None:
                return None
            for one, maps in zip(moved, found, strict=True):
                maps += [one] if one.any() else []
        silent = all(value.silent for value in inputs if value.maps)
        return [
            Value(shape, tuple(maps), silent)
            for shape, maps in zip(shapes, found, strict=True)
        ]

    def along(self, operation, inputs, tracer):
        """Returns the axes on whose sizes the operation depends.

        Args:
            operation: The layer or operation.
            inputs: List of `Value`, of one rank.
            tracer: `Tracer`.

        Returns:
            Iterable of ints, or `None` if the call is not understood.
        """
        return range(len(inputs[0].shape))

    def run(self, operation, arrays, tracer):
        """Runs the operation on arrays of channels, one for each input.

        Returns:
            Array, or list of arrays for several outputs.
        """
        args, kwargs = tracer.call.arguments(arrays)
        return operation.call(*args, **kwargs)

    def _moved(self, operation, inputs, layer, axes, tracer):
        """Returns the channels of each output, or `None` if they can't be told."""
        is_open = any(value.shape[a] is None for value in inputs for a in axes)
        shapes = [tracer.graph.shapes[n] for n in tracer.call.outputs]
        runs = []
        for size in _OPEN_SIZES if is_open else _OPEN_SIZES[:1]:
            arrays = _full(inputs, layer, axes, size)
            try:
                moved = keras.tree.flatten(self.run(operation, arrays, tracer))
            except ValueError:  # a reshape that does not go with the tried size
                return None
            pairs = zip(map(np.asarray, moved), shapes, strict=True)
            runs.append([_of_shape(compressed(a), s, tracer) for a, s in pairs])
        for tries in zip(*runs, strict=True):
            if any(one is None for one in tries):
                return None
            if not all(np.array_equal(tries[0], one) for one in tries):
                return None
        return runs[0]


def _full(inputs, layer, axes, size):
    """Returns the channels of the elements, along axes that matter or have channels."""
    maps = [v.maps[layer] if layer < len(v.maps) else None for v in inputs]
    varying = axes | {a for m in maps if m is not None for a in Value.axes(m)}
    arrays = []
    for value, array in zip(inputs, maps, strict=True):
        rank = len(value.shape)
        shape = [(value.shape[a] or size) if a in varying else 1 for a in range(rank)]
        array = np.zeros((1,) * rank) if array is None else array
        arrays.append(np.array(np.broadcast_to(array, shape), "int32"))
    return arrays


def _of_shape(array, shape, tracer):
    """Lets channels lie along axes of known size; returns `None` if they can't.

    Where they lie along open axes, too, those of one place of the last axis of known
    size are tied.
    """
    axes = Value.axes(array)
    if not array.size:
        return None
    if not any(shape[axis] is None for axis in axes):
        return array
    known = [axis for axis in axes if shape[axis] is not None]
    if not known:
        return None
    (line,) = tracer.pin(Value(array.shape, (array,)), known[-1])
    return line.reshape([-1 if a == known[-1] else 1 for a in range(array.ndim)])


class CarryingRule(MovementRule):
    """Moves whole axes, or places along an axis whatever its size."""

    def along(self, operation, inputs, tracer):
        """No axis matters unless channels lie along it."""
        return ()


for _kind in (
    layers.Permute,
    layers.RepeatVector,
    operations.ExpandDims,
    operations.Flip,
    operations.Moveaxis,
    operations.Rot90,
    operations.Stack,
    operations.Swapaxes,
    operations.Tile,
    operations.Transpose,
):
    register("channel_rules", _kind)(CarryingRule)


@register("channel_rules", operations.Squeeze)
class SqueezeRule(MovementRule):
    """Leaves out axes of size 1."""

    def stand_in(self, operation, narrowed):
        """Names the axes, so that none goes that is of size 1 only now."""
        args, kwargs = narrowed.arguments_of(operation)
        (tensor,) = (*args, *kwargs.values())
        axes = tuple(axis for axis, size in enumerate(tensor.shape) if size == 1)
        axis = axes if operation.axis is None else operation.axis
        return operations.Squeeze(axis, name=operation.name)


@register("channel_rules", layers.Flatten)
class FlattenRule(MovementRule):
    """Puts all elements of an example into one row."""

    def along(self, operation, inputs, tracer):
        """All but the batch."""
        return range(1, len(inputs[0].shape))


@register("channel_rules", operations.BroadcastTo)
class BroadcastRule(MovementRule):
    """Repeats a tensor along axes of size 1 and new ones in front."""

    is_sized = True

    def along(self, operation, inputs, tracer):
        """No size matters."""
        return ()

    def run(self, operation, arrays, tracer):
        """Adds axes in front."""
        (array,) = arrays
        missing = len(tracer.shape()) - array.ndim
        return array.reshape((1,) * missing + array.shape)

    def stand_in(self, operation, narrowed):
        """Gives it the sizes that are left."""
        left = narrowed.output_of(operation)
        pairs = zip(operation.shape, left, strict=True)
        shape = tuple(old if new is None else new for old, new in pairs)
        return operations.BroadcastTo(shape, name=operation.name)


class ConcatenateRule(MovementRule):
    """Puts tensors one behind the other, constants among them."""

    takes_variables = True

    def trace(self, operation, inputs, tracer):
        """Takes constants for places of no channel."""
        args, kwargs = tracer.arguments(inputs)
        (tensors,) = (*args, *kwargs.values())
        inputs = [
            one if isinstance(one, Value) else Value(tuple(np.shape(one)))
            for one in tensors
        ]
        outputs = super().trace(operation, inputs, tracer)
        uniform = all(value.uniform for value in inputs if value.maps)
        return outputs and [
            dataclasses.replace(one, uniform=uniform) for one in outputs
        ]

    def along(self, operation, inputs, tracer):
        """The axis along which they lie."""
        return (operation.axis,)

    def run(self, operation, arrays, tracer):
        """Puts the channels one behind the other."""
        return np.concatenate(arrays, operation.axis)


for _kind in (layers.Concatenate, operations.Concatenate):
    register("channel_rules", _kind)(ConcatenateRule)
