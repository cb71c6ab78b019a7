"""How the layers of each type become int8.

A rule is a function `(layer)` that returns a `Rule`, or a string that says why the
layer cannot be computed in int8. A layer type that has no rule cannot either.
"""

import dataclasses

import keras
import numpy as np
from keras import layers
from keras.src.ops import numpy

from kprune.registry import lookup, register

# The TFLite operators for these give outputs of one scale, whatever they are asked.
_UP_TO_ONE = (0.0, 255 / 256)
_AROUND_ZERO = (-1.0, 127 / 128)
_FIXED = {"softmax": _UP_TO_ONE, "sigmoid": _UP_TO_ONE, "tanh": _AROUND_ZERO}
_LEARNED = ("leaky_relu", "gelu", "hard_silu", "hard_swish", "silu", "swish")
_FUSED = ("relu", "relu6")


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one layer becomes int8.

    Attributes:
        kernel: String, the attribute that holds its kernel, or `None`.
        channel_axes: Tuple of negative ints, the axes of the kernel that have a
            scale for each index; empty for one scale in all.
        activation: String, the name of a function that the layer ends with and that
            int8 computes as a step of its own; `None` if there is none.
        passes: Bool, whether the outputs are some of the inputs' values, so that
            they need no range of their own.
        fixed: Pair of floats, the bounds of the outputs where TFLite fixes them.
        fuses: Bool, whether a ReLU right behind becomes part of it.
        is_relu: Bool, whether it can become part of what is before it.
        offset: Float, what the layer adds to its inputs.
        gathers: Bool, whether the outputs are rows of the kernel, whose range they
            have, and the inputs whole numbers.
        joins: Bool, whether the inputs stand side by side in the outputs, so that
            TFLite has one range for all of them.
    """

    kernel: str | None = None
    channel_axes: tuple = ()
    activation: str | None = None
    passes: bool = False
    fixed: tuple | None = None
    fuses: bool = False
    is_relu: bool = False
    offset: float = 0.0
    gathers: bool = False
    joins: bool = False


_PASSES = Rule(passes=True)
_COMPUTES = Rule()


def rule_for(layer):
    """Returns how a layer becomes int8.

    Args:
        layer: A Keras layer or operation.

    Returns:
        A `Rule`, or a string: why the layer has to stay in float.

    Example:
    >>> rule_for(layers.Dense(2, "relu")).kernel
    'kernel'
    >>> rule_for(layers.LSTM(2))
    'there is no rule for layers of type LSTM'
    """
    rule = lookup("quantization", type(layer))
    if rule is None:
        kind = "layers of type" if isinstance(layer, keras.Layer) else "the operation"
        return f"there is no rule for {kind} {type(layer).__name__}"
    return rule(layer)


def _activation_name(function):
    return getattr(function, "__name__", type(function).__name__)


def activation_rule(function):
    """Returns how an activation function becomes int8.

    Args:
        function: A Keras activation function.

    Returns:
        A `Rule`, or a string: why it has to stay in float.

    Example:
    >>> activation_rule(keras.activations.softmax).fixed
    (0.0, 0.99609375)
    """
    name = _activation_name(function)
    if name == "linear":
        return _PASSES
    if name in _FUSED:
        return Rule(is_relu=True)
    if name in _FIXED:
        return Rule(fixed=_FIXED[name])
    if name in _LEARNED:
        return _COMPUTES
    return f"TFLite has no int8 kernel for the activation {name!r}"


def _kernel_rule(layer, channel_axes=()):
    name = _activation_name(layer.activation)
    activation = activation_rule(layer.activation)
    if isinstance(activation, str):
        return activation
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", 0):
        return "it is quantized or adapted already"
    separate = None if name in ("linear", *_FUSED) else name
    return Rule(
        kernel="kernel",
        channel_axes=channel_axes,
        activation=separate,
        fixed=activation.fixed,
        fuses=name == "linear",
    )


# The converter transposes or reshapes these kernels, and loses the axis of channels.
@register("quantization", layers.Dense)
def _dense(layer):
    return _kernel_rule(layer)


@register("quantization", layers.Conv1D)
@register("quantization", layers.Conv2DTranspose)
@register("quantization", layers.DepthwiseConv1D)
def _convolution_of_one_scale(layer):
    return _reason_of_layout(layer) or _kernel_rule(layer)


@register("quantization", layers.Conv2D)
def _convolution(layer):
    return _reason_of_layout(layer) or _kernel_rule(layer, (-1,))


@register("quantization", layers.DepthwiseConv2D)
def _depthwise(layer):
    return _reason_of_layout(layer) or _kernel_rule(layer, (-2, -1))


# What remains of it once `separable.py` has taken it apart is not of this type.
@register("quantization", layers.SeparableConv1D)
@register("quantization", layers.SeparableConv2D)
def _separable(layer):
    if type(layer) not in (layers.SeparableConv1D, layers.SeparableConv2D):
        return f"there is no rule for layers of type {type(layer).__name__}"
    if layer.padding == "causal":
        return "depthwise convolutions know no padding='causal'"
    activation = activation_rule(layer.activation)
    reason = activation if isinstance(activation, str) else ""
    return _reason_of_layout(layer) or reason or _COMPUTES


# A looked-up row has the scale of the table, so that it needs no range of its own.
@register("quantization", layers.Embedding)
def _embedding(layer):
    return Rule(kernel="embeddings", gathers=True)


def _reason_of_layout(layer):
    if max(layer.dilation_rate) > 1:
        return "the converter leaves dilated convolutions in float"
    if layer.data_format != "channels_last":
        return "TFLite takes data_format='channels_last' only"
    return ""


@register("quantization", layers.Activation)
def _activation(layer):
    return activation_rule(layer.activation)


@register("quantization", layers.ReLU)
def _relu(layer):
    if layer.negative_slope or layer.threshold:
        return "TFLite has no int8 kernel for a ReLU with a slope or a threshold"
    if layer.max_value not in (None, 6):
        return f"TFLite has no int8 kernel for a ReLU up to {layer.max_value}"
    return Rule(is_relu=True)


@register("quantization", layers.Softmax)
def _softmax(layer):
    if layer.axis != -1:
        return "TFLite computes a softmax over the last axis only"
    return Rule(fixed=_UP_TO_ONE)


@register("quantization", layers.Add)
def _add(layer):
    return Rule(fuses=True)


def _computes(layer):
    return _COMPUTES


def _passes(layer):
    return _PASSES


@register("quantization", layers.Rescaling)
def _rescaling(layer):
    if np.ndim(layer.scale) or np.ndim(layer.offset):
        return "kprune has no int8 form of it with a number for each channel"
    if layer.offset and layer.scale != 1:
        return "int8 scales and adds in two steps; use two layers, one for each"
    return Rule(fuses=bool(layer.offset), offset=float(layer.offset))


@register("quantization", layers.UpSampling2D)
def _upsampling(layer):
    if layer.interpolation != "nearest":
        return f"interpolation={layer.interpolation!r} is not the same in int8"
    return _PASSES


@register("quantization", layers.BatchNormalization)
def _batch_normalization(layer):
    return (
        "no convolution or dense layer without activation is right before it, to be "
        "folded into"
    )


@register("quantization", layers.Concatenate)
def _concatenate(layer):
    return Rule(joins=True)


for _layer_type in (
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.LeakyReLU,
    layers.Multiply,
    layers.PReLU,
    layers.Subtract,
):
    register("quantization", _layer_type)(_computes)

for _layer_type in (
    layers.ActivityRegularization,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Dropout,
    layers.Flatten,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.Identity,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.Permute,
    layers.Reshape,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    numpy.ExpandDims,
    numpy.GetItem,
    numpy.Reshape,
    numpy.Squeeze,
    numpy.Transpose,
):
    register("quantization", _layer_type)(_passes)
