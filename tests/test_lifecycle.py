"""Saved, killed, resumed, compiled again, stripped: the schedule goes on."""

import functools
import signal
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune.whole_model import clock_of
from tests import training_helpers
from tests.checks import zeros_of
from tests.processes import run_script
from tests.training_helpers import (
    BATCH,
    BATCHES,
    Spy,
    assert_equal_states,
    assert_masked,
    counts,
    data,
    network,
    polynomial,
    with_slow,
)

# Updates are due at 0, 5, 10, 15 and, off the grid, at 17; an epoch has 12 steps.
SCHEDULE = {"final_sparsity": 0.75, "end_step": 17, "frequency": 5}
DONE = {"hidden": 72, "head": 36}


def wanted(step):
    """The sparsity of the last due update."""
    return polynomial(max(d for d in (0, 5, 10, 15, 17) if d <= step))


def pruning(**options):
    return kprune.PruningCallback(kprune.PolynomialSchedule(**SCHEDULE), **options)


def compiled(model, **options):
    model.compile(keras.optimizers.Adam(0.01, **options), "mse")
    return model


def eagerly(plain):
    """Makes a pruned model whose training is not traced, which takes longer."""
    model = kprune.prune(plain)
    model.compile("sgd", "mse", run_eagerly=True)
    return model


fit = functools.partial(training_helpers.fit, shuffle=False)


class StopAfter(keras.callbacks.Callback):
    """Ends training after some batches, or at the end of that epoch."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.model.stop_training = True


def half(model, *callbacks, batches=BATCHES):
    """Plans two epochs and stops after the first one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Training ended at step")
        return fit(model, *callbacks, StopAfter(batches))


@pytest.fixture
def plain():
    return network()


def trained():
    """Trains a model as planned, from the seed that every test begins with."""
    keras.utils.set_random_seed(0)
    model = compiled(kprune.prune(network()))
    fit(model, pruning())
    return model


@pytest.fixture(scope="module")
def whole():
    """A run that nothing interrupted, to compare with."""
    return trained()


def test_keras_file_goes_on_bit_for_bit(plain, whole, tmp_path):
    model = compiled(kprune.prune(plain))
    half(model, pruning())

    model.save(tmp_path / "half.keras")
    loaded = keras.saving.load_model(tmp_path / "half.keras")
    assert_equal_states(loaded, model)
    assert clock_of(loaded) == 12
    fit(loaded, pruning(), Spy(wanted), initial_epoch=1)

    assert_equal_states(loaded, whole)
    assert counts(loaded) == DONE


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize("compile_first", [True, False])
def test_weights_file_carries_masks_and_clock(plain, compile_first, tmp_path):
    model = compiled(kprune.prune(plain))
    half(model, pruning())
    model.save_weights(tmp_path / "half.weights.h5")

    fresh = kprune.prune(network())
    if compile_first:
        compiled(fresh)
    fresh.load_weights(tmp_path / "half.weights.h5")
    if not compile_first:
        compiled(fresh)
    assert_equal_states(fresh, model)
    spy = Spy(lambda step: wanted(step + 12))  # the optimizer begins at 0 again
    fit(fresh, pruning(), spy, initial_epoch=1)

    assert counts(fresh) == DONE
    assert clock_of(fresh) == 24


def test_tf_checkpoint_goes_on_bit_for_bit(plain, whole, tmp_path):
    model = compiled(kprune.prune(plain))
    half(model, pruning())
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    path = checkpoint.save(str(tmp_path / "half"))

    fresh = compiled(kprune.prune(network()))
    fresh.optimizer.build(fresh.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=fresh, optimizer=fresh.optimizer)
    checkpoint.restore(path).assert_consumed()
    assert_equal_states(fresh, model)
    fit(fresh, pruning(), Spy(wanted), initial_epoch=1)

    assert_equal_states(fresh, whole)


LOAD = """
import sys, warnings
import keras, numpy as np
import kprune

warnings.simplefilter("error")
warnings.filterwarnings("ignore", "__array__")

@keras.saving.register_keras_serializable("mine")
class Mine(keras.Model):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, "relu")
        self.head = keras.layers.Dense(3)

    def call(self, x):
        return self.head(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}
"""

