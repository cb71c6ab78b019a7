"""Layers with a kernel: what goes in is summed up into new channels."""

import numpy as np
from keras import layers

from kprune.channels.rules.activation import activate
from kprune.channels.rules.base import ChannelRule
from kprune.channels.rules.common import bound_arguments, channel_axis, tie_lines
from kprune.channels.value import Value
from kprune.registry import register


def output(shape, ids, layer, tracer):
    """Returns what a layer with a kernel, and perhaps an activation, puts out.

    Args:
        shape: Tuple of int or `None`.
        ids: List of arrays, the channels along the axis of the layer's channels.
        layer: The layer.
        tracer: `Tracer`.
    """
    made = Value.of_axes(shape, {channel_axis(layer, len(shape)): ids}, silent=True)
    return activate(made, layer.activation, tracer)


@register("channel_rules", layers.Dense)
class DenseRule(ChannelRule):
    """Sums over the last axis."""

    def trace(self, layer, inputs, tracer):
        """Makes one channel a unit."""
        (value,) = inputs
        ids = {0: tracer.pin(value, -1), 1: tracer.new(layer.units)}
        kernel = tracer.hold(layer.kernel, ids, makes=(1,))
        tracer.hold(layer.bias, {0: kernel.along(1)}, makes=(0,))
        through = tracer.others(value, -1)
        made = Value.of_axes(tracer.shape(), {-1: kernel.along(1)})
        # What passes through meets biases of other channels.
        silent = not through or (value.silent and layer.bias is None)
        made = Value(made.shape, made.maps + through, silent)
        return [activate(made, layer.activation, tracer)]

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
            made = [np.repeat(one, number) for one in given]
            # Of colours, which no channels are, each may lose as many filters.
            made = made or [np.tile(one, groups) for one in tracer.new(number)]
            ids = {self.outputs: made}
        else:
            for one in given:
                tie_lines(one.reshape(groups, width).T, tracer)
            given = [one[:width] for one in given]
            made = [np.tile(one, groups) for one in tracer.new(number)]
            ids = {self.inputs: given, self.outputs: made}
        kernel = tracer.hold(layer.kernel, ids, makes=(self.outputs,))
        made = kernel.along(self.outputs)
        tracer.hold(layer.bias, {0: made}, makes=(0,))
        return [output(tracer.shape(), made, layer, tracer)]

    def config(self, layer, narrowed):
        """Changes the number of filters, and of groups that go whole."""
        changed = {"filters": narrowed.weight(layer.kernel)[self.outputs]}
        groups = getattr(layer, "groups", 1)
        kept = narrowed.kept(layer.kernel).get(len(layer.kernel.shape) + self.outputs)
        if groups > 1 and kept is not None:
            changed["groups"] = int(kept.reshape(groups, -1).any(1).sum())
        return changed


for _kind in (layers.Conv1D, layers.Conv2D, layers.Conv3D):
    register("channel_rules", _kind)(ConvolutionRule)


@register("channel_rules", layers.Embedding)
class EmbeddingRule(ChannelRule):
    """Looks up a row for each number."""

    def trace(self, layer, inputs, tracer):
        """Makes one channel a column of the table."""
        tracer.fix(inputs[0].ids(), "mixed", "they are numbers of rows")
        ids = {1: tracer.new(layer.output_dim)}
        table = tracer.hold(layer.embeddings, ids, makes=(1,))
        return [Value.of_axes(tracer.shape(), {-1: table.along(1)}, silent=True)]

    def config(self, layer, narrowed):
        """Changes the length of the rows."""
        return {"output_dim": narrowed.weight(layer.embeddings)[1]}


@register("channel_rules", layers.ReversibleEmbedding)
class ReversibleEmbeddingRule(EmbeddingRule):
    """Looks up a row for each number, or compares with all rows."""

    def trace(self, layer, inputs, tracer):
        """Ties what is compared with rows to the places in them."""
        if not bound_arguments(layer, inputs, tracer).get("reverse"):
            return super().trace(layer, inputs, tracer)
        (value,) = inputs
        ids = tracer.pin(value, -1)
        tracer.hold(layer.embeddings, {1: ids})  # as long, even if it has no part
        if not layer.tie_weights:
            tracer.hold(layer.reverse_embeddings, {0: ids})
        return [Value(tracer.shape(), tracer.others(value, -1), value.silent)]
