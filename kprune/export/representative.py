"""Data that stands for what a model will see, for calibration and comparison."""

import itertools

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from kprune.export.named_arrays import name_arrays, readable_shape

MOST_ROWS = 256
_LABEL = "representative_data"


def take_rows(data, forward, most=MOST_ROWS):
    """Takes a few hundred rows of a data set and checks that the model fits them.

    Args:
        data: What `fit` takes, targets ignored where they come along: an array
            of shape `(rows, ...)`; for several inputs a list of arrays in the
            model's order or a dict of arrays by input name; a batched
            `tf.data.Dataset`; or a `keras.utils.PyDataset`.
        forward: The model's `kprune.export.forward.Forward`.
        most: Int, how many rows to take. Defaults to 256: of arrays evenly
            spaced ones, since files are often sorted by class, of data sets the
            first ones.

    Returns:
        Dict by input name of arrays of shape `(rows, ...)` in the inputs' dtypes.

    Raises:
        TypeError: If `data` is of none of these kinds.
        ValueError: If it is empty, has other inputs, shapes or types than the
            model, or values that are NaN or infinite.

    Example:
    >>> from kprune.export.forward import Forward
    >>> model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)])
    >>> rows = take_rows(np.zeros((5000, 3), "uint8"), Forward(model))
    >>> rows["x"].shape, rows["x"].dtype
    ((256, 3), dtype('float32'))
    """
    if isinstance(data, (tf.data.Dataset, keras.utils.PyDataset)):
        batches = _gathered(_batches_of(data), forward, most)
    else:
        batches = [_spaced(name_arrays(data, forward, _LABEL), most)]
    rows = {}
    for spec in forward.inputs:
        checked = [_checked(batch[spec.name], spec) for batch in batches]
        rows[spec.name] = _joined(checked, spec)[:most]
    _check_count(rows, forward.fixed_batch or 1)
    return rows


def cut_batches(rows, size):
    """Cuts rows into batches; rows that fill none are left over.

    Args:
        rows: Dict by input name of arrays of shape `(rows, ...)`.
        size: Int, rows in each batch.

    Returns:
        List of dicts by input name.

    Example:
    >>> [batch["x"].tolist() for batch in cut_batches({"x": np.arange(5)}, 2)]
    [[0, 1], [2, 3]]
    """
    count = len(next(iter(rows.values())))
    starts = range(0, count - size + 1, size)
    return [{name: x[i : i + size] for name, x in rows.items()} for i in starts]


def is_same_data(one, other):
    """Tells whether two options hold one object, or arrays that are equal.

    Args:
        one: Representative data or `None`.
        other: Likewise.

    Returns:
        Bool.

    Example:
    >>> is_same_data({"x": np.ones(2)}, {"x": np.ones(2)})
    True
    """
    if one is other:
        return True
    ones, others = tree.flatten_with_path(one), tree.flatten_with_path(other)
    return len(ones) == len(others) and all(
        path == other_path
        and isinstance(x, np.ndarray)
        and isinstance(y, np.ndarray)
        and np.array_equal(x, y)
        for (path, x), (other_path, y) in zip(ones, others, strict=True)
    )


def restored(data):
    """Returns arrays where Keras' serialisation put descriptions of them.

    Args:
        data: Representative data, as it stands in a config.

    Returns:
        The data.

    Example:
    >>> restored(keras.saving.serialize_keras_object({"x": np.ones(2)}))
    {'x': array([1., 1.])}
    """
    if isinstance(data, dict) and data.get("class_name") == "__numpy__":
        return keras.saving.deserialize_keras_object(data)
    if isinstance(data, dict):
        return {name: restored(value) for name, value in data.items()}
    return [restored(x) for x in data] if isinstance(data, list) else data


def _batches_of(data):
    if isinstance(data, tf.data.Dataset):
        return iter(data)
    count = data.num_batches
    return (data[i] for i in (itertools.count() if count is None else range(count)))


def _gathered(batches, forward, most):
    """Returns the first batches, enough of them for `most` rows."""
    gathered, count = [], 0
    for batch in batches:
        inputs, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        gathered.append(name_arrays(inputs, forward, _LABEL))
        sizes = [x.shape[0] for x in gathered[-1].values() if x.ndim]
        count += min(sizes, default=0)
        if count >= most or not sizes:
            break
    if not gathered:
        raise ValueError(
            "representative_data has no batch, expected at least one. Give it some "
            "rows of the training data."
        )
    return gathered


def _spaced(arrays, most):
    """Returns evenly spaced rows, the first and the last among them."""
    if any(x.ndim == 0 for x in arrays.values()):
        return arrays
    counts = {name: len(x) for name, x in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"representative_data has {counts} rows by input, expected the same "
            "number for each. Row i of every array has to belong to example i."
        )
    count = min(counts.values())
    index = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    return {name: x[index] for name, x in arrays.items()}


def _checked(array, spec):
    """Returns an array in an input's dtype, once it is known to fit."""
    shape, subject = spec.shape, f"representative_data for input {spec.name!r}"
    if not (array.ndim and shape[1:].is_compatible_with(array.shape[1:])):
        raise ValueError(
            f"{subject} has shape {array.shape}, expected {readable_shape(shape)}. The "
            "first axis counts rows: array[None] makes one row a batch, "
            "dataset.batch(32) batches a data set."
        )
    wanted = spec.dtype.as_numpy_dtype
    if not _is_castable(array.dtype, spec.dtype):
        raise ValueError(
            f"{subject} is of type {array.dtype}, expected {spec.dtype.name}. Convert "
            "it as you do before model.predict."
        )
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    spoiled = int(np.sum(~np.isfinite(cast.astype("float64"))))
    if spoiled:
        raise ValueError(
            f"{subject} has {spoiled} values that are NaN or infinite in "
            f"{spec.dtype.name}, of {cast.size}. Calibration takes the range of the "
            "values, so that one is enough to spoil it: leave such rows out."
        )
    if not spec.dtype.is_floating and np.any(cast != array):
        raise ValueError(
            f"{subject} reaches from {array.min()} to {array.max()}, more than "
            f"{spec.dtype.name} holds. Convert it as you do before model.predict."
        )
    return cast


def _is_castable(found, wanted):
    if wanted.is_floating:
        return found.kind in "fiub" or "float" in found.name
    return found.kind in ("b" if wanted == tf.bool else "iub")


def _joined(arrays, spec):
    shapes = {x.shape[1:] for x in arrays}
    if len(shapes) > 1:
        raise ValueError(
            f"representative_data for input {spec.name!r} has rows of the shapes "
            f"{sorted(shapes)}. Calibration takes one: pad or crop them to the shape "
            "that the model will see most."
        )
    return np.concatenate(arrays)


def _check_count(rows, least):
    counts = {name: len(x) for name, x in rows.items()}
    if len(set(counts.values())) > 1 or min(counts.values()) < least:
        raise ValueError(
            f"representative_data has {counts} rows by input, expected the same "
            f"number for each, at least {least}. A few hundred rows of the training "
            "data do."
        )
