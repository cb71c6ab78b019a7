"""Calibration data: a few hundred examples, read batch by batch."""

import keras
import numpy as np
import tensorflow as tf

from kprune.calibration.loss import loss_of

_ADVICE = "Pass a few hundred examples, such as `(x_train[:512], y_train[:512])`."


class CalibrationData:
    """Examples that criteria look at, in batches, the same at each pass.

    No more than one batch is held beside what was given. Sample weights count as
    they do in `fit`; where `fit` is given class weights, give each example's weight
    here.

    Args:
        data: What `fit` takes: inputs alone, or a tuple of inputs, targets and, if
            wanted, sample weights. Each is an array with one row an example, or a
            dict or list of them for models of several inputs or outputs. A list of
            as many arrays as the model has inputs, if several, is these inputs
            alone; so is `([x1, x2],)`, and a tuple `(x1, x2)` is not. Or a
            batched `tf.data.Dataset` or a `keras.utils.PyDataset` of such, of
            finite length. If it shuffles, each pass sees other batches.
        model: The model that will see it, or `None` if there is none to check it
            with.
        labels: Bool, whether the loss will be looked at. Defaults to `True`.
        batch_size: Int, for arrays. Defaults to 32, or what the model is fixed to.

    Raises:
        TypeError: If the data is of another kind.
        ValueError: If there are no examples, if they don't fit the model, if the
            dataset never ends or isn't batched, or, with `labels`, if targets are
            missing or the model is not compiled.

    Example:
    >>> data = CalibrationData((np.zeros((50, 3)), np.zeros((50, 1))), None)
    >>> [len(x) for x, y, sample_weight in data]
    [32, 18]
    """

    def __init__(self, data, model, labels=True, batch_size=None):
        if isinstance(data, (tf.data.Dataset, keras.utils.PyDataset)):
            _check_finite(data)
        else:
            if _is_inputs_alone(data, model):
                data = (data,)
            data = _as_arrays(data)
        self._data = data
        self._fixed = fixed_batch(model)
        self._batch_size = batch_size or self._fixed or 32
        first = next(iter(self), None)
        if first is None or not count_rows(first):
            raise ValueError(f"The calibration data holds no examples. {_ADVICE}")
        if self._fixed and isinstance(self._data, tuple):
            self._check_full(count_rows(self._data) % self._fixed or self._fixed)
        if model is not None and model.built:
            _check_fit(first, model)
        self._labels_fit = None
        if labels:
            self.check_labels(model)

    def check_labels(self, model):
        """Raises if the loss of a model can't be computed; looks once at a model.

        Args:
            model: As for the class.

        Raises:
            ValueError: If targets are missing, or the model is not compiled.
        """
        if self._labels_fit is None or self._labels_fit is not model:
            _check_labels(next(iter(self)), model)
            self._labels_fit = model

    def __iter__(self):
        """Yields triples of inputs, targets or `None`, sample weights or `None`."""
        for batch in self._batches():
            batch = keras.utils.unpack_x_y_sample_weight(batch)
            if self._fixed:
                self._check_full(count_rows(batch))
            yield batch

    def _check_full(self, rows):
        if rows not in (0, self._fixed):
            raise ValueError(
                f"The calibration data comes with a batch of {rows} examples, and "
                f"the model is fixed to batches of {self._fixed}. Pass a multiple of "
                f"{self._fixed} examples; of a tf.data.Dataset, "
                f"`dataset.batch({self._fixed}, drop_remainder=True)`."
            )

    def _batches(self):
        if isinstance(self._data, tf.data.Dataset):
            return self._data
        if isinstance(self._data, keras.utils.PyDataset):
            return (self._data[i] for i in range(self._data.num_batches))
        begins = range(0, len(keras.tree.flatten(self._data)[0]), self._batch_size)
        return (slice_rows(self._data, i, i + self._batch_size) for i in begins)


def slice_rows(batch, begin, end):
    """Returns some rows of each array in a structure.

    Args:
        batch: Structure of arrays or tensors, `None` where there is nothing.
        begin: Int, the first row.
        end: Int, the row behind the last.
    """
    return tf.nest.map_structure(lambda a: None if a is None else a[begin:end], batch)


def count_rows(batch):
    """Returns the number of examples in a batch.

    Args:
        batch: Triple as `CalibrationData` yields it.
    """
    return len(_leaves(batch)[0])


def _leaves(batch):
    return [leaf for leaf in tf.nest.flatten(batch) if leaf is not None]


