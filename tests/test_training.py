"""Every kind of training that Keras offers, with exact zeros all the way."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune.whole_model import clock_of
from tests.checks import entries, zeros_of
from tests.processes import run_script
from tests.training_helpers import (
    BATCH,
    BATCHES,
    OwnStep,
    Spy,
    assert_masked,
    averages_of,
    counts,
    data,
    network,
    plain_optimizer,
    polynomial,
    with_slow,
)

# Updates are due at 2, 7, 12 and, off the grid, at 17.
SCHEDULE = {"final_sparsity": 0.75, "begin_step": 2, "end_step": 17, "frequency": 5}


def wanted(step):
    """The sparsity of the last due update."""
    due = max((d for d in (2, 7, 12, 17) if d <= step), default=0)
    return polynomial(due, begin=2)


class SuperStep(keras.Model):
    def train_step(self, batch):
        return {**super().train_step(batch), "custom": 1.0}


def adam(**options):
    return lambda: keras.optimizers.Adam(0.01, **options)


def scaled():
    # A low scale, so that no step is skipped because of an overflow.
    return keras.optimizers.LossScaleOptimizer(adam()(), initial_scale=2.0**6)


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of training; 24 optimizer steps, whatever it is."""

    optimizer: Callable = dataclasses.field(default_factory=adam)
    compile: dict = dataclasses.field(default_factory=dict)
    epochs: int = 2
    policy: str = "float32"
    callbacks: Callable = list
    model: Callable = network
    averaged: bool = False


ROWS = {
    "graph": Row(),
    "eager": Row(compile={"run_eagerly": True}),
    "jit": Row(compile={"jit_compile": True}),
    "mixed_float16": Row(scaled, policy="mixed_float16"),
    "mixed_float16_jit": Row(
        scaled, compile={"jit_compile": True}, policy="mixed_float16"
    ),
    "mixed_bfloat16": Row(policy="mixed_bfloat16"),
    "bfloat16": Row(policy="bfloat16"),
    "ema": Row(adam(use_ema=True), averaged=True),
    "ema_overwrite": Row(adam(use_ema=True, ema_overwrite_frequency=5), averaged=True),
    "ema_mixed_float16": Row(
        lambda: keras.optimizers.LossScaleOptimizer(
            adam(use_ema=True)(), initial_scale=2.0**6
        ),
        policy="mixed_float16",
        averaged=True,
    ),
    "swap_ema": Row(
        adam(use_ema=True),
        callbacks=lambda: [keras.callbacks.SwapEMAWeights()],
        averaged=True,
    ),
    "swap_ema_on_epoch": Row(
        adam(use_ema=True),
        callbacks=lambda: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
        averaged=True,
    ),
    "accumulation": Row(adam(gradient_accumulation_steps=4), epochs=8),
    "accumulation_jit": Row(
        adam(gradient_accumulation_steps=4), {"jit_compile": True}, epochs=8
    ),
    "steps_per_execution": Row(compile={"steps_per_execution": 8}),
    "weight_decay": Row(lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)),
    "clipnorm": Row(adam(clipnorm=0.1)),
    "momentum": Row(lambda: keras.optimizers.SGD(0.05, momentum=0.9)),
    "super_train_step": Row(model=lambda: network(SuperStep)),
    "own_train_step": Row(model=lambda: network(OwnStep)),
}


# Pairs of what other rows train with alone; `ema` is what the averages are tested on.
IN_THE_SLOW_RUN = {
    "mixed_float16_jit",
    "ema",
    "ema_mixed_float16",
    "swap_ema_on_epoch",
    "accumulation_jit",
    "clipnorm",
    # Siblings of `swap_ema`, `mixed_float16` and `bfloat16`, and `own_train_step`.
    "ema_overwrite",
    "mixed_bfloat16",
    "super_train_step",
}


def train(row, **options):
    """Trains as a row says, watched before and after; returns model and spies."""
    keras.config.set_dtype_policy(row.policy)
    try:
        model = kprune.prune(row.model())
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(row.optimizer(), "mse", **row.compile)
    x, y = data()
    spies = [Spy(wanted), Spy(wanted)]
    pruning = kprune.PruningCallback(kprune.PolynomialSchedule(**SCHEDULE), **options)
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=row.epochs,
        validation_data=(x, y),
        verbose=0,
        callbacks=[spies[0], *row.callbacks(), pruning, spies[1]],
    )
    return model, spies, history.history


@pytest.mark.parametrize("name", with_slow(IN_THE_SLOW_RUN, ROWS))
def test_zeros_are_exact_in_every_hook_of_every_training(name):
    row = ROWS[name]

    model, spies, history = train(row)

    assert int(plain_optimizer(model).iterations) == 24  # accumulated or not
    assert clock_of(model) == 24
    assert counts(model) == {"hidden": 72, "head": 36}  # three of four weights
    assert history["sparsity"][-1] == 0.75
    assert all(np.isfinite(v) for v in history["loss"])
    assert history["loss"][-1] < history["loss"][0]
    per_epoch = 2 if name == "steps_per_execution" else BATCHES
    for spy in spies:
        assert spy.batches == row.epochs * per_epoch
        assert {"test_begin", "test_batch_end", "epoch_end"} <= set(spy.seen)
    assert bool(averages_of(model)) == row.averaged


