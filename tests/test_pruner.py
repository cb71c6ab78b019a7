import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune import whole_model
from kprune.whole_model import clock_of
from tests.training_helpers import BATCH, assert_equal_states, counts, data, network


@pytest.fixture
def model():
    model = kprune.prune(network())
    model.compile("sgd", "mse")
    return model


def train(model, steps):
    x, y = data()
    for _ in range(steps):
        model.train_on_batch(x[:BATCH], y[:BATCH])


def test_the_smallest_magnitudes_are_removed(model):
    kernel = model.get_layer("hidden").kernel
    expected = np.sort(np.abs(kernel.numpy()).ravel())[:72].max()

    kprune.Pruner(model, kprune.ConstantSchedule(0.75)).step()

    kept = kernel.numpy()[kernel.numpy() != 0]
    assert np.abs(kept).min() > expected
    assert len(kept) == 24


def test_of_equal_magnitudes_the_first_are_kept(model):
    kernel = model.get_layer("head").kernel
    kernel.assign(np.full((16, 3), -2.0))

    kprune.Pruner(model, kprune.ConstantSchedule(0.75)).step()

    np.testing.assert_array_equal(kernel.numpy().ravel()[:12], -2.0)
    np.testing.assert_array_equal(kernel.numpy().ravel()[12:], 0.0)


def test_one_weight_of_each_layer_is_kept(model):
    kprune.Pruner(model, kprune.ConstantSchedule(0.9999)).step()

    assert counts(model) == {"hidden": 95, "head": 47}


def test_global_scope_compares_layers(model):
    model.get_layer("head").kernel.assign(np.full((16, 3), 9.0))

    pruner = kprune.Pruner(model, kprune.ConstantSchedule(0.5), scope="global")
    pruner.step()

    assert counts(model) == {"hidden": 72, "head": 0}  # half of 144, all in one
    assert pruner.sparsity == 0.5


def test_a_step_gives_the_clock_and_a_second_one_changes_nothing(model):
    pruner = kprune.Pruner(
        model, kprune.PolynomialSchedule(0.75, end_step=4, power=1, frequency=2)
    )
    train(model, 2)
    assert pruner.step() == 2
    once = [variable.numpy() for variable in model.variables]

    assert pruner.step() == 2
    kprune.Pruner(model, pruner.schedule).step()

    for before, variable in zip(once, model.variables, strict=True):
        np.testing.assert_array_equal(before, variable.numpy())
    assert counts(model) == {"hidden": 36, "head": 18}  # 0.75 / 2
    assert not pruner.finished


def test_a_pruner_in_the_place_of_another_ends_like_one(model):
    twin = kprune.prune(model)
    schedule = kprune.PolynomialSchedule(0.75, 1, end_step=9, frequency=3)
    pruner = kprune.Pruner(model, schedule)
    for _ in range(10):
        pruner.step()
        train(model, 1)

    for _ in range(10):
        kprune.Pruner(twin, schedule).step()
        train(twin, 1)

    assert_equal_states(model, twin)


def test_pruners_for_different_layers_go_by_schedules_of_their_own(model):
    hidden, head = whole_model.stores(model)  # of 96 and 48 weights
    first = kprune.Pruner(model, kprune.ConstantSchedule(0.75), among=[hidden])
    second = kprune.Pruner(model, kprune.ConstantSchedule(0.5, 2), among=[head])
    first.step()
    second.step()

    assert counts(model) == {"hidden": 72, "head": 0}
    train(model, 2)
    first.step()
    second.step()
    assert counts(model) == {"hidden": 72, "head": 24}
    assert (first.sparsity, second.sparsity) == (0.75, 0.5)


@pytest.mark.parametrize(
    "origin, begin_step, regrowth",
    [
        (5, 2, None),
        (7, 0, None),
        (7, 0, kprune.SET(frequency=5, end_step=50)),
    ],
    ids=["now", "in the future", "in the future with a regrowth"],
)
def test_an_origin_shifts_the_schedule(model, origin, begin_step, regrowth):
    train(model, 5)
    schedule = kprune.ConstantSchedule(0.75, begin_step)
    pruner = kprune.Pruner(model, schedule, origin=origin, regrowth=regrowth)

    seen = []
    for _ in range(4):
        pruner.step()
        seen.append(counts(model)["hidden"])
        train(model, 1)

    assert seen == [0, 0, 72, 72]
    assert pruner.clock == clock_of(model) == 9


