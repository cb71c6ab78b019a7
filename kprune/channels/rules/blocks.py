"""What drops margins, and what trades places of an image for channels."""

import numpy as np
from keras import layers
from keras.src.ops import nn

from kprune.channels.rules.base import ChannelRule
from kprune.channels.rules.common import tie_lines
from kprune.channels.value import Value
from kprune.registry import register


class CroppingRule(ChannelRule):
    """Drops places at the margins."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through, but for those along the axes that are cropped."""
        (value,) = inputs
        first = 2 if getattr(layer, "data_format", None) == "channels_first" else 1
        axes = range(first, first + len(value.shape) - 2)
        tracer.mix(value, *axes, text="the first and last of them are dropped")
        maps = tuple(m for m in value.maps if not set(Value.axes(m)) & set(axes))
        return [Value(tracer.shape(), maps, value.silent)]


for _kind in (layers.Cropping1D, layers.Cropping2D, layers.Cropping3D):
    register("channel_rules", _kind)(CroppingRule)


class BlocksRule(ChannelRule):
    """Moves blocks of places into the channels' axis, or the other way round."""

    def trace(self, operation, inputs, tracer):
        """Ties the channels of one place in what comes out."""
        (value,) = inputs
        axis = 1 if operation.data_format == "channels_first" else 3
        text = "blocks of places along this axis are moved"
        ids = tracer.pin_alone(value, axis, text)
        number = operation.block_size**2
        ids = [self.moved(one, number, tracer) for one in ids]
        return [Value.of_axes(tracer.shape(), {axis: ids}, value.silent)]

    def moved(self, ids, number, tracer):
        """Returns the channels of what comes out.

        Args:
            ids: Int array, the channels that go in.
            number: Int, how many places a block has.
            tracer: `Tracer`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `moved`.")


@register("channel_rules", nn.SpaceToDepth)
class SpaceToDepthRule(BlocksRule):
    """Puts the channels of the places of a block one behind the other."""

    def moved(self, ids, number, tracer):
        """Repeats the channels."""
        return np.tile(ids, number)


@register("channel_rules", nn.DepthToSpace)
class DepthToSpaceRule(BlocksRule):
    """Parts the channels among the places of a block."""

    def moved(self, ids, number, tracer):
        """Ties the channels that come to lie at different places."""
        lines = ids.reshape(number, -1).T
        tie_lines(lines, tracer)
        return lines.max(1)
