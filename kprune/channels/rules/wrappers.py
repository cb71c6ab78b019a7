"""Layers that work through another layer."""

from keras import layers

from kprune.channels.rules import activation, convolutions, kernels, places
from kprune.channels.rules.base import ChannelRule, rule_of
from kprune.channels.rules.common import (
    is_narrowed,
    narrowed_part,
    without_masks,
)
from kprune.channels.rules.normalization import BatchNormalizationRule
from kprune.channels.value import Value
from kprune.registry import register

# Rules that ask the tracer for no more than the shape of what comes out.
_BY_STEP = (
    activation.ActivationRule,
    activation.FixedActivationRule,
    BatchNormalizationRule,
    convolutions.DepthwiseRule,
    convolutions.SeparableRule,
    kernels.ConvolutionRule,
    kernels.DenseRule,
    places.PassingRule,
    places.PlacesRule,
)


class WrapperRule(ChannelRule):
    """Base of the rules for layers with one layer in them."""

    def config(self, layer, narrowed):
        """Changes the layer within."""
        inner = layer.layer
        if not is_narrowed(inner, narrowed):
            return {}
        changes = rule_of(inner).config(inner, narrowed)
        return {"layer": narrowed_part(inner, changes)}


@register("channel_rules", layers.TimeDistributed)
class TimeDistributedRule(WrapperRule):
    """Applies a layer to each step by itself."""

    def trace(self, layer, inputs, tracer):
        """Follows the channels of one step; those that lie along the steps stay."""
        rule = rule_of(layer.layer)
        if not isinstance(rule, _BY_STEP):
            return None
        value = without_masks(inputs, tracer)
        tracer.mix(value, 1, text="works on one step after the other")
        maps = tuple(m[:, 0] for m in value.maps if m.shape[1] == 1)
        step = Value(_without_steps(value.shape), maps, value.silent)
        (made,) = rule.trace(layer.layer, [step], _OneStep(tracer))
        maps = tuple(m[:, None] for m in made.maps)
        return [Value(tracer.shape(), maps, made.silent)]


def _without_steps(shape):
    return (shape[0], *shape[2:])


class _OneStep:
    """A `Tracer` for which what comes out has one step only."""

    def __init__(self, tracer):
        self._tracer = tracer

    def shape(self, place=0):
        return _without_steps(self._tracer.shape(place))

    def __getattr__(self, name):
        return getattr(self._tracer, name)


@register("channel_rules", layers.SpectralNormalization)
class SpectralNormalizationRule(WrapperRule):
    """Divides a layer's kernel by its norm while it trains."""

    def trace(self, layer, inputs, tracer):
        """Follows channels through the layer, as it is once it has been trained."""
        rule = rule_of(layer.layer)
        if not isinstance(rule, (*_BY_STEP, kernels.EmbeddingRule)):
            return None
        made = rule.trace(layer.layer, inputs, tracer)
        held = tracer.weights[id(layer.kernel)].value
        tracer.hold(layer.vector_u, {1: held.along(-1)})
        return made
