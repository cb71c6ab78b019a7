"""What of a model's kernels bears on speed: zeros, blocks, channels, cost."""

import dataclasses
import math

import numpy as np
from keras import layers

_KINDS = {
    "dense": (layers.Dense,),
    "depthwise": (layers.DepthwiseConv2D, layers.DepthwiseConv1D),
    "convolution": (layers.Conv1D, layers.Conv2D, layers.Conv3D),
}


@dataclasses.dataclass(frozen=True)
class KernelProperties:
    """What of a kernel bears on speed.

    Attributes:
        layer: String, name of the layer.
        kind: String: `"dense"`, `"pointwise"` (1x1 convolution), `"convolution"`,
            `"depthwise"` or `"other"`.
        size: Int, number of weights.
        sparsity: Float, the fraction of zeros.
        block_sparsity: Float, the fraction of zeros in blocks of 4 along the inputs
            that are zero as a whole; `None` for what is not dense.
        int8_block_sparsity: Float, the same for blocks of 16.
        channels: Int, number of output channels.
        zero_channels: Int, how many of them have only zeros.
        multiply_adds: Int, what the layer costs for one example with all zeros
            multiplied; 0 where it is not known.
    """

    layer: str
    kind: str
    size: int
    sparsity: float
    block_sparsity: float | None
    int8_block_sparsity: float | None
    channels: int
    zero_channels: int
    multiply_adds: int


def kernel_properties(model, graph=None):
    """Measures every kernel of a model.

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
    return list(_kernels(model, _positions(graph)))


def _positions(graph):
    """Returns how often each layer's kernel is applied to one example, by id."""
    found = {}
    for call in graph.calls if graph else ():
        shape = graph.shapes[call.outputs[0]]
        # An open dimension counts once, so that shares stay comparable.
        times = math.prod(size or 1 for size in shape[1:-1])
        found[id(call.operation)] = found.get(id(call.operation), 0) + times
    return found


def _kernels(model, positions):
    for layer in model._flatten_layers(include_self=False):
        times = positions.get(id(layer), 0)
        if isinstance(layer, (layers.SeparableConv1D, layers.SeparableConv2D)):
            depthwise, pointwise = layer.depthwise_kernel, layer.pointwise_kernel
            yield _properties(layer, "depthwise", depthwise, times)
            yield _properties(layer, "pointwise", pointwise, times)
        elif hasattr(layer, "kernel") and layer.built:
            yield _properties(layer, _kind(layer), layer.kernel, times)


def _kind(layer):
    is_convolution = isinstance(layer, (layers.Conv1D, layers.Conv2D))
    if is_convolution and set(layer.kernel_size) == {1}:
        return "pointwise"
    return next((k for k, types in _KINDS.items() if isinstance(layer, types)), "other")


def _properties(layer, kind, kernel, times):
    values = np.asarray(kernel)
    # Each pair of input and multiplier is an output channel of depthwise kernels.
    axes = 2 if kind == "depthwise" else 1
    rows = values.reshape(-1, math.prod(values.shape[-axes:]))
    is_dense = kind == "dense"
    return KernelProperties(
        layer=layer.name,
        kind=kind,
        size=values.size,
        sparsity=1 - np.count_nonzero(values) / values.size,
        block_sparsity=block_sparsity(values, 4) if is_dense else None,
        int8_block_sparsity=block_sparsity(values, 16) if is_dense else None,
        channels=rows.shape[1],
        zero_channels=int(np.sum(~rows.any(axis=0))),
        multiply_adds=values.size * times,
    )


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
