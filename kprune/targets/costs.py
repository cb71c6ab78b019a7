"""How often a layer applies its kernels to one example, where that is known."""

import math

import keras
from keras import layers

from kprune.prunable import has_no_prunable_weights

_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
_COUNTED = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    *_TRANSPOSED,
)
# What multiplies sums without a kernel of its own, or calls code that can't be read.
_NAMES = """
    AdditiveAttention Attention Conv ConvTranspose DepthwiseConv Dot DotProductAttention
    Einsum Inner Lambda Matmul Outer SeparableConv Tensordot Vdot
"""
_UNCOUNTED = frozenset(_NAMES.split())


def applications(graph, kernels):
    """Counts how often each call of a graph applies the kernels of its layer.

    Args:
        graph: A `LayerGraph`.
        kernels: Sequence of pairs (layer, variable), the kernels of the model that
            can be read.

    Returns:
        List of pairs (call, times). The times are for one example; 0 for what has no
        multiply-adds worth counting, such as activations, normalization and the
        rows that an embedding looks up, and `None` where they are not known: layers
        that apply kernels in a loop or in code of their own (recurrent layers,
        attention, wrappers), products of two activations, and open sizes.

    Example:
    >>> from kprune.layer_graph import read_graph
    >>> inputs = keras.Input((5, 3))
    >>> dense, gru = layers.Dense(4, name="dense"), layers.GRU(2, name="gru")
    >>> model = keras.Model(inputs, gru(dense(inputs)))
    >>> counts = applications(read_graph(model), [(dense, dense.kernel)])
    >>> [(call.name, times) for call, times in counts]
    [('dense', 5), ('gru', None)]
    """
    owners = {id(layer) for layer, _ in kernels}
    return [(call, _times(call, graph.shapes, owners)) for call in graph.calls]


def _times(call, shapes, owners):
    operation = call.operation
    if type(operation) not in _COUNTED:
        return 0 if _is_free(operation) else None
    if id(operation) not in owners:
        return None
    # A transposed convolution applies its kernel once at each place of its input.
    values = call.inputs if isinstance(operation, _TRANSPOSED) else call.outputs
    shape = shapes[values[0]]
    is_first = getattr(operation, "data_format", None) == "channels_first"
    places = shape[2:] if is_first else shape[1:-1]
    return None if None in places else math.prod(places)


def _is_free(operation):
    is_layer = isinstance(operation, keras.Layer)
    parts = operation._flatten_layers() if is_layer else [operation]
    return all(map(_is_free_part, parts))


def _is_free_part(part):
    kind = type(part)
    if kind is layers.Embedding or has_no_prunable_weights(part):
        return True
    has_kernel = any(len(v.shape) > 1 for v in getattr(part, "variables", ()))
    is_keras = kind.__module__.partition(".")[0] == "keras"
    return is_keras and not has_kernel and kind.__name__ not in _UNCOUNTED
