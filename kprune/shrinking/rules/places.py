"""Layers that treat each channel by itself: pooling, dropout and the like."""

from keras import layers

from kprune.registry import register
from kprune.shrinking.rules.base import ChannelRule
from kprune.shrinking.rules.kernels import channel_axis
from kprune.shrinking.value import Value


class PassingRule(ChannelRule):
    """Lets each element through, or drops it."""

    def trace(self, layer, inputs, tracer):
        """Returns what came in."""
        return inputs


class PlacesRule(ChannelRule):
    """Pools, pads or repeats places, for each channel alike."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through, but for those that lie along places."""
        (value,) = inputs
        axis = channel_axis(layer, len(value.shape))
        ids = tracer.pin_alone(value, axis, "works on places along this axis")
        shape = tracer.shape()
        if len(shape) != len(value.shape):  # places are gone
            axis = 1
        return [Value.of_axes(shape, {axis: ids}, value.silent)]


for _kind in (
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.Dropout,
    layers.GaussianDropout,
    layers.Identity,
    layers.ReLU,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
):
    register("channel_rules", _kind)(PassingRule)

for _kind in (
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.UpSampling3D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
):
    register("channel_rules", _kind)(PlacesRule)
