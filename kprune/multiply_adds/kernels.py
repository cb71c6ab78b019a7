"""Layers that multiply what comes in by a kernel of their own."""

import math

from keras import layers

from kprune.multiply_adds.base import Unknown, Work, count
from kprune.registry import register


def spatial(layer, shape):
    """Returns the sizes of the places of a tensor of images or the like.

    Args:
        layer: The layer or operation, whose `data_format` tells where they are.
        shape: Tuple of int, the batch in front.
    """
    is_first = getattr(layer, "data_format", None) == "channels_first"
    return shape[2:] if is_first else shape[1:-1]


@register("multiply_adds", layers.Dense)
def _dense(layer, use):
    return Work(((layer.kernel, count(use.inputs[0][:-1])),))


def _convolution(layer, use):
    return Work(((layer.kernel, _places(layer, use)),))


def _separable_convolution(layer, use):
    times = _places(layer, use)
    return Work(((layer.depthwise_kernel, times), (layer.pointwise_kernel, times)))


def _places(layer, use):
    """Counts the places of the output; all groups are applied at each."""
    made = use.outputs[0] if use.outputs else _made(layer, use)
    return count((made[0], *spatial(layer, made)))


def _made(layer, use):
    return layer.compute_output_shape(use.inputs[0].sizes)


def _transposed_convolution(layer, use):
    """Applies the kernel once at each place of the input."""
    given = use.inputs[0]
    return Work(((layer.kernel, count((given[0], *spatial(layer, given)))),))


for _rule, *_types in (
    (
        _convolution,
        layers.Conv1D,
        layers.Conv2D,
        layers.Conv3D,
        layers.DepthwiseConv1D,
        layers.DepthwiseConv2D,
    ),
    (_separable_convolution, layers.SeparableConv1D, layers.SeparableConv2D),
    (
        _transposed_convolution,
        layers.Conv1DTranspose,
        layers.Conv2DTranspose,
        layers.Conv3DTranspose,
    ),
):
    for _type in _types:
        register("multiply_adds", _type)(_rule)


@register("multiply_adds", layers.EinsumDense)
def _einsum_dense(layer, use):
    kernel = layer.kernel
    whole = einsum_products(layer.equation, use.inputs[0].sizes, use.shape_of(kernel))
    return Work(((kernel, whole // math.prod(use.shape_of(kernel))),))


def einsum_products(equation, left, right):
    """Returns the multiply-adds of an einsum of two tensors.

    Args:
        equation: String, such as `"abc,cd->abd"`; `...` stands for further axes.
        left: Tuple of int, the shape of the first.
        right: Tuple of int, that of the second.

    Raises:
        Unknown: If a size is open, or the equation is not of two tensors.

    Example:
    >>> einsum_products("...x,xy->...y", (5, 2, 3), (3, 4))
    120
    """
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if len(terms) != 2:
        raise Unknown
    sizes = {}
    for term, shape in zip(terms, (left, right), strict=True):
        for letter, size in _by_letter(term, shape):
            if size is None:
                raise Unknown
            sizes[letter] = max(size, sizes.get(letter, 1))
    return count(sizes.values())


def _by_letter(term, shape):
    """Pairs letters with sizes; axes of `...` are numbered from the back."""
    if "..." in term:
        front, back = term.split("...")
        between = len(shape) - len(front) - len(back)
        term = [*front, *range(-between, 0), *back]
    return zip(term, shape, strict=True)


@register("multiply_adds", layers.Embedding)
def _embedding(layer, use):
    return Work()


@register("multiply_adds", layers.ReversibleEmbedding)
def _reversible_embedding(layer, use):
    """Multiplies by the table where it is called the other way round."""
    if not use.argument(1, "reverse"):
        return Work()
    table = layer.embeddings if layer.tie_weights else layer.reverse_embeddings
    return Work(((table, count(use.inputs[0][:-1])),))