@pytest.mark.parametrize("name", with_slow({"jit"}, ["graph", "jit"]))
def test_kept_weights_train_as_those_of_a_plain_model_do(name):
    row = ROWS[name]
    plain = row.model()
    model = kprune.prune(plain)
    x, y = data()

    for each in (plain, model):
        each.compile(row.optimizer(), "mse", **row.compile)
        each.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0)

    for layer in ("hidden", "head"):
        ours, theirs = (m.get_layer(layer).kernel.numpy() for m in (model, plain))
        if name == "graph":
            np.testing.assert_array_equal(ours, theirs)
        else:  # XLA may fuse the mask in
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_averages_are_what_a_run_with_ema_ends_with():
    model, _, _ = train(ROWS["ema"])

    for entry in entries(model):
        average = averages_of(model)[id(entry.variable)]
        np.testing.assert_array_equal(entry.variable.numpy(), average.numpy())


def test_swapped_in_averages_are_what_evaluation_sees():
    shown = []

    class Show(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            kernel = self.model.get_layer("head").kernel
            shown.append((kernel.numpy(), averages_of(self.model)[id(kernel)].numpy()))

    row = dataclasses.replace(
        ROWS["swap_ema"],
        callbacks=lambda: [keras.callbacks.SwapEMAWeights(), Show()],
    )
    train(row)

    weight, swapped_out = shown[-1]
    assert np.count_nonzero(weight == 0) == 36
    assert np.any(weight != swapped_out)  # one of the two is the average


@pytest.mark.parametrize("name", with_slow({"graph"}, ["graph", "jit"]))
def test_a_users_constraint_still_holds(name):
    limit = keras.constraints.MaxNorm(0.5, axis=0)
    row = dataclasses.replace(
        ROWS[name], model=lambda: network(kernel_constraint=limit)
    )

    model, _, _ = train(row)

    norms = np.linalg.norm(model.get_layer("hidden").kernel.numpy(), axis=0)
    assert counts(model) == {"hidden": 72, "head": 36}
    assert norms.max() <= 0.5 + 1e-5
    assert norms.max() > 0.4  # it is at work


def test_a_sign_constraint_still_holds():
    row = Row(model=lambda: network(kernel_constraint=keras.constraints.NonNeg()))

    model, _, _ = train(row)

    kernel = model.get_layer("hidden").kernel.numpy()
    assert kernel.min() == 0 and kernel.max() > 0
    assert counts(model)["hidden"] >= 72


def test_global_scope_keeps_the_total_exact_at_every_batch():
    model = kprune.prune(network())
    model.compile(adam()(), "mse")
    x, y = data()
    totals = []

    class Total(Spy):
        def count(self):
            removed = sum(np.count_nonzero(~e.mask.numpy()) for e in entries(model))
            totals.append(removed == zeros_of(144, wanted(self.steps)))

    pruning = kprune.PruningCallback(
        kprune.PolynomialSchedule(**SCHEDULE), scope="global"
    )
    model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[Total(), pruning])

    assert all(totals) and len(totals) == 48
    assert sum(counts(model).values()) == 108
    assert counts(model) != {"hidden": 72, "head": 36}


def test_steps_per_execution_catches_up_at_the_first_hook_after_the_due_step():
    model = kprune.prune(network())
    model.compile(adam()(), "mse", steps_per_execution=8)
    x, y = data()
    seen = []

    class Watch(Spy):
        def on_train_batch_begin(self, batch, logs=None):
            super().on_train_batch_begin(batch)
            seen.append((self.steps, counts(self.model)["hidden"]))

    pruning = kprune.PruningCallback(kprune.PolynomialSchedule(**SCHEDULE))
    model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[Watch(), pruning])

    expected = [(s, zeros_of(96, wanted(s))) for s in (0, 8, 12, 20)]
    assert seen == expected


def test_an_overflow_of_mixed_float16_is_no_step_of_the_clock():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = kprune.prune(network())
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.01), initial_scale=2.0**20
    )
    model.compile(optimizer, "mse")
    x, y = data()

    model.fit(x, y, batch_size=BATCH, epochs=2, verbose=0)

    assert 0 < int(optimizer.inner_optimizer.iterations) < 24
    assert clock_of(model) == int(optimizer.inner_optimizer.iterations)


