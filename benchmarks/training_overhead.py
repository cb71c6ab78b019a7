"""What does pruning cost while a model trains?

Compares plain Keras 3 `fit` with kprune's, and plain tf_keras `fit` with TFMOT's,
all four in turns in one process, on random data. Then how much the variables of
the model grow, and what `import kprune` adds to `import keras`.

    python benchmarks/training_overhead.py [--record] [--only lenet_300_100 ...]
"""

import os
import subprocess
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from _harness import (
    interleaved,
    milliseconds,
    publish,
    ratio,
    read_options,
    settle_frameworks,
)

keras, tf_keras, tfmot = settle_frameworks()

import kprune  # noqa: E402

FRAMEWORKS = ("Keras 3", "kprune", "tf_keras", "TFMOT")


def perceptron(k, *widths):
    inputs = k.Input((784,))
    x = inputs
    for width in widths:
        x = k.layers.Dense(width, activation="relu")(x)
    return k.Model(inputs, k.layers.Dense(10, activation="softmax")(x))


def small_cnn(k):
    inputs = k.Input((28, 28, 1))
    x = inputs
    for filters in (16, 32):
        x = k.layers.Conv2D(filters, 3, activation="relu")(x)
        x = k.layers.MaxPooling2D()(x)
    x = k.layers.Flatten()(x)
    return k.Model(inputs, k.layers.Dense(10, activation="softmax")(x))


def resnet_20(k):
    def normalized(x, filters, strides=1, size=3):
        x = k.layers.Conv2D(
            filters, size, strides=strides, padding="same", use_bias=False
        )(x)
        return k.layers.BatchNormalization()(x)

    inputs = k.Input((32, 32, 3))
    x = k.layers.Activation("relu")(normalized(inputs, 16))
    for filters in (16, 32, 64):
        for block in range(3):
            strides = 2 if filters > 16 and block == 0 else 1
            y = k.layers.Activation("relu")(normalized(x, filters, strides))
            y = normalized(y, filters)
            if strides == 2:
                x = normalized(x, filters, strides, size=1)
            x = k.layers.Activation("relu")(k.layers.Add()([x, y]))
    x = k.layers.GlobalAveragePooling2D()(x)
    return k.Model(inputs, k.layers.Dense(10, activation="softmax")(x))


# Name: model, batch size, steps a round and rounds for frequency 100 and for 1.
CASES = {
    "lenet_300_100": (lambda k: perceptron(k, 300, 100), 128, (300, 15), (300, 9)),
    "small_cnn_28x28": (small_cnn, 128, (200, 9), (100, 5)),
    "resnet_20_32x32": (resnet_20, 64, (100, 3), (20, 3)),
    "mlp_2048_2048": (lambda k: perceptron(k, 2048, 2048), 128, (100, 7), (5, 3)),
}


def subjects(make, batch, frequency, steps, rounds):
    """Returns a function for each framework that trains for one round."""
    window = {"begin_step": 0, "end_step": (rounds + 2) * steps, "frequency": frequency}
    decay = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, **window)
    callbacks = {
        "kprune": lambda: kprune.PruningCallback(
            kprune.PolynomialSchedule(0.8, **window)
        ),
        "TFMOT": tfmot.sparsity.keras.UpdatePruningStep,
    }
    models = {
        "Keras 3": make(keras),
        "kprune": kprune.prune(make(keras)),
        "tf_keras": make(tf_keras),
        "TFMOT": tfmot.sparsity.keras.prune_low_magnitude(make(tf_keras), decay),
    }
    shape = models["Keras 3"].input_shape[1:]
    rng = np.random.default_rng(0)
    x = rng.random((steps * batch, *shape), dtype="float32")
    y = rng.integers(0, 10, steps * batch)

    def trained(name):
        model = models[name]
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

        def fit(count=steps):
            model.fit(
                x[: count * batch],
                y[: count * batch],
                batch_size=batch,
                verbose=0,
                callbacks=[callbacks[name]()] if name in callbacks else None,
            )

        fit(min(steps, 20))  # Traces.
        return fit

    return {name: trained(name) for name in FRAMEWORKS}


def overhead(names, record):
    for name in names:
        make, batch, *plans = CASES[name]
        rows = []
        for frequency, (steps, rounds) in zip((100, 1), plans, strict=True):
            fits = subjects(make, batch, frequency, steps, rounds)
            times = interleaved(fits, rounds)
            rows.append(
                [
                    str(frequency),
                    milliseconds(times["Keras 3"] / steps),
                    ratio(times["kprune"], times["Keras 3"]),
                    milliseconds(times["tf_keras"] / steps),
                    ratio(times["TFMOT"], times["tf_keras"]),
                    f"{rounds} x {steps}",
                ]
            )
            keras.utils.clear_session(free_memory=True)
        publish(
            f"Training overhead, {name} at batch size {batch}",
            [
                "frequency",
                "Keras 3, ms a step",
                "kprune against Keras 3",
                "tf_keras, ms a step",
                "TFMOT against tf_keras",
                "rounds x steps",
            ],
            rows,
            "Wall time of `fit` with Adam, in graph mode, with callback, logs and "
            "clock; all four in turns. Ratios are medians over rounds, in brackets "
            "the quartiles. Masks are updated every `frequency` steps, sparsity rises "
            "towards 0.8.",
            record,
        )


def growth(names, record):
    def size(model):
        return sum(int(np.prod(v.shape)) * _bytes(v) for v in model.variables)

    rows = []
    for name in names:
        make = CASES[name][0]
        dense, legacy = make(keras), make(tf_keras)
        pruned = kprune.prune(dense)
        wrapped = tfmot.sparsity.keras.prune_low_magnitude(legacy)
        rows.append(
            [
                name,
                f"{size(dense) / 1e6:.3f}",
                f"{size(pruned) / size(dense):.3f}x",
                f"{size(wrapped) / size(legacy):.3f}x",
            ]
        )
    publish(
        "Growth of a model's variables",
        ["model", "dense, MB", "kprune", "TFMOT"],
        rows,
        "Bytes of all variables of the model, the optimizer's not counted.",
        record,
    )


def _bytes(variable):
    dtype = variable.dtype
    return np.dtype(getattr(dtype, "as_numpy_dtype", dtype)).itemsize


IMPORTS = """
import time
begin = time.perf_counter()
import keras
middle = time.perf_counter()
import kprune
print(middle - begin, time.perf_counter() - middle)
"""


def import_time(rounds, record):
    runs = [
        subprocess.run(
            [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(rounds + 1)
    ]
    first, second = np.array(runs[1:], float).T
    publish(
        "Import time",
        ["import keras, s", "import kprune on top, s"],
        [[f"{np.median(first):.2f}", f"{np.median(second):.2f}"]],
        f"Median of {rounds} fresh processes.",
        record,
    )


def main():
    only = {"nargs": "+", "choices": CASES, "default": list(CASES)}
    arguments = read_options(__doc__, only=only)
    keras.utils.set_random_seed(0)
    # Every round is one fit, and ends before the schedule does: kprune says so.
    warnings.filterwarnings("ignore", message="The run is too short")
    warnings.filterwarnings("ignore", message="Training ended at step")
    import_time(5, arguments.record)
    growth(arguments.only, arguments.record)
    overhead(arguments.only, arguments.record)


if __name__ == "__main__":
    main()
