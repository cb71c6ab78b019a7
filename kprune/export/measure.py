"""Accuracy and latency of exported files, in their own runtimes."""

import time

import numpy as np

from kprune.export.base import ExportError
from kprune.export.named_arrays import name_arrays

_BATCH = 256


def check_data(forward, data):
    """Checks labelled data before anything is written.

    Args:
        forward: The model's `Forward`.
        data: Tuple of inputs and labels. Inputs are an array, or a list or dict of
            arrays, see `kprune.export.named_arrays`; labels are whole numbers of
            shape `(n,)` or `(n, 1)`, or one-hot rows of shape `(n, classes)`.

    Returns:
        Dict of arrays by input name, and labels as an int array of shape `(n,)`.

    Raises:
        ValueError: If the data do not fit the model, or the model has not one
            output with a class a column (or one column, for two classes).

    Example:
    >>> import keras
    >>> from kprune.export.forward import Forward
    >>> model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(3)])
    >>> one_hot = np.array([[0, 1, 0], [0, 0, 1]])
    >>> inputs, labels = check_data(Forward(model), (np.zeros((2, 2)), one_hot))
    >>> labels
    array([1, 2])
    """
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(
            f"data is a {type(data).__name__}, expected a tuple of inputs and labels "
            "to measure the accuracy on: data=(x_test, y_test)."
        )
    inputs, labels = data
    if len(forward.inputs) == 1 and not isinstance(inputs, dict):
        inputs = np.asarray(inputs)
    inputs = name_arrays(inputs, forward, "data")
    inputs = {x.name: _as_input(inputs[x.name], x) for x in forward.inputs}
    labels, classes = _labels(labels)
    counts = {len(x) for x in (*inputs.values(), labels)}
    if labels.ndim != 1 or len(counts) > 1 or not labels.size:
        raise ValueError(
            f"data has inputs and labels of {sorted(counts)} rows, labels of shape "
            f"{np.shape(data[1])}; expected as many labels as rows, at least one."
        )
    _check_classes(labels, classes, _columns(forward, inputs))
    return inputs, labels


def _as_input(array, spec):
    is_number = array.dtype.kind in "biuf" or "float" in array.dtype.name
    if not is_number and spec.dtype.name != "string":
        raise ValueError(
            f"data has inputs {spec.name!r} of type {array.dtype}, expected numbers "
            f"({spec.dtype.name}). Convert them as you do before model.predict."
        )
    array = np.asarray(array, spec.dtype.as_numpy_dtype)
    wrong = spec.dtype.is_floating and np.isnan(array.astype("float64")).sum()
    if wrong:
        raise ValueError(
            f"data has inputs {spec.name!r} of which {wrong} values are NaN, so that "
            "the outputs say nothing. Leave such rows out."
        )
    return array


def _labels(labels):
    """Returns class numbers, and how many classes one-hot rows have, or `None`."""
    labels = np.asarray(labels)
    is_number = labels.dtype.kind in "biuf"
    if not is_number or (labels < 0).any() or (labels % 1 != 0).any():
        raise ValueError(
            f"data has labels of type {labels.dtype} that are not whole numbers of 0 "
            "or more, so that they name no class. Leave `data` out for models that "
            "are no classifiers."
        )
    if labels.ndim != 2:
        return labels.astype(int), None
    if labels.shape[1] == 1:
        return labels[:, 0].astype(int), None
    several = np.flatnonzero((labels != 0).sum(axis=1) != 1)
    if several.size:
        raise ValueError(
            f"data has labels of shape {labels.shape}, whose row {several[0]} names "
            f"{np.count_nonzero(labels[several[0]])} classes; expected one in each "
            "row. Pass class numbers or one-hot rows."
        )
    return labels.argmax(axis=1), labels.shape[1]


def _check_classes(labels, classes, columns):
    """Raises if the labels name classes that the model has no output for."""
    known = max(columns, 2)  # one column tells two classes apart
    if classes not in (None, known) or labels.max() >= known:
        named = f"reach to {labels.max()}" if classes is None else f"name {classes}"
        raise ValueError(
            f"data has labels that {named}, and the model has outputs of shape "
            f"(batch, {columns}), so classes 0 to {known - 1}. Pass the labels that "
            "the model was trained on."
        )


def _columns(forward, inputs):
    """Returns how many columns the model's output has, once it is known to fit."""
    rows = forward.fixed_batch or 1
    try:
        outputs = forward({name: x[:rows] for name, x in inputs.items()})
    except Exception as error:
        shapes = {name: x.shape for name, x in inputs.items()}
        raise ValueError(
            f"The model does not run on the data given, inputs {shapes}: {error}"
        ) from error
    shapes = {name: x.shape for name, x in outputs.items()}
    if len(outputs) != 1 or len(next(iter(shapes.values()))) != 2:
        raise ValueError(
            f"The model has the outputs {shapes}. Accuracy needs one output of shape "
            "(batch, classes). Leave `data` out, and evaluate the files yourself."
        )
    return next(iter(shapes.values()))[1]


def accuracy(run, batch, inputs, labels):
    """Returns the share of labels that a model gets right.

    Args:
        run: Function from a dict of input arrays to a dict of output arrays.
        batch: Int, the only batch size that `run` takes, or `None` for any.
        inputs: Dict of arrays by input name.
        labels: Int array of shape `(n,)`. Where `batch` does not divide `n`, the
            rest is left out.

    Returns:
        Float in [0, 1]. The class is the largest of the outputs, or whether a
        single output exceeds 0.5.

    Example:
    >>> run = lambda inputs: {"y": inputs["x"]}
    >>> accuracy(run, None, {"x": np.eye(3)}, np.array([0, 1, 1]))
    0.6666666666666666
    """
    rows = batch or _BATCH
    end = len(labels) // batch * batch if batch else len(labels)
    right = 0
    for begin in range(0, end, rows):
        part = {name: x[begin : begin + rows] for name, x in inputs.items()}
        (output,) = run(part).values()
        one = output.shape[1] == 1
        classes = output[:, 0] > 0.5 if one else output.argmax(axis=1)
        right += int(np.count_nonzero(classes == labels[begin : begin + rows]))
    if not end:
        raise ExportError(f"The data have fewer rows than the file's batch of {batch}.")
    return right / end


def latencies(runs, inputs, seconds=2.0):
    """Times functions in turns on one input.

    Args:
        runs: Dict from name to a function of a dict of input arrays.
        inputs: Dict of arrays by input name, one batch that all of them take.
        seconds: Float, for how long all of them are timed together, after one call
            each that is not timed. Each is timed at least five times.

    Returns:
        Dict from name to the median in milliseconds.

    Example:
    >>> sorted(latencies({"a": lambda inputs: inputs}, {}, seconds=0.01))
    ['a']
    """
    for run in runs.values():
        run(inputs)
    times = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 5:
        for name, run in runs.items():
            begin = time.perf_counter()
            run(inputs)
            times[name].append(time.perf_counter() - begin)
    return {name: 1e3 * float(np.median(spent)) for name, spent in times.items()}
