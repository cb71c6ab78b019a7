"""Batch normalization folded into the layer before it.

At inference, normalization is a factor and an offset for each channel, which the
layer before can absorb: what is trained after that is what is converted.
"""

import keras
import numpy as np
from keras import layers

from kprune.inspection import is_pruned
from kprune.quantize.plan import calls, consumers, is_nested
from kprune.rebuilding import rebuilt, unchanged
from kprune.weight_access import as_array

# The axes of each kernel whose indices are the channels of the output, in that order.
_OUTPUT_AXES = {
    layers.Conv1D: (-1,),
    layers.Conv2D: (-1,),
    layers.Conv2DTranspose: (-2,),
    layers.Dense: (-1,),
    layers.DepthwiseConv2D: (-2, -1),
    layers.SeparableConv1D: (-1,),
    layers.SeparableConv2D: (-1,),
}


def fold_batch_normalization(model):
    """Makes a copy of a model whose normalization is part of the layers before it.

    A `BatchNormalization` is folded if a convolution or dense layer without
    activation is right before it and gives its output to nothing else. It leaves an
    `Identity` of its name, which costs nothing. Others stay as they are. Zeros of the
    kernels stay zeros; equal weights of different channels become different, so fold
    first and cluster then.

    Args:
        model: A built Sequential or Functional model, nested or not. It is not
            changed.

    Returns:
        A model with the same predictions, layer names and compile arguments.

    Raises:
        ValueError: If the model holds masks or shared weights.

    Example:
    >>> model = keras.Sequential(
    ...     [keras.Input((3,)), layers.Dense(2), layers.BatchNormalization()]
    ... )
    >>> [type(layer).__name__ for layer in fold_batch_normalization(model).layers]
    ['Dense', 'Identity']
    """
    _check_plain(model)
    pairs = foldable(model)
    by_layer = {id(layer): norm for layer, norm in pairs}
    folded = {id(norm) for _, norm in pairs}

    def stand_in(layer, parents, copier):
        if id(layer) in folded:
            return _identity(layer, (model, *parents)[-1]), lambda: None
        norm = by_layer.get(id(layer))
        if norm is None:
            return unchanged(layer, parents, copier)
        new = type(layer).from_config({**layer.get_config(), "use_bias": True})
        return new, lambda: _fold(layer, norm, new)

    return rebuilt(model, stand_in)


def _check_plain(model):
    if is_pruned(model):
        raise ValueError(
            f"The model {model.name!r} is set up for training with masks or shared "
            "weights, and folding would change what they hold. Pass "
            "`kprune.strip(model)`, whose zeros stay zeros."
        )


def _identity(norm, parent):
    identity = layers.Identity(name=norm.name, dtype=norm.dtype_policy.name)
    if isinstance(parent, keras.Sequential):
        return identity
    # The graph of a Functional model holds arguments that only the other takes.
    return lambda inputs, **arguments: identity(inputs)


def foldable(model):
    """Lists the normalization layers that can be folded.

    Args:
        model: A built Sequential or Functional model, nested or not.

    Returns:
        List of pairs, a layer and the `BatchNormalization` right behind it.
    """
    pairs = []
    graph = calls(model)
    readers = consumers(model)
    uses = [id(call.operation) for call in graph]
    for call in graph:
        layer = call.operation
        if is_nested(layer):
            if uses.count(id(layer)) == 1:
                pairs += foldable(layer)
            continue
        behind = readers.get(id(call.outputs[0]), [None])
        norm = behind[0].operation if len(behind) == 1 and behind[0] else None
        once = uses.count(id(layer)) == 1 and uses.count(id(norm)) == 1
        if once and _takes(layer, norm, call.outputs[0]):
            pairs.append((layer, norm))
    return pairs


def _takes(layer, norm, between):
    if type(layer) not in _OUTPUT_AXES or type(norm) is not layers.BatchNormalization:
        return False
    last_axis = norm.axis in (-1, len(between.shape) - 1)
    channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    is_linear = layer.activation is keras.activations.linear
    return last_axis and channels_last and is_linear


def last_kernel(layer):
    """Returns the kernel whose channels are those of a layer's outputs.

    Args:
        layer: A built convolution or dense layer.

    Returns:
        Keras variable.
    """
    is_separable = hasattr(layer, "pointwise_kernel")
    return layer.pointwise_kernel if is_separable else layer.kernel


def _fold(layer, norm, new):
    """Sets a layer's weights to those of the layer and the normalization after it."""
    factor, offset = factor_and_offset(norm)
    kernel = as_array(last_kernel(layer))
    bias = as_array(layer.bias) if layer.use_bias else 0.0
    axes = _OUTPUT_AXES[type(layer)]
    shape = [n if i - kernel.ndim in axes else 1 for i, n in enumerate(kernel.shape)]
    if hasattr(layer, "depthwise_kernel"):
        new.depthwise_kernel.assign(layer.depthwise_kernel)
    last_kernel(new).assign(kernel * factor.reshape(shape))
    new.bias.assign(bias * factor + offset)
    new.trainable = layer.trainable


def factor_and_offset(norm):
    """Returns what a normalization does at inference.

    Args:
        norm: A built `BatchNormalization`.

    Returns:
        Pair of float32 arrays of shape `(channels,)`; the layer computes
        `inputs * factor + offset`.

    Example:
    >>> norm = layers.BatchNormalization(epsilon=0.0)
    >>> norm.build((None, 1))
    >>> factor_and_offset(norm)
    (array([1.], dtype=float32), array([0.], dtype=float32))
    """
    deviation = np.sqrt(as_array(norm.moving_variance) + norm.epsilon)
    gamma = as_array(norm.gamma) if norm.scale else np.ones_like(deviation)
    beta = as_array(norm.beta) if norm.center else np.zeros_like(deviation)
    factor = gamma / deviation
    return factor, beta - as_array(norm.moving_mean) * factor
