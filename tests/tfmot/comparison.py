"""Runs that TFMOT and kprune go through alike, and what they leave behind.

Nothing in here knows which of the two it works with: `train` gets the modules
`keras` and `tfmot`, so that the code of TFMOT's users is what both of them run.
"""

import dataclasses
import enum
import inspect

import numpy as np

BATCH = 4
BATCHES = 7
SCHEDULES = {
    "constant": (
        "ConstantSparsity",
        {"target_sparsity": 0.7, "begin_step": 0, "end_step": -1, "frequency": 3},
    ),
    "polynomial": (
        "PolynomialDecay",
        {
            "initial_sparsity": 0.25,
            "final_sparsity": 0.8,
            "begin_step": 2,
            "end_step": 6,
            "frequency": 2,
        },
    ),
    "to a half": (
        "PolynomialDecay",
        {
            "initial_sparsity": 0.3125,
            "final_sparsity": 0.5625,
            "begin_step": 1,
            "end_step": 3,
            "power": 1,
            "frequency": 1,
        },
    ),
    "linear, off the grid": (
        "PolynomialDecay",
        {
            "initial_sparsity": 0.1,
            "final_sparsity": 0.9,
            "begin_step": 1,
            "end_step": 6,
            "power": 1,
            "frequency": 3,
        },
    ),
}


def schedule(tfmot, name):
    """Makes one of the schedules above."""
    kind, arguments = SCHEDULES[name]
    return getattr(tfmot.sparsity.keras, kind)(**arguments)


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run of seven batches.

    Attributes:
        network: Function of the module `keras` that makes a model.
        schedule: Name of a schedule.
        steps: Numbers of the batches, from 1, in which masks change.
        options: Further arguments of `prune_low_magnitude`.
    """

    network: object
    schedule: str
    steps: tuple
    options: dict = dataclasses.field(default_factory=dict)


def dense(keras):
    """Makes a model with kernels of 8 x 12 and 12 x 8."""
    inputs = keras.Input((8,))
    x = keras.layers.Dense(12, activation="tanh")(inputs)
    return keras.Model(inputs, keras.layers.Dense(8)(x))


def narrow(keras):
    """Makes a model with kernels of 8 x 1 and 1 x 8."""
    inputs = keras.Input((8,))
    x = keras.layers.Dense(1, activation="tanh")(inputs)
    return keras.Model(inputs, keras.layers.Dense(8)(x))


def convolutional(keras):
    """Makes a model with kernels of 3 x 3 x 4 x 6 and 96 x 8."""
    inputs = keras.Input((6, 6, 4))
    x = keras.layers.Conv2D(6, 3, activation="tanh")(inputs)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(8)(x))


def attentive(keras):
    """Makes a model with attention, of four kernels of 48, and one of 30 x 8."""
    inputs = keras.Input((5, 6))
    x = keras.layers.MultiHeadAttention(2, 4)(inputs, inputs)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(8)(x))


RUNS = {
    "element, constant": Run(dense, "constant", (3,)),
    "element, polynomial": Run(dense, "polynomial", (2, 4, 6)),
    "element, off the grid": Run(dense, "linear, off the grid", (1, 4)),
    "convolution, polynomial": Run(convolutional, "polynomial", (2, 4, 6)),
    "attention, polynomial": Run(attentive, "polynomial", (2, 4, 6)),
    "block 2 x 2, mean": Run(dense, "polynomial", (2, 4, 6), {"block_size": (2, 2)}),
    "block 4 x 1, largest": Run(
        dense,
        "polynomial",
        (2, 4, 6),
        {"block_size": [4, 1], "block_pooling_type": "MAX"},
    ),
    "block 1 x 4, constant": Run(dense, "constant", (3,), {"block_size": (1, 4)}),
    # Of 8 weights 5.5, 4.5 and 3.5 stay, of 24 blocks 16.5, 13.5 and 10.5: TFMOT
    # rounds to even numbers.
    "weights and a half": Run(narrow, "to a half", (1, 2)),
    "blocks and a half": Run(
        dense,
        "to a half",
        (1, 2, 3),
        {"block_size": (2, 2), "block_pooling_type": "MAX"},
    ),
    "2 of 4": Run(dense, "polynomial", (1,), {"sparsity_m_by_n": (2, 4)}),
    "1 of 4, convolution": Run(
        convolutional, "constant", (1,), {"sparsity_m_by_n": [1, 4]}
    ),
}


def initial_weights(model):
    """Returns weights of which no two have the same magnitude."""
    random = np.random.default_rng(3)
    weights = []
    for weight in model.get_weights():
        magnitudes = random.permutation(np.linspace(0.01, 0.6, weight.size))
        signs = random.choice([-1.0, 1.0], weight.size)
        weights.append((signs * magnitudes).reshape(weight.shape).astype("float32"))
    return weights


def train(keras, tfmot, run, masks_of, **timing):
    """Trains a model and notes its masks and kernels after each batch.

    Args:
        keras: The module `keras`, or `tf_keras`.
        tfmot: TFMOT, or `kprune.tfmot`.
        run: `Run`.
        masks_of: Function from a model to its masks and kernels, two lists of arrays.
        **timing: Passed to `UpdatePruningStep`.

    Returns:
        List with the masks and kernels of each batch.
    """
    api = tfmot.sparsity.keras
    model = run.network(keras)
    model.set_weights(initial_weights(model))
    x = np.random.default_rng(4).normal(size=(BATCHES * BATCH, *model.input_shape[1:]))
    model = api.prune_low_magnitude(
        model, pruning_schedule=schedule(tfmot, run.schedule), **run.options
    )
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(masks_of(model))
    )
    model.fit(
        x.astype("float32"),
        np.tanh(x.reshape(len(x), -1)[:, :8]).astype("float32"),
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        callbacks=[api.UpdatePruningStep(**timing), note],
    )
    return seen


def parameters(function):
    """Maps the names of what a function takes to their defaults."""
    return {
        parameter.name: _plain(parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _plain(default):
    """Returns a default so that those of TFMOT and kprune can be compared."""
    if default is inspect.Parameter.empty:
        return "required"
    if hasattr(default, "get_config"):
        return default.get_config()["config"]
    return default.name if isinstance(default, enum.Enum) else default
