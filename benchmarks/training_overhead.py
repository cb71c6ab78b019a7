"""What does pruning cost while a model trains?

Compares plain Keras 3 `fit` with kprune's, and plain tf_keras `fit` with TFMOT's,
all four in turns in one process, on random data. Then how much the variables of
the model grow, and what `import kprune` adds to `import keras`.

    python benchmarks/training_overhead.py [--record] [--only lenet_300_100 ...]
"""

import functools
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
from _networks import perceptron, resnet_20, small_cnn

keras, tf_keras, tfmot = settle_frameworks()

import kprune  # noqa: E402

FRAMEWORKS = ("Keras 3", "kprune", "tf_keras", "TFMOT")


SOFTMAX = {"activation": "softmax"}
# Name: model, batch size, steps a round and rounds for frequency 100 and for 1.
CASES = {
    "lenet_300_100": (
        lambda k: perceptron(k, 300, 100, **SOFTMAX),
        128,
        (300, 15),
        (300, 9),
    ),
    "small_cnn_28x28": (lambda k: small_cnn(k, **SOFTMAX), 128, (200, 9), (100, 5)),
    "resnet_20_32x32": (lambda k: resnet_20(k, **SOFTMAX), 64, (100, 3), (20, 3)),
    "mlp_2048_2048": (
        lambda k: perceptron(k, 2048, 2048, **SOFTMAX),
        128,
        (100, 7),
        (5, 3),
    ),
}


def subjects(make, batch, frequency, steps, rounds):
    """Returns a function for each framework that trains for one round."""
    window = {"begin_step": 0, "end_step": (rounds + 2) * steps, "frequency": frequency}
    models = {name: built(name, make, window) for name in FRAMEWORKS}
    data = examples(models["Keras 3"][0], steps * batch)
    fits = {name: trainer(*pair, batch, data) for name, pair in models.items()}
    for fit in fits.values():
        fit(min(steps, 20))  # Traces.
    return fits


def examples(model, count):
    """Returns random inputs of a model, and random labels."""
    rng = np.random.default_rng(0)
    shape = model.input_shape[1:]
    return rng.random((count, *shape), dtype="float32"), rng.integers(0, 10, count)


def trainer(model, callbacks, batch, data):
    """Returns a function that trains a model.

    Args:
        model: Model, from `built`.
        callbacks: Functions that make its callbacks.
        batch: Int.
        data: Pair of arrays, from `examples`.

    Returns:
        Function of a number of steps, which defaults to all that there are.
    """
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    def fit(steps=None):
        x, y = (part[: steps and steps * batch] for part in data)
        fresh = [make_callback() for make_callback in callbacks]
        model.fit(x, y, batch_size=batch, verbose=0, callbacks=fresh)

    return fit


def built(name, make, window):
    """Returns a framework's model, and functions that make what it trains with."""
    if name == "kprune":
        schedule = kprune.PolynomialSchedule(0.8, **window)
        callback = functools.partial(kprune.PruningCallback, schedule)
        return kprune.prune(make(keras)), [callback]
    if name == "TFMOT":
        pruning = tfmot.sparsity.keras
        schedule = pruning.PolynomialDecay(0.0, 0.8, **window)
        model = pruning.prune_low_magnitude(make(tf_keras), schedule)
        return model, [pruning.UpdatePruningStep]
    return make(tf_keras if name == "tf_keras" else keras), []


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
    rows = []
    for name in names:
        size = variables(CASES[name][0])
        rows.append(
            [
                name,
                f"{size['Keras 3'] / 1e6:.3f}",
                f"{size['kprune'] / size['Keras 3']:.3f}x",
                f"{size['TFMOT'] / size['tf_keras']:.3f}x",
            ]
        )
    publish(
        "Growth of a model's variables",
        ["model", "dense, MB", "kprune", "TFMOT"],
        rows,
        "Bytes of all variables of the model, the optimizer's not counted.",
        record,
    )


def variables(make):
    """Returns for each framework the bytes of all variables of its model."""
    window = {"begin_step": 0, "end_step": 1}
    return {name: bytes_of(built(name, make, window)[0]) for name in FRAMEWORKS}


def bytes_of(model):
    """Returns the bytes of all variables of a model, of Keras 3 or of tf_keras."""
    return sum(int(np.prod(v.shape)) * _bytes(v) for v in model.variables)


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
