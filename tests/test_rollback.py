import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune import memory
from kprune.snapshot import Snapshot, make_room
from kprune.tracking import follow
from kprune.whole_model import clock_of
from tests.checks import entries
from tests.training_helpers import BATCH, BATCHES, counts, data, fit, network

EPOCH = 3  # steps

# Updates at the beginnings of the epochs 1, 2, 3 and 4.
STAIRS = kprune.PolynomialSchedule(
    0.8, EPOCH, end_step=4 * EPOCH, initial_sparsity=0.2, power=1, frequency=EPOCH
)


NO_WAY = "ignore:.*no way back"
SHORT = "ignore:The run is too short", "ignore:Training ended"


class Told(keras.metrics.Metric):
    """A metric that is told what to say, epoch by epoch."""

    def __init__(self, values):
        super().__init__(name="accuracy")
        self.values = values
        self.told = self.add_weight(name="told", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        pass

    def reset_state(self):
        pass

    def result(self):
        return self.told + 0.0


class Tell(keras.callbacks.Callback):
    """Sets the metric, and notes the state of model and optimizer at epoch ends."""

    def __init__(self, metric):
        super().__init__()
        self.metric = metric
        self.states = []

    def on_test_begin(self, logs=None):
        self.metric.told.assign(self.metric.values[len(self.states)])
        self.states.append(state_of(self.model))


def state_of(model):
    """Values of all variables of a model and its optimizer, the rollback's apart."""
    variables = model.variables + model.optimizer.variables
    return [v.numpy() for v in variables if not v.name.startswith(("rollback", "good"))]


def train(
    values,
    rollback,
    epochs=None,
    verbose=0,
    schedule=STAIRS,
    regrowth=None,
    model=None,
    callbacks=(),
    optimizer=None,
    **options,
):
    """Trains eagerly, since tracing takes longer, and tells the metric what to say."""
    model = model or kprune.prune(network())
    metric = Told(values)
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    model.compile(optimizer, "mse", metrics=[metric], run_eagerly=True)
    x, y = data(EPOCH)
    tell = Tell(metric)
    pruning = kprune.PruningCallback(schedule, rollback=rollback, regrowth=regrowth)
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        shuffle=False,
        epochs=epochs or len(values),
        validation_data=(x[:8], y[:8]),
        verbose=verbose,
        callbacks=[tell, pruning, *callbacks],
        **options,
    )
    return model, tell, history.history["sparsity"]


def test_a_metric_out_of_tolerance_brings_back_the_last_good_state_bit_for_bit(capsys):
    rollback = kprune.Rollback("val_accuracy", tolerance=0.05)

    model, tell, sparsity = train([0.9, 0.88, 0.86, 0.7], rollback, verbose=2)

    for now, good in zip(state_of(model), tell.states[2], strict=True):
        np.testing.assert_array_equal(now, good)
    assert clock_of(model) == 9
    np.testing.assert_allclose(sparsity, [0, 0.2, 0.4, 0.4], atol=0.01)
    said = capsys.readouterr().out
    assert "val_accuracy is 0.7, more than 0.05 worse than 0.9: went back" in said
    assert "of step 9, which is raised no further" in said
    assert "reached 0.3958, held there by the rollback." in said  # 57 of 144


@pytest.mark.parametrize(
    "options",
    [
        {
            "schedule": kprune.CyclicSchedule(
                0.5, cycles=2, sparse_steps=2, dense_steps=1, begin_step=4
            )
        },
        {
            "schedule": kprune.ConstantSchedule(0.5, 5),
            "regrowth": kprune.Rewind(step=4),
        },
    ],
    ids=["cycles", "rewind"],
)
def test_what_was_noted_first_after_the_good_epoch_is_forgotten(options):
    rollback = kprune.Rollback("val_accuracy", tolerance=0.05)

    model, _, sparsity = train([0.9, 0.5, 0.9], rollback, **options)

    assert sparsity == [0, 0, 0]
    assert clock_of(model) == 2 * EPOCH
    assert memory.last_update(model, 0) is None


