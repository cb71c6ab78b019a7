"""Convolutions of other kinds: depthwise, separable and transposed ones."""

import numpy as np
from keras import layers

from kprune.channels.rules.activation import activate
from kprune.channels.rules.base import ChannelRule
from kprune.channels.rules.common import channel_axis
from kprune.channels.rules.kernels import ConvolutionRule, output
from kprune.channels.value import Value
from kprune.registry import register


def depthwise(value, kernel, layer, tracer):
    """Follows channels through a depthwise kernel.

    Output channel `c * M + m` is made from input channel `c` by multiplier `m`. It is
    a channel of both: all those of `c` go with `c`, and one of each `c` with `m`.

    Args:
        value: `Value` that goes in.
        kernel: Keras variable of shape `(..., channels, multipliers)`.
        layer: The layer, for its data format.
        tracer: `Tracer`.

    Returns:
        List of int arrays of length channels times multipliers.
    """
    axis = channel_axis(layer, len(value.shape))
    given = tracer.pin_alone(value, axis, "convolved over them")
    width, number = kernel.shape[-2:]
    ids = {-2: given, -1: tracer.new(number)}
    held = tracer.hold(kernel, ids, makes=(-1,))
    of_inputs = [np.repeat(one, number) for one in held.along(-2)]
    return of_inputs + [np.tile(one, width) for one in held.along(-1)]


class DepthwiseRule(ChannelRule):
    """Sums over places, for each input channel by itself."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through, and makes one channel a multiplier."""
        (value,) = inputs
        made = depthwise(value, layer.kernel, layer, tracer)
        tracer.hold(layer.bias, {0: made}, makes=(0,))
        # The channels that go in are made before, those of the multipliers here.
        silent = value.silent or not value.maps
        made = Value.of_axes(
            tracer.shape(), {channel_axis(layer, len(value.shape)): made}, silent
        )
        return [activate(made, layer.activation, tracer)]

    def config(self, layer, narrowed):
        """Changes the number of multipliers."""
        return {"depth_multiplier": narrowed.weight(layer.kernel)[-1]}


class SeparableRule(ChannelRule):
    """Sums over places for each channel, and then over channels."""

    def trace(self, layer, inputs, tracer):
        """Makes one channel a multiplier, within, and one a filter."""
        (value,) = inputs
        within = depthwise(value, layer.depthwise_kernel, layer, tracer)
        ids = {-2: within, -1: tracer.new(layer.filters)}
        made = tracer.hold(layer.pointwise_kernel, ids, makes=(-1,)).along(-1)
        tracer.hold(layer.bias, {0: made}, makes=(0,))
        return [output(tracer.shape(), made, layer, tracer)]

    def config(self, layer, narrowed):
        """Changes the numbers of multipliers and of filters."""
        return {
            "depth_multiplier": narrowed.weight(layer.depthwise_kernel)[-1],
            "filters": narrowed.weight(layer.pointwise_kernel)[-1],
        }


class TransposedRule(ConvolutionRule):
    """Sums over input channels, and spreads over places."""

    inputs, outputs = -1, -2


for _rule, *_kinds in (
    (DepthwiseRule, layers.DepthwiseConv1D, layers.DepthwiseConv2D),
    (SeparableRule, layers.SeparableConv1D, layers.SeparableConv2D),
    (
        TransposedRule,
        layers.Conv1DTranspose,
        layers.Conv2DTranspose,
        layers.Conv3DTranspose,
    ),
):
    for _kind in _kinds:
        register("channel_rules", _kind)(_rule)