@pytest.mark.parametrize("origin", ["x", 2.5, -1])
def test_an_origin_is_a_step_of_the_clock(model, origin):
    with pytest.raises(ValueError, match=f"origin={origin!r} must be a whole number"):
        kprune.Pruner(model, kprune.ConstantSchedule(0.5), origin=origin)


def test_nothing_is_due_of_a_pruner_that_is_held_from_the_beginning(model):
    pruner = kprune.Pruner(model, kprune.ConstantSchedule(0.5, 4))
    pruner.held = True

    assert pruner.step() == 0
    assert pruner.next_due(0) is None


def test_next_due_is_in_the_time_of_the_clock(model):
    train(model, 5)
    schedule = kprune.PolynomialSchedule(0.75, 2, end_step=9, frequency=4)
    pruner = kprune.Pruner(model, schedule, origin=5)
    pruner.step()

    # Due at 2, 6 and 9 after the origin.
    assert [pruner.next_due(c) for c in (5, 7, 10, 11, 14)] == [7, 11, 11, 14, None]


def test_removed_weights_stay_removed_when_the_schedule_asks_for_less(model):
    kprune.Pruner(model, kprune.ConstantSchedule(0.75)).step()
    masks = [v.numpy() for v in model.variables if v.dtype == "bool"]

    kprune.Pruner(model, kprune.ConstantSchedule(0.25)).step()

    after = [v.numpy() for v in model.variables if v.dtype == "bool"]
    for before, mask in zip(masks, after, strict=True):
        np.testing.assert_array_equal(before, mask)


def test_a_fresh_pruner_measures_the_masks_that_are_there(model):
    kprune.Pruner(model, kprune.ConstantSchedule(0.75)).step()

    pruner = kprune.Pruner(model, kprune.ConstantSchedule(0.9, 100))

    assert pruner.measure() == pruner.sparsity == 0.75
    assert not pruner.finished


def test_masks_that_were_reset_are_measured(model):
    pruner = kprune.Pruner(model, kprune.ConstantSchedule(0.75))
    initial = model.get_weights()
    pruner.step()

    model.set_weights(initial)

    assert pruner.measure() == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scope", ["layer_wise", "global"])
def test_weights_that_are_not_finite_are_named(model, bad, scope):
    kernel = model.get_layer("hidden").kernel
    kernel.assign(np.where(np.arange(96).reshape(6, 16) == 95, bad, kernel.numpy()))
    pruner = kprune.Pruner(model, kprune.ConstantSchedule(0.5), scope=scope)

    with pytest.raises(
        ValueError, match=r"'hidden/kernel' of shape \(6, 16\) holds 1 val"
    ):
        pruner.step()


def test_a_plain_model_is_refused():
    schedule = kprune.ConstantSchedule(0.5)

    with pytest.raises(ValueError, match="holds no masks"):
        kprune.Pruner(network(), schedule)
    with pytest.raises(TypeError, match="Expected a keras.Model, got Dense"):
        kprune.Pruner(keras.layers.Dense(3), schedule)


def test_a_float_is_no_schedule_here(model):
    with pytest.raises(ValueError, match="0.9 is none of the registered schedules"):
        kprune.Pruner(model, 0.9)


def test_averages_of_an_optimizer_that_is_not_compiled_in_are_masked():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16)])
    model = kprune.prune(model)
    optimizer = keras.optimizers.Adam(use_ema=True)
    pruner = kprune.Pruner(
        model, kprune.PolynomialSchedule(0.75, end_step=10, frequency=5)
    )
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    for _ in range(10):
        pruner.step()
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - 1.0) ** 2)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
    pruner.step()

    optimizer.finalize_variable_values(model.trainable_variables)

    kernel = model.layers[0].kernel.numpy()
    assert np.count_nonzero(kernel == 0) == 96  # 0.75 of 8 x 16


def test_gradients_are_those_of_the_loss_that_the_model_is_compiled_with_now(model):
    expected = kprune.prune(model)
    options = {
        "schedule": kprune.ConstantSchedule(0.5, begin_step=1),
        "criterion": "taylor",
        "calibration_data": data(),
    }
    pruner = kprune.Pruner(model, **options)
    pruner.step()
    for each in (model, expected):
        each.compile("sgd", lambda y, out: keras.ops.mean((y + out) ** 2))
        whole_model.set_clock(each, 1)

    pruner.step()

    kprune.Pruner(expected, **options).step()
    assert_equal_states(model, expected)
