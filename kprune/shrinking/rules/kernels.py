"""Layers with a kernel: what goes in is summed up into new channels."""

import numpy as np
from keras import layers

from kprune.registry import register
from kprune.shrinking.rules.activation import activate
from kprune.shrinking.rules.base import ChannelRule
from kprune.shrinking.value import Value


def channel_axis(layer, rank):
    """Returns the axis of a layer's channels in a tensor of a rank."""
    is_first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if is_first else rank - 1


def output(value, axis, ids, layer, tracer):
    """Returns what a layer with a kernel, and perhaps an activation, puts out.

    Args:
        value: `Value` that went in.
        axis: Int, the axis of the channels.
        ids: List of arrays, the new channels.
        layer: The layer.
        tracer: `Tracer`.
    """
    shape = tracer.shape()
    made = Value.of_axes(shape, {axis: ids})
    through = tracer.others(value, axis)
    made = Value(shape, made.maps + through, silent=True)
    return activate(made, getattr(layer, "activation", None), tracer)


@register("channel_rules", layers.Dense)
class DenseRule(ChannelRule):
    """Sums over the last axis."""

    def trace(self, layer, inputs, tracer):
        """Makes one channel a unit."""
        (value,) = inputs
        ids = {0: tracer.pin(value, -1), 1: tracer.new(layer.units)}
        kernel = tracer.hold(layer.kernel, ids, makes=(1,))
        tracer.hold(layer.bias, {0: kernel.along(1)}, makes=(0,))
        return [output(value, -1, kernel.along(1), layer, tracer)]

    def config(self, layer, narrowed):
        """Changes the number of units."""
        return {"units": narrowed.weight(layer.kernel)[1]}


class ConvolutionRule(ChannelRule):
    """Sums over places and input channels."""

    inputs, outputs = -2, -1  # axes of the kernel

    def trace(self, layer, inputs, tracer):
        """Makes one channel a filter; as many in each group of a grouped layer."""
        (value,) = inputs
        axis = channel_axis(layer, len(value.shape))
        given = tracer.pin_alone(value, axis, "convolved over them")
        groups = getattr(layer, "groups", 1)
        width = layer.kernel.shape[self.inputs]
        number = layer.kernel.shape[self.outputs] // groups
        if groups > 1 and width == 1:  # a depthwise convolution
            ids = {self.outputs: [np.repeat(one, number) for one in given]}
        else:
            for one in given:
                one = one.reshape(groups, width)
                tracer.channels.tie(one, one[:1])
            given = [one[:width] for one in given]
            made = [np.tile(one, groups) for one in tracer.new(number)]
            ids = {self.inputs: given, self.outputs: made}
        kernel = tracer.hold(layer.kernel, ids, makes=(self.outputs,))
        made = kernel.along(self.outputs)
        tracer.hold(layer.bias, {0: made}, makes=(0,))
        return [output(value, axis, made, layer, tracer)]

    def config(self, layer, narrowed):
        """Changes the number of filters, and of groups that go whole."""
        kernel = narrowed.weight(layer.kernel)
        changed = {"filters": kernel[self.outputs]}
        groups = getattr(layer, "groups", 1)
        if groups > 1 and layer.kernel.shape[self.inputs] == 1:
            was = layer.kernel.shape[self.outputs]
            changed["groups"] = groups * kernel[self.outputs] // was
        return changed


for _kind in (layers.Conv1D, layers.Conv2D, layers.Conv3D):
    register("channel_rules", _kind)(ConvolutionRule)


@register("channel_rules", layers.Embedding)
class EmbeddingRule(ChannelRule):
    """Looks up a row for each number."""

    def trace(self, layer, inputs, tracer):
        """Makes one channel a column of the table."""
        ids = {1: tracer.new(layer.output_dim)}
        table = tracer.hold(layer.embeddings, ids, makes=(1,))
        return [Value.of_axes(tracer.shape(), {-1: table.along(1)}, silent=True)]

    def config(self, layer, narrowed):
        """Changes the length of the rows."""
        return {"output_dim": narrowed.weight(layer.embeddings)[1]}
