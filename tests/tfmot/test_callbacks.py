"""Training with `UpdatePruningStep`."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kprune
from kprune import tfmot
from kprune.whole_model import clock_of, stores
from tests.checks import assert_equal, entries, values, zeros_of
from tests.subclassed_models import net
from tests.tfmot import layer_table
from tests.tfmot.models import (
    EVERY_STEP,
    around,
    data,
    nested_model,
    reused_layer,
    simple_dense_model,
    sparsities,
    train,
)
from tests.training_helpers import assert_masked, with_slow

MODELS = {
    **{
        name: lambda row=row: around(row[0](), row[1])
        for name, row in {**layer_table.PRUNABLE, **layer_table.PRUNABLE_HERE}.items()
    },
    "model in a model": nested_model,
    "layer called twice": reused_layer,
}


def removed(model):
    """Returns how many weights each mask removes."""
    return [int((~entry.mask.numpy()).sum()) for entry in entries(model)]


@pytest.mark.parametrize("name", with_slow(layer_table.ALIKE, MODELS))
def test_every_prunable_weight_reaches_the_target_and_keeps_it_without_wrapper(name):
    model = tfmot.prune_low_magnitude(MODELS[name](), EVERY_STEP)
    assert sum(removed(model)) == 0

    train(model)

    sizes = [entry.mask.numpy().size for entry in entries(model)]
    assert removed(model) == [zeros_of(size, 0.5) for size in sizes]
    assert_masked(model)
    x, _ = data(model)
    stripped = tfmot.strip_pruning(model)
    assert_equal(stripped(x), model(x))


def test_subclassed_model_follows_the_schedule_that_it_was_given():
    # TFMOT refuses such models.
    model = tfmot.prune_low_magnitude(net(), EVERY_STEP)
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.ones((4, 6))

    model.fit(x, x[:, :3], verbose=0, callbacks=[tfmot.UpdatePruningStep()])

    assert sparsities(model) == [0.5, 0.5]


def test_sparsity_of_zero_changes_nothing():
    plain = simple_dense_model()
    nothing = tfmot.ConstantSparsity(target_sparsity=0, begin_step=0, frequency=1)
    pruned = tfmot.prune_low_magnitude(plain, nothing)
    x, y = data(plain)

    train(pruned, epochs=3)
    plain.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    plain.fit(x, y, batch_size=len(y), epochs=3, verbose=0)

    assert_equal([np.array(w) for w in pruned.trainable_variables], values(plain))


def test_highest_sparsity_leaves_one_weight_of_each_kernel():
    model = tfmot.prune_low_magnitude(
        simple_dense_model(), tfmot.ConstantSparsity(0.99, 0, frequency=1)
    )

    train(model)

    assert [np.count_nonzero(e.mask.numpy()) for e in entries(model)] == [1, 1]


@pytest.mark.parametrize(
    "timing, expected",
    [
        # begin_step=2, end_step=7, frequency=2: of 80 weights by 0.2, ..., 0.7
        ("kprune", [0, 0, 16, 16, 32, 32, 48, 56, 56]),
        ("tfmot", [0, 16, 16, 32, 32, 48, 48, 48, 48]),
    ],
)
def test_masks_change_in_the_batches_of_the_timing(timing, expected):
    decay = tfmot.PolynomialDecay(0.2, 0.7, 2, 7, power=1, frequency=2)
    model = tfmot.prune_low_magnitude(simple_dense_model(), decay)
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(removed(model)[0])
    )

    train(model, note, epochs=9, timing=timing)

    assert seen == expected


def by_itself(callback, model):
    """Prepares a callback as TFMOT's guide does."""
    callback.set_model(model)
    return callback


def in_a_list(callback, model):
    """Prepares it as Keras' guides do, and others with it."""
    return keras.callbacks.CallbackList([callback], model=model)


def after_fit(callback, model):
    """Prepares one with which `fit` has trained another model."""
    other = tfmot.prune_low_magnitude(simple_dense_model(), EVERY_STEP)
    other.compile("sgd", "mse", run_eagerly=True)
    x, y = data(other)
    other.fit(x, y, verbose=0, callbacks=[callback])
    return by_itself(callback, model)


def after_fit_that_failed(callback, model):
    """Prepares one whose `fit` was interrupted."""

    def fail(batch, logs):
        raise KeyboardInterrupt

    other = tfmot.prune_low_magnitude(simple_dense_model(), EVERY_STEP)
    other.compile("sgd", "mse", run_eagerly=True)
    failing = keras.callbacks.LambdaCallback(on_train_batch_end=fail)
    with pytest.raises(KeyboardInterrupt):
        other.fit(*data(other), verbose=0, callbacks=[callback, failing])
    return by_itself(callback, model)


