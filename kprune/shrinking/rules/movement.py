"""What moves elements to other places and computes nothing.

The operation itself is run on the numbers of the channels, so that each result says
which channel it is of.
"""

import math

import keras
import numpy as np
from keras import layers
from keras.src.ops import numpy as operations

from kprune.registry import register
from kprune.shrinking.rules.base import ChannelRule
from kprune.shrinking.value import Value, compressed


class MovementRule(ChannelRule):
    """Moves elements, repeats them or drops some."""

    def trace(self, operation, inputs, tracer):
        """Runs the operation on the channels."""
        if not any(value.maps for value in inputs):
            shapes = [tracer.graph.shapes[n] for n in tracer.call.outputs]
            return [Value(shape, silent=_silent(inputs)) for shape in shapes]
        if any(None in value.shape[1:] for value in inputs):
            return self.with_open_sizes(operation, inputs, tracer)
        found = [[] for _ in tracer.call.outputs]
        for layer in range(max(len(value.maps) for value in inputs)):
            maps = [_full(value, layer) for value in inputs]
            args, kwargs = tracer.call.arguments(maps)
            moved = keras.tree.flatten(operation.call(*args, **kwargs))
            for one, maps in zip(moved, found, strict=True):
                maps.append(compressed(np.asarray(one)))
        return [
            Value(
                tracer.graph.shapes[number],
                tuple(m for m in maps if m.any()),
                _silent(inputs),
            )
            for number, maps in zip(tracer.call.outputs, found, strict=True)
        ]

    def with_open_sizes(self, operation, inputs, tracer):
        """Follows channels where some sizes other than the batch's are open."""
        return None


def _full(value, layer):
    """Returns the channels of all elements of one example."""
    shape = [1, *value.shape[1:]]
    if layer >= len(value.maps):
        return np.zeros(shape, "int32")
    return np.array(np.broadcast_to(value.maps[layer], shape), "int32")


def _silent(inputs):
    return all(value.silent for value in inputs)


for _kind in (
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.Permute,
    layers.RepeatVector,
    operations.ExpandDims,
    operations.Moveaxis,
    operations.Squeeze,
    operations.Swapaxes,
    operations.Transpose,
):
    register("channel_rules", _kind)(MovementRule)


@register("channel_rules", layers.Flatten)
class FlattenRule(MovementRule):
    """Puts all elements of an example into one row."""


@register("channel_rules", layers.Reshape)
class ReshapeRule(MovementRule):
    """Arranges the elements of an example anew."""

    def config(self, layer, narrowed):
        """Changes the sizes that are given."""
        shape = narrowed.output_of(layer)[1:]
        return {
            "target_shape": tuple(
                new if old != -1 else -1
                for old, new in zip(layer.target_shape, shape, strict=True)
            )
        }


@register("channel_rules", operations.Reshape)
class ReshapeOperationRule(MovementRule):
    """Arranges all elements anew; the batch is the first axis before and after."""

    def trace(self, operation, inputs, tracer):
        """Runs the operation for one example."""
        shape = tracer.shape()
        sizes = [*shape[1:], *inputs[0].shape[1:]]
        is_by_example = shape[:1] == inputs[0].shape[:1] and (
            None in sizes or math.prod(shape[1:]) == math.prod(inputs[0].shape[1:])
        )
        if not is_by_example:
            return None
        alone = operations.Reshape((1, *operation.newshape[1:]))
        return super().trace(alone, inputs, tracer)

    def stand_in(self, operation, narrowed):
        """Gives it the sizes that are left."""
        shape = narrowed.output_of(operation)
        new = [
            now if asked not in (-1, None) else asked
            for asked, now in zip(operation.newshape, shape, strict=True)
        ]
        return operations.Reshape(tuple(new), name=operation.name)


@register("channel_rules", layers.Concatenate)
class ConcatenateRule(MovementRule):
    """Puts tensors one behind the other."""


@register("channel_rules", operations.Concatenate)
class ConcatenateOperationRule(ConcatenateRule):
    """Puts tensors one behind the other."""