READ = """
folder = sys.argv[1]
x = np.load(f"{folder}/x.npy")
for name in ("graph", "subclass"):
    model = keras.saving.load_model(f"{folder}/{name}.keras")
    stored = np.load(f"{folder}/{name}.npz")
    for i, variable in enumerate(model.variables):
        np.testing.assert_array_equal(variable.numpy(), stored[f"arr_{i}"])
    outputs = model(x).numpy()
    np.testing.assert_allclose(outputs, np.load(f"{folder}/{name}.npy"), atol=1e-6)
    assert kprune.whole_model.clock_of(model) == 12
    model.fit(x, outputs + 1, batch_size=8, epochs=1, verbose=0,
        callbacks=[kprune.PruningCallback(kprune.ConstantSchedule(0.75, 15))])
    assert kprune.whole_model.clock_of(model) == 24
    plain = kprune.strip(model)
    zeros = [int((v.numpy() == 0).sum()) for v in plain.variables if len(v.shape) > 1]
    assert zeros == [72, 36], zeros
print("loaded as they were")
"""


def test_files_load_in_a_fresh_process_after_import_kprune(tmp_path):
    x, _ = data()
    scope = {}
    with warnings.catch_warnings():  # the script sets filters for its own process
        exec(LOAD, scope)
    subclass = scope["Mine"](16)
    subclass(x[:1])
    np.save(tmp_path / "x.npy", x)
    for name, model in {"graph": network(), "subclass": subclass}.items():
        model = compiled(kprune.prune(model))
        half(model, pruning())
        model.save(tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.npz", *[v.numpy() for v in model.variables])
        np.save(tmp_path / f"{name}.npy", model(x))

    done = run_script(LOAD + READ, tmp_path)

    assert "loaded as they were" in done.stdout, done.stderr[-3000:]


# Trains one epoch without pruning, then four with backups; killed in the third of
# them if it is told so. The second start finds the backup and goes on.
TRAIN = """
import os, signal, sys
import keras, numpy as np
import kprune
from tests.training_helpers import *

folder, kind, end = sys.argv[1:]

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.armed = epoch == 2

    def on_train_batch_end(self, batch, logs=None):
        if self.armed and batch == 5:
            os.kill(os.getpid(), signal.SIGKILL)

def run(backup, *others):
    keras.utils.set_random_seed(0)
    model = kprune.prune(network())
    model.compile(keras.optimizers.Adam(0.01), "mse")
    build_optimizer(model)
    x, y = data()
    options = dict(batch_size=8, shuffle=False, verbose=0)
    model.fit(x, y, epochs=1, **options)
    schedule, start = {
        "schedule": (kprune.PolynomialSchedule(
            0.9, begin_step=14, end_step=57, frequency=7), "model"),
        "short_form": (0.9, "model"),
        "short_form_of_fit": (0.9, "fit"),
        "start_of_fit": (kprune.PolynomialSchedule(
            0.9, begin_step=2, end_step=45, frequency=7), "fit"),
    }[kind]
    pruning = kprune.PruningCallback(schedule, start=start)
    backups = [keras.callbacks.BackupAndRestore(backup)] if backup else []
    if kind == "schedule":  # once listed before ours, else after it
        backups.append(pruning)
    else:
        backups.insert(0, pruning)
    history = model.fit(x, y, epochs=4, callbacks=[*backups, *others], **options)
    assert kprune.whole_model.clock_of(model) == 60
    assert counts(model) == {"hidden": 86, "head": 43}
    return model, len(history.history["loss"])

backup = f"{folder}/{kind}"
if end == "killed":
    run(backup, Kill())
resumed, epochs = run(backup)
assert epochs == 2, epochs
whole, epochs = run(None)
assert epochs == 4
assert_equal_states(resumed, whole)
for a, b in zip(resumed.optimizer.variables, whole.optimizer.variables):
    np.testing.assert_array_equal(a.numpy(), b.numpy())
print("as if nothing had happened")
"""


@pytest.mark.parametrize(
    "kind",
    [
        "short_form_of_fit",
        pytest.param("schedule", marks=pytest.mark.slow),
        pytest.param("short_form", marks=pytest.mark.slow),
        pytest.param("start_of_fit", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_with_backups_ends_like_one_that_was_not(kind, tmp_path):
    killed = run_script(TRAIN, tmp_path, kind, "killed")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]

    resumed = run_script(TRAIN, tmp_path, kind, "resumed")

    assert "as if nothing had happened" in resumed.stdout, resumed.stderr[-3000:]


@pytest.mark.parametrize("save_freq", [5, "epoch"])
def test_checkpoints_do_not_depend_on_the_order_of_callbacks(
    plain, save_freq, tmp_path
):
    def checkpoint(place):
        return keras.callbacks.ModelCheckpoint(
            tmp_path / (place + "-{epoch}.weights.h5"),
            save_weights_only=True,
            save_freq=save_freq,
        )

    model = compiled(kprune.prune(plain))
    fit(model, checkpoint("before"), pruning(), checkpoint("after"))

    files = sorted(path.name for path in tmp_path.glob("before*"))
    assert files == ["before-1.weights.h5", "before-2.weights.h5"]
    for name in files:
        before, after = kprune.prune(plain), kprune.prune(plain)
        before.load_weights(tmp_path / name)
        after.load_weights(tmp_path / name.replace("before", "after"))
        assert_equal_states(before, after)
    if save_freq == "epoch":
        assert_equal_states(after, model)


# The order of callbacks matters to no checkpoint; see the test above.
@pytest.mark.parametrize("first", with_slow({False}, [True, False]))
def test_a_checkpoint_within_an_epoch_resumes_bit_for_bit(plain, first, tmp_path):
    x, y = data()

    def begun():  # eagerly: for so few steps tracing takes longer
        model = kprune.prune(plain)
        model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
        return model

    def steps(model, batches, *callbacks):
        # One epoch a batch: the next fit begins with whatever batch follows.
        for i in batches:
            rows = slice(i % BATCHES * BATCH, (i % BATCHES + 1) * BATCH)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(x[rows], y[rows], BATCH, verbose=0, callbacks=[*callbacks])

    save = keras.callbacks.ModelCheckpoint(tmp_path / "last.keras")
    schedule = kprune.PolynomialSchedule(0.75, end_step=4, frequency=3)
    ours = kprune.PruningCallback(schedule)
    callbacks = [save, ours] if first else [ours, save]
    whole = begun()
    steps(whole, range(5), ours)
    model = begun()
    steps(model, range(3), *callbacks)  # an update is due now, before the fourth batch

    model = keras.saving.load_model(tmp_path / "last.keras")
    steps(model, range(3, 5), *callbacks)

    assert_equal_states(model, whole)
    assert counts(model) == DONE


def test_early_stopping_leaves_the_schedule_where_it_stood(plain):
    model = compiled(kprune.prune(plain))
    stopping = keras.callbacks.EarlyStopping(monitor="loss", min_delta=1e9)

    with pytest.warns(UserWarning, match=r"ended at step 24, before .* step 30"):
        fit(
            model,
            stopping,
            kprune.PruningCallback(kprune.PolynomialSchedule(0.75, end_step=30)),
            epochs=4,
        )
    history = fit(
        model,
        kprune.PruningCallback(kprune.PolynomialSchedule(0.75, end_step=30)),
        epochs=4,
        initial_epoch=2,
    )

    assert clock_of(model) == 48
    assert counts(model) == DONE
    assert history.history["sparsity"] == [0.75, 0.75]


def test_an_update_due_where_training_is_stopped_is_carried_out(plain):
    model = compiled(kprune.prune(plain))
    stopping = keras.callbacks.EarlyStopping(monitor="loss", min_delta=1e9)
    schedule = kprune.PolynomialSchedule(0.75, end_step=24, frequency=5)

    fit(model, stopping, kprune.PruningCallback(schedule), epochs=4)

    assert clock_of(model) == 24
    assert counts(model) == DONE


def test_restored_best_weights_are_warned_about_and_not_called_a_success(plain, capsys):
    model = compiled(kprune.prune(plain))
    stopping = keras.callbacks.EarlyStopping(
        monitor="loss", mode="max", patience=9, restore_best_weights=True
    )

    with pytest.warns(UserWarning) as caught:
        fit(model, stopping, pruning(), epochs=3)  # the first epoch is the "best"

    messages = [str(warning.message) for warning in caught]
    assert "EarlyStopping(restore_best_weights=True) may bring back" in messages[0]
    assert counts(model)["hidden"] == zeros_of(96, wanted(11))
    assert "asked for sparsity 0.75, reached 0.6" in messages[1]
    assert len(messages) == 2


def test_after_pruning_lets_early_stopping_restore_only_sparse_weights(plain):
    model = compiled(kprune.prune(plain))
    ours = pruning()
    stopping = keras.callbacks.EarlyStopping(
        monitor="loss", mode="max", patience=1, restore_best_weights=True
    )

    history = fit(model, kprune.AfterPruning(stopping, ours), ours, epochs=9)

    # Finished in the second epoch, which is the best of those that it saw.
    assert len(history.history["loss"]) == 3
    assert counts(model) == DONE
    assert_masked(model)


def test_after_pruning_lets_checkpoints_keep_only_sparse_weights(plain, tmp_path):
    model = compiled(kprune.prune(plain))
    ours = pruning()
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.keras", monitor="loss", mode="max", save_best_only=True
    )

    fit(model, kprune.AfterPruning(best, ours), ours, epochs=3)

    assert [path.name for path in tmp_path.iterdir()] == ["2.keras"]
    assert counts(keras.saving.load_model(tmp_path / "2.keras")) == DONE


def test_saving_the_best_only_is_warned_about(plain, tmp_path):
    model = compiled(kprune.prune(plain))
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="loss", save_best_only=True
    )

    with pytest.warns(UserWarning, match=r"ModelCheckpoint\(save_best_only=True\)"):
        fit(model, best, pruning())


def test_a_fit_without_the_callback_keeps_zeros_and_counts_on():
    model = trained()
    spy = Spy(lambda step: 0.75)

    fit(model, spy)

    assert clock_of(model) == 48
    assert counts(model) == DONE


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_compiled_again_the_schedule_goes_on(plain, optimizer):
    model = compiled(kprune.prune(plain))
    half(model, pruning())

    model.compile(optimizer, "mae")
    fit(model, pruning(), Spy(lambda step: wanted(step + 12)), initial_epoch=1)

    assert clock_of(model) == 24
    assert counts(model) == DONE


def test_start_fit_counts_from_each_fit():
    model = trained()
    schedule = kprune.PolynomialSchedule(0.9, begin_step=3, end_step=20, frequency=8)

    def expected(step):  # due at 3, 11, 19 and 20 of this fit, which begins at 24
        due = max((d for d in (3, 11, 19, 20) if d <= step - 24), default=0)
        return max(0.75, polynomial(due, final=0.9, begin=3, end=20))

    ours = kprune.PruningCallback(schedule, start="fit")
    fit(model, ours, Spy(expected))

    assert counts(model) == {"hidden": 86, "head": 43}
    assert ours.finished


@pytest.mark.filterwarnings("ignore:Training ended at step")
def test_a_run_killed_in_its_first_epoch_goes_on_by_its_plan(plain, tmp_path):
    schedule = kprune.ConstantSchedule(0.75, begin_step=15)
    clocks = []

    class Killed(Exception):
        pass

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 7:
                raise Killed

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if not clocks and sum(counts(self.model).values()):
                clocks.append(clock_of(self.model))

    backup = keras.callbacks.BackupAndRestore(tmp_path, save_freq=3)
    callbacks = [kprune.PruningCallback(schedule, start="fit"), backup]
    with pytest.raises(Killed):
        fit(eagerly(plain), *callbacks, Kill())

    resumed = eagerly(plain)
    callbacks[0] = kprune.PruningCallback(schedule, start="fit")
    fit(resumed, *callbacks, Watch())

    assert clocks == [15]


def test_a_run_that_was_stopped_is_not_resumed_by_one_from_the_first_epoch(plain):
    schedule = kprune.ConstantSchedule(0.75, begin_step=2)
    model = eagerly(plain)
    early = kprune.ConstantSchedule(0.25, begin_step=2)
    fit(model, kprune.PruningCallback(early, start="fit"), StopAfter(4))
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(sum(counts(self.model).values()))

    fit(model, kprune.PruningCallback(schedule, start="fit"), Watch(), epochs=1)

    assert seen[:4] == [36, 36, 108, 108]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_run_of_unknown_length_ends_with_its_last_epoch(plain):
    model = eagerly(plain)
    options = {"x": generated(4), "shuffle": False, "verbose": 0}
    early = kprune.ConstantSchedule(0.25, begin_step=2)
    model.fit(**options, callbacks=[kprune.PruningCallback(early, start="fit")])
    late = kprune.PruningCallback(
        kprune.ConstantSchedule(0.75, begin_step=6), start="fit"
    )

    history = model.fit(**options, initial_epoch=1, epochs=3, callbacks=[late])

    assert history.history["sparsity"] == [0.25, 0.75]


def test_a_lost_counter_never_lowers_sparsity():
    model = trained()
    masks = [entry.numpy() for entry in model.variables if entry.dtype == "bool"]
    kprune.set_clock(model, 0)

    fit(model, pruning(), Spy(lambda step: 0.75))

    kept = [entry.numpy() for entry in model.variables if entry.dtype == "bool"]
    for before, after in zip(masks, kept, strict=True):
        np.testing.assert_array_equal(before, after)
    assert clock_of(model) == 24


class StripAt(keras.callbacks.Callback):
    """Strips the model in the middle of an epoch."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch
        self.plain = None

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.batch and self.plain is None:
            self.zeros = counts(self.model)
            self.predictions = self.model(data()[0]).numpy()
            self.plain = kprune.strip(self.model)


@pytest.mark.parametrize("ema", [{}, {"use_ema": True, "ema_overwrite_frequency": 3}])
def test_stripped_mid_epoch_zeros_are_exact_and_training_goes_on(plain, ema):
    model = compiled(kprune.prune(plain), **ema)
    strip = StripAt(6)

    fit(model, strip, pruning(), Spy(wanted))

    expected = zeros_of(96, wanted(5))
    kernel = strip.plain.get_layer("hidden").kernel.numpy()
    assert strip.zeros["hidden"] == np.count_nonzero(kernel == 0) == expected
    outputs = strip.plain(data()[0]).numpy()
    np.testing.assert_array_equal(outputs, strip.predictions)
    assert {type(layer) for layer in strip.plain.layers} == {keras.layers.Dense}
    assert counts(model) == DONE  # the run itself went on undisturbed
    fit(strip.plain, epochs=1)  # no constraint is left
    assert np.count_nonzero(strip.plain.get_layer("hidden").kernel.numpy() == 0) == 0


def test_stripped_after_load_weights(whole, tmp_path):
    whole.save_weights(tmp_path / "done.weights.h5")
    fresh = kprune.prune(network())

    fresh.load_weights(tmp_path / "done.weights.h5")
    plain = kprune.strip(fresh)

    x, _ = data()
    np.testing.assert_array_equal(
        plain.predict(x, verbose=0), whole.predict(x, verbose=0)
    )
    assert np.count_nonzero(plain.get_layer("head").kernel.numpy() == 0) == 36


# `inner` is what the wrapper freezes when it is frozen itself, as `layer`.
@pytest.mark.parametrize("freeze", with_slow({"inner"}, ["layer", "inner", "model"]))
def test_a_frozen_layer_is_left_alone_and_pruned_once_it_is_not(freeze, plain, capsys):
    if freeze == "model":
        inner = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(16, name="hidden")], name="body"
        )
        inputs = keras.Input((6,))
        outputs = keras.layers.Dense(3, name="head")(inner(inputs))
        model = kprune.prune(keras.Model(inputs, outputs))
        part = model.get_layer("body")
    else:
        model = kprune.prune(plain)
        part = model.get_layer("hidden")
        part = part.layer if freeze == "inner" else part
    part.trainable = False
    compiled(model)
    before = [entry.numpy() for entry in part.variables]

    fit(model, pruning(), verbose=2)

    assert "left alone, since frozen: hidden." in capsys.readouterr().out
    assert counts(model) == {"hidden": 0, "head": 36}
    after = [entry.numpy() for entry in part.variables]
    for a, b in zip(before[:2], after[:2], strict=True):
        np.testing.assert_array_equal(a, b)

    part.trainable = True
    compiled(model)
    fit(model, pruning(), Spy(lambda step: 0.75))

    assert counts(model) == DONE
    assert clock_of(model) == 48


def test_a_model_frozen_as_a_whole_is_refused(plain):
    model = kprune.prune(plain)
    for layer in model.layers:
        layer.trainable = False
    compiled(model)

    with pytest.raises(ValueError, match=r"All layers with masks are frozen.*'hidden'"):
        fit(model, pruning())


def by_hand():
    """A model whose layers were wrapped one by one, each with its own clock."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            kprune.PruningWrapper(keras.layers.Dense(16, "relu", name="hidden")),
            kprune.PruningWrapper(keras.layers.Dense(3, name="head")),
        ]
    )


