"""Layers that scale and shift, by what they have learnt or by statistics."""

import keras
import numpy as np
from keras import layers
from keras.src.applications.convnext import LayerScale

from kprune.channels.rules.base import ChannelRule
from kprune.channels.rules.common import pin_each, tie_lines, without_masks
from kprune.channels.value import Value
from kprune.registry import register

# The last three are those of batch renormalization.
_STATISTICS = (
    "moving_mean",
    "moving_variance",
    "moving_stddev",
    "renorm_mean",
    "renorm_stddev",
)


@register("channel_rules", layers.BatchNormalization)
class BatchNormalizationRule(ChannelRule):
    """Normalizes each channel by itself."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through, with their scales, offsets, means and variances."""
        value = without_masks(inputs, tracer)
        ids = {0: tracer.pin(value, layer.axis)}
        for variable in (layer.gamma, layer.beta):
            tracer.hold(variable, ids, makes=(0,))
        for name in _STATISTICS:
            tracer.hold(getattr(layer, name, None), ids)
        # Without a scale, the mean stays in what comes out.
        silent = layer.gamma is not None and not tracer.others(value, layer.axis)
        return [Value(value.shape, value.maps, silent)]


@register("channel_rules", LayerScale)
class LayerScaleRule(ChannelRule):
    """Multiplies each channel by a number."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through, with their scales."""
        (value,) = inputs
        tracer.hold(layer.gamma, {0: tracer.pin(value, -1)}, makes=(0,))
        silent = value.silent or not tracer.others(value, -1)
        return [Value(value.shape, value.maps, silent)]

    def config(self, layer, narrowed):
        """Changes the number of scales."""
        return {"projection_dim": narrowed.weight(layer.gamma)[0]}


@register("channel_rules", layers.Rescaling)
class RescalingRule(ChannelRule):
    """Multiplies by a constant and adds another, each one number or one a channel."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through, but for those with a constant of their own."""
        (value,) = inputs
        silent = value.silent and not np.any(layer.offset)
        scale, offset = np.shape(layer.scale), np.shape(layer.offset)
        if scale and keras.config.image_data_format() == "channels_first":
            scale += (1,) * (3 - len(scale))
        for shape in (scale, offset):
            axes = [a for a in range(-len(shape), 0) if shape[a] != 1]
            text = "rescaled by constants that can't be narrowed"
            tracer.mix(value, *axes, kind="partner", text=text)
        return [Value(value.shape, value.maps, silent)]


@register("channel_rules", layers.Normalization)
class NormalizationRule(ChannelRule):
    """Normalizes model inputs by what `adapt` has seen."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through, but for those with a mean of their own."""
        (value,) = inputs
        text = "normalized by means and variances that can't be narrowed"
        tracer.mix(value, *layer.axis, kind="partner", text=text)
        return [Value(value.shape, value.maps)]


class StatisticsRule(ChannelRule):
    """Base for normalization over the channels themselves.

    What is gone counts as zero in a mean, so this is exact in special cases only.
    """

    def let_through(self, value, layer, weights, tracer):
        """Lets channels through, with the layer's scales and offsets.

        Args:
            value: `Value` that goes in.
            layer: The layer, with a list of axes in `axis`.
            weights: List of variables or `None`, the scales first.
            tracer: `Tracer`.
        """
        axes = [axis % len(value.shape) for axis in layer.axis]
        pinned, through = pin_each(value, axes, tracer)
        ids = {place: pinned[axis] for place, axis in enumerate(axes)}
        for variable in weights:
            tracer.hold(variable, ids, makes=tuple(ids))
        silent = weights[0] is not None and not through
        return Value(value.shape, value.maps, silent)


@register("channel_rules", layers.LayerNormalization)
class LayerNormalizationRule(StatisticsRule):
    """Subtracts the mean of the channels, and divides by their deviation."""

    def trace(self, layer, inputs, tracer):
        """Keeps the channels, unless the result need not be exact."""
        (value,) = inputs
        text = "their mean and variance are taken"
        tracer.mix(value, *layer.axis, kind="statistics", text=text)
        return [self.let_through(value, layer, [layer.gamma, layer.beta], tracer)]


@register("channel_rules", layers.RMSNormalization)
class RMSNormalizationRule(StatisticsRule):
    """Divides by the root of the channels' mean square.

    If all but `m` of `n` numbers are zero, these may go: with `n / m` times the
    epsilon and `sqrt(n / m)` times the scale, the others come out as before, since
    `sqrt(sum / m + epsilon * n / m)` is `sqrt(n / m) * sqrt(sum / n + epsilon)`.
    """

    def trace(self, layer, inputs, tracer):
        """Lets channels through that are zero once their weights are."""
        (value,) = inputs
        if not value.silent:
            text = "their mean square is taken, and they are not zero"
            tracer.mix(value, *layer.axis, kind="statistics", text=text)
        return [self.let_through(value, layer, [layer.scale], tracer)]

    def config(self, layer, narrowed):
        """Changes epsilon."""
        return {"epsilon": layer.epsilon / self._left(layer, narrowed)}

    def rescaled(self, layer, variable, array, narrowed):
        """Corrects the scale."""
        if variable is not layer.scale:
            return array
        return array / np.sqrt(self._left(layer, narrowed)).astype(array.dtype)

    def _left(self, layer, narrowed):
        """Returns the fraction of the numbers that is left."""
        new = np.prod(narrowed.weight(layer.scale))
        return float(new / np.prod(layer.scale.shape))


@register("channel_rules", layers.UnitNormalization)
class UnitNormalizationRule(ChannelRule):
    """Divides by the root of the sum of squares, to which zeros add nothing."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through that are zero once their weights are."""
        (value,) = inputs
        axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        if not value.silent:
            text = "their sum of squares is taken, and they are not zero"
            tracer.mix(value, *axes, kind="statistics", text=text)
        return [value]


@register("channel_rules", layers.GroupNormalization)
class GroupNormalizationRule(ChannelRule):
    """Normalizes groups of neighbouring channels.

    Groups do not see each other: whole ones may go. Where the result need not be
    exact, each loses as many channels instead.
    """

    def trace(self, layer, inputs, tracer):
        """Ties the channels of each group, or those at the same place of all."""
        (value,) = inputs
        given = tracer.pin_alone(value, layer.axis, "their mean and variance are taken")
        for one in given:
            rows = one.reshape(layer.groups, -1)
            tie_lines(rows if tracer.exact else rows.T, tracer)
        if layer.groups == 1:
            text = "their mean and variance are taken"
            tracer.mix(value, layer.axis, kind="statistics", text=text)
        for variable in (layer.gamma, layer.beta):
            tracer.hold(variable, {0: given}, makes=(0,))
        width = (value.shape[layer.axis],)
        tracer.same_at_all_calls(layer, [Value.of_axes(width, {0: given})])
        silent = layer.gamma is not None or value.silent
        return [Value(value.shape, value.maps, silent)]

    def config(self, layer, narrowed):
        """Changes the number of groups, where whole ones are gone."""
        (kept,) = narrowed.inputs_of(layer)
        rank = layer.input_spec.ndim
        left = kept.get(layer.axis % rank)
        if left is None:
            return {}
        return {"groups": int(left.reshape(layer.groups, -1).any(1).sum())}