@pytest.mark.parametrize(
    "prepared", [by_itself, in_a_list, after_fit, after_fit_that_failed]
)
@pytest.mark.parametrize(
    "timing, expected",
    [("kprune", [0, 16, 16, 32, 40]), ("tfmot", [16, 16, 32, 32, 32])],
)
def test_loop_of_the_user_prunes_at_the_steps_that_are_due(timing, expected, prepared):
    decay = tfmot.PolynomialDecay(0.2, 0.5, 1, 4, power=1, frequency=2)
    model = tfmot.prune_low_magnitude(simple_dense_model(), decay)
    model.optimizer = keras.optimizers.SGD(0.1)
    x, y = data(model)
    hooks = prepared(tfmot.UpdatePruningStep(timing=timing), model)
    seen = []

    hooks.on_train_begin()
    for _ in range(5):
        hooks.on_epoch_begin(-1)
        hooks.on_train_batch_begin(-1)
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        seen.append(removed(model)[0])
        assert_masked(model)
        hooks.on_train_batch_end(-1)
        hooks.on_test_begin()
        hooks.on_epoch_end(-1)
    hooks.on_train_end()

    assert seen == expected


def test_loop_of_the_user_that_ends_early_is_told_of():
    model = tfmot.prune_low_magnitude(
        simple_dense_model(), tfmot.PolynomialDecay(0.0, 0.8, 10, 100)
    )
    hooks = by_itself(tfmot.UpdatePruningStep(), model)
    hooks.on_train_begin()
    hooks.on_train_batch_begin(0)

    with pytest.warns(UserWarning, match="Training ended at step 0"):
        hooks.on_train_end()


def test_layers_follow_schedules_of_their_own():
    early = tfmot.PolynomialDecay(0.1, 0.5, 0, 2, power=1, frequency=1)
    late = tfmot.ConstantSparsity(0.75, 4)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            tfmot.prune_low_magnitude(layers.Dense(10), early),
            layers.Dense(7),
            tfmot.prune_low_magnitude(layers.Dense(4), late),
        ]
    )
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(removed(model))
    )

    history = train(model, note, epochs=6)

    assert seen == [[10, 0], [30, 0], [50, 0], [50, 0], [50, 21], [50, 21]]
    assert history.history["sparsity"][-1] == pytest.approx(71 / 128)


def test_layers_that_are_not_wrapped_stay_dense():
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(8),
            tfmot.prune_low_magnitude(layers.Dense(6), EVERY_STEP),
        ]
    )

    train(model)

    assert np.count_nonzero(model.layers[0].kernel) == 80
    assert np.count_nonzero(model.layers[1].kernel) == 24


def test_frozen_layer_is_left_alone():
    # TFMOT prunes it.
    model = simple_dense_model()
    model.layers[0].trainable = False
    pruned = tfmot.prune_low_magnitude(model, EVERY_STEP)

    train(pruned)

    assert sparsities(pruned) == [0.0, 0.5]


def test_clock_counts_the_optimizer_steps():
    model = tfmot.prune_low_magnitude(simple_dense_model())

    train(model, epochs=3)

    assert clock_of(model) == 3


@pytest.mark.parametrize("last", [True, False])
def test_place_among_the_callbacks_does_not_matter(last):
    model = tfmot.prune_low_magnitude(simple_dense_model(), EVERY_STEP)
    model.compile("sgd", "mse", run_eagerly=True)
    at_the_end = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: at_the_end.append(sparsities(model))
    )
    callbacks = [look, tfmot.UpdatePruningStep()]

    x, y = data(model)
    model.fit(x, y, verbose=0, callbacks=callbacks if last else callbacks[::-1])

    assert at_the_end == [[0.5, 0.5]]


def test_model_that_is_compiled_already_can_be_trained_on():
    model = simple_dense_model()
    model.compile("sgd", "mse")

    pruned = tfmot.prune_low_magnitude(model, EVERY_STEP)
    x, y = data(model)
    pruned.fit(x, y, verbose=0, callbacks=[tfmot.UpdatePruningStep()])

    assert sparsities(pruned) == [0.5, 0.5]


def test_run_that_is_too_short_is_told_of():
    # TFMOT prunes nothing and says nothing.
    model = tfmot.prune_low_magnitude(
        simple_dense_model(), tfmot.PolynomialDecay(0.0, 0.8, 10, 100)
    )

    with pytest.warns(UserWarning, match="step"):
        train(model, epochs=2)


@pytest.mark.parametrize(
    "make, message",
    [
        (simple_dense_model, "holds no masks"),
        (lambda: kprune.prune(simple_dense_model()), "masks without a schedule"),
    ],
)
def test_model_that_has_no_schedule_is_refused(make, message):
    model = make()
    before = values(model)

    with pytest.raises(ValueError, match=message):
        train(model)

    assert_equal(values(model)[: len(before)], before)


