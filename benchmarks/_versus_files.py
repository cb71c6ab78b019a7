"""How large the files of one pruned model are, and how long writing them takes."""

import contextlib
import functools
import io
import pathlib
import tempfile
import typing

import keras
import numpy as np
import tensorflow as tf
from _harness import interleaved, publish, settle_frameworks
from _methods import Run, load, network, trained

import kprune
from kprune.export import interpreter
from kprune.export.report import file_sizes

RUN = Run(
    data="fashion_mnist",
    network="lenet_300_100",
    method="magnitude, layer-wise",
    sparsity=0.9,
    seed=0,
    epochs=2,
    window=(0.0, 0.6),
    validate=False,
)
CALIBRATION, BATCH = 256, 1000
SMALLER, SPARSE = tf.lite.Optimize.DEFAULT, tf.lite.Optimize.EXPERIMENTAL_SPARSITY
# Name: the optimizations, and whether images calibrate them.
CONVERSIONS = {
    "TFLite, float32": ([], False),
    "TFLite, float32, sparse": ([SPARSE], False),
    "TFLite, dynamic range": ([SMALLER], False),
    "TFLite, dynamic range, sparse": ([SMALLER, SPARSE], False),
    "TFLite, int8": ([SMALLER], True),
    "TFLite, int8, sparse": ([SMALLER, SPARSE], True),
}
# Name: the format of kprune, given images to calibrate on.
FORMATS = {
    "SavedModel, lossless": lambda rows: kprune.SavedModel(packed="lossless"),
    "SavedModel, fp16": lambda rows: kprune.SavedModel(packed="fp16"),
    "TFLite, float32": lambda rows: kprune.TFLite(),
    "TFLite, dynamic range": lambda rows: kprune.TFLite("dynamic_range"),
    "TFLite, int8": lambda rows: kprune.TFLite("int8", representative_data=rows),
    "archive (.kpz)": lambda rows: kprune.Archive(),
}


class Way(typing.NamedTuple):
    """A way to write a model, and to compute with the file.

    Args:
        write: Function of a folder that returns the path of what it wrote.
        load: Function of that path that returns one of images, which gives logits.
    """

    write: callable
    load: callable


def files(rounds, record):
    """Prints sizes, accuracies and times of the files of one model."""
    x, y, *test = load(RUN)
    model = trained(RUN, x, y)
    _, tf_keras, _ = settle_frameworks()
    same = network(RUN, tf_keras)
    same.set_weights(model.get_weights())
    ways = _of_tfmot(same, tf_keras, x[:CALIBRATION]) | _of_kprune(model, x)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_rows(ways, pathlib.Path(folder), test, rounds))
    publish(
        "Against TFMOT: files",
        ["library", "format", "bytes", "gzipped", "accuracy", "s"],
        rows,
        f"One model with the same weights in Keras 3 and in tf_keras: {RUN.network} "
        f"trained on {RUN.data}, {RUN.sparsity:.0%} of its kernels zero. TFMOT's files "
        "are those of its guide: strip, save or convert, gzip; its SavedModel is that "
        "of `model.export`, without what training needs; sparse is "
        "`tf.lite.Optimize.EXPERIMENTAL_SPARSITY`. Accuracy on the 10,000 test images, "
        f"each file in its runtime. Seconds to write, median of {rounds} rounds, all "
        "in turns; those of `kprune.export` include that the file is loaded and "
        f"compared with the model. int8 is calibrated on {CALIBRATION} images.",
        record,
    )
    return []


def _of_tfmot(model, tf_keras, rows):
    ways = {
        "HDF5 (.h5)": _saved(model, tf_keras, "model.h5"),
        "Keras (.keras)": _saved(model, tf_keras, "model.keras"),
        "SavedModel": _served(model),
    }
    for name, (optimizations, calibrated) in CONVERSIONS.items():
        given = rows if calibrated else None
        ways[name] = _converted(model, optimizations, given)
    return {f"TFMOT: {name}": way for name, way in ways.items()}


def _of_kprune(model, images):
    ways = {"Keras (.keras)": _saved(model, keras, "model.keras")}
    for name, make in FORMATS.items():
        ways[name] = _exported(model, make(images[:CALIBRATION]))
    return {f"kprune: {name}": way for name, way in ways.items()}


def _saved(model, k, name):
    def write(folder):
        model.save(folder / name)
        return folder / name

    def read(path):
        loaded = k.models.load_model(path, compile=False)
        return lambda x: loaded.predict(x, batch_size=BATCH, verbose=0)

    return Way(write, read)


def _served(model):
    """Writes a SavedModel that only computes, the smallest that tf_keras writes."""

    def write(folder):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it wrote
            model.export(str(folder / "model"))
        return folder / "model"

    def read(path):
        loaded = tf.saved_model.load(str(path))
        return lambda x: np.asarray(loaded.serve(tf.constant(x, "float32")))

    return Way(write, read)


def _converted(model, optimizations, rows):
    def write(folder):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = optimizations
        if rows is not None:
            converter.representative_dataset = lambda: ([row[None]] for row in rows)
        path = folder / "model.tflite"
        path.write_bytes(converter.convert())
        return path

    return Way(write, _reader(interpreter.load, model.input_names[0]))


def _exported(model, format):
    def write(folder):
        return kprune.export(model, folder / "out", format).records[0].path

    return Way(write, _reader(format.load, model.inputs[0].name))


def _reader(load_file, name):
    """Returns a `load` for files that are fed by name."""

    def read(path):
        run, _ = load_file(str(path))
        return lambda x: next(iter(run({name: x}).values()))

    return read


def _rows(ways, folder, test, rounds):
    """Yields a row for each way; what fails says so in the place of its accuracy."""
    writers = {}
    for number, (key, way) in enumerate(ways.items()):
        own = folder / str(number)
        own.mkdir()
        writers[key] = functools.partial(way.write, own)
    paths = {key: write() for key, write in writers.items()}
    times = interleaved(writers, rounds)
    for key, way in ways.items():
        path = paths[key]
        raw, gzipped, _ = file_sizes(str(path))
        yield [
            *key.split(": "),
            f"{raw:,}",
            f"{gzipped:,}",
            _accuracy(way, path, *test),
            f"{np.median(times[key]):.2f}",
        ]


def _accuracy(way, path, x, y):
    try:
        compute = way.load(path)
        pieces = np.split(x, range(BATCH, len(x), BATCH))
        logits = np.concatenate([compute(piece) for piece in pieces])
    except (RuntimeError, ValueError) as error:
        return f"does not run: {str(error).partition('Node')[0].strip()}"
    if not np.isfinite(logits).all():
        return "NaN"
    return f"{np.mean(logits.argmax(-1) == y):.2%}"
