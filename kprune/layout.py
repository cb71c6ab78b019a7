"""Where a kernel keeps its inputs and its outputs.

Granularities and criteria see every kernel as `(..., inputs, outputs)`. Most layers
keep theirs so; a rule for the type of the others says how theirs are turned.
"""

import dataclasses

from keras import layers

from kprune.registry import lookup, register


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a weight is brought into the layout `(..., inputs, outputs)`, and back.

    Args:
        axes: Tuple of ints, the axes of the weight in their new order. Defaults to
            the order that they have.
        shape: Tuple of ints, the shape thereafter. Defaults to what follows.

    Example:
    >>> import numpy as np
    >>> transposed = Layout(axes=(1, 0))
    >>> transposed.canonical(np.array([[1, 2, 3]])).shape
    (3, 1)
    """

    axes: tuple | None = None
    shape: tuple | None = None

    def canonical(self, array):
        """Returns an array of the weight's own layout in the canonical one."""
        if self.axes is not None:
            array = array.transpose(self.axes)
        return array if self.shape is None else array.reshape(self.shape)

    def own(self, array, shape):
        """Returns an array in the canonical layout in that of a weight.

        Args:
            array: Array in the canonical layout.
            shape: Tuple of ints, the weight's own shape.
        """
        if self.axes is None:
            return array.reshape(shape)
        turned = array.reshape([shape[axis] for axis in self.axes])
        back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return turned.transpose(back)


def layout_of(layer, variable):
    """Returns the layout of a layer's weight.

    Args:
        layer: The layer that owns it.
        variable: The Keras variable.

    Returns:
        `Layout`.
    """
    rule = lookup("layouts", type(layer))
    found = None if rule is None else rule(layer, variable)
    return found or Layout()


def _transposed_convolution(layer, variable):
    rank = len(variable.shape)
    return Layout(axes=(*range(rank - 2), rank - 1, rank - 2))


for _layer_type in (
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
):
    register("layouts", _layer_type)(_transposed_convolution)