def test_layers_wrapped_by_hand_agree_on_the_time():
    model = compiled(by_hand())

    fit(model, pruning(), Spy(wanted))

    assert [layer.store.clock.steps for layer in model.layers] == [24, 24]
    assert counts(model) == DONE


def test_a_frozen_layer_wrapped_by_hand_takes_the_clock_of_the_others():
    model = by_hand()
    model.layers[0].trainable = False
    compiled(model)
    fit(model, pruning())
    assert counts(model) == {"hidden": 0, "head": 36}

    model.layers[0].trainable = True
    compiled(model)
    fit(model, pruning(), epochs=1)

    assert [layer.store.clock.steps for layer in model.layers] == [36, 36]
    assert counts(model) == DONE


def test_clocks_that_disagree_are_an_error_with_a_remedy():
    model = compiled(by_hand())
    model.layers[1].store.clock.variable.assign(5)

    with pytest.raises(
        ValueError, match="'hidden' at step 0, 'head' at step 5"
    ) as error:
        fit(model, pruning())
    assert "kprune.set_clock(model, 5)" in str(error.value)
    kprune.set_clock(model, 5)
    fit(model, pruning(), Spy(lambda step: wanted(step + 5)))

    assert clock_of(model) == 29
    assert counts(model) == DONE


def test_the_clock_can_not_be_set_below_zero(plain):
    with pytest.raises(ValueError, match="step=-1 must be 0 or more"):
        kprune.set_clock(kprune.prune(plain), -1)