def test_train_on_batch_is_pruned_by_a_pruner():
    model = kprune.prune(network())
    model.compile(adam()(), "mse")
    pruner = kprune.Pruner(model, kprune.PolynomialSchedule(**SCHEDULE))
    x, y = data()

    for i in range(24):
        rows = slice(i % BATCHES * BATCH, (i % BATCHES + 1) * BATCH)
        pruner.step()
        model.train_on_batch(x[rows], y[rows])

        assert_masked(model)
        assert counts(model)["hidden"] == zeros_of(96, wanted(i))
        assert counts(model)["head"] == zeros_of(48, wanted(i))
    assert pruner.finished and pruner.sparsity == 0.75


@pytest.mark.parametrize("compiled", [True, False])
def test_a_loop_with_a_tape_is_pruned_by_a_pruner(compiled):
    model = kprune.prune(network())
    optimizer = adam(use_ema=True)()
    pruner = kprune.Pruner(model, kprune.PolynomialSchedule(**SCHEDULE))
    x, y = data()

    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((model(x, training=True) - y) ** 2)
        variables = model.trainable_variables
        optimizer.apply_gradients(
            zip(tape.gradient(loss, variables), variables, strict=True)
        )

    train_step = tf.function(train_step) if compiled else train_step
    for i in range(24):
        rows = slice(i % BATCHES * BATCH, (i % BATCHES + 1) * BATCH)
        pruner.step()
        train_step(x[rows], y[rows])

        assert_masked(model)
        assert counts(model)["hidden"] == zeros_of(96, wanted(i))
    optimizer.finalize_variable_values(model.trainable_variables)
    assert clock_of(model) == 24
    assert counts(model) == {"hidden": 72, "head": 36}


def test_layers_without_a_gradient_are_pruned_and_do_not_stop_the_clock():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(16, name="hidden")(inputs)
    outputs = {
        "idle": keras.layers.Dense(4, name="idle")(inputs),
        "used": keras.layers.Dense(3, name="used")(x),
    }
    model = kprune.prune(keras.Model(inputs, outputs))
    model.compile(adam()(), {"used": "mse"})
    x, y = data()
    pruning = kprune.PruningCallback(kprune.PolynomialSchedule(**SCHEDULE))

    with pytest.warns(UserWarning, match="Gradients do not exist for variables"):
        model.fit(
            x,
            {"used": y},
            batch_size=BATCH,
            epochs=2,
            verbose=0,
            callbacks=[pruning, Spy(wanted)],
        )

    assert clock_of(model) == 24
    assert counts(model) == {"hidden": 72, "idle": 18, "used": 36}


REPLICAS = """
import sys
import keras, numpy as np, tensorflow as tf
import kprune
from tests.training_helpers import *

replicas = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
)
strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
keras.utils.set_random_seed(0)

def wanted(step):
    due = max((d for d in (2, 7, 12, 17) if d <= step), default=0)
    return polynomial(due, begin=2)

def assert_equal_replicas(model):
    for entry in entries(model):
        for variable in (entry.variable, entry.mask):
            copies = [v.numpy() for v in variable.value.values]
            assert len(copies) == replicas
            for copy in copies[1:]:
                np.testing.assert_array_equal(copies[0], copy)
        for weight, mask in zip(entry.variable.value.values, entry.mask.value.values):
            assert not weight.numpy()[~mask.numpy()].any()

class Replicas(Spy):
    def look(self, hook):
        super().look(hook)
        assert_equal_replicas(self.model)

def check(inside, optimizer):
    if inside:
        with strategy.scope():
            model = kprune.prune(network())
    else:
        with strategy.scope():
            plain = network()
        model = kprune.prune(plain)
    with strategy.scope():
        model.compile(optimizer(), "mse")
    x, y = data()
    spy = Replicas(wanted)
    pruning = kprune.PruningCallback(kprune.PolynomialSchedule(
        0.75, begin_step=2, end_step=17, frequency=5))
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, validation_data=(x, y),
              callbacks=[spy, pruning])
    assert spy.batches == 24
    assert kprune.whole_model.clock_of(model) == 24, kprune.whole_model.clock_of(model)
    assert counts(model) == {"hidden": 72, "head": 36}, counts(model)
    plain = kprune.strip(model)
    np.testing.assert_array_equal(
        plain.predict(x, verbose=0), model.predict(x, verbose=0))

check(True, lambda: keras.optimizers.Adam(0.01))
check(False, lambda: keras.optimizers.AdamW(0.01, use_ema=True))
with strategy.scope():
    model = kprune.prune(network())
    model.compile("sgd", "mse")
try:
    kprune.Pruner(model, kprune.ConstantSchedule(0.5), criterion="movement")
except ValueError as error:
    assert f"is trained on {replicas} replicas" in str(error), error
else:
    raise AssertionError("not refused")
print("all replicas agree")
"""


@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_replicas_of_a_mirrored_strategy_stay_equal(replicas):
    done = run_script(REPLICAS, replicas)

    assert "all replicas agree" in done.stdout, done.stderr[-3000:]
