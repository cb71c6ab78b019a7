"""Functions of one element at a time, and those of several channels."""

import functools

import keras
import numpy as np
from keras import layers

from kprune.channels.rules.base import ChannelRule, rule_of
from kprune.channels.rules.common import pin_each, without_masks
from kprune.channels.value import Value
from kprune.registry import register

_ELEMENTWISE = """
    celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh
    leaky_relu linear log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink
    softplus softsign sparse_plus sparse_sigmoid squareplus swish tanh tanh_shrink
    threshold
"""
ELEMENTWISE = {
    getattr(module, name)
    for module in (keras.activations, keras.ops)
    for name in _ELEMENTWISE.split()
    if hasattr(module, name)
}
_OVER_LAST_AXIS = [
    getattr(module, name)
    for module in (keras.activations, keras.ops)
    for name in ("softmax", "log_softmax")
]


def activate(value, activation, tracer):
    """Returns a tensor behind an activation.

    Args:
        value: `Value`.
        activation: Function, layer or `None`, as a layer holds it.
        tracer: `Tracer`.
    """
    rule = rule_of(activation) if isinstance(activation, keras.Layer) else None
    if isinstance(rule, (ActivationRule, FixedActivationRule)):
        return rule.trace(activation, [value], tracer)[0]
    if activation is None or _is_one_of(activation, ELEMENTWISE):
        silent = value.silent and _keeps_zero(activation)
        return Value(value.shape, value.maps, silent)
    if _is_one_of(activation, _OVER_LAST_AXIS):
        text = f"{activation.__name__} is taken over them"
        tracer.mix(value, -1, kind="statistics", text=text)
    else:
        tracer.fix(value.ids(), "unknown", _missing_rule(activation))
    return Value(value.shape, value.maps)


def _missing_rule(activation):
    name = getattr(activation, "__name__", type(activation).__name__)
    if isinstance(activation, keras.Layer) and rule_of(activation):
        return f"{name} as its activation: put it behind the layer instead"
    return f"no rule for the activation {name}"


def _is_one_of(activation, functions):
    return any(activation is one for one in functions)  # not all have a hash


@functools.cache
def _keeps_zero(activation):
    return activation is None or not np.asarray(activation(np.zeros(1, "float32")))[0]


@register("channel_rules", layers.Activation)
class ActivationRule(ChannelRule):
    """Applies a function of `keras.activations`."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through where the function takes each by itself."""
        return [activate(inputs[0], layer.activation, tracer)]


class FixedActivationRule(ChannelRule):
    """Applies a function of each number that has learnt nothing."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through."""
        (value,) = inputs
        zero = keras.ops.zeros(1, layer.compute_dtype)
        silent = value.silent and not np.any(layer.call(zero))
        return [Value(value.shape, value.maps, silent)]


for _kind in (layers.ELU, layers.LeakyReLU, layers.ReLU):
    register("channel_rules", _kind)(FixedActivationRule)


@register("channel_rules", layers.PReLU)
class PReLURule(ChannelRule):
    """Scales what is negative, by slopes that it has learnt."""

    def trace(self, layer, inputs, tracer):
        """Lets channels through, with their slopes."""
        (value,) = inputs
        axes = set(range(1, len(value.shape))) - set(layer.shared_axes or ())
        pinned, _ = pin_each(value, axes, tracer)
        ids = {axis - 1: arrays for axis, arrays in pinned.items()}
        tracer.hold(layer.alpha, ids)
        return inputs


@register("channel_rules", layers.Softmax)
class SoftmaxRule(ChannelRule):
    """Keeps the channels that a softmax is taken over."""

    def trace(self, layer, inputs, tracer):
        """Fixes channels along the layer's axes."""
        value = without_masks(inputs, tracer)
        axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        text = "softmax is taken over them"
        tracer.mix(value, *axes, kind="statistics", text=text)
        return [Value(value.shape, value.maps)]
