"""`Rewind`: which weights are early, and what starts over with them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune.optimizer_slots import slots_of
from kprune.whole_model import clock_of
from tests.checks import entries
from tests.subclassed_models import TwoOptimizers
from tests.training_helpers import BATCH, BATCHES, data, network
from tests.training_helpers import fit as fit_quietly

HALF = kprune.ConstantSchedule(0.5, begin_step=1)


def pruned(optimizer="sgd", model=None):
    model = kprune.prune(model or network())
    model.compile(optimizer, "mse", run_eagerly=True)  # tracing takes longer
    return model


class Watch(keras.callbacks.Callback):
    """Notes weights and optimizer steps at each clock, after updates."""

    def __init__(self):
        super().__init__()
        self.kernels, self.steps = {}, {}

    def on_train_batch_begin(self, batch, logs=None):
        clock = clock_of(self.model)
        self.kernels[clock] = entries(self.model)[0].variable.numpy()
        self.steps[clock] = int(self.model.optimizer.iterations)


def fit(model, sparsity, begin_step, rewind, **options):
    """Prunes a model once in an epoch of twelve steps; returns what was seen."""
    watch, schedule = Watch(), kprune.ConstantSchedule(sparsity, begin_step)
    pruning = kprune.PruningCallback(schedule, regrowth=rewind, **options)
    fit_quietly(model, pruning, watch, epochs=1)
    return watch


def assert_rewound(kernel, early):
    np.testing.assert_array_equal(kernel, np.where(kernel != 0, early, 0))


def test_weights_of_a_step_to_come_take_the_place_of_others():
    model = pruned()
    fit(model, 0.25, 5, kprune.Rewind())

    watch = fit(model, 0.5, 20, kprune.Rewind(step=15))

    assert_rewound(watch.kernels[20], watch.kernels[15])
    assert watch.steps[20] == watch.steps[15]


def test_each_fit_has_its_own_beginning_where_the_schedule_starts_anew():
    model = pruned()
    fit(model, 0.25, 5, kprune.Rewind(), start="fit")

    watch = fit(model, 0.5, 5, kprune.Rewind(), start="fit")

    assert_rewound(watch.kernels[BATCHES + 5], watch.kernels[BATCHES])


def test_a_clock_that_was_set_back_has_another_beginning():
    model = pruned()
    fit(model, 0.25, 5, kprune.Rewind())
    kprune.set_clock(model, 0)

    watch = fit(model, 0.5, 5, kprune.Rewind())

    assert_rewound(watch.kernels[5], watch.kernels[0])


@pytest.mark.parametrize("before", [kprune.Rewind(step=5), None])
def test_a_step_that_is_past_is_refused_unless_its_weights_are_known(before):
    model = pruned()
    fit(model, 0.25, 8, before)

    with pytest.raises(ValueError, match=r"clock 4, .* was at 12 already") as error:
        fit(model, 0.5, 15, kprune.Rewind(step=4))

    assert "start='fit'" in str(error.value)


def test_a_step_within_a_batch_is_taken_behind_it():
    model = kprune.prune(network())
    model.compile("sgd", "mse", steps_per_execution=4)

    watch = fit(model, 0.5, 8, kprune.Rewind(step=3))

    assert_rewound(watch.kernels[8], watch.kernels[4])


def test_a_model_without_weights_is_refused():
    layers = keras.layers.Dense(8), keras.layers.Dense(3)
    model = pruned(model=keras.Sequential(layers))

    with pytest.raises(ValueError, match=r"has no weights yet, and early weights"):
        fit(model, 0.5, 5, kprune.Rewind())


def loop(model, optimizer, steps, **options):
    """Trains with an optimizer that was not compiled in, and prunes at each step."""
    x, y = (array[:BATCH] for array in data())
    pruner = kprune.Pruner(model, regrowth=kprune.Rewind(), **options)
    counted = []
    for _ in range(steps):
        pruner.step()
        counted.append(int(optimizer.iterations))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(loss, weights), weights)
    return counted


def test_an_optimizer_that_is_seen_later_goes_back_to_its_own_step():
    model = kprune.prune(network())
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(30)  # as from a checkpoint
    rounds = kprune.IterativeSchedule(0.75, 2, steps_per_round=3, begin_step=3)

    counted = loop(model, optimizer, 8, schedule=rounds)

    assert counted == [30, 31, 32, 30, 31, 32, 30, 31]


def test_each_optimizer_goes_back_to_a_step_of_its_own():
    plain = TwoOptimizers()
    plain(data()[0][:1])
    model = pruned(model=plain)
    fit_quietly(model, epochs=1)
    second = model.second
    second.iterations.assign(40)
    seen = []

    class Seen(Watch):
        def on_train_batch_begin(self, batch, logs=None):
            slots = slots_of(second, model.head.kernel)["momentums"]
            seen.append((int(second.iterations), bool(np.any(slots))))
            super().on_train_batch_begin(batch)

    watch, pruning = (
        Seen(),
        kprune.PruningCallback(HALF, regrowth=kprune.Rewind(), start="fit"),
    )
    fit_quietly(model, pruning, watch, epochs=1)

    assert seen[0] == (40, True)
    assert (40, False) in seen[1:]
    assert list(watch.steps.values())[:3] == [12, 12, 13]


def test_movements_before_going_back_count_no_longer():
    model = pruned()
    seen = []

    class Sums(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            sums = entries(self.model)[0].tracked_as("movement").numpy()
            seen.append(bool(sums.any()))

    schedule = kprune.ConstantSchedule(0.5, begin_step=4)
    options = {"criterion": "movement", "regrowth": kprune.Rewind(step=1)}
    pruning = kprune.PruningCallback(schedule, **options)
    fit_quietly(model, pruning, Sums(), epochs=1)

    assert seen[:6] == [False, True, True, True, False, True]


def test_early_weights_leave_the_model_with_the_method():
    model = pruned()
    plain = len(model.variables)
    fit(model, 0.25, 5, kprune.Rewind())
    assert len(model.variables) > plain + 4

    fit(model, 0.5, 15, None)

    assert not any("early" in variable.name for variable in model.variables)
