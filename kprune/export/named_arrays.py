"""Arrays that users give, sorted by the names that a model's signature has."""

import numpy as np
import tensorflow as tf
from keras import tree


def name_arrays(data, forward, label):
    """Returns arrays by input name, however they were given.

    Args:
        data: An array; for several inputs a list of arrays in the model's order, or
            a dict of them by input name: the signature's, or the name or key that
            the input has in Keras, with characters that no signature takes.
        forward: The model's `kprune.export.forward.Forward`.
        label: String, what errors call the data.

    Returns:
        Dict of arrays by the names in `forward.inputs`.

    Raises:
        TypeError: If something in it is no array.
        ValueError: If names or number of the arrays are not the model's.

    Example:
    >>> import keras
    >>> from kprune.export.forward import Forward
    >>> inputs = keras.Input((3,), name="left.x")
    >>> forward = Forward(keras.Model(inputs, keras.layers.ReLU()(inputs)))
    >>> list(name_arrays({"left.x": np.zeros((1, 3))}, forward, "data"))
    ['left_x']
    """
    names = [spec.name for spec in forward.inputs]
    if isinstance(data, dict):
        pairs = tree.flatten_with_path(data)
        arrays = {_joined(path): _as_array(x, label) for path, x in pairs}
        for known in (names, *_names_in_keras(forward)):
            if set(arrays) == set(known):
                return {n: arrays[k] for n, k in zip(names, known, strict=True)}
        raise ValueError(
            f"{label} has the inputs {sorted(arrays)}. {_wanted(forward)} Use these "
            "names as keys."
        )
    arrays = data if isinstance(data, (list, tuple)) else [data]
    arrays = [_as_array(x, label) for x in arrays]
    if len(arrays) != len(names):
        raise ValueError(
            f"{label} has {len(arrays)} arrays. {_wanted(forward)} Pass the inputs "
            "alone, without targets, one array for each."
        )
    return dict(zip(names, arrays, strict=True))


def _names_in_keras(forward):
    """Yields lists of names in the order of `forward.inputs`: of layers, of keys."""
    declared = getattr(forward.model, "inputs", None) or ()
    if len(declared) == len(forward.inputs):
        yield [tensor.name for tensor in declared]
    if len(forward.arguments) == 1:
        yield [_joined(path) for path, _ in tree.flatten_with_path(*forward.arguments)]


def _joined(path):
    return "_".join(map(str, path))


def _as_array(data, label):
    if isinstance(data, (np.ndarray, tf.Tensor)) or hasattr(data, "__array__"):
        return np.asarray(data)
    raise TypeError(
        f"{label} holds {type(data).__name__}: {data!r:.60}. Expected arrays, a list "
        "or dict of arrays, a batched tf.data.Dataset, or a keras.utils.PyDataset."
    )


def _wanted(forward):
    described = ", ".join(
        f"{s.name} {readable_shape(s.shape)} {s.dtype.name}" for s in forward.inputs
    )
    return f"Model {forward.model.name!r} takes {described}."


def readable_shape(shape):
    """Says a shape with its open sizes.

    Args:
        shape: `tf.TensorShape` whose first axis counts rows.

    Returns:
        String.

    Example:
    >>> readable_shape(tf.TensorShape((None, 3, None)))
    '(rows, 3, any)'
    """
    sizes = ["rows", *("any" if n is None else str(n) for n in shape[1:])]
    return f"({', '.join(sizes)})"