def test_after_going_back_training_goes_on_and_sparsity_does_not_rise():
    rollback = kprune.Rollback("val_accuracy", tolerance=0.05)

    model, tell, sparsity = train([0.9, 0.9, 0.5, 0.9, 0.9, 0.9], rollback)

    np.testing.assert_allclose(sparsity, [0] + [0.2] * 5, atol=0.01)
    assert clock_of(model) == (2 + 3) * EPOCH
    kernel = model.get_layer("hidden").kernel.numpy()
    assert not any((state[0] == kernel).all() for state in tell.states[:5])


def test_within_the_tolerance_nothing_happens():
    rollback = kprune.Rollback("val_accuracy", tolerance=0.11)

    _, _, sparsity = train([0.9, 0.8, 0.79, 0.79, 0.79], rollback)

    np.testing.assert_allclose(sparsity[-1], 0.8, atol=0.01)


def test_patience_lets_training_make_up_for_a_step_of_pruning():
    values = [0.9, 0.5, 0.9, 0.5, 0.9]

    _, _, impatient = train(values, kprune.Rollback("val_accuracy", 0.05))
    _, _, patient = train(values, kprune.Rollback("val_accuracy", 0.05, patience=1))

    assert impatient[-1] == 0
    np.testing.assert_allclose(patient[-1], 0.8, atol=0.01)


def test_a_model_that_was_rolled_back_stays_so_in_another_run(tmp_path):
    rollback = kprune.Rollback("loss", tolerance=10.0, reference=-10.0)
    model = kprune.prune(network())
    model.compile("sgd", "mse")
    x, y = data()
    options = {"batch_size": BATCH, "verbose": 0}
    schedule = kprune.PolynomialSchedule(0.8, 6, end_step=24, frequency=3)
    pruning = kprune.PruningCallback(schedule, rollback=rollback)
    model.fit(x, y, epochs=3, callbacks=[pruning], **options)
    held = counts(model)
    model.save_weights(tmp_path / "held.weights.h5")
    fresh = kprune.prune(network())
    fresh.compile("sgd", "mse")
    fresh.load_weights(tmp_path / "held.weights.h5")

    fresh.fit(
        x,
        y,
        epochs=3,
        callbacks=[kprune.PruningCallback(schedule, rollback=rollback)],
        **options,
    )

    assert counts(fresh) == held
    assert held["hidden"] == 0  # as it was when the first run began


def resumed_after(values, rollback, path):
    """Returns a fresh model as another was at the end of its last epoch."""
    keep = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    _, tell, _ = train(values, rollback, callbacks=[keep])
    fresh = kprune.prune(network())
    fresh.load_weights(path)
    return fresh, tell.states


@pytest.mark.filterwarnings(*SHORT)
def test_a_resumed_run_goes_back_to_where_it_was_resumed(tmp_path):
    rollback = kprune.Rollback("val_accuracy", 0.05)
    resumed, _ = resumed_after([0.9, 0.9], rollback, tmp_path / "half.weights.h5")

    _, _, sparsity = train(
        [0.5, 0.9, 0.9], rollback, model=resumed, initial_epoch=2, epochs=5
    )

    np.testing.assert_allclose(sparsity, [0.4] * 3, atol=0.01)  # not 0.6 and 0.8
    assert clock_of(resumed) == (2 + 2) * EPOCH  # the third epoch was taken back