def pair_of(first, second):
    """Makes a model of two layers, with kernels of 64, each with its schedule."""
    return keras.Sequential(
        [
            keras.Input((8,)),
            tfmot.prune_low_magnitude(layers.Dense(8, name="first"), first),
            tfmot.prune_low_magnitude(layers.Dense(8, name="second"), second),
        ]
    )


def removed_by_batch(model, epochs, timing="kprune"):
    """Trains a model, and returns how many weights are removed after each batch."""
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(removed(model))
    )
    train(model, note, epochs=epochs, timing=timing)
    return seen


def test_layers_whose_schedules_lower_sparsity_do_not_disturb_each_other():
    # By -0.125 and by -0.1875 an update, of 64 weights.
    falls = tfmot.PolynomialDecay(0.5, 0.25, 0, 4, power=1, frequency=2)
    falls_more = tfmot.PolynomialDecay(0.5, 0.125, 0, 4, power=1, frequency=2)

    seen = removed_by_batch(pair_of(falls, falls_more), epochs=6)

    assert seen == [[32, 32], [32, 32], [24, 20], [24, 20], [16, 8], [16, 8]]


class Own(tfmot.PruningSchedule):
    """A schedule of the user's, whose config does not tell it from others."""

    end_step = None

    def __init__(self, *sparsities):
        self.sparsities = sparsities
        self.asked = 0

    def __call__(self, step):
        self.asked += 1
        last = len(self.sparsities) - 1
        return int(step) <= last, self.sparsities[min(int(step), last)]

    def get_config(self):
        return {}


def test_schedules_of_the_user_are_told_apart_whatever_their_configs_say():
    model = pair_of(Own(0.25), Own(0.75))

    train(model)

    assert removed(model) == [16, 48]


@pytest.mark.parametrize("timing", ["kprune", "tfmot"])
def test_schedule_of_the_user_may_lower_sparsity(timing):
    model = tfmot.prune_low_magnitude(simple_dense_model(), Own(0.1, 0.5, 0.75, 0.25))

    seen = [counts[0] for counts in removed_by_batch(model, 4, timing)]

    expected = [8, 40, 60, 20] if timing == "kprune" else [40, 60, 20, 20]
    assert seen == expected  # of 80 weights


def test_schedule_of_the_user_is_asked_of_few_steps_before_training(capsys):
    schedule = Own(0.5)
    model = tfmot.prune_low_magnitude(simple_dense_model(), schedule)
    model.compile("sgd", "mse", run_eagerly=True)
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(model, "stop_training", True)
    )
    x, y = data(model)

    with pytest.warns(UserWarning, match="Training ended at step 1"):
        model.fit(x, y, epochs=100_000, callbacks=[tfmot.UpdatePruningStep(), stop])

    assert schedule.asked < 10_000
    assert removed(model)[0] == 40
    assert "kprune: asks at each step what is wanted" in capsys.readouterr().out


def test_layer_that_was_frozen_for_a_while_goes_on():
    model = pair_of(
        tfmot.PolynomialDecay(0.0, 0.5, 0, 4, power=1, frequency=1),
        tfmot.PolynomialDecay(0.0, 0.25, 0, 4, power=1, frequency=1),
    )
    for is_trained in (True, False, True):
        model.layers[0].layer.trainable = is_trained
        model.optimizer = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each run alone is too short
            train(model, epochs=2)

    assert removed(model) == [32, 16]
    assert {store.clock.steps for store in stores(model)} == {6}


def test_model_of_kprune_is_given_the_schedule():
    first, _ = simple_dense_model().layers
    model = kprune.prune(simple_dense_model(), only=first.name)

    given = tfmot.prune_low_magnitude(model, EVERY_STEP)
    train(given)

    assert sparsities(given) == [0.5, 0.5]


def test_update_within_an_execution_of_several_steps_is_told_of():
    last = tfmot.PolynomialDecay(0.25, 0.5, 1, 4, power=1, frequency=3)
    model = tfmot.prune_low_magnitude(simple_dense_model(), last)
    model.compile("sgd", "mse", steps_per_execution=4)
    x, y = data(model, size=4)

    with pytest.warns(UserWarning, match="due at step 3 was not carried out"):
        model.fit(
            x,
            y,
            batch_size=1,
            verbose=0,
            callbacks=[tfmot.UpdatePruningStep(timing="tfmot")],
        )


def test_wrapper_of_a_layer_without_weights_needs_no_schedule():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            kprune.PruningWrapper(layers.Rescaling(0.5)),
            tfmot.prune_low_magnitude(layers.Dense(8), EVERY_STEP),
        ]
    )

    train(model)

    assert removed(model) == [32]
