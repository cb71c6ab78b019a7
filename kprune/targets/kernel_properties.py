"""What of a model's kernels bears on speed: zeros, blocks, channels, cost."""

import dataclasses
import math

import numpy as np
from keras import layers

from kprune.layer_choice import Selection
from kprune.prunable import find_weights
from kprune.targets.costs import applications

_KINDS = {
    "dense": (layers.Dense,),
    "depthwise": (layers.DepthwiseConv2D, layers.DepthwiseConv1D),
    "convolution": (layers.Conv1D, layers.Conv2D, layers.Conv3D),
    "transposed": (
        layers.Conv1DTranspose,
        layers.Conv2DTranspose,
        layers.Conv3DTranspose,
    ),
}


@dataclasses.dataclass(frozen=True)
class KernelProperties:
    """What of a kernel bears on speed.

    Attributes:
        layer: String, name of the layer.
        kind: String: `"dense"`, `"pointwise"` (1x1 convolution), `"convolution"`,
            `"depthwise"`, `"transposed"` (convolution) or `"other"`.
        size: Int, number of weights.
        sparsity: Float, the fraction of zeros.
        block_sparsity: Float, the fraction of zeros in blocks of 4 along the inputs
            that are zero as a whole; `None` for what is not dense.
        int8_block_sparsity: Float, the same for blocks of 16.
        channels: Int, number of output channels; `None` for other kinds, whose
            axes may mean anything.
        zero_channels: Int, how many of them have only zeros, or `None` likewise.
        multiply_adds: Int, what the layer costs for one example with all zeros
            multiplied; `None` where it is not known.
    """

    layer: str
    kind: str
    size: int
    sparsity: float
    block_sparsity: float | None
    int8_block_sparsity: float | None
    channels: int | None
    zero_channels: int | None
    multiply_adds: int | None


def kernel_properties(model, graph=None):
    """Measures every kernel of a model that can be read.

    These are the weights that may be pruned (see `kprune.prunable`), recurrent ones
    and embeddings among them, and depthwise kernels. What `model.quantize` has
    packed, or LoRA split, is left out.

    Args:
        model: A built Keras model without masks.
        graph: Its `LayerGraph`, or `None` if it has none; then the
            multiply-adds are not known.

    Returns:
        List of `KernelProperties`, in the order of the layers.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    >>> [(k.kind, k.size, k.channels) for k in kernel_properties(model)]
    [('dense', 32, 4)]
    """
    kernels = _kernels(model)
    found = {}
    for call, times in applications(graph, kernels) if graph else ():
        found.setdefault(id(call.operation), []).append(times)
    return [
        _properties(layer, kernel, _sum(found.get(id(layer), [None])))
        for layer, kernel in kernels
    ]


def unknown_costs(model, graph=None):
    """Lists what of a model has multiply-adds that are not known.

    Args:
        model: A built Keras model without masks.
        graph: Its `LayerGraph`, or `None` if it has none.

    Returns:
        Tuple of strings, names of layers; without a graph, of the model.

    Example:
    >>> import keras
    >>> model = keras.Sequential([layers.Dense(4)], name="net")
    >>> unknown_costs(model)
    ('net',)
    """
    if graph is None:
        return (model.name,)
    counts = applications(graph, _kernels(model))
    return tuple(dict.fromkeys(call.name for call, times in counts if times is None))


def unread_layers(model):
    """Lists the layers whose kernels can't be read: quantized, or with LoRA.

    Args:
        model: A built Keras model.

    Returns:
        Tuple of strings, names of layers.
    """
    return tuple(
        layer.name
        for layer in model._flatten_layers(include_self=False)
        if getattr(layer, "quantization_mode", None) is not None
        or getattr(layer, "lora_enabled", False)
    )


def _kernels(model):
    """Lists pairs (layer, variable); `only` asks for depthwise kernels by name."""
    weights = find_weights(model, Selection(only=lambda layer: True), parents=())
    return [
        (weight.layer, weight.variable)
        for weight in weights
        if not weight.reason
        or weight.variable is getattr(weight.layer, "depthwise_kernel", None)
    ]


def _sum(times):
    return None if None in times else sum(times)


def _kind(layer, kernel):
    if kernel is getattr(layer, "depthwise_kernel", None):
        return "depthwise"
    if kernel is getattr(layer, "pointwise_kernel", None):
        return "pointwise"
    is_convolution = isinstance(layer, (layers.Conv1D, layers.Conv2D))
    if is_convolution and set(layer.kernel_size) == {1}:
        return "pointwise"
    return next((k for k, types in _KINDS.items() if isinstance(layer, types)), "other")


def _properties(layer, kernel, times):
    values, kind = np.asarray(kernel), _kind(layer, kernel)
    is_dense, is_other = kind == "dense", kind == "other"
    used = _by_channel(values, kind).any(axis=0)
    return KernelProperties(
        layer=layer.name,
        kind=kind,
        size=values.size,
        sparsity=1 - np.count_nonzero(values) / values.size,
        block_sparsity=block_sparsity(values, 4) if is_dense else None,
        int8_block_sparsity=block_sparsity(values, 16) if is_dense else None,
        channels=None if is_other else used.size,
        zero_channels=None if is_other else int(np.sum(~used)),
        multiply_adds=None if times is None else values.size * times,
    )


def _by_channel(values, kind):
    """Returns a kernel as a matrix, one column for each output channel."""
    if kind == "depthwise":  # each pair of input and multiplier is one
        return values.reshape(-1, math.prod(values.shape[-2:]))
    if kind == "transposed":  # the last two axes are outputs and inputs
        values = np.moveaxis(values, -2, -1)
    return values.reshape(-1, values.shape[-1])


def block_sparsity(kernel, length):
    """Returns the fraction of aligned blocks along the inputs that are all zero.

    Args:
        kernel: Array of shape (inputs, units).
        length: Int, number of inputs in a block. Inputs that fill no whole block
            count as one.

    Returns:
        Float in [0, 1].

    Example:
    >>> kernel = np.ones((8, 1))
    >>> kernel[:5] = 0
    >>> block_sparsity(kernel, 4)
    0.5
    """
    padded = np.pad(kernel != 0, ((0, -len(kernel) % length), (0, 0)))
    blocks = padded.reshape(-1, length, kernel.shape[1]).any(axis=1)
    return float(1 - blocks.mean())
