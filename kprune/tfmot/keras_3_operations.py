"""Operations of `keras.ops` in the graphs of Keras 3 models, as layers of tf_keras."""

import functools
import numbers
import re

import keras
import numpy as np

from kprune.tfmot.twins import as_name

_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\>-]*")


def check_operations(model, calls_of):
    """Refuses a model with operations that tf_keras has no layer or no name for.

    Args:
        model: A Functional or Sequential Keras 3 model.
        calls_of: As for `Twins`.

    Raises:
        ValueError: With all of them.
    """
    operations = list(_operations(model, calls_of))
    unknown = {
        f"{type(each).__name__} ({each.name!r})"
        for each in operations
        if not isinstance(each, keras.Layer) and type(each).__name__ not in _LAYERS
    }
    if unknown:
        raise ValueError(
            f"The model {model.name!r} calls operations that tf_keras has no layer "
            f"for: {', '.join(sorted(unknown))}. Put them into a layer of your own and "
            "pass its tf_keras counterpart in `custom_objects`. These are known: "
            f"{', '.join(_LAYERS)}."
        )
    names = dict.fromkeys(as_name(each.name) for each in operations)
    wrong = [repr(name) for name in names if not _NAME.fullmatch(name)]
    if wrong:
        raise ValueError(
            f"The model {model.name!r} has layers named {', '.join(wrong)}. tf_keras "
            "takes letters a to z, digits, '_', '.', '-' and '>' alone, a letter, a "
            "digit or '.' first. Rename them: `layer.name = ...`."
        )


def _operations(model, calls_of):
    """Yields what a model calls, and what the models within it call."""
    for operation in (call.operation for call in calls_of(model)):
        yield operation
        if isinstance(operation, keras.Model):
            yield from _operations(operation, calls_of)


def function_for(operation, layers):
    """Returns what calls a layer of tf_keras in the place of an operation.

    Args:
        operation: A Keras operation that `check_operations` has let pass.
        layers: The module `tf_keras.layers`.

    Returns:
        Function of the operation's arguments.
    """
    return functools.partial(_LAYERS[type(operation).__name__], layers, operation)


def _merged(layers, operation, x1, x2):
    """Sums, products and the like of two tensors, or of one and a number."""
    name = type(operation).__name__
    for tensor, number, is_first in ((x1, x2, True), (x2, x1, False)):
        if isinstance(number, numbers.Real):
            scale, offset = _scalings(operation, number, is_first)
            return layers.Rescaling(scale, offset, name=operation.name)(tensor)
    constants = [x for x in (x1, x2) if not hasattr(x, "_keras_history")]
    if len(constants) == 1:  # there are two where values are given, to compare them
        shape = np.shape(constants[0])
        raise _refusal(operation, f"with a constant of shape {shape}")
    if not hasattr(layers, name):
        raise _refusal(operation, "of two tensors")
    return getattr(layers, name)(name=operation.name)([x1, x2])


def _scalings(operation, number, is_first):
    """Returns scale and offset by which a tensor is combined with a number."""
    name = type(operation).__name__
    if name in ("Divide", "TrueDivide") and is_first:
        return 1.0 / number, 0.0
    known = {
        "Add": (1.0, number),
        "Subtract": (1.0, -number) if is_first else (-1.0, number),
        "Multiply": (number, 0.0),
    }
    if name not in known:
        raise _refusal(operation, f"with the number {number}")
    return known[name]


def _refusal(operation, how):
    return ValueError(
        f"tf_keras has no layer for the operation {operation.name!r}, "
        f"{type(operation).__name__} {how}. Put it into a layer of your own."
    )


def _activation(name):
    def call(layers, operation, x):
        return layers.Activation(name, name=operation.name)(x)

    return call


def _gelu(layers, operation, x):
    if operation.approximate:
        raise _refusal(operation, "by an approximation")
    return _activation("gelu")(layers, operation, x)


def _reshaped(layers, operation, x):
    batch, *shape = operation.newshape
    if batch not in (-1, None, x.shape[0]):
        raise _refusal(operation, f"to {operation.newshape}, of the batch as well,")
    return layers.Reshape(shape, name=operation.name)(x)


def _transposed(layers, operation, x):
    first, *axes = operation.axes or reversed(range(len(x.shape)))
    if first != 0:
        raise _refusal(operation, "of the batch")
    return layers.Permute(axes, name=operation.name)(x)


def _pooled(name):
    """Means and maxima over all places, which are pooling layers."""

    def call(layers, operation, x):
        rank = len(x.shape) - 2
        axes = operation.axis if isinstance(operation.axis, (list, tuple)) else ()
        if rank not in (1, 2, 3) or sorted(axes) != list(range(1, rank + 1)):
            raise _refusal(operation, f"along {operation.axis} of rank {rank + 2}")
        pooling = getattr(layers, f"Global{name}Pooling{rank}D")
        return pooling(keepdims=operation.keepdims, name=operation.name)(x)

    return call


_MERGES = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum")

_LAYERS = {
    **dict.fromkeys(_MERGES, _merged),
    **{name: _activation(name.lower()) for name in ("Sigmoid", "Tanh", "Softplus")},
    "Silu": _activation("swish"),
    "Gelu": _gelu,
    "Relu": lambda layers, op, x: layers.ReLU(name=op.name)(x),
    "Relu6": lambda layers, op, x: layers.ReLU(6.0, name=op.name)(x),
    "LeakyRelu": lambda layers, op, x: layers.LeakyReLU(
        op.negative_slope, name=op.name
    )(x),
    "Softmax": lambda layers, op, x: layers.Softmax(op.axis, name=op.name)(x),
    "Negative": lambda layers, op, x: layers.Rescaling(-1.0, name=op.name)(x),
    "Concatenate": lambda layers, op, x: layers.Concatenate(op.axis, name=op.name)(x),
    "Reshape": _reshaped,
    "Transpose": _transposed,
    "Mean": _pooled("Average"),
    "Max": _pooled("Max"),
}
