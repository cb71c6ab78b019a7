"""Layers that treat each channel by itself: pooling, dropout and the like."""

from keras import layers
from keras.src.applications.convnext import StochasticDepth

from kprune.channels.rules.base import ChannelRule
from kprune.channels.rules.common import channel_axis, without_masks
from kprune.channels.value import Value
from kprune.registry import register


class PassingRule(ChannelRule):
    """Lets each element through, or drops it."""

    def trace(self, layer, inputs, tracer):
        """Returns what came in."""
        return inputs


class DropoutRule(PassingRule):
    """Drops elements, perhaps the same ones along some axes."""

    def trace(self, layer, inputs, tracer):
        """Returns what came in; ties all calls if the layer names sizes."""
        if self._sizes(layer):
            if layer is not tracer.call.operation:
                text = "its dropout within another layer names their number"
                tracer.fix(inputs[0].ids(), "partner", text)
            tracer.same_at_all_calls(layer, inputs)
        return inputs

    def config(self, layer, narrowed):
        """Changes the sizes that are named."""
        if not self._sizes(layer):
            return {}
        shape = narrowed.output_of(layer)
        return {
            "noise_shape": tuple(
                new if old in self._sizes(layer) else old
                for old, new in zip(layer.noise_shape, shape, strict=True)
            )
        }

    def _sizes(self, layer):
        return {size for size in layer.noise_shape or () if size not in (None, 1)}


class PlacesRule(ChannelRule):
    """Pools, pads or repeats places, for each channel alike."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through, but for those that lie along places."""
        value = without_masks(inputs, tracer)
        axis = channel_axis(layer, len(value.shape))
        ids = tracer.pin_alone(value, axis, "works on places along this axis")
        shape = tracer.shape()
        if len(shape) != len(value.shape):  # places are gone
            axis = 1
        return [Value.of_axes(shape, {axis: ids}, value.silent)]


@register("channel_rules", layers.Resizing)
class ResizingRule(PlacesRule):
    """Resizes images, and perhaps adds margins."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through; margins need not be zero."""
        (value,) = super().trace(layer, inputs, tracer)
        has_margins = layer.pad_to_aspect_ratio and layer.fill_value != 0
        return [Value(value.shape, value.maps, value.silent and not has_margins)]


@register("channel_rules", layers.Masking)
class MaskingRule(ChannelRule):
    """Leaves out steps of which all numbers are the same one."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through, but for those that say what is left out."""
        (value,) = inputs
        text = "a step is left out by all its numbers"
        tracer.mix(value, -1, kind="statistics", text=text)
        return [value]


for _kind in (
    layers.ActivityRegularization,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    StochasticDepth,
):
    register("channel_rules", _kind)(PassingRule)

for _kind in (layers.AlphaDropout, layers.Dropout):
    register("channel_rules", _kind)(DropoutRule)

for _kind in (
    layers.AdaptiveAveragePooling1D,
    layers.AdaptiveAveragePooling2D,
    layers.AdaptiveAveragePooling3D,
    layers.AdaptiveMaxPooling1D,
    layers.AdaptiveMaxPooling2D,
    layers.AdaptiveMaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.CenterCrop,
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
