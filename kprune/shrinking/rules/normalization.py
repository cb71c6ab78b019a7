"""Layers that scale and shift, by what they have learnt or by statistics."""

from keras import layers

from kprune.registry import register
from kprune.shrinking.rules.base import ChannelRule
from kprune.shrinking.value import Value


@register("channel_rules", layers.BatchNormalization)
class BatchNormalizationRule(ChannelRule):
    """Normalizes each channel by itself."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through, with their scales, offsets, means and variances."""
        (value,) = inputs
        ids = {0: tracer.pin(value, layer.axis)}
        for variable in (layer.gamma, layer.beta):
            tracer.hold(variable, ids, makes=(0,))
        for variable in (layer.moving_mean, layer.moving_variance):
            tracer.hold(variable, ids)
        # Without a scale, the mean stays in what comes out.
        silent = layer.gamma is not None
        return [Value(value.shape, value.maps, silent)]
