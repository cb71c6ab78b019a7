"""Where a kernel keeps its inputs and its outputs.

Granularities and criteria see every kernel as `(..., inputs, outputs)`: the last axis
holds the layer's output channels, the one before it what each of them sums over, and
those in front all else, such as the places of a convolution's kernel or the gates of
an `LSTM`. Most layers keep theirs so, `Embedding` too (vocabulary, dimension); a rule
for the type of the others says how theirs are turned.
"""

import dataclasses
import math

from keras import layers
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

from kprune.registry import lookup, register


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a weight is brought into the layout `(..., inputs, outputs)`, and back.

    A layer of your own whose kernel lies differently says so by a rule: a function
    of the layer and of one of its variables that returns a `Layout`, or `None` where
    nothing is to be turned.

    Args:
        split: Tuple of ints, the shape that takes axes apart at first. Defaults to
            the weight's own.
        axes: Tuple of ints, the axes thereafter in their new order. Defaults to the
            order that they have.
        shape: Tuple of ints, the shape thereafter. Defaults to what follows.

    Example:
    >>> import numpy as np
    >>> transposed = Layout(axes=(1, 0))
    >>> transposed.canonical(np.array([[1, 2, 3]])).shape
    (3, 1)
    >>> class OutputsFirst(layers.Layer):
    ...     "Computes `inputs @ transpose(kernel)`."
    >>> @register("layouts", OutputsFirst)
    ... def outputs_first(layer, variable):
    ...     return transposed if variable is layer.kernel else None
    """

    split: tuple | None = None
    axes: tuple | None = None
    shape: tuple | None = None

    def canonical(self, array):
        """Returns an array of the weight's own layout in the canonical one."""
        if self.split is not None:
            array = array.reshape(self.split)
        if self.axes is not None:
            array = array.transpose(self.axes)
        return array if self.shape is None else array.reshape(self.shape)

    def own(self, array, shape):
        """Returns an array in the canonical layout in that of a weight.

        Args:
            array: Array in the canonical layout.
            shape: Tuple of ints, the weight's own shape.
        """
        if self.axes is not None:
            split = self.split or shape
            array = array.reshape([split[axis] for axis in self.axes])
            back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
            array = array.transpose(back)
        return array.reshape(shape)


def layout_of(layer, variable):
    """Returns the layout of a layer's weight.

    Args:
        layer: The layer that owns it.
        variable: The Keras variable.

    Returns:
        `Layout`.

    Example:
    >>> layer = layers.DepthwiseConv1D(5, depth_multiplier=2)
    >>> layer.build((None, 8, 3))
    >>> layout_of(layer, layer.kernel)
    Layout(split=None, axes=None, shape=(5, 1, 6))
    """
    rule = lookup("layouts", type(layer))
    found = None if rule is None else rule(layer, variable)
    return found or Layout()


def _transposed_convolution(layer, variable):
    rank = len(variable.shape)
    return Layout(axes=(*range(rank - 2), rank - 1, rank - 2))


def _depthwise_convolution(layer, variable):
    """Makes each pair of an input and a multiplier an output with one input."""
    *places, inputs, multiplier = variable.shape
    return Layout(shape=(*places, 1, inputs * multiplier))


def _separable_convolution(layer, variable):
    if variable is layer.depthwise_kernel:
        return _depthwise_convolution(layer, variable)
    return None


def _normalized_kernel(layer, variable):
    """Asks the layer whose kernel it divides by its norm."""
    return layout_of(layer.layer, variable) if variable is layer.kernel else None


def _einsum(layer, variable):
    """Reads off the equation which letters are outputs, which are summed over.

    Each letter of the kernel that the result has is an output, as in a depthwise
    convolution where the input has it, too.
    """
    terms, result = layer.equation.replace(" ", "").split("->")
    given, kernel = terms.split(",")
    if variable is not layer._kernel or len(kernel) != len(variable.shape):
        return None
    outputs = sorted(set(kernel) & set(result), key=result.index)
    inputs = sorted(set(kernel) - set(result), key=given.index)
    size = dict(zip(kernel, variable.shape, strict=True))
    return Layout(
        axes=tuple(map(kernel.index, (*inputs, *outputs))),
        shape=(
            math.prod(size[letter] for letter in inputs),
            math.prod(size[letter] for letter in outputs),
        ),
    )


def _gates(number):
    """Returns the rule of a recurrent cell, whose outputs are repeated per gate."""

    def rule(layer, variable):
        *places, inputs, outputs = variable.shape
        rank = len(variable.shape)
        return Layout(
            split=(*places, inputs, number, outputs // number),
            axes=(rank - 1, *range(rank - 1), rank),
        )

    return rule


for _rule, *_types in (
    (
        _transposed_convolution,
        layers.Conv1DTranspose,
        layers.Conv2DTranspose,
        layers.Conv3DTranspose,
    ),
    (_depthwise_convolution, layers.DepthwiseConv1D, layers.DepthwiseConv2D),
    (_separable_convolution, layers.SeparableConv1D, layers.SeparableConv2D),
    (_normalized_kernel, layers.SpectralNormalization),
    (_einsum, layers.EinsumDense),
    (_gates(3), layers.GRUCell),
    (_gates(4), layers.LSTMCell, ConvLSTMCell),
):
    for _type in _types:
        register("layouts", _type)(_rule)
