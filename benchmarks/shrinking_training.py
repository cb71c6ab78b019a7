"""How much faster is an epoch once channels are gone in the middle of training?

A ResNet-20 is trained on digits in phases; between two of them channels are removed,
and the optimizer goes on with what is left of its momentum. Afterwards an epoch of
each phase's model is timed, all in turns.

    python benchmarks/shrinking_training.py [--record] [--rounds 5] [--epochs 6]
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow 2.21's gradient of a 1x1 kernel with stride 2 writes past its memory at
# some widths (12 to 28 channels, 29 images of 32 x 32) where oneDNN computes it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np
from _harness import interleaved, publish, ratio, read_options
from _networks import resnet_20

import kprune
from kprune import datasets
from kprune.shrinking.costs import costs_of

PARTS = (1.0, 0.7, 0.5, 0.3)  # of the multiply-adds, by phase
BATCH = 64


def digits():
    """Returns training and test images of 32 x 32, each with their labels."""
    data = datasets.load("digits")
    large = np.ones((1, 4, 4, 1), "float32")
    return (
        (np.kron(data.x_train, large), data.y_train),
        (np.kron(data.x_test, large), data.y_test),
    )


def train_in_phases(train, test, epochs):
    """Trains, removes channels, trains on, and returns what each phase left.

    Returns:
        List of tuples: the model, the seconds that its shrinking took, and those of
        its first epoch, with the tracing of its step.
    """
    model = resnet_20(keras, train[0].shape[1:], activation="softmax")
    phases = []
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    whole = costs_of(model).macs
    for phase, part in enumerate(PARTS):
        begin = time.perf_counter()
        if phase:
            left = part * whole / costs_of(model).macs
            model = kprune.shrink(
                model, macs=left, scope="global", round_to=8, keep_optimizer=True
            )
        shrunk = time.perf_counter()
        first = phase * epochs
        fit(model, train, first, first + 1)
        ended = time.perf_counter()
        fit(model, train, first + 1, first + epochs)
        accuracy = model.evaluate(*test, verbose=0)[1]
        phases.append((model, shrunk - begin, ended - shrunk, accuracy))
    return phases


def fit(model, train, begin, end):
    model.fit(*train, BATCH, end, initial_epoch=begin, verbose=0)


def main():
    options = read_options(
        __doc__,
        rounds={"type": int, "default": 5},
        epochs={"type": int, "default": 6, "help": "epochs a phase"},
    )
    keras.utils.set_random_seed(0)
    train, test = digits()
    phases = train_in_phases(train, test, options.epochs)
    models = {str(phase): model for phase, (model, *_) in enumerate(phases)}
    times = interleaved(
        {name: lambda model=m: fit(model, train, 0, 1) for name, m in models.items()},
        options.rounds,
    )
    rows = []
    for (name, model), (_, shrinking, first, accuracy) in zip(
        models.items(), phases, strict=True
    ):
        costs = costs_of(model)
        rows.append(
            [
                name,
                f"{costs.parameters:,}",
                f"{costs.macs / 1e6:.1f}",
                f"{np.median(times[name]):.2f}",
                ratio(times["0"], times[name]),
                f"{shrinking:.1f}",
                f"{first:.1f}",
                f"{accuracy:.1%}",
            ]
        )
    publish(
        "Training in phases, channels removed between them",
        [
            "phase",
            "parameters",
            "multiply-adds, M",
            "epoch, s",
            "faster",
            "shrinking, s",
            "first epoch, s",
            "accuracy",
        ],
        rows,
        f"ResNet-20 on {len(train[0]):,} digits of 32 x 32, batches of {BATCH}, SGD "
        f"with momentum, {options.epochs} epochs a phase; between two phases "
        "`kprune.shrink(..., keep_optimizer=True)`. Epochs are timed in turns, "
        f"{options.rounds} times each; the first of a phase traces its step.",
        options.record,
    )


if __name__ == "__main__":
    main()
