"""Functions of TensorFlow in the graphs of tf_keras models, as Keras 3 computes them.

A function that is called on a symbolic tensor becomes a layer in tf_keras, a
`TFOpLambda`. In Keras 3 it is an operation of `keras.ops`.
"""

import functools
import inspect

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kprune.copier import in_short
from kprune.naming import unique
from kprune.tfmot.twins import as_name


def is_function(layer):
    """Tells whether a tf_keras layer stands for a function of TensorFlow."""
    return type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda")


def function_for(layer, custom_objects):
    """Returns what computes in Keras 3 what a function of TensorFlow computes.

    Args:
        layer: A layer of tf_keras for which `is_function` holds.
        custom_objects: Dict in which the layer's name may stand for a function.

    Returns:
        Function of the same arguments. It raises a `ValueError` if these are
        arguments that the translation does not know.

    Raises:
        ValueError: If there is none.
    """
    if layer.name in custom_objects:
        return custom_objects[layer.name]
    function = _FUNCTIONS.get((layer.symbol or "").rpartition(".")[2])
    if function is None:
        raise _refusal(layer, "is not translated.")
    signature = inspect.signature(layer.function)

    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        bound.arguments.pop("name", None)
        arguments = tf.nest.map_structure(_without_tensor, bound.arguments)
        try:
            found = function(*arguments.values())
        except Exception as error:  # any that an operation thinks of
            reason = f"can't be translated as it is called there: {in_short(error)}"
            raise _refusal(layer, reason) from error
        _name_operations(found, arguments, as_name(layer.name))
        return found

    return call


def _refusal(layer, reason):
    return ValueError(
        f"The layer {layer.name!r} calls tf.{layer.symbol}, which {reason} Pass a "
        "function of `keras.ops` that takes the same arguments, "
        f"`custom_objects={{{layer.name!r}: function}}`, or use a layer instead."
    )


def name_apart(outputs):
    """Renames the operations in a graph that are called as a layer in it is.

    Where masks of padding are joined, Keras 3 adds operations to the graph, with
    automatic names.

    Args:
        outputs: Structure of the `KerasTensor`s that the graph ends in.
    """
    operations = _operations_before(outputs)
    taken = {part.name for part in operations if isinstance(part, keras.Layer)}
    for operation in operations:
        if not isinstance(operation, keras.Layer):
            operation.name = unique(operation.name, taken)


def _name_operations(outputs, inputs, name):
    """Names new operations in a graph, whose automatic names others may have."""
    taken = set()
    for operation in _operations_before(outputs, inputs):
        operation.name = unique(name, taken)


def _operations_before(outputs, inputs=()):
    """Lists what computes outputs, layers too, back to some inputs."""
    known = {id(tensor) for tensor in keras.tree.flatten(inputs)}
    coming, found = keras.tree.flatten(outputs), {}
    while coming:
        tensor = coming.pop()
        if id(tensor) not in known and isinstance(tensor, keras.KerasTensor):
            known.add(id(tensor))
            operation, call, _ = tensor._keras_history
            found[id(operation)] = operation
            coming += operation._inbound_nodes[call].input_tensors
    return list(found.values())


def _without_tensor(value):
    """Returns a constant of a graph as a number or array, which Keras can save."""
    if isinstance(value, tf.Tensor) and hasattr(value, "numpy"):
        value = value.numpy()
        return value if value.ndim else value.item()
    return value


def _matmul(a, b, transpose_a, transpose_b, adjoint_a, adjoint_b, *_):
    # For real numbers the adjoint is the transpose.
    a = ops.swapaxes(a, -1, -2) if transpose_a or adjoint_a else a
    return ops.matmul(a, ops.swapaxes(b, -1, -2) if transpose_b or adjoint_b else b)


def _squeezed(x, axis, old_axis):
    axis = old_axis if axis is None else axis
    return ops.squeeze(x, axis if isinstance(axis, int) else tuple(axis or ()) or None)


def _split(x, sizes, axis, _):
    places = sizes if isinstance(sizes, int) else np.cumsum(sizes)[:-1].tolist()
    return ops.split(x, places, axis)


def _item(x, index, _):
    """Returns a part of a tensor; tf_keras keeps slices as dicts."""
    places = [index] if isinstance(index, dict) else index
    if not isinstance(places, (list, tuple)):
        return x[places]
    return x[tuple(slice(*p.values()) if isinstance(p, dict) else p for p in places)]


def _pad(x, width, mode, value):
    value = value if mode == "CONSTANT" else None
    return ops.pad(x, width, mode.lower(), value)


# Called with all of TensorFlow's arguments but `name`, in their order, defaults too.
_FUNCTIONS = {
    name: getattr(ops, name)
    for name in (
        *("abs", "add", "ceil", "cos", "elu", "equal", "erf", "exp", "expand_dims"),
        *("floor", "greater", "greater_equal", "less", "less_equal", "log", "log1p"),
        *("logical_and", "logical_not", "logical_or", "maximum", "minimum", "multiply"),
        *(
            "negative",
            "not_equal",
            "relu",
            "relu6",
            "round",
            "rsqrt",
            "selu",
            "sigmoid",
        ),
        *("sign", "sin", "softplus", "softsign", "sqrt", "square", "stack"),
        *("stop_gradient", "subtract", "tanh", "tile", "where"),
    )
}

_FUNCTIONS |= {
    "truediv": ops.divide,
    "divide": ops.divide,
    "pow": ops.power,
    "floormod": ops.mod,
    "floordiv": ops.floor_divide,
    "floor_div": ops.floor_divide,
    "reduce_mean": ops.mean,
    "reduce_sum": ops.sum,
    "reduce_max": ops.max,
    "reduce_min": ops.min,
    "reduce_prod": ops.prod,
    "concat": ops.concatenate,
    "reshape": ops.reshape,
    "clip_by_value": ops.clip,
    "leaky_relu": ops.leaky_relu,
    "gelu": ops.gelu,
    "identity": lambda x: x,
    "add_n": lambda values: functools.reduce(ops.add, values),
    "bias_add": lambda x, bias, data_format: ops.add(x, bias),
    "cast": lambda x, dtype: ops.cast(x, tf.as_dtype(dtype).name),
    "softmax": lambda x, axis: ops.softmax(x, -1 if axis is None else axis),
    "silu": lambda x, beta: ops.silu(x) if beta == 1.0 else x * ops.sigmoid(beta * x),
    "transpose": lambda x, axes, conjugate: ops.transpose(x, axes),
    "pad": _pad,
    "split": _split,
    "squeeze": _squeezed,
    "matmul": _matmul,
    "getitem": _item,
}
