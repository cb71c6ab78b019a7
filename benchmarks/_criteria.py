"""How long an update takes by each criterion, beside the passes that it needs."""

import itertools

import keras
import numpy as np
import tensorflow as tf
from _harness import interleaved, milliseconds, publish, ratio

import kprune

ROWS, BATCH = 128, 32
# What each reads of the data, and how often: batches, their Hessians, single rows.
CRITERIA = {
    "magnitude": [],
    "squared_magnitude": [],
    "layer_adaptive": [],
    "random": [],
    "gradient_magnitude": ["batches"],
    "taylor": ["batches"],
    "squared_taylor": ["batches"],
    "snip": ["batches"],
    "grasp": ["batches", "hessians"],
    "synflow": ["row"],
    "fisher": ["rows"],
}


def criteria(layers, width, rounds, record):
    """Prints the cost of an update by criterion, and of its passes alone."""
    model, data = _network(layers, width), _examples(width)
    passes = _passes(model, *data)
    rows = []
    for name, needed in CRITERIA.items():
        subjects = {"update": _update(model, name, data)}
        subjects |= {kind: passes[kind] for kind in needed}
        for subject in subjects.values():  # The first call traces.
            for part in subject if isinstance(subject, tuple) else (subject,):
                part()
        times = interleaved(subjects, rounds)
        alone = sum((times[kind] for kind in needed), np.zeros(rounds))
        row = [name, milliseconds(times["update"])]
        both = [milliseconds(alone), ratio(times["update"], alone)] if needed else None
        rows.append(row + (both or ["none", ""]))
    size = layers * width * width / 1e6
    publish(
        f"One mask update of {size:.0f} million weights by criterion",
        ["criterion", "ms, median", "its passes alone, ms", "update against passes"],
        rows,
        f"{layers} layers, layer-wise, {rounds} rounds in turns with the forward and "
        f"backward passes that a criterion needs: over {ROWS} examples in batches of "
        f"{BATCH}, for grasp a second one with the products of the Hessian, for fisher "
        "one for each example, for synflow one in all. Random takes none.",
        record,
    )


def _network(layers, width):
    parts = [
        keras.layers.Dense(
            width, "relu", use_bias=False, kernel_initializer="he_normal"
        )
        for _ in range(layers)
    ]
    model = kprune.prune(keras.Sequential([keras.Input((width,)), *parts]))
    model.compile("sgd", "mse")
    return model


def _examples(width):
    random = np.random.default_rng(0)
    return tuple(random.normal(size=(ROWS, width)).astype("float32") for _ in range(2))


def _update(model, criterion, data):
    schedule = kprune.PolynomialSchedule(0.9, begin_step=0, end_step=1000, frequency=1)
    kprune.set_clock(model, 0)
    pruner = kprune.Pruner(model, schedule, criterion=criterion, calibration_data=data)
    steps = itertools.count(1)
    return lambda: kprune.set_clock(model, next(steps)), pruner.step


def _passes(model, x, y):
    """Returns functions that run the passes and nothing else."""
    weights = model.trainable_variables

    def gradients(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=False) - y))
        return tape.gradient(loss, [w.value for w in weights])

    @tf.function
    def hessians(x, y, along):
        with tf.GradientTape() as tape:
            found = gradients(x, y)
            pairs = zip(found, along, strict=True)
            product = tf.add_n([tf.reduce_sum(g * a) for g, a in pairs])
        return tape.gradient(product, [w.value for w in weights])

    compiled = tf.function(gradients, reduce_retracing=True)
    along = [tf.ones(w.shape) for w in weights]

    def run(function, rows, *arguments, until=ROWS):
        for i in range(0, until, rows):
            function(x[i : i + rows], y[i : i + rows], *arguments)

    return {
        "batches": lambda: run(compiled, BATCH),
        "hessians": lambda: run(hessians, BATCH, along),
        "rows": lambda: run(compiled, 1),
        "row": lambda: run(compiled, 1, until=1),
    }
