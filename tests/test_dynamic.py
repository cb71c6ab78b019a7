"""Weights that come back: regrowth, surgery, cycles and rewinding, while training."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune import whole_model
from kprune.optimizer_slots import slots_of
from kprune.whole_model import clock_of
from tests import training_helpers
from tests.checks import entries
from tests.training_helpers import (
    BATCH,
    BATCHES,
    assert_equal_states,
    assert_masked,
    counts,
    data,
    network,
    with_slow,
)

DONE = {"hidden": 72, "head": 36}  # 0.75 of 96 and of 48


def pruned(optimizer=None, **options):
    model = kprune.prune(network())
    model.compile(optimizer or keras.optimizers.Adam(0.03), "mse", **options)
    return model


fit = functools.partial(training_helpers.fit, shuffle=False)


def calibration():
    x, y = data()
    return x[:16], y[:16]


class Watch(keras.callbacks.Callback):
    """Notes masks, weights and slots at the beginning of each batch, after updates."""

    def __init__(self):
        super().__init__()
        self.masks, self.weights, self.slots, self.zeros = [], [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        assert_masked(self.model)
        entry = entries(self.model)[0]
        slots = slots_of(self.model.optimizer, entry.variable)
        self.masks.append(entry.mask.numpy())
        self.weights.append(entry.variable.numpy())
        self.slots.append([slot.numpy() for slot in slots.values()])
        self.zeros.append(counts_of_masks(self.model))


def counts_of_masks(model):
    return {
        e.layer.name: int(np.count_nonzero(~e.mask.numpy())) for e in entries(model)
    }


METHODS = {
    "set": lambda: {"regrowth": kprune.SET(0.3, frequency=5, end_step=20)},
    "rigl": lambda: {
        "regrowth": kprune.RigL(0.3, frequency=5, end_step=20),
        "calibration_data": calibration(),
    },
    "surgery": lambda: {
        "regrowth": kprune.DynamicNetworkSurgery(frequency=5, end_step=20)
    },
}
RISING = kprune.PolynomialSchedule(0.75, 3, end_step=11, frequency=4)


# SET is RigL without gradients.
@pytest.mark.parametrize("name", with_slow({"set"}, METHODS))
def test_counts_are_exact_at_every_update_and_masks_move(name):
    model, watch = pruned(), Watch()
    pruning = kprune.PruningCallback(RISING, **METHODS[name]())

    # The optimizer has no variables yet, as in the first `fit` of a user's model.
    options = {"epochs": 2, "shuffle": False, "verbose": 0}
    model.fit(*data(), BATCH, callbacks=[pruning, watch], **options)

    def wanted(step):
        sparsity = RISING(RISING.last_due(step) or 0)
        return {n: int(np.floor(sparsity * s + 0.5)) for n, s in SIZES.items()}

    assert watch.zeros == [wanted(step) for step in range(24)]
    came_back = [(b & ~a).any() for a, b in itertools.pairwise(watch.masks)]
    # Exchanges at 5, 10 and 15; surgery also at updates of the schedule.
    assert [i + 1 for i, came in enumerate(came_back) if came]
    assert not any(came_back[15:])
    assert counts_of_masks(kprune.prune(model)) == DONE


SIZES = {"hidden": 96, "head": 48}


@pytest.mark.parametrize("optimizer", with_slow({"sgd"}, ["adam", "sgd", "adagrad"]))
def test_what_grows_starts_at_zero_with_clean_slots(optimizer):
    optimizer = {
        "adam": keras.optimizers.Adam(0.01, amsgrad=True),
        "sgd": keras.optimizers.SGD(0.01, momentum=0.9),
        "adagrad": keras.optimizers.Adagrad(0.01, initial_accumulator_value=0.1),
    }[optimizer]
    model, watch = pruned(optimizer), Watch()
    pruning = kprune.PruningCallback(
        kprune.ConstantSchedule(0.75), regrowth=kprune.SET(0.3, 5, 20)
    )

    fit(model, pruning, watch)

    for step in (5, 10, 15):
        came = watch.masks[step] & ~watch.masks[step - 1]
        assert 0 < came.sum() <= 7  # 0.3 of 24, but for what is dropped and grown
        assert (watch.weights[step][came] == 0).all()
        initial = 0.1 if isinstance(optimizer, keras.optimizers.Adagrad) else 0.0
        for slot in watch.slots[step]:
            np.testing.assert_array_equal(slot[came], np.float32(initial))
            assert (slot[~came] != initial).any()


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "nadam", "lion", "ftrl"])
def test_every_slot_of_an_optimizer_is_found(optimizer):
    optimizer = keras.optimizers.get(
        {"class_name": optimizer, "config": {"use_ema": True}}
    )
    variable = keras.Variable(np.ones((3, 2)))
    optimizer.build([variable, keras.Variable(np.ones(2))])

    found = slots_of(optimizer, variable).values()

    expected = [v for v in optimizer.variables if v.shape == (3, 2)]
    assert {id(v) for v in found} == {id(v) for v in expected}


def test_a_cycle_opens_masks_and_nothing_else_does():
    model, watch = pruned(), Watch()
    cycles = kprune.CyclicSchedule(
        0.75, cycles=2, sparse_steps=6, dense_steps=8, begin_step=2
    )

    fit(model, kprune.PruningCallback(cycles), watch)

    expected = [0] * 2 + [72] * 6 + [0] * 8 + [72] * 8
    assert [zeros["hidden"] for zeros in watch.zeros] == expected
    came = ~watch.masks[7]
    assert (watch.weights[8][came] == 0).all()
    for slot in watch.slots[8]:
        assert (slot[came] == 0).all() and (slot[~came] != 0).all()
    assert counts_of_masks(model) == DONE


@pytest.mark.parametrize(
    "name", with_slow({"set", "surgery"}, [*METHODS, "deviations", "rewind"])
)
def test_a_cycle_opens_masks_whatever_brings_weights_back(name):
    parts = {
        **METHODS,
        "deviations": lambda: {
            "regrowth": kprune.DynamicNetworkSurgery(0.5, 5, 20, deviations=0.5)
        },
        "rewind": lambda: {"regrowth": kprune.Rewind()},
    }
    model, watch = pruned(), Watch()
    cycles = kprune.CyclicSchedule(0.75, cycles=2, sparse_steps=5, begin_step=5)

    fit(model, kprune.PruningCallback(cycles, **parts[name]()), watch)

    zeros = [zeros["hidden"] for zeros in watch.zeros]
    sparse = zeros[5] if name == "deviations" else DONE["hidden"]
    assert zeros[:15] == [0] * 5 + [sparse] * 5 + [0] * 5
    assert min(zeros[15:]) > 0
    if name != "deviations":
        assert zeros[15:] == [sparse] * 9


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("due", [15, 23])  # before the end of the method, and past it
def test_no_weight_comes_back_past_the_end(name, due):
    model = pruned()
    end = 23 if due == 23 else 11
    rising = kprune.PolynomialSchedule(0.75, 3, end_step=end, frequency=4)
    pruner = kprune.Pruner(model, rising, **METHODS[name]())
    for clock in (0, 10):
        kprune.set_clock(model, clock)
        pruner.step()
    for entry in entries(model):
        removed = ~entry.mask.numpy()
        if name == "surgery":
            entry.tracked_as("shadow").assign(np.where(removed, 9.0, 1.0))
            entry.variable.assign(np.where(removed, 0.0, 1.0))
    before = [entry.mask.numpy() for entry in entries(model)]

    kprune.set_clock(model, 23)  # a batch of many steps has skipped what was due at 15
    pruner.step()

    for entry, mask in zip(entries(model), before, strict=True):
        assert mask.any() and not (entry.mask.numpy() & ~mask).any()
    assert counts_of_masks(model) == DONE


ALL = {
    **METHODS,
    "rewind": lambda: {"regrowth": kprune.Rewind(step=2)},
    "cycle": lambda: {},
    "movement": lambda: {"criterion": "movement"},
}


def pruning_by(name):
    schedule = kprune.PolynomialSchedule(0.75, 3, end_step=15, frequency=4)
    if name == "cycle":
        schedule = kprune.CyclicSchedule(0.75, cycles=2, sparse_steps=5, begin_step=5)
    return kprune.PruningCallback(schedule, **ALL[name]())


def sorted_state(model):
    """A file does not tell in which order tracked variables were made."""
    tracked = [s.tracked.variables_by_name for s in whole_model.stores(model)]
    tracked = [dict(sorted(by_name.items())) for by_name in tracked]
    names = {id(v) for by_name in tracked for v in by_name.values()}
    others = [v for v in model.variables if id(v) not in names]
    assert all(by_name for by_name in tracked[:1])
    return [v.numpy() for v in others], [
        (name, v.numpy()) for by_name in tracked for name, v in by_name.items()
    ]


class StopAfterEpoch(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


@pytest.mark.filterwarnings("ignore:Training ended at step")
# The slow ones go through the same file; what surgery tracks is loaded below, too.
@pytest.mark.parametrize(
    "name", with_slow({"set", "surgery", "rewind", "cycle", "movement"}, ALL)
)
def test_a_run_goes_on_from_a_file_bit_for_bit(name, tmp_path):
    model = pruned()
    whole = kprune.prune(model)
    fit(whole, pruning_by(name))

    fit(model, pruning_by(name), StopAfterEpoch())
    model.save(tmp_path / "half.keras")
    resumed = keras.saving.load_model(tmp_path / "half.keras")
    fit(resumed, pruning_by(name), initial_epoch=1)

    assert whole_model.clock_of(resumed) == 24
    assert counts_of_masks(resumed) == DONE
    np.testing.assert_equal(sorted_state(resumed), sorted_state(whole))
    plain = kprune.strip(resumed)
    assert len(plain.variables) == 4
    x, _ = data()
    np.testing.assert_array_equal(plain(x), resumed(x))


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize(  # a backup is a checkpoint
    "kind", with_slow({"checkpoint"}, ["weights", "checkpoint", "backup"])
)
def test_what_is_tracked_is_restored_into_a_model_that_has_none_of_it(kind, tmp_path):
    model = pruned()
    if kind == "backup":
        backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
        fit(model, pruning_by("surgery"), backup)
    else:
        fit(model, pruning_by("surgery"))
    fresh = pruned()

    if kind == "weights":
        model.save_weights(tmp_path / "done.weights.h5")
        fresh.load_weights(tmp_path / "done.weights.h5")
    elif kind == "checkpoint":
        path = tf.train.Checkpoint(model=model).save(str(tmp_path / "done"))
        tf.train.Checkpoint(model=fresh).restore(path)
        kprune.Pruner(fresh, kprune.ConstantSchedule(0.75), regrowth=surgery())
    else:
        fit(fresh, pruning_by("surgery"), backup)

    shadows = [e.tracked_as("shadow").numpy() for e in entries(model)]
    for shadow, entry in zip(shadows, entries(fresh), strict=True):
        np.testing.assert_array_equal(entry.tracked_as("shadow").numpy(), shadow)


def surgery():
    return kprune.DynamicNetworkSurgery(frequency=5, end_step=20)


def test_a_file_from_before_loads_into_a_model_that_tracks_more(tmp_path):
    model = pruned()
    fit(model, kprune.PruningCallback(kprune.ConstantSchedule(0.75)), epochs=1)
    model.save_weights(tmp_path / "plain.weights.h5")
    tracking = pruned()
    fit(tracking, pruning_by("surgery"))

    tracking.load_weights(tmp_path / "plain.weights.h5")

    assert counts_of_masks(tracking) == DONE
    np.testing.assert_array_equal(
        tracking.get_layer("head").kernel, model.get_layer("head").kernel
    )


def test_pruning_again_carries_over_what_is_tracked():
    model = pruned()
    fit(model, pruning_by("surgery"))

    again = kprune.prune(model)

    assert_equal_states(again, model)


# Movement, against sums made with a tape


def scaled(optimizer):
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**4)


MOVEMENTS = {
    "graph": (lambda: keras.optimizers.SGD(0.1), {}),
    "clipped": (lambda: keras.optimizers.SGD(0.1, clipnorm=0.05), {}),
    "jit": (lambda: keras.optimizers.SGD(0.1), {"jit_compile": True}),
    "eager": (lambda: keras.optimizers.SGD(0.1), {"run_eagerly": True}),
    "scaled": (lambda: scaled(keras.optimizers.SGD(0.1)), {}),
    "accumulated": (
        lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=3),
        {},
    ),
}


@pytest.mark.parametrize(
    "name", with_slow({"clipped", "jit", "eager", "accumulated"}, MOVEMENTS)
)
def test_movement_is_the_sum_of_minus_weight_times_gradient(name):
    make, options = MOVEMENTS[name]
    model = pruned(make(), **options)
    reference = kprune.prune(model)
    reference.compile(make(), "mse")
    x, y = data()
    sums = [0.0, 0.0]
    for i in range(3 * BATCHES if name == "accumulated" else BATCHES):
        batch = slice(i % BATCHES * BATCH, (i % BATCHES + 1) * BATCH)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((y[batch] - reference(x[batch])) ** 2)
        variables = reference.trainable_variables
        gradients = tape.gradient(loss, variables)
        for n, kernel in enumerate((0, 2)):
            share = 3 if name == "accumulated" else 1
            sums[n] -= variables[kernel].numpy() * gradients[kernel].numpy() / share
        optimizer = getattr(reference.optimizer, "inner_optimizer", reference.optimizer)
        optimizer.apply(gradients, variables)

    fit(
        model,
        kprune.PruningCallback(kprune.ConstantSchedule(0.5, 12), criterion="movement"),
        epochs=3 if name == "accumulated" else 1,
    )

    for entry, total in zip(entries(model), sums, strict=True):
        found = entry.tracked_as("movement").numpy()
        np.testing.assert_allclose(found, total, rtol=1e-4, atol=1e-6)
        kept = np.sort(np.argsort(total.ravel())[total.size // 2 :])
        np.testing.assert_array_equal(np.flatnonzero(entry.mask.numpy()), kept)


def test_movement_is_followed_in_a_model_that_was_trained_before():
    model = pruned()
    fit(model, epochs=1)  # the step is traced without it
    schedule = kprune.PolynomialSchedule(0.75, BATCHES + 3, BATCHES + 15, frequency=4)

    fit(model, kprune.PruningCallback(schedule, criterion="movement"))
    fit(model, kprune.PruningCallback(schedule, criterion="movement"), epochs=1)

    assert (entries(model)[0].tracked_as("movement").numpy() != 0).any()
    assert counts(model) == DONE


def test_movement_needs_an_optimizer_to_watch():
    model = kprune.prune(network())

    with pytest.raises(ValueError, match=r"not compiled with one. Call `model.compile"):
        kprune.Pruner(model, kprune.ConstantSchedule(0.5), criterion="movement")


@pytest.mark.parametrize(
    "schedule",
    [
        kprune.ConstantSchedule(0.5),
        kprune.IterativeSchedule(0.5, rounds=2, steps_per_round=5),
    ],
)
def test_pruning_by_movement_before_anything_moved_is_refused(schedule):
    model = pruned()

    with pytest.raises(ValueError, match=r"none has been seen.*begin_step=100"):
        fit(model, kprune.PruningCallback(schedule, criterion="movement"))

    assert clock_of(model) == 0


def test_movement_is_not_seen_by_another_optimizer():
    model, other = pruned(), keras.optimizers.SGD(0.1)
    other.build(model.trainable_variables)
    schedule = kprune.ConstantSchedule(0.5, begin_step=1)
    pruner = kprune.Pruner(model, schedule, criterion="movement")
    pruner.step()
    other.apply([tf.ones(v.shape) for v in model.trainable_variables])

    with pytest.raises(ValueError, match=r"another optimizer .* `model.optimizer`"):
        pruner.step()


def test_movement_is_followed_on_when_the_model_is_compiled_anew():
    model, (x, y) = pruned(), data()
    schedule = kprune.ConstantSchedule(0.5, begin_step=2)
    pruner = kprune.Pruner(model, schedule, criterion="movement")
    model.compile("sgd", "mse")

    for _ in range(3):
        pruner.step()
        model.train_on_batch(x[:BATCH], y[:BATCH])

    assert pruner.sparsity == 0.5
    for entry in entries(model):
        assert np.any(entry.tracked_as("movement").numpy())


@pytest.mark.parametrize(
    "arguments",
    [
        {"schedule": kprune.ConstantSchedule(0.5, begin_step=9)},
        {"schedule": kprune.CyclicSchedule(0.5, 2, sparse_steps=4, begin_step=9)},
        {
            "schedule": kprune.ConstantSchedule(0.5, begin_step=9),
            "regrowth": kprune.SET(end_step=12),
        },
    ],
    ids=["plain", "cyclic", "regrowth"],
)
def test_evidence_that_can_not_be_had_is_missed_before_any_training(arguments):
    inputs = keras.Input((3, 2))
    outputs = keras.layers.Dense(1)(keras.layers.LSTM(2)(inputs))
    model = kprune.prune(keras.Model(inputs, outputs))
    model.compile("sgd", "mse")
    x = np.ones((8, 3, 2), "float32")
    callback = kprune.PruningCallback(
        **arguments, criterion="wanda", calibration_data=x
    )

    with pytest.raises(ValueError, match="lstm.*can't be told"):
        model.fit(
            x, x[:, 0, :1], batch_size=1, epochs=4, verbose=0, callbacks=[callback]
        )

    assert clock_of(model) == 0


# Surgery, against dense weights kept by hand


def test_removed_weights_learn_in_the_shadow_as_dense_weights_would():
    model = pruned(keras.optimizers.SGD(0.1))
    x, y = data()
    first, second = (e.variable.numpy() for e in entries(model))
    biases = [np.zeros(16, "float32"), np.zeros(3, "float32")]
    dense = [first, second]
    masks = [np.abs(w) >= np.sort(np.abs(w).ravel())[w.size * 3 // 4] for w in dense]
    for i in range(BATCHES):
        batch = slice(i * BATCH, (i + 1) * BATCH)
        parts = [tf.constant(w * m) for w, m in zip(dense, masks, strict=True)]
        parts += [tf.constant(b) for b in biases]
        with tf.GradientTape() as tape:
            tape.watch(parts)
            hidden = tf.nn.relu(x[batch] @ parts[0] + parts[2])
            loss = tf.reduce_mean((y[batch] - (hidden @ parts[1] + parts[3])) ** 2)
        steps = [0.1 * g.numpy() for g in tape.gradient(loss, parts)]
        dense = [w - s for w, s in zip(dense, steps[:2], strict=True)]
        biases = [b - s for b, s in zip(biases, steps[2:], strict=True)]

    regrowth = kprune.DynamicNetworkSurgery(frequency=100, end_step=1)
    schedule = kprune.ConstantSchedule(0.75)
    fit(model, kprune.PruningCallback(schedule, regrowth=regrowth), epochs=1)

    for entry, weight, mask in zip(entries(model), dense, masks, strict=True):
        np.testing.assert_array_equal(entry.mask, mask)
        np.testing.assert_allclose(entry.tracked_as("shadow"), weight, atol=1e-5)
        np.testing.assert_allclose(entry.variable, weight * mask, atol=1e-5)


def test_spliced_weights_come_back_with_what_they_have_learnt():
    model = pruned()
    pruner = kprune.Pruner(model, kprune.ConstantSchedule(0.5), regrowth=surgery())
    pruner.step()
    entry = entries(model)[0]
    removed = ~entry.mask.numpy()
    entry.tracked_as("shadow").assign(np.where(removed, 9.0, 1.0))
    entry.variable.assign(np.where(removed, 0.0, 1.0))
    kprune.set_clock(model, 5)

    pruner.step()

    np.testing.assert_array_equal(entry.mask, removed)
    np.testing.assert_array_equal(entry.variable, np.where(removed, 9.0, 0.0))


def test_surgery_with_thresholds_finds_its_own_sparsity(capsys):
    model = pruned()
    regrowth = kprune.DynamicNetworkSurgery(frequency=5, end_step=20, deviations=0.5)

    pruning = kprune.PruningCallback(
        kprune.ConstantSchedule(0.1, 12), regrowth=regrowth
    )
    history = fit(model, pruning, verbose=2)

    before, after = history.history["sparsity"]
    assert before == 0  # the schedule says when
    assert 0.5 < after < 0.9
    assert "reaches the sparsity that Dynamic" in capsys.readouterr().out


# Rewinding


@pytest.mark.parametrize("step", [0, 3])
def test_kept_weights_go_back_and_the_optimizer_begins_anew(step):
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model, watch = pruned(keras.optimizers.SGD(rate, momentum=0.9)), Watch()
    rounds = kprune.IterativeSchedule(0.75, rounds=2, steps_per_round=8, begin_step=7)
    seen = {}

    class Biases(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            clock = whole_model.clock_of(self.model)
            iterations = int(self.model.optimizer.iterations)
            seen[clock] = (self.model.get_layer("head").bias.numpy(), iterations)

    fit(
        model,
        kprune.PruningCallback(rounds, regrowth=kprune.Rewind(step)),
        watch,
        Biases(),
    )

    assert [zeros["hidden"] for zeros in watch.zeros][6:16:3] == [0, 48, 48, 72]
    for pruned_at in (7, 15):
        early = watch.weights[step] * watch.masks[pruned_at]
        np.testing.assert_array_equal(watch.weights[pruned_at], early)
        np.testing.assert_array_equal(seen[pruned_at][0], seen[step][0])
        assert seen[pruned_at][1] == step
        assert all((slot == 0).all() for slot in watch.slots[pruned_at])
    assert not (watch.weights[14] == watch.weights[7]).all()


# What can't work is refused before training


@pytest.mark.parametrize(
    "options, message",
    [
        ({"regrowth": "rigl"}, "gradient must be gathered over examples"),
        ({"regrowth": "regrow"}, "'regrow' is none of the registered regrowths: 'set'"),
        ({"rollback": 0.01}, r"Expected rollback=kprune.Rollback\("),
        ({"criterion": "taylor"}, "must be gathered over examples"),
        ({"criterion": "batch_norm_scale"}, "scores whole units"),
    ],
)
def test_parts_that_can_not_work_are_refused_before_the_first_batch(options, message):
    batches = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: batches.append(batch)
    )

    with pytest.raises(ValueError, match=message):
        fit(pruned(), kprune.PruningCallback(0.5, **options), count)

    assert not batches


def test_a_pruner_has_to_be_told_when_regrowth_ends():
    with pytest.raises(ValueError, match=r"RigL.*does not say when it ends"):
        kprune.Pruner(
            pruned(),
            kprune.ConstantSchedule(0.5),
            regrowth="rigl",
            calibration_data=calibration(),
        )


def test_in_fit_regrowth_ends_after_three_quarters():
    model, watch = pruned(), Watch()

    fit(model, kprune.PruningCallback(0.5, regrowth=kprune.SET(frequency=1)), watch)

    moved = [(a != b).any() for a, b in itertools.pairwise(watch.masks)]
    assert all(moved[1:17]) and not any(moved[18:])


def test_an_exchange_is_made_up_for_where_a_batch_is_many_steps():
    model, watch = pruned(steps_per_execution=8), Watch()
    schedule = kprune.PolynomialSchedule(0.75, 0, end_step=16, frequency=4)

    fit(model, kprune.PruningCallback(schedule, regrowth=kprune.SET(0.3, 5, 20)), watch)

    came = [(b & ~a).any() for a, b in itertools.pairwise(watch.masks)]
    assert len(came) == 3 and came[1]  # of 0, 8, 12 (an epoch's end) and 20


def test_each_fit_has_its_own_updates_where_the_schedule_starts_anew():
    model = pruned()
    cycles = kprune.CyclicSchedule(0.5, cycles=2, sparse_steps=6)
    again = kprune.CyclicSchedule(0.75, cycles=2, sparse_steps=6)
    first, second = Watch(), Watch()

    fit(model, kprune.PruningCallback(cycles, start="fit"), first)
    fit(model, kprune.PruningCallback(again, start="fit"), second)

    zeros = [
        [watch.zeros[s]["hidden"] for s in (0, 7, 23)] for watch in (first, second)
    ]
    assert zeros == [[48, 0, 48], [72, 0, 72]]


def test_a_function_is_a_criterion():
    model = pruned()
    before = entries(model)[0].variable.numpy()

    def largest_first(weight):
        return -np.abs(weight)

    pruner = kprune.Pruner(model, kprune.ConstantSchedule(0.5), criterion=largest_first)
    pruner.step()

    after = entries(model)[0].variable.numpy()
    assert np.abs(before[after != 0]).max() <= np.abs(before[after == 0]).min()
