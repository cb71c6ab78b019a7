"""Layers in the place of operators, which have no room for ranges.

`x + y` in the code that builds a Functional model leaves an operation of Keras in its
graph. `keras.layers.Add` computes the same and can be wrapped.
"""

import numbers

import keras
from keras import layers
from keras.src.ops import nn, numpy

from kprune.quantize.plan import nested_calls
from kprune.rebuilding import copy_operation, rebuilt

_MERGES = {
    numpy.Add: layers.Add,
    numpy.Multiply: layers.Multiply,
    numpy.Subtract: layers.Subtract,
}
_ACTIVATIONS = {
    nn.Relu: "relu",
    nn.Relu6: "relu6",
    nn.Sigmoid: "sigmoid",
    nn.Silu: "silu",
    numpy.Tanh: "tanh",
}
_BY_NUMBER = {
    numpy.Add: lambda number: (1.0, number),
    numpy.Multiply: lambda number: (number, 0.0),
    numpy.Subtract: lambda number: (1.0, -number),
    numpy.TrueDivide: lambda number: (1 / number, 0.0),
}


def layers_for_operators(model):
    """Makes a copy of a model with layers where operators were, as far as they exist.

    Sums, differences and products of two tensors or with a number, concatenations and
    activations become layers of the same name.

    Args:
        model: A built Sequential or Functional model, nested or not. It is not
            changed.

    Returns:
        A model with the same predictions, names and compile arguments; `model`
        itself if there is nothing to replace.

    Example:
    >>> inputs = keras.Input((3,))
    >>> model = keras.Model(inputs, inputs + keras.layers.Dense(3)(inputs))
    >>> [type(layer).__name__ for layer in layers_for_operators(model).layers]
    ['InputLayer', 'Dense', 'Add']
    """
    operations = [call.operation for call, _ in nested_calls(model)]
    if all(isinstance(operation, keras.Layer) for operation in operations):
        return model
    return rebuilt(model, convert_operation=_stand_in)


def _stand_in(operation):
    def call(*args, **kwargs):
        found = _layer_for(operation, args) if not kwargs else None
        if found is None:
            return copy_operation(operation)(*args, **kwargs)
        layer, inputs = found
        return layer(inputs)

    return call


def _layer_for(operation, args):
    """Returns the layer that computes an operation and its inputs, or `None`."""
    kind = type(operation)
    flat = keras.tree.flatten(args)
    tensors = [x for x in flat if keras.utils.is_keras_tensor(x)]
    if not all("float" in x.dtype for x in tensors):
        return None
    options = {"name": operation.name, "dtype": tensors[0].dtype}
    if kind in _ACTIVATIONS:
        return layers.Activation(_ACTIVATIONS[kind], **options), args[0]
    if kind is nn.Softmax:
        return layers.Softmax(operation.axis, **options), args[0]
    if kind is numpy.Concatenate and len(tensors) == len(flat):
        return layers.Concatenate(operation.axis, **options), args[0]
    if kind in _MERGES and _can_merge(tensors):
        return _MERGES[kind](**options), tensors
    scaling = _scaling(kind, *args) if kind in _BY_NUMBER else None
    return scaling and (layers.Rescaling(*scaling, **options), tensors[0])


def _scaling(kind, first, second):
    """Returns the factor and the offset of an operator with a number, or `None`."""
    if isinstance(first, numbers.Real) and kind in (numpy.Add, numpy.Multiply):
        first, second = second, first
    is_number = isinstance(second, numbers.Real)
    return _BY_NUMBER[kind](float(second)) if is_number else None


def _can_merge(tensors):
    """Tells whether layers that merge treat the shapes as operators do."""
    first, *others = tensors
    return len(others) == 1 and all(
        len(x.shape) == len(first.shape)
        and x.shape[0] == first.shape[0]
        and x.dtype == first.dtype
        for x in others
    )
