"""Operations and layers that multiply one tensor by another."""

from keras import layers
from keras.src.ops import nn
from keras.src.ops import numpy as operations

from kprune.multiply_adds.base import Shape, Unknown, Work, count
from kprune.multiply_adds.kernels import einsum_products, spatial
from kprune.registry import register


def _sizes(argument):
    """Returns the shape of an argument, which may be a tensor or a constant."""
    if isinstance(argument, Shape):
        return argument.sizes
    return tuple(getattr(argument, "shape", ()))


@register("multiply_adds", operations.Dot)
@register("multiply_adds", operations.Matmul)
def _matmul(operation, use):
    summed = _sizes(use.argument(0, "x1"))[-1:]
    return Work(products=count((*use.outputs[0].sizes, *summed)))


@register("multiply_adds", operations.Einsum)
def _einsum(operation, use):
    operands = use.arguments[0]
    if len(operands) == 1:
        return Work()
    if len(operands) > 2:
        raise Unknown
    shapes = map(_sizes, operands)
    return Work(products=einsum_products(operation.subscripts, *shapes))


@register("multiply_adds", nn.Conv)
@register("multiply_adds", nn.DepthwiseConv)
def _convolution(operation, use):
    """Applies what is given as a kernel at each place of the output."""
    made, kernel = use.outputs[0], _sizes(use.argument(1, "kernel"))
    return Work(products=count((made[0], *spatial(operation, made), *kernel)))


@register("multiply_adds", nn.DotProductAttention)
def _dot_product_attention(operation, use):
    query, key, value = (
        _sizes(use.argument(place, name))
        for place, name in enumerate(("query", "key", "value"))
    )
    rows, targets, heads, width = query
    pairs = (rows, targets, key[1], heads)
    return Work(products=count((*pairs, width)) + count((*pairs, value[-1])))


@register("multiply_adds", layers.Dot)
def _dot(layer, use):
    """Sums over one axis of each; the batch is no axis of the products."""
    left, right = use.inputs
    axes = (layer.axes,) * 2 if isinstance(layer.axes, int) else layer.axes
    others = [s for a, s in enumerate(right[1:], 1) if a != axes[1] % len(right)]
    return Work(products=count((*left.sizes, *others)))