def test_pruning_a_pruned_model_goes_on_from_its_clock(whole):
    deeper = compiled(kprune.prune(whole))
    assert clock_of(deeper) == 24 and counts(deeper) == DONE

    fit(deeper, kprune.PruningCallback(kprune.ConstantSchedule(0.9, 30)))

    assert clock_of(deeper) == 48
    assert counts(deeper) == {"hidden": 86, "head": 43}


def generated(batches):
    """The data as a set of unknown length."""
    x, y = data(batches)

    def generate():
        for i in range(0, len(x), BATCH):
            yield x[i : i + BATCH], y[i : i + BATCH]

    signature = (tf.TensorSpec((None, 6)), tf.TensorSpec((None, 3)))
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


class StopAtEpoch(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 1


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    ("kind", "start"),
    [
        # As where steps overflow, there are fewer steps than batches.
        pytest.param("accumulated", "fit", marks=pytest.mark.slow),
        ("overflowing", "model"),
        ("unknown_length", "fit"),
        pytest.param("accumulated", "model", marks=pytest.mark.slow),
        pytest.param("overflowing", "fit", marks=pytest.mark.slow),
        pytest.param("unknown_length", "model", marks=pytest.mark.slow),
    ],
)
def test_a_plan_survives_where_batches_are_not_steps(kind, start, tmp_path):
    x, y = data(10)  # an epoch is no multiple of four batches
    options = {"x": x, "y": y, "batch_size": BATCH}
    schedule = 0.9  # the short form
    if kind == "unknown_length":
        options = {"x": generated(10)}
        schedule = kprune.PolynomialSchedule(0.9, 3, end_step=25, frequency=4)
    options |= {"epochs": 4, "shuffle": False, "verbose": 0}
    keras.config.set_dtype_policy(
        "mixed_float16" if kind == "overflowing" else "float32"
    )
    try:
        plain = network()
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = keras.optimizers.SGD(
        0.01, gradient_accumulation_steps=4 if kind == "accumulated" else None
    )
    if kind == "overflowing":  # the first steps are skipped
        optimizer = keras.optimizers.LossScaleOptimizer(
            optimizer, initial_scale=2.0**21
        )
    model = kprune.prune(plain)
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    if kind != "overflowing":
        model.fit(**{**options, "epochs": 1})
    model.save(tmp_path / "begin.keras")
    whole = keras.saving.load_model(tmp_path / "begin.keras")

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Training ended at step")
        pruning = kprune.PruningCallback(schedule, start=start)
        model.fit(**options, callbacks=[pruning, StopAtEpoch()])
        model.save(tmp_path / "half.keras")
        resumed = keras.saving.load_model(tmp_path / "half.keras")
        pruning = kprune.PruningCallback(schedule, start=start)
        resumed.fit(**options, initial_epoch=2, callbacks=[pruning])
    whole.fit(**options, callbacks=[kprune.PruningCallback(schedule, start=start)])

    assert counts(whole) == {"hidden": 86, "head": 43}
    assert_equal_states(resumed, whole)
