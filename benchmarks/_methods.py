"""The networks, methods and single runs that `methods.py` compares."""

import dataclasses
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from _harness import settle_frameworks

import kprune
from kprune import datasets

BATCH, LEARNING_RATE, UPDATES = 128, 2e-3, 30
HELD_OUT, CALIBRATION = 10_000, 512


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of one network with one method; the key of its result.

    Args:
        data: String, a data set of `kprune.datasets`.
        network: String, a key of `NETWORKS`.
        method: String, a key of `METHODS`, or `"dense"`.
        sparsity: Float, asked for.
        seed: Int.
        epochs: Int.
        window: Pair of floats, the parts of the run at which sparsity begins to
            rise and reaches its target.
        validate: Bool, whether to test on held-out training images.
    """

    data: str
    network: str
    method: str
    sparsity: float
    seed: int
    epochs: int
    window: tuple
    validate: bool


def lenet_300_100(layers):
    """Returns the layers of LeNet-300-100, of Keras 3 or of tf_keras."""
    return [
        layers.Flatten(),
        layers.Dense(300, activation="relu"),
        layers.Dense(100, activation="relu"),
        layers.Dense(10),
    ]


def small_cnn(layers):
    """Returns the layers of a small convolutional network."""
    return [
        layers.Conv2D(16, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10),
    ]


NETWORKS = {"lenet_300_100": lenet_300_100, "small_cnn": small_cnn}


def rising(run, steps):
    """Returns the polynomial schedule that most methods share."""
    begin, end = (int(part * steps) for part in run.window)
    frequency = max(1, (end - begin) // UPDATES)
    return kprune.PolynomialSchedule(run.sparsity, begin, end, frequency=frequency)


def at_once(run, steps):
    """Returns the schedule of methods that prune before they train."""
    return kprune.ConstantSchedule(run.sparsity)


METHODS = {
    "random": (rising, lambda run: {"criterion": kprune.Random(run.seed)}),
    "magnitude, layer-wise": (rising, lambda run: {}),
    "magnitude, global": (rising, lambda run: {"scope": "global"}),
    "magnitude, ERK": (rising, lambda run: {"scope": "erk"}),
    "LAMP, global": (
        rising,
        lambda run: {"criterion": "layer_adaptive", "scope": "global"},
    ),
    "Taylor, global": (rising, lambda run: {"criterion": "taylor", "scope": "global"}),
    "SNIP": (at_once, lambda run: {"criterion": "snip", "scope": "global"}),
    "movement, global": (
        rising,
        lambda run: {"criterion": "movement", "scope": "global"},
    ),
    "RigL": (
        at_once,
        lambda run: {
            "criterion": "magnitude",
            "scope": "erk",
            "regrowth": kprune.RigL(0.3),
        },
    ),
    "Dynamic Network Surgery": (
        rising,
        lambda run: {
            "scope": "global",
            "regrowth": kprune.DynamicNetworkSurgery(frequency=16),
        },
    ),
}


def load(run):
    """Returns training and test images with labels, as floats in [0, 1]."""
    data = datasets.load(run.data)
    x, y = data.x_train.astype("float32"), data.y_train
    if run.validate:
        return x[:-HELD_OUT], y[:-HELD_OUT], x[-HELD_OUT:], y[-HELD_OUT:]
    return x, y, data.x_test.astype("float32"), data.y_test


def accuracy_of(run):
    """Trains once, and returns the accuracy on the test images, in percent.

    The one thing that differs between two runs of a network is the method: all
    start from the same weights, see the same batches in the same order, and have
    the same optimizer.

    Args:
        run: A `Run`.

    Returns:
        Pair of floats: accuracy in percent, and the sparsity of all kernels.
    """
    x, y, *test = load(run)
    steps = run.epochs * (len(x) // BATCH)
    train = _with_tfmot if run.method == "TFMOT" else _with_kprune
    return train(run, (x, y), test, steps)


def _with_kprune(run, train, test, steps):
    model = _network(run, keras)
    callbacks = []
    if run.method != "dense":
        schedule, options = METHODS[run.method]
        model = kprune.prune(model)
        callback = kprune.PruningCallback(
            schedule(run, steps), calibration_data=_few(*train), **options(run)
        )
        callbacks = [callback]
    _compile(model, keras, steps)
    model.fit(_batches(*train, run), epochs=run.epochs, verbose=0, callbacks=callbacks)
    return _evaluate(kprune.strip(model) if callbacks else model, test)


def _with_tfmot(run, train, test, steps):
    _, tf_keras, tfmot = settle_frameworks()
    pruning = tfmot.sparsity.keras
    begin, end = (int(part * steps) for part in run.window)
    schedule = pruning.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=run.sparsity,
        begin_step=begin,
        end_step=end,
        frequency=max(1, (end - begin) // UPDATES),
    )
    model = pruning.prune_low_magnitude(_network(run, tf_keras), schedule)
    _compile(model, tf_keras, steps)
    model.fit(
        _batches(*train, run),
        epochs=run.epochs,
        verbose=0,
        callbacks=[pruning.UpdatePruningStep()],
    )
    return _evaluate(pruning.strip_pruning(model), test)


def _network(run, framework):
    """Builds the network with weights that depend on the seed alone."""
    shape = (28, 28, 1)
    rng = np.random.default_rng(run.seed)
    body = NETWORKS[run.network](framework.layers)
    model = framework.Sequential([framework.layers.InputLayer(shape), *body])
    for weight in model.trainable_variables:
        if len(weight.shape) > 1:  # Glorot's uniform distribution, as Keras' own
            field = int(np.prod(weight.shape[:-2]))
            limit = (6 / (field * (weight.shape[-2] + weight.shape[-1]))) ** 0.5
            weight.assign(rng.uniform(-limit, limit, weight.shape).astype("float32"))
    return model


def _compile(model, framework, steps):
    decay = framework.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(
        framework.optimizers.Adam(decay),
        framework.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def _batches(x, y, run):
    data = tf.data.Dataset.from_tensor_slices((x, y))
    data = data.shuffle(len(x), seed=run.seed, reshuffle_each_iteration=True)
    return data.batch(BATCH, drop_remainder=True).prefetch(2)


def _few(x, y):
    return x[:CALIBRATION], y[:CALIBRATION]


def _evaluate(model, test):
    kernels = [w for w in model.get_weights() if w.ndim > 1]
    zeros = sum(np.count_nonzero(kernel == 0) for kernel in kernels)
    logits = model.predict(test[0], batch_size=1000, verbose=0)
    accuracy = 100 * float(np.mean(logits.argmax(-1) == test[1]))
    return accuracy, zeros / sum(kernel.size for kernel in kernels)
