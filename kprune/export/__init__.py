"""Models as files for other runtimes, each verified before it is handed over."""

import json
import os
import warnings
from importlib import metadata

import keras
import numpy as np
import tensorflow as tf

from kprune import inspection, registry, surgery
from kprune.export.base import ExportError, Format
from kprune.export.forward import Forward
from kprune.export.report import ExportRecord, ExportReport, file_sizes
from kprune.export.samples import draw_samples
from kprune.export.saved_model import SavedModel
from kprune.export.staging import MARK, check_target, replacing
from kprune.export.tflite import TFLite
from kprune.export.verify import default_tolerance, verify

__all__ = [
    "ExportError",
    "ExportRecord",
    "ExportReport",
    "Format",
    "SavedModel",
    "TFLite",
    "export",
]

_STRIPPED = (
    "the model still had pruning wrappers; what was exported is kprune.strip(model)"
)


def export(model, directory, formats=("saved_model", "tflite")):
    """Writes a model for other runtimes and checks every file before returning.

    Each file is loaded again in the runtime it is made for and compared with the
    Keras model on random inputs, at several batch sizes where the file allows
    them. The folder appears, or replaces an earlier export, only after all
    files have passed; on any error it is as it was.

    Args:
        model: A built Keras 3 model. Compile state is not needed. A model with
            pruning wrappers is stripped first, with a warning. It is not
            changed.
        directory: String or path of the folder to write: new, empty, or an
            earlier export of kprune.
        formats: Names of formats, or objects such as `kprune.TFLite()` where
            options are wanted. Defaults to both, a SavedModel in
            `saved_model/` and `model.tflite`.

    Returns:
        An `ExportReport`, which is also saved as `export.json`.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If the model is unbuilt or a format is unknown or given twice.
        FileExistsError: If `directory` is a file or a folder with other content.
        ExportError: If a weight is NaN, a format cannot hold the model, a file
            differs from the model, or writing fails.

    Example:
    >>> import kprune, tempfile
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     report = kprune.export(model, parent + "/out", formats="tflite")
    >>> report.weights, report.records[0].format
    (8, 'TFLite')
    """
    directory = os.path.abspath(os.fspath(directory))
    formats = _resolve(formats)
    _check_model(model)
    check_target(directory, [MARK, *(format.file for format in formats)])
    model, notes = _stripped(model)
    _check_weights(model)
    forward = Forward(model)
    samples = draw_samples(forward)
    try:
        with replacing(directory) as staged:
            records = tuple(
                _write(format, forward, samples, staged, directory)
                for format in formats
            )
            report = _report(model, records, notes)
            with open(os.path.join(staged, MARK), "w", encoding="utf-8") as file:
                json.dump(report.to_dict(), file, indent=2)
    except (OSError, tf.errors.OpError) as error:
        raise ExportError(
            f"The export to {directory!r} could not be written: {error}\nWhat was "
            "there before is as it was. See that the disk has room, that for temporary "
            "files included, and that the parent folder can be written to."
        ) from error
    return report


def _resolve(formats):
    if isinstance(formats, (str, dict, Format)):
        formats = (formats,)
    formats = [registry.get("formats", format) for format in formats]
    files = [format.file for format in formats]
    if not formats or len(set(files)) < len(files):
        raise ValueError(
            f"formats has the files {files}, expected at least one and each once. "
            f"The registered formats are {', '.join(registry.keys('formats'))}."
        )
    return formats


def _check_model(model):
    inspection.check_keras_model(model)
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras runs on the {keras.backend.backend()!r} backend; export needs "
            "TensorFlow. Set KERAS_BACKEND=tensorflow before Python starts."
        )
    if not model.built:
        raise ValueError(
            f"{type(model).__name__} {model.name!r} has no weights yet. Call it once "
            "on a batch of data, or model.build(input_shape), before export."
        )


def _stripped(model):
    # A model pruned in place would lose its masks; its zeros are zeros anyway.
    if not inspection.is_pruned(model) or inspection.is_pruned_in_place(model):
        return model, ()
    warnings.warn(f"kprune.export: {_STRIPPED}.", stacklevel=3)
    return surgery.strip(model), (_STRIPPED,)


def _check_weights(model):
    spoiled = [
        weight.path
        for weight in inspection.own_weights(model)
        if "float" in weight.dtype and np.isnan(np.asarray(weight, "float64")).any()
    ]
    if spoiled:
        raise ExportError(
            f"Model {model.name!r} has NaN in its weights {', '.join(spoiled)}. Go "
            "back to a checkpoint from before the training diverged."
        )


def _write(format, forward, samples, staged, directory):
    path = os.path.join(staged, format.file)
    notes = format.write(forward, path)
    label = f"the {type(format).__name__} file of model {forward.model.name!r}"
    try:
        run, batch = format.load(path)
    except Exception as error:
        raise ExportError(f"{label} was written but does not load: {error}") from error
    tolerance = format.tolerance or default_tolerance(forward.compute_dtype)
    difference = verify(run, batch, samples, tolerance, label)
    raw, packed = file_sizes(path)
    path = os.path.join(directory, format.file)
    name = type(format).__name__
    return ExportRecord(name, path, raw, packed, difference, tuple(notes))


def _report(model, records, notes):
    weights = [np.asarray(weight) for weight in inspection.own_weights(model)]
    try:
        version = metadata.version("kprune")
    except metadata.PackageNotFoundError:
        version = "unknown"
    return ExportReport(
        model=model.name,
        weights=sum(weight.size for weight in weights),
        nonzero_weights=int(sum(np.count_nonzero(weight) for weight in weights)),
        records=records,
        notes=notes,
        kprune_version=version,
    )
