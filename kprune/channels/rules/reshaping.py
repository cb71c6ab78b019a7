"""Layers and operations that arrange elements anew, in the order in which they are."""

import math

from keras import layers
from keras.src.ops import numpy as operations

from kprune.channels.rules.movement import MovementRule
from kprune.registry import register


class ShapingRule(MovementRule):
    """Arranges elements anew, in the order in which they are."""

    is_sized = True
    carried = 0  # how many axes in front are kept whatever the sizes

    def along(self, operation, inputs, tracer):
        """All axes but those in front that stay as they are."""
        old, new = inputs[0].shape, tracer.shape()
        same = self._same(old, new)
        return None if new[same:].count(None) > 1 else range(same, len(old))

    def run(self, operation, arrays, tracer):
        """Leaves sizes that are not known to what is there."""
        (array,), new = arrays, tracer.shape()
        same = self._same(tracer.graph.shapes[tracer.call.inputs[0]], new)
        rest = [-1 if size is None else size for size in new[same:]]
        return array.reshape([*array.shape[:same], *rest])

    def _same(self, old, new):
        same = 0
        while same < min(len(old), len(new)) and old[same] == new[same]:
            same += 1
        while same > self.carried and not _is_alike(old, new, same):
            same -= 1
        return same


def _is_alike(old, new, same):
    """Tells whether what follows some axes must hold as much before and after."""
    if None not in old[:same]:
        return True
    rest = old[same:], new[same:]
    return None not in sum(rest, ()) and math.prod(rest[0]) == math.prod(rest[1])


@register("channel_rules", layers.Reshape)
class ReshapeRule(ShapingRule):
    """Arranges the elements of an example anew."""

    carried = 1

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
class ReshapeOperationRule(ShapingRule):
    """Arranges all elements anew, those of several examples, too."""

    def stand_in(self, operation, narrowed):
        """Gives it the sizes that are left."""
        shape = narrowed.output_of(operation)
        asked = operation.newshape
        asked = asked if isinstance(asked, (list, tuple)) else (asked,)
        new = [
            now if size not in (-1, None) else size
            for size, now in zip(asked, shape, strict=True)
        ]
        return operations.Reshape(tuple(new), name=operation.name)
