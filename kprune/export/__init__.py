"""Models as files for other runtimes, each verified before it is handed over."""

import dataclasses
import json
import os

import keras
import numpy as np
import tensorflow as tf

from kprune import inspection, registry
from kprune.export import measure
from kprune.export.archive import Archive
from kprune.export.base import ExportError, Format, Written
from kprune.export.forward import Forward
from kprune.export.provenance import files_sha256, kprune_version
from kprune.export.report import ExportRecord, ExportReport, file_sizes
from kprune.export.samples import draw_samples
from kprune.export.saved_model import SavedModel
from kprune.export.staging import MARK, check_target, local_path, replacing
from kprune.export.tflite import TFLite
from kprune.export.verify import largest_difference, verify
from kprune.quantize import dequantize, wrappers
from kprune.surgery import stripped_for

__all__ = [
    "Archive",
    "ExportError",
    "ExportRecord",
    "ExportReport",
    "Format",
    "SavedModel",
    "TFLite",
    "Written",
    "export",
]


def export(
    model,
    directory,
    formats=("saved_model", "tflite"),
    *,
    data=None,
    measure_latency=False,
):
    """Writes a model for other runtimes and checks every file before returning.

    Each file is loaded again in the runtime it is made for and compared with the
    Keras model on random inputs, at several batch sizes where the file allows
    them. The folder appears, or replaces an earlier export, only after all
    files have passed; on any error it is as it was.

    Args:
        model: A built Keras 3 model. Compile state is not needed. A model with
            masks or shared weights is stripped first, with a warning. It is not
            changed.
        directory: String or path of the folder to write: new, empty, or an
            earlier export of kprune. `~` is the home folder.
        formats: Names of formats, or objects such as `kprune.TFLite()` where
            options are wanted. Defaults to both, a SavedModel in
            `saved_model/` and `model.tflite`.
        data: Tuple of inputs and labels (whole numbers or one-hot rows), on which
            the accuracy of the Keras model and of each file is measured. The class
            is the largest output; of a single one, whether it exceeds 0.5, which
            has to be a probability then. Defaults to `None`, none is measured.
        measure_latency: Bool, whether to time the Keras model (compiled, as
            `predict` runs it) and the files on one row, in turns on this machine,
            for two seconds. Defaults to `False`.

    Returns:
        An `ExportReport`, which is also saved as `export.json`.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `formats` no formats.
        ValueError: If the model is unbuilt, `directory` is no path of this machine,
            a format is unknown or given twice, or `data` or an option of a format
            does not fit the model.
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
    directory = local_path(directory)
    formats = _resolve(formats)
    _check_model(model)
    check_target(directory, [MARK, *(format.file for format in formats)])
    model, notes = stripped_for("kprune.export", model)
    inspection.check_numbers(model, ExportError)
    forward = Forward(model)
    for format in formats:
        format.check(forward)
    data = None if data is None else measure.check_data(forward, data)
    samples = draw_samples(forward)
    try:
        with replacing(directory) as staged:
            runs = {"Keras": (forward, forward.fixed_batch)}
            records = []
            for format in formats:
                record, runs[format.file] = _write(format, forward, samples, staged)
                path = os.path.join(directory, format.file)
                records.append(dataclasses.replace(record, path=path))
            figures = _measure(forward, runs, samples, data, measure_latency)
            report = _report(model, records, figures, notes)
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
    if isinstance(formats, (str, dict, Format, type)):
        formats = (formats,)
    if not isinstance(formats, (list, tuple)):
        raise TypeError(
            f"formats is {formats!r}, expected a format or a list of them: names such "
            "as 'saved_model', or objects such as kprune.TFLite(). Leave it out for "
            "both a SavedModel and a TFLite file."
        )
    for format in formats:
        if isinstance(format, type):
            raise TypeError(
                f"formats has the class {format.__name__}, expected an object of it: "
                f"{format.__name__}()."
            )
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
    inspection.check_built(model)


def _write(format, forward, samples, staged):
    """Writes, loads and verifies a file; returns its record, and how it is run."""
    path = os.path.join(staged, format.file)
    written = format.write(forward, path)
    label = f"the {type(format).__name__} file of model {forward.model.name!r}"
    if written.sha256 not in (None, files_sha256(path)):
        raise ExportError(
            f"{label} is no longer what was written: its bytes changed before they "
            "were verified. See that nothing else writes there, and that the disk is "
            "sound."
        )
    try:
        run, batch = format.load(path)
    except Exception as error:
        raise ExportError(f"{label} was written but does not load: {error}") from error
    examined = format.examine(forward, run, label)
    tolerance = format.tolerance or format.default_tolerance(forward)
    samples, rounding = _samples_of(format, forward, samples)
    difference = verify(run, batch, samples, tolerance, label)
    raw, gzipped, zipped = file_sizes(path)
    record = ExportRecord(
        format=type(format).__name__,
        path=path,
        bytes=raw,
        gzip_bytes=gzipped,
        max_difference=max(difference, examined),
        notes=tuple(written.notes),
        zip_bytes=zipped,
        bound=written.bound,
        overhead_bytes=written.overhead_bytes,
        rounding_difference=rounding,
    )
    return record, (run, batch)


def _samples_of(format, forward, samples):
    """Returns pairs of inputs and of the outputs that the file should give.

    And how far these are from the model's, or `None` where they are the model's.
    """
    inputs, reference = format.inputs(forward), format.reference(forward)
    if inputs is not None:
        samples = [(arrays, forward(arrays)) for arrays in inputs]
    if reference is forward:
        return samples, None
    rounded = [(arrays, reference(arrays)) for arrays, _ in samples]
    pairs = zip(rounded, samples, strict=True)
    return rounded, max(largest_difference(a, b) for (_, a), (_, b) in pairs)


def _measure(forward, runs, samples, data, measure_latency):
    """Returns accuracy and latency by name of file, as far as they are wanted."""
    figures = {name: {} for name in runs}
    if data is not None:
        for name, (run, batch) in runs.items():
            figures[name]["accuracy"] = measure.accuracy(run, batch, *data)
    if measure_latency:
        one_row = samples[0][0]
        functions = {name: run for name, (run, _) in runs.items()}
        with forward.compiled() as functions["Keras"]:
            times = measure.latencies(functions, one_row)
        for name, milliseconds in times.items():
            figures[name]["latency_ms"] = milliseconds
    return figures


def _report(model, records, figures, notes):
    plain = dequantize(model) if wrappers(model) else model
    weights = [np.asarray(weight) for weight in inspection.own_weights(plain)]
    return ExportReport(
        model=model.name,
        weights=sum(weight.size for weight in weights),
        nonzero_weights=int(sum(np.count_nonzero(weight) for weight in weights)),
        records=tuple(
            dataclasses.replace(record, **figures[os.path.basename(record.path)])
            for record in records
        ),
        notes=notes,
        kprune_version=kprune_version(),
        **figures["Keras"],
    )