@pytest.mark.filterwarnings(*SHORT)
# Within a patience of two epochs there is one of one.
@pytest.mark.parametrize("patience", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_run_resumed_within_its_patience_goes_back_to_before_it(patience, tmp_path):
    rollback = kprune.Rollback("val_accuracy", 0.05, patience=patience)
    values = [0.9, 0.9] + [0.5] * patience
    resumed, states = resumed_after(values, rollback, tmp_path / "half.weights.h5")
    assert len(resumed.variables) > 2 * len(kprune.prune(network()).variables)
    epoch = len(values)

    model, _, sparsity = train(
        [0.5], rollback, model=resumed, initial_epoch=epoch, epochs=epoch + 1
    )

    np.testing.assert_allclose(sparsity, [0.2], atol=0.01)
    for now, good in zip(state_of(model), states[1], strict=True):
        np.testing.assert_array_equal(now, good)


def test_what_patience_keeps_aside_leaves_the_model_with_it(tmp_path):
    rollback = kprune.Rollback("val_accuracy", 0.05, patience=1)
    plain = len(kprune.prune(network()).variables)

    recovered, _, _ = train([0.9, 0.5, 0.9, 0.9, 0.9], rollback)
    waiting, _, _ = train([0.9, 0.9, 0.9, 0.9, 0.5], rollback)
    waited = len(waiting.variables)
    train([0.9], None, model=waiting)

    assert len(recovered.variables) == len(waiting.variables) == plain + 1  # its state
    assert waited > 2 * plain


def test_a_dense_phase_is_no_new_reference():
    # Sparse in the epochs 1 and 3, dense in the epochs 0 and 2.
    cycles = kprune.CyclicSchedule(0.5, 2, sparse_steps=EPOCH, begin_step=EPOCH)
    rollback = kprune.Rollback("val_accuracy", 0.05)

    _, _, sparsity = train([0.9, 0.87, 0.95, 0.87], rollback, schedule=cycles)

    np.testing.assert_allclose(sparsity, [0, 0.5, 0, 0.5])


@pytest.mark.filterwarnings(*SHORT, NO_WAY)
@pytest.mark.parametrize(
    "later, released",
    [
        # One that differs is enough; the same again is what a second `fit` has.
        pytest.param(
            kprune.Rollback("val_accuracy", 0.05), False, marks=pytest.mark.slow
        ),
        (kprune.Rollback("val_accuracy", 0.5), True),
        pytest.param(
            kprune.Rollback("val_accuracy", 0.05, reference=0.4),
            True,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_another_rollback_goes_by_its_own_arguments(later, released):
    model, _, sparsity = train([0.9, 0.9, 0.5], kprune.Rollback("val_accuracy", 0.05))
    assert sparsity[-1] < 0.21

    _, _, sparsity = train([0.5] * 3, later, model=model)

    np.testing.assert_allclose(sparsity[-1], 0.8 if released else 0.2, atol=0.01)


def test_a_reference_is_asked_for_where_there_is_none():
    rollback = kprune.Rollback("val_accuracy", 0.05)
    schedule = kprune.ConstantSchedule(0.5)

    with pytest.raises(ValueError, match="nothing to compare 'val_accuracy' with"):
        train([0.9], rollback, schedule=schedule)


def test_a_metric_that_is_not_there_is_named():
    rollback = kprune.Rollback("val_auc", 0.05, reference=0.9)

    with pytest.raises(ValueError, match=r"looks for 'val_auc'.*'val_accuracy'"):
        train([0.9], rollback, epochs=5)


def test_epochs_that_are_not_validated_are_passed_over():
    rollback = kprune.Rollback("val_accuracy", 0.05, reference=0.9)

    # Validated are the epochs 1 and 3, of which the second is out of tolerance.
    _, _, sparsity = train([0.9, 0.5], rollback, epochs=5, validation_freq=2)

    np.testing.assert_allclose(sparsity, [0, 0.2, 0.4, 0.2, 0.2], atol=0.01)


def test_a_reference_is_asked_for_where_pruning_precedes_the_first_validation():
    rollback = kprune.Rollback("val_accuracy", 0.05)
    options = {"validation_freq": 2, "schedule": kprune.ConstantSchedule(0.5, 5)}

    with pytest.raises(ValueError, match="nothing to compare 'val_accuracy' with"):
        train([0.9], rollback, epochs=2, **options)


@pytest.mark.parametrize(
    "monitor, value, kept",
    [
        ("val_loss", 0.54, True),
        ("val_loss", 0.56, False),
        ("accuracy", 0.46, True),
        ("accuracy", 0.44, False),
        ("accuracy", float("nan"), False),
    ],
)
def test_better_is_what_the_name_says(monitor, value, kept):
    assert kprune.Rollback(monitor, 0.05).keeps(value, reference=0.5) == kept


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("val_kappa", 0.1), "does not tell whether larger is better: pass mode="),
        (("loss", -0.1), "tolerance=-0.1 must be a number of 0 or more"),
        (("loss", float("nan")), "tolerance=nan must be a number of 0 or more"),
        (("loss", "0.1"), "tolerance='0.1' must be a number of 0 or more"),
        ((None, 0.1), "monitor=None must be the name of a metric"),
        (("loss", None), "tolerance=None must be a number of 0 or more"),
        (("loss", True), "tolerance=True must be a number of 0 or more"),
        (("loss", 0.1, float("nan")), "reference=nan must be a finite number"),
        (("loss", 0.1, "0.5"), "reference='0.5' must be a finite number"),
    ],
)
def test_arguments_of_rollback_are_checked(arguments, message):
    monitor, tolerance, *reference = arguments
    with pytest.raises(ValueError, match=message):
        kprune.Rollback(monitor, tolerance, reference=next(iter(reference), None))


def test_rollback_survives_its_config():
    rollback = kprune.Rollback("kappa", 0.1, reference=0.5, mode="max", patience=2)

    assert kprune.Rollback.from_config(rollback.get_config()) == rollback


# What stands in the way of going back


class Stop(keras.callbacks.Callback):
    """Ends training after an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == self.epoch


def test_an_update_is_left_out_where_training_is_stopped_before_it_is_judged():
    rollback = kprune.Rollback("val_accuracy", 0.05)

    with pytest.warns(UserWarning, match="Training ended at step"):
        model, _, sparsity = train(
            [0.9, 0.9, 0.9], rollback, callbacks=[Stop(1)], epochs=5
        )

    zeros = sum(counts(model).values())
    np.testing.assert_allclose([sparsity[-1], zeros / 144], 0.2, atol=0.01)


def test_an_update_is_left_out_after_the_last_epoch_has_measured_a_metric():
    model = kprune.prune(network())
    model.compile("sgd", "mse", run_eagerly=True)
    last = kprune.ConstantSchedule(0.95, begin_step=BATCHES)
    pruning = kprune.PruningCallback(last, rollback=kprune.Rollback("loss", 1e-4))

    with pytest.warns(UserWarning, match="left out at sparsity 0: .* by 'loss'"):
        fit(model, pruning, epochs=1)

    assert counts(model) == {"hidden": 0, "head": 0}


def test_what_patience_keeps_aside_is_no_matter_to_other_callbacks():
    rollback = kprune.Rollback("val_accuracy", 0.05, patience=2)
    best = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=10, restore_best_weights=True
    )

    with pytest.warns(UserWarning, match="may bring back weights from before"):
        model, _, _ = train(
            [0.9, 0.95, 0.5],
            rollback,
            schedule=kprune.ConstantSchedule(0.2, EPOCH),
            callbacks=[best],
        )

    np.testing.assert_allclose(sum(counts(model).values()) / 144, 0.2, atol=0.01)


@pytest.mark.filterwarnings(*SHORT)
@pytest.mark.parametrize("fitted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_tensorflow_checkpoint_holds_the_way_back(fitted, tmp_path):
    rollback = kprune.Rollback("val_accuracy", 0.05, patience=1)
    model, tell, _ = train([0.9, 0.9, 0.5], rollback, epochs=3)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "in_patience"))
    fresh = kprune.prune(network())
    if fitted:
        fresh.compile("adam", "mse", run_eagerly=True)
        fresh.train_on_batch(*data(1))
    tf.train.Checkpoint(model=fresh).restore(path)

    _, _, sparsity = train([0.5], rollback, model=fresh, initial_epoch=3, epochs=4)

    np.testing.assert_allclose(sparsity, [0.2], atol=0.01)
    for now, good in zip(state_of(fresh), tell.states[1], strict=True):
        np.testing.assert_array_equal(now, good)


@pytest.mark.filterwarnings(*SHORT)
@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(0.5, momentum=0.9),
        pytest.param(keras.optimizers.Adafactor(0.5), marks=pytest.mark.slow),
    ],
    ids=["sgd", "adafactor"],
)
def test_an_optimizer_that_was_compiled_in_patience_begins_anew(optimizer):
    rollback = kprune.Rollback("val_accuracy", 0.05, patience=1)
    model, tell, _ = train([0.9, 0.9, 0.5], rollback, epochs=3)

    _, _, sparsity = train(
        [0.5], rollback, model=model, initial_epoch=3, epochs=4, optimizer=optimizer
    )

    np.testing.assert_allclose(sparsity, [0.2], atol=0.01)
    np.testing.assert_array_equal(model.get_weights()[0], tell.states[1][0])
    assert int(optimizer.iterations) == 0
    np.testing.assert_allclose(optimizer.learning_rate, 0.5)


def test_batches_that_make_no_step_of_their_own_prune_nothing_too_early():
    model = kprune.prune(network())
    optimizer = keras.optimizers.Adam(gradient_accumulation_steps=2)
    model.compile(optimizer, "mse", run_eagerly=True)
    second_epoch = kprune.ConstantSchedule(0.5, begin_step=BATCHES // 2)
    rollback = kprune.Rollback("loss", 10.0)

    history = fit(
        model, kprune.PruningCallback(second_epoch, rollback=rollback), epochs=2
    )

    np.testing.assert_allclose(history.history["sparsity"], [0, 0.5])


def test_a_first_epoch_that_is_bad_goes_back_to_the_beginning(capsys):
    rollback = kprune.Rollback("val_accuracy", 0.05, reference=0.9)
    model = kprune.prune(network())
    before = [weight.numpy() for weight in model.trainable_weights]
    schedule = kprune.ConstantSchedule(0.5)

    train([0.5], rollback, model=model, schedule=schedule, verbose=2)

    for now, then in zip(model.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert "went back" in capsys.readouterr().out


def test_once_it_has_gone_back_it_says_no_more(capsys):
    rollback = kprune.Rollback("val_accuracy", 0.05)

    train([0.9, 0.9, 0.5, 0.5], rollback, verbose=2)

    assert capsys.readouterr().out.count("which is raised no further") == 1


@pytest.mark.filterwarnings(*SHORT, NO_WAY)
def test_a_fit_without_rollback_ends_its_patience():
    rollback = kprune.Rollback("val_accuracy", 0.05, patience=1)
    options = {
        "schedule": kprune.PolynomialSchedule(
            0.8, EPOCH, end_step=6 * EPOCH, power=1, frequency=EPOCH
        )
    }
    model, _, _ = train([0.9, 0.5], rollback, **options)
    train([0.9], None, model=model, **options)

    _, _, early = train([0.5], rollback, model=model, **options)
    _, _, late = train([0.9], rollback, model=model, **options)

    assert early[-1] < late[-1]  # the bad epoch was the first of two once more


@pytest.mark.parametrize("kind", ["shadow", "movement"])
def test_what_is_followed_first_after_the_good_epoch_begins_with_it(kind):
    model = kprune.prune(network())
    make_room(model)
    Snapshot(model).put_into(model)
    model.compile("sgd", "mse")
    weights = [e.variable.numpy() for e in entries(model)]
    follow(model, [kind])
    make_room(model)  # as when it is resumed
    for entry in entries(model):
        entry.variable.assign(entry.variable + 1.0)
        entry.tracked_as(kind).assign(entry.variable)

    Snapshot.found_in(model).bring_back(model)

    for entry, weight in zip(entries(model), weights, strict=True):
        np.testing.assert_array_equal(entry.variable, weight)
        begins = weight if kind == "shadow" else 0 * weight
        np.testing.assert_array_equal(entry.tracked_as(kind), begins)


def test_optimizers_beside_that_of_compile_go_back_too():
    model, other = kprune.prune(network()), keras.optimizers.Adam(0.01)
    model.compile("sgd", "mse")
    kernels = [e.variable for e in entries(model)]
    other.apply([kernel + 1.0 for kernel in kernels], kernels)
    before, good = [v.numpy() for v in other.variables], Snapshot(model)
    other.apply([kernel + 1.0 for kernel in kernels], kernels)

    good.bring_back(model)

    for now, then in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(now, then)


class Interrupt(keras.callbacks.Callback):
    """Breaks training off in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.is_now = epoch == self.epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.is_now:
            raise KeyboardInterrupt


def interrupted(rollback):
    """Returns a model with an update that no metric has judged, and its history."""
    model, states = kprune.prune(network()), []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: states.append(state_of(model))
    )
    with pytest.raises(KeyboardInterrupt):
        train([0.9] * 3, rollback, model=model, callbacks=[note, Interrupt(2)])
    assert sum(counts(model).values()) == 57  # 0.4 of 144, the second update
    return model, states