def _is_inputs_alone(data, model):
    inputs = getattr(model, "inputs", None) or []
    several = isinstance(data, list) and len(data) == len(inputs) > 1
    return several and all(hasattr(part, "shape") for part in data)


def _as_arrays(data):
    """Returns arrays as a tuple of inputs, targets and sample weights."""
    parts = keras.utils.unpack_x_y_sample_weight(data)
    parts = tuple(part for part in parts if part is not None)
    leaves = keras.tree.flatten(parts)
    for leaf in leaves:
        if not hasattr(leaf, "shape") or len(leaf.shape) == 0:
            raise TypeError(
                f"The calibration data holds {type(leaf).__name__}: {leaf!r:.60}. "
                "Expected arrays with one row an example, a batched tf.data.Dataset, "
                f"or a keras.utils.PyDataset. {_ADVICE}"
            )
    rows = {len(leaf) for leaf in leaves}
    if len(rows) > 1:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves)
        raise ValueError(
            f"The arrays of the calibration data differ in length; their shapes are "
            f"{shapes}. Each must have one row an example."
        )
    return keras.tree.map_structure(_as_fit_sees_it, parts)


def _as_fit_sees_it(array):
    array = np.asarray(array)
    return array.astype(keras.config.floatx()) if array.dtype == "float64" else array


def _check_finite(data):
    if isinstance(data, keras.utils.PyDataset):
        infinite = data.num_batches is None
    else:
        infinite = data.cardinality() == tf.data.INFINITE_CARDINALITY
    if infinite:
        raise ValueError(
            "The calibration data never ends, and each update reads all of it. Pass "
            "a finite part: `dataset.take(16)` of a tf.data.Dataset, or a PyDataset "
            "with a number of batches."
        )


def fixed_batch(model):
    """Returns the number of rows that a model is fixed to, or `None`.

    Args:
        model: A model, or `None`.
    """
    inputs = getattr(model, "inputs", None) or []
    return next((tensor.shape[0] for tensor in inputs), None)


def _check_fit(batch, model):
    """Refuses inputs whose shape is not that of a model that says what it takes."""
    expected = getattr(model, "inputs", None) or []
    found = tf.nest.flatten(batch[0])
    if len(expected) > 1 and hasattr(batch[0], "shape"):
        raise ValueError(
            f"The model {model.name!r} takes {len(expected)} inputs, and the "
            f"calibration data gives one, of shape {tuple(batch[0].shape)}. Pass "
            "`([x1, x2], y)`, or `([x1, x2],)` where no labels are needed."
        )
    if not expected or len(found) != len(expected):
        return  # Keras itself says which inputs are missing.
    names = sorted(tensor.name for tensor in expected)
    if isinstance(batch[0], dict) and sorted(batch[0]) == names:
        expected = sorted(expected, key=lambda tensor: tensor.name)
    for array, tensor in zip(found, expected, strict=True):
        shape, wanted = tuple(array.shape), tuple(tensor.shape)
        if len(shape) == len(wanted) - 1:
            raise ValueError(
                f"The calibration data comes with shape {shape}, without an axis for "
                f"the batch; the input {tensor.name!r} takes {wanted}. Batch it: "
                "`dataset.batch(32)`."
            )
        if len(shape) == len(wanted) and not all(
            a == b or b is None for a, b in zip(shape[1:], wanted[1:], strict=True)
        ):
            raise ValueError(
                f"The calibration data comes with shape {shape}, and the input "
                f"{tensor.name!r} takes {wanted}. Give the model what it is trained on."
            )


def _check_labels(batch, model):
    """Refuses data or a model without what the loss needs."""
    if model is not None and not model.compiled:
        raise ValueError(
            f"The criterion looks at gradients of the loss, and {model.name!r} is not "
            "compiled. Call `model.compile(optimizer, loss)` first."
        )
    if batch[1] is None and getattr(model, "loss", True) is not None:
        raise ValueError(
            "The calibration data has no labels, and the criterion looks at gradients "
            f"of the loss. {_ADVICE}"
        )
    if model is not None and model.built:
        _check_loss(batch, model)


def _check_loss(batch, model):
    """Refuses what the loss can't be computed of, by computing it of one example."""
    try:
        loss_of(model, slice_rows(batch, 0, fixed_batch(model) or 1))
    except Exception as error:
        shapes = ", ".join(str(tuple(a.shape)) for a in _leaves(batch))
        raise ValueError(
            "The loss can't be computed of the calibration data, whose batches come "
            f"with the shapes {shapes}. {error}"
        ) from error
