"""The whole job on real data: train, prune, strip, export, compare."""

import dataclasses
import functools
import os
import pathlib
import tempfile
import typing

import keras
import numpy as np
import rich.console
import rich.progress
import rich.table

from kprune import datasets
from kprune.callbacks import PruningCallback
from kprune.export import ExportReport, SavedModel, TFLite, export
from kprune.export.staging import check_target
from kprune.report.plots import plot_history, plot_layer_sparsity
from kprune.report.summary import summary
from kprune.surgery import prune, strip


class _Plan(typing.NamedTuple):
    filters: int
    batch_size: int
    epochs: int


# Sized for two cores: well under a minute for the digits, minutes for the others.
_PLANS = {
    "digits": _Plan(filters=64, batch_size=32, epochs=30),
    "mnist": _Plan(filters=32, batch_size=128, epochs=4),
    "fashion_mnist": _Plan(filters=32, batch_size=128, epochs=5),
    "cifar10": _Plan(filters=32, batch_size=128, epochs=10),
}
_NOTE = (
    "Both files leave the zeros out, which is what makes them smaller; gzip, as for a "
    "download, makes the dense ones little smaller. Neither file runs faster for its "
    "zeros. The pruned model was trained on from the dense one, for as many epochs "
    "again."
)


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """What the demo measured.

    Args:
        dense_accuracy: Float in [0, 1], of the dense model on the test data.
        pruned_accuracy: Like `dense_accuracy`, of the pruned and stripped model.
        dense_export: `ExportReport` of the dense model, whose files are gone.
        pruned_export: `ExportReport` of the pruned model, with nonzero weights and
            the sizes of the files.
        history: Dict of lists, one value an epoch, over both parts of training.
        out: `pathlib.Path`, the folder with the models and the plots.
    """

    dense_accuracy: float
    pruned_accuracy: float
    dense_export: ExportReport
    pruned_export: ExportReport
    history: dict
    out: pathlib.Path


def run_demo(dataset="digits", sparsity=0.9, *, epochs=None, out="kprune-demo", seed=0):
    """Trains a small CNN, prunes it while training on, and exports both.

    It shows on real data what pruning costs in accuracy and saves in bytes, and
    prints it as a table. With `"digits"` it needs no network and less than a
    minute.

    Args:
        dataset: String, one of `kprune.datasets.names()`.
        sparsity: Float in [0, 1), the fraction of zeros to reach.
        epochs: Int, epochs of dense training, and again of training with pruning;
            by default a number that suits the data set.
        out: String or path, the folder for `saved_model/`, `model.tflite`,
            `sparsity_and_accuracy.png` and `layer_sparsity.png`. An earlier
            export in it is replaced.
        seed: Int, seeds the weights and the order of the data.

    Returns:
        A `DemoResult`.

    Raises:
        ValueError: If the data set is unknown, or the sparsity or the number of
            epochs is out of range.
        OSError: If the data cannot be had, or `out` holds something else.
    """
    pruning = PruningCallback(sparsity)
    data = datasets.load(dataset)
    plan = _PLANS[dataset]
    if epochs is not None:
        plan = plan._replace(epochs=epochs)
    if plan.epochs < 1:
        raise ValueError(f"The demo got epochs={epochs}. Pass 1 or more.")
    check_target(os.fspath(out), [SavedModel.file, TFLite.file])
    console = rich.console.Console()
    keras.utils.set_random_seed(seed)

    dense = _small_cnn(data, plan.filters)
    history = _fit(dense, data, plan, "dense", console)
    pruned = prune(dense)
    then = _fit(pruned, data, plan, "pruning", console, pruning)
    layers = summary(pruned, print_fn=None)
    pruned = strip(pruned)

    with tempfile.TemporaryDirectory() as folder:
        dense_export = export(dense, pathlib.Path(folder, "dense"))
    result = DemoResult(
        dense_accuracy=_accuracy(dense, data),
        pruned_accuracy=_accuracy(pruned, data),
        dense_export=dense_export,
        pruned_export=export(pruned, out),
        history=_joined(history, then),
        out=pathlib.Path(out),
    )
    plot_history(result.history, result.out / "sparsity_and_accuracy.png")
    plot_layer_sparsity(layers, result.out / "layer_sparsity.png")
    _print(result, console)
    return result


def _small_cnn(data, filters):
    layers = keras.layers
    convolution = functools.partial(
        layers.Conv2D, kernel_size=3, padding="same", activation="relu"
    )
    return keras.Sequential(
        [
            keras.Input(data.x_train.shape[1:]),
            convolution(filters, name="convolution_1"),
            layers.MaxPooling2D(),
            convolution(2 * filters, name="convolution_2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(128, activation="relu", name="hidden"),
            layers.Dense(len(data.classes), activation="softmax", name="classes"),
        ],
        name="small_cnn",
    )


def _fit(model, data, plan, label, console, *callbacks):
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    with rich.progress.Progress(console=console) as progress:
        return model.fit(
            data.x_train,
            data.y_train,
            batch_size=plan.batch_size,
            epochs=plan.epochs,
            validation_split=0.1,
            callbacks=[*callbacks, _ProgressBar(progress, label)],
            verbose=0,
        ).history


class _ProgressBar(keras.callbacks.Callback):
    """Shows the batches of a `fit` as one bar, with the last epoch's numbers."""

    def __init__(self, progress, label):
        super().__init__()
        self.progress = progress
        self.label = label

    def on_train_begin(self, logs=None):
        total = self.params["epochs"] * self.params["steps"]
        self.task = self.progress.add_task(self.label, total=total)

    def on_train_batch_end(self, batch, logs=None):
        self.progress.advance(self.task)

    def on_epoch_end(self, epoch, logs=None):
        shown = {k: logs[k] for k in ("val_accuracy", "sparsity") if k in logs}
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
        self.progress.update(self.task, description=f"{self.label}: {numbers}")


def _joined(dense, pruned):
    dense = {**dense, "sparsity": [0.0] * len(dense["accuracy"])}
    return {name: dense[name] + pruned[name] for name in dense}


def _accuracy(model, data):
    scores = model.predict(data.x_test, batch_size=512, verbose=0)
    return float(np.mean(scores.argmax(-1) == data.y_test))


def _print(result, console):
    dense, pruned = result.dense_export, result.pruned_export
    table = rich.table.Table(title=f"{result.out}: dense and pruned")
    table.add_column("")
    table.add_column("dense", justify="right")
    table.add_column("pruned", justify="right")
    accuracies = result.dense_accuracy, result.pruned_accuracy
    table.add_row("test accuracy", *(f"{accuracy:.2%}" for accuracy in accuracies))
    _add_counts(table, "weights", dense.weights, pruned.weights)
    _add_counts(table, "nonzero weights", dense.nonzero_weights, pruned.nonzero_weights)
    for was, now in zip(dense.records, pruned.records, strict=True):
        _add_counts(table, f"{now.format}, bytes", was.bytes, now.bytes)
        _add_counts(table, f"{now.format}, gzipped", was.gzip_bytes, now.gzip_bytes)
    console.print(table)
    console.print(_NOTE)
    console.print(f"Models and plots: {result.out}", soft_wrap=True)


def _add_counts(table, label, *counts):
    table.add_row(label, *(f"{count:,}" for count in counts))