@pytest.mark.filterwarnings(*SHORT)
def test_what_an_interrupted_epoch_has_pruned_does_not_pass_for_good(capsys):
    rollback = kprune.Rollback("val_accuracy", 0.05)
    model, _ = interrupted(rollback)

    with pytest.warns(UserWarning, match="no way back .* With patience=1"):
        train([0.5], rollback, model=model, epochs=3, initial_epoch=2, verbose=2)

    assert "worse than 0.9: nothing to go back to" in capsys.readouterr().out


@pytest.mark.filterwarnings(*SHORT)
def test_a_model_with_patience_knows_the_way_back_out_of_an_interrupted_epoch():
    rollback = kprune.Rollback("val_accuracy", 0.05, patience=1)
    model, states = interrupted(rollback)

    _, _, sparsity = train([0.5, 0.5], rollback, model=model, epochs=4, initial_epoch=2)

    np.testing.assert_allclose(sparsity[-1], 0.2, atol=0.01)
    for now, good in zip(state_of(model), states[1], strict=True):
        np.testing.assert_array_equal(now, good)


@pytest.mark.filterwarnings(*SHORT)
def test_a_model_without_weights_can_not_be_kept_aside():
    layers = keras.layers.Dense(8), keras.layers.Dense(3)
    model = kprune.prune(keras.Sequential(layers))
    rollback = kprune.Rollback("val_accuracy", 0.05, reference=0.9)

    with pytest.raises(ValueError, match=r"has no weights yet, and .* kept aside"):
        train([0.9], rollback, model=model)


@pytest.mark.filterwarnings("ignore:The model .* is compiled with an object")
def test_a_model_stays_held_when_masks_are_added():
    rollback = kprune.Rollback("val_accuracy", 0.05)
    model = kprune.prune(network(), only="head")
    options = {"schedule": kprune.ConstantSchedule(0.5, EPOCH)}
    train([0.9, 0.5], rollback, model=model, **options)
    wider = kprune.prune(model)

    _, _, sparsity = train([0.5], rollback, model=wider, **options)

    assert sparsity == [0]
    assert counts(wider) == {"hidden": 0, "head": 0}


@pytest.mark.filterwarnings("ignore:The model .* is compiled with an object", NO_WAY)
def test_what_was_kept_aside_before_masks_were_added_is_not_brought_back():
    rollback = kprune.Rollback("val_accuracy", 0.05, patience=1)
    model = kprune.prune(network(), only="head")
    options = {"schedule": kprune.ConstantSchedule(0.5, EPOCH)}
    train([0.9, 0.5], rollback, model=model, **options)
    wider = kprune.prune(model)

    _, _, sparsity = train([0.5], rollback, model=wider, **options)

    assert sparsity == [0.5] and clock_of(wider) == 3 * EPOCH
