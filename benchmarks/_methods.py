"""The networks, methods and single runs of `methods.py` and `versus_tfmot.py`."""

import dataclasses
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from _harness import settle_frameworks
from _networks import perceptron, resnet_8, small_cnn

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


# The function that builds each, given keras or tf_keras.
NETWORKS = {
    "lenet_300_100": lambda k: perceptron(k, 300, 100, shape=(28, 28, 1)),
    "small_cnn": lambda k: small_cnn(k, 64),
    "resnet_8": resnet_8,
}


def rising(run, steps):
    """Returns the polynomial schedule that most methods share."""
    begin, end, frequency = window_of(run, steps)
    return kprune.PolynomialSchedule(run.sparsity, begin, end, frequency=frequency)


def window_of(run, steps):
    """Returns the first and the last step of pruning, and the steps between updates."""
    begin, end = (int(part * steps) for part in run.window)
    return begin, end, max(1, (end - begin) // UPDATES)


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


def load(run, images=None):
    """Returns training and test images with labels, as floats in [0, 1].

    Args:
        run: A `Run`.
        images: Int, how many of the training images. Defaults to all.
    """
    data = datasets.load(run.data)
    x, y = data.x_train.astype("float32"), data.y_train
    test = data.x_test.astype("float32"), data.y_test
    if run.validate:
        test = x[-HELD_OUT:], y[-HELD_OUT:]
        x, y = x[:-HELD_OUT], y[:-HELD_OUT]
    return x[:images], y[:images], *test


def accuracy_of(run, images=None):
    """Trains once, and returns the accuracy on the test images, in percent.

    Args:
        run: A `Run`.
        images: Int, how many training images there are. Defaults to all.

    Returns:
        Pair of floats: accuracy in percent, and the sparsity of all kernels.
    """
    x, y, *test = load(run, images)
    return _evaluate(trained(run, x, y), test)


def trained(run, x, y):
    """Trains a network, and returns it stripped.

    The one thing that differs between two runs of a network is the method: all
    start from the same weights, see the same batches in the same order, and have
    the same optimizer.

    Args:
        run: A `Run`; its method `"TFMOT"` is that of tf_keras.
        x: float32 array of images.
        y: Int array of labels.

    Returns:
        A Keras 3 model, or one of tf_keras.
    """
    steps = run.epochs * (len(x) // BATCH)
    prepared = _for_tfmot if run.method == "TFMOT" else _for_kprune
    framework, model, callbacks, strip = prepared(run, (x, y), steps)
    _compile(model, framework, steps)
    data = _batches(x, y, run)
    model.fit(data, epochs=run.epochs, verbose=0, callbacks=callbacks)
    return strip(model) if callbacks else model


def _for_kprune(run, train, steps):
    """Returns Keras, the model, what it trains with, and what strips it."""
    model = network(run, keras)
    if not run.sparsity:
        return keras, model, [], None
    schedule, options = METHODS[run.method]
    callback = kprune.PruningCallback(
        schedule(run, steps), calibration_data=_few(*train), **options(run)
    )
    return keras, kprune.prune(model), [callback], kprune.strip


def _for_tfmot(run, train, steps):
    """Returns the same four for tf_keras."""
    _, tf_keras, tfmot = settle_frameworks()
    pruning = tfmot.sparsity.keras
    model = network(run, tf_keras)
    if not run.sparsity:
        return tf_keras, model, [], None
    begin, end, frequency = window_of(run, steps)
    schedule = pruning.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=run.sparsity,
        begin_step=begin,
        end_step=end,
        frequency=frequency,
    )
    model = pruning.prune_low_magnitude(model, schedule)
    return tf_keras, model, [pruning.UpdatePruningStep()], pruning.strip_pruning


def network(run, framework):
    """Builds the network with weights that depend on the seed alone."""
    rng = np.random.default_rng(run.seed)
    model = NETWORKS[run.network](framework)
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


def mean_and_deviation(results, data, network, method, sparsity):
    """Returns the mean accuracy over the seeds, and its deviation between them.

    Args:
        results: Dict from `Run` to a pair of accuracy and sparsity.
        data: String, a field of the runs that are meant, as the others are.
        network: String.
        method: String.
        sparsity: Float.
    """
    wanted = data, network, method, sparsity
    found = [
        accuracy
        for run, (accuracy, _) in results.items()
        if (run.data, run.network, run.method, run.sparsity) == wanted
    ]
    return np.mean(found), np.std(found, ddof=len(found) > 1)


def shown(mean, deviation):
    """Returns both as they stand in a table."""
    return f"{mean:.2f} ± {deviation:.2f}"
