import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune.whole_model import clock_of
from tests.checks import zeros_of
from tests.training_helpers import (
    BATCH,
    BATCHES,
    Spy,
    assert_equal_states,
    build_optimizer,
    counts,
    data,
    fit,
    network,
    polynomial,
)

DONE = {"hidden": 72, "head": 36}


@pytest.fixture(scope="module")
def traced():
    """A model whose training step is traced once, and what its variables begin with."""
    model = kprune.prune(network())
    model.compile("sgd", "mse")
    build_optimizer(model)
    variables = [*model.variables, *model.optimizer.variables]
    return model, [(variable, variable.numpy()) for variable in variables]


@pytest.fixture
def model(traced):
    """A model as it was before any training."""
    model, beginning = traced
    for variable, value in beginning:
        variable.assign(value)
    assert len(model.variables) + len(model.optimizer.variables) == len(beginning)
    return model


class Count(keras.callbacks.Callback):
    """Notes the zeros of the first layer in some hooks."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def note(self, hook):
        self.seen.append((hook, counts(self.model)["hidden"]))

    def on_train_batch_begin(self, batch, logs=None):
        self.note("batch_begin")

    def on_test_begin(self, logs=None):
        self.note("test_begin")

    def on_epoch_end(self, epoch, logs=None):
        self.note("epoch_end")

    def zeros(self, hook):
        return [zeros for name, zeros in self.seen if name == hook]


def test_an_update_at_step_zero_comes_before_the_first_batch(model):
    count = Count()
    schedule = kprune.PolynomialSchedule(0.75, end_step=20, initial_sparsity=0.25)

    fit(model, count, kprune.PruningCallback(schedule))

    assert count.seen[0] == ("batch_begin", 24)  # a quarter of 96


def test_updates_come_at_begin_step_on_the_grid_and_at_the_end_off_it(model):
    count = Count()
    schedule = kprune.PolynomialSchedule(0.75, 3, end_step=15, power=1, frequency=5)

    fit(model, count, kprune.PruningCallback(schedule))

    # At 3: 0. At 8: 0.75 * 5 / 12 = 0.3125. At 13: 0.625. At 15: 0.75.
    expected = [0] * 8 + [30] * 5 + [60] * 2 + [72] * 9
    assert count.zeros("batch_begin") == expected


@pytest.mark.parametrize(
    "schedule",
    [
        kprune.ConstantSchedule(0.75, 7),
        kprune.PolynomialSchedule(0.75, 7, end_step=7),
    ],
)
def test_begin_step_equal_to_end_step_is_one_shot(model, schedule):
    count = Count()

    fit(model, count, kprune.PruningCallback(schedule))

    assert count.zeros("batch_begin") == [0] * 7 + [72] * 17


@pytest.mark.parametrize("listed_first", [True, False])
def test_the_last_update_precedes_validation_and_every_epoch_end(model, listed_first):
    count = Count()
    pruning = kprune.PruningCallback(kprune.ConstantSchedule(0.75, 24))
    callbacks = [pruning, count] if listed_first else [count, pruning]

    fit(model, *callbacks, validation_data=data())

    assert count.zeros("batch_begin") == [0] * 24
    assert count.zeros("test_begin") == [0, 72]
    assert count.zeros("epoch_end") == [0, 72]


def test_the_last_update_precedes_the_epoch_end_of_a_stopped_training(model):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 6

    count = Count()
    pruning = kprune.PruningCallback(kprune.ConstantSchedule(0.75, 7))

    fit(model, count, Stop(), pruning, epochs=5)

    assert count.seen[-1] == ("epoch_end", 72)


def test_a_checkpoint_of_the_last_epoch_is_at_the_target(model, tmp_path):
    save = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")

    fit(model, save, kprune.PruningCallback(kprune.ConstantSchedule(0.75, 24)))

    assert counts(keras.saving.load_model(tmp_path / "1.keras"))["hidden"] == 0
    assert counts(keras.saving.load_model(tmp_path / "2.keras")) == DONE


def test_sparsity_is_in_history_and_progress_bar(model, capsys):
    pruning = kprune.PruningCallback(
        kprune.PolynomialSchedule(0.75, end_step=12, frequency=6)
    )

    history = fit(model, pruning, verbose=2)

    # Due by the end of the first epoch is step 6: 0.75 * (1 - 1 / 8).
    expected = [
        sum(zeros_of(size, polynomial(6, end=12)) for size in (96, 48)) / 144,
        0.75,
    ]
    np.testing.assert_allclose(history.history["sparsity"], expected)
    assert history.history.keys() == {"loss", "sparsity"}
    assert "sparsity: 0.7500" in capsys.readouterr().out


def test_sparsity_is_written_by_loggers_listed_before_and_after(model, tmp_path):
    loggers = [keras.callbacks.CSVLogger(tmp_path / f"{i}.csv") for i in range(2)]
    pruning = kprune.PruningCallback(kprune.ConstantSchedule(0.75, 10))

    fit(model, loggers[0], pruning, loggers[1])

    for i in range(2):
        rows = csv.DictReader((tmp_path / f"{i}.csv").read_text().splitlines())
        assert [float(row["sparsity"]) for row in rows] == [0.75, 0.75]


def test_sparsity_is_in_the_event_file_of_tensorboard(model, tmp_path):
    pytest.importorskip("tensorboard")
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)

    fit(model, board, kprune.PruningCallback(kprune.ConstantSchedule(0.75, 10)))

    (events,) = (tmp_path / "train").glob("events.*")
    logged = [
        (event.step, tf.make_ndarray(value.tensor).item())
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
        if value.tag == "epoch_sparsity"
    ]
    assert logged == [(0, 0.75), (1, 0.75)]


def test_other_logs_are_those_of_a_run_without_the_callback():
    model = kprune.prune(network())
    model.compile("sgd", "mse", metrics=["mae"])
    twin = kprune.prune(model)

    plain = fit(twin, shuffle=False, validation_data=data()).history
    pruned = fit(
        model,
        kprune.PruningCallback(kprune.ConstantSchedule(0.75, 24)),
        shuffle=False,
        validation_data=data(),
    ).history

    assert pruned.keys() - plain.keys() == {"sparsity"}
    for name in ("loss", "mae"):
        assert pruned[name] == plain[name]


def test_the_order_of_other_callbacks_is_kept(model):
    order = []

    class Named(keras.callbacks.Callback):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def on_epoch_end(self, epoch, logs=None):
            order.append(self.name)

    pruning = kprune.PruningCallback(kprune.ConstantSchedule(0.75))
    fit(model, Named("a"), Named("b"), pruning, Named("c"), epochs=1)

    assert order == ["a", "b", "c"]


def test_it_says_before_training_what_will_happen(model, capsys):
    said = []

    class Listen(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if not said:
                said.append(capsys.readouterr().out)

    schedule = kprune.PolynomialSchedule(0.75, 2, end_step=17, frequency=5)
    fit(model, Listen(), kprune.PruningCallback(schedule), verbose=2)

    assert (
        "kprune: reaches sparsity 0.75 at step 17 of 24 (now at step 0, 4 updates "
        "from step 2 on)." in said[0]
    )
    assert "kprune: asked for sparsity 0.75, reached 0.75." in capsys.readouterr().out


def test_what_is_asked_of_each_layer_is_announced_as_their_mean(model, capsys):
    scope = kprune.PerLayer({"head": 0.25}, default=0.75)

    fit(model, kprune.PruningCallback(0.75, scope=scope), verbose=2)

    said = capsys.readouterr().out
    assert "reaches sparsity 0.583333 at step" in said  # (72 + 12) / 144
    assert "asked for sparsity 0.583333, reached 0.5833." in said


def test_it_is_silent_if_fit_is(model, capsys):
    fit(model, kprune.PruningCallback(0.75))

    assert capsys.readouterr().out == ""


def test_the_short_form_takes_three_quarters_of_the_planned_steps(model):
    pruning = kprune.PruningCallback(0.75)

    fit(model, pruning, epochs=5)

    assert pruning.schedule == kprune.PolynomialSchedule(
        0.75, 0, end_step=45, frequency=2
    )
    assert counts(model) == DONE


@pytest.mark.parametrize("start, begin", [("model", 24), ("fit", 0)])
def test_the_short_form_begins_where_its_first_fit_does(model, start, begin):
    fit(model)
    pruning = kprune.PruningCallback(0.75, start=start)

    fit(model, pruning)

    schedule = pruning.schedule
    assert (schedule.begin_step, schedule.end_step) == (begin, begin + 18)
    assert counts(model) == DONE


def test_the_short_form_counts_accumulated_steps():
    model = kprune.prune(network())
    model.compile(keras.optimizers.Adam(gradient_accumulation_steps=4), "mse")
    pruning = kprune.PruningCallback(0.75)

    fit(model, pruning, epochs=4)  # 48 batches, 12 steps

    assert pruning.schedule.end_step == 9
    assert counts(model) == DONE


def test_the_short_form_keeps_its_plan_in_a_second_fit(model):
    pruning = kprune.PruningCallback(0.75)
    fit(model, pruning)

    fit(model, pruning, Spy(lambda step: 0.75))

    assert pruning.schedule.end_step == 18
    assert pruning.finished


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_short_form_prunes_even_the_shortest_fit(model, epochs):
    x, y = data(1)

    model.fit(
        x,
        y,
        BATCH,
        epochs=epochs,
        verbose=0,
        callbacks=[kprune.PruningCallback(0.75)],
    )

    assert counts(model) == DONE


def generator():
    x, y = data()
    for i in range(BATCHES):
        yield x[i * BATCH : (i + 1) * BATCH], y[i * BATCH : (i + 1) * BATCH]


def unknown_length():
    x, y = data()
    signature = (tf.TensorSpec((None, 6)), tf.TensorSpec((None, 3)))
    return tf.data.Dataset.from_generator(generator, output_signature=signature)


def test_the_short_form_refuses_data_of_unknown_length_before_training(model):
    spy = Spy()

    with pytest.raises(
        ValueError, match=r"number of batches is unknown.*end_step="
    ) as e:
        model.fit(
            unknown_length(),
            shuffle=False,
            epochs=2,
            verbose=0,
            callbacks=[spy, kprune.PruningCallback(0.75)],
        )

    assert "steps_per_epoch" in str(e.value)
    assert spy.batches == 0


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_schedule_works_with_data_of_unknown_length(model, capsys):
    def wanted(step):
        return polynomial(max(d for d in (0, 10, 15) if d <= step), end=15)

    class CountBatches(Spy):
        # Keras counts the end of the data as one more step.
        def steps_before(self):
            return self.batches

    schedule = kprune.PolynomialSchedule(0.75, end_step=15, frequency=10)
    spy = CountBatches(wanted)

    model.fit(
        unknown_length(),
        shuffle=False,
        epochs=2,
        verbose=2,
        callbacks=[spy, kprune.PruningCallback(schedule)],
    )

    assert spy.batches == 24
    assert clock_of(model) == 24
    assert counts(model) == DONE
    assert "at step 15 of an unknown number" in capsys.readouterr().out


def test_the_short_form_takes_steps_per_epoch(model):
    pruning = kprune.PruningCallback(0.75)

    model.fit(
        unknown_length().repeat(),
        shuffle=False,
        steps_per_epoch=8,
        epochs=2,
        verbose=0,
        callbacks=[pruning],
    )

    assert pruning.schedule.end_step == 12
    assert counts(model) == DONE


def test_a_run_that_is_too_short_is_warned_about_before_and_after(model):
    class Quiet(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            before.append(len(caught))

    before = []
    schedule = kprune.PolynomialSchedule(0.75, end_step=100, frequency=10)
    with pytest.warns(UserWarning) as caught:
        fit(model, Quiet(), kprune.PruningCallback(schedule))

    # The last update that is due by the end of the run, at 24, is that at 20.
    reached = 0.75 * (1 - 0.8**3)
    zeros = sum(zeros_of(size, reached) for size in (96, 48))
    assert before[0] == 1
    first, last = (str(warning.message) for warning in caught)
    assert "too short: it ends at step 24, and the schedule at step 100" in first
    assert f"will reach {reached:.4g} of 0.75" in first
    assert "ended at step 24, before the schedule's end at step 100" in last
    assert f"asked for sparsity 0.75, reached {zeros / 144:.4g}" in last


def test_a_run_that_just_suffices_is_not_warned_about(model):
    fit(model, kprune.PruningCallback(kprune.PolynomialSchedule(0.75, end_step=24)))

    assert counts(model) == DONE


def test_early_stopping_that_begins_late_enough_is_not_warned_about(model):
    stopping = keras.callbacks.EarlyStopping(
        monitor="loss", restore_best_weights=True, start_from_epoch=2
    )
    schedule = kprune.PolynomialSchedule(0.75, end_step=20)

    fit(model, stopping, kprune.PruningCallback(schedule), epochs=3)

    assert counts(model) == DONE


def test_a_run_past_the_target_is_not_warned_about(model, capsys):
    fit(model, kprune.PruningCallback(kprune.ConstantSchedule(0.75)))
    stopping = keras.callbacks.EarlyStopping(monitor="loss", restore_best_weights=True)

    fit(
        model,
        stopping,
        kprune.PruningCallback(kprune.ConstantSchedule(0.75)),
        verbose=2,
    )

    assert "holds sparsity 0.75, past its last update" in capsys.readouterr().out
    assert counts(model) == DONE


def test_a_model_without_masks_is_refused():
    model = network()
    model.compile("sgd", "mse")

    with pytest.raises(ValueError, match=r"holds no masks.*kprune.prune\(model\)"):
        fit(model, kprune.PruningCallback(0.75))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_an_error_with_their_names(model, bad):
    class Diverge(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                kernel = self.model.get_layer("head").kernel
                kernel.assign(np.where(np.arange(48).reshape(16, 3) == 7, bad, kernel))

    schedule = kprune.PolynomialSchedule(0.75, end_step=10, frequency=5)

    with pytest.raises(ValueError, match=r"'head/kernel' of shape \(16, 3\)"):
        fit(model, Diverge(), kprune.PruningCallback(schedule))


def test_a_sequential_is_built_by_its_first_batch():
    model = kprune.prune(
        keras.Sequential(
            [
                keras.layers.Dense(16, "relu", name="hidden"),
                keras.layers.Dense(3, name="head"),
            ]
        )
    )
    model.compile("sgd", "mse")

    fit(model, kprune.PruningCallback(kprune.ConstantSchedule(0.75)), epochs=1)

    assert counts(model) == DONE
    assert clock_of(model) == 12


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"schedule": 1.0}, r"sparsity=1.0 must be a number in \[0, 1\)"),
        ({"schedule": -0.1}, r"sparsity=-0.1 must be a number in \[0, 1\)"),
        ({"schedule": 90}, r"90 % is written 0.9"),
        ({"schedule": float("nan")}, r"sparsity=nan must be"),
        ({"schedule": True}, r"sparsity=True must be"),
        ({"schedule": None}, r"None is none of the registered schedules"),
        ({"schedule": "magnitude"}, r"'magnitude' is none of the registered schedules"),
        ({"criterion": "size"}, r"'size' is none of the registered criteria: .*'magn"),
        ({"scope": "local"}, r"'local' is none of the registered scopes: 'layer_wise'"),
        ({"start": "epoch"}, r"start='epoch' must be 'model' .* or 'fit'"),
    ],
)
def test_arguments_are_checked_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        kprune.PruningCallback(**{"schedule": 0.9, **arguments})


def test_a_numpy_float_is_a_short_form_too(model):
    fit(model, kprune.PruningCallback(np.float32(0.75)))

    assert counts(model) == DONE


def test_after_pruning_takes_callbacks_only():
    pruning = kprune.PruningCallback(0.9)
    stopping = keras.callbacks.EarlyStopping()

    with pytest.raises(
        ValueError, match="Expected a Keras callback to hold back, got 3"
    ):
        kprune.AfterPruning(3, pruning)
    with pytest.raises(
        ValueError, match="Expected the PruningCallback of the same fit"
    ):
        kprune.AfterPruning(stopping, stopping)


def test_after_pruning_shows_a_callback_only_what_follows_the_target(model):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append((self.model.name, self.params["epochs"]))

        def on_train_batch_end(self, batch, logs=None):
            seen.append(("batch", counts(self.model)["hidden"]))

        def on_epoch_end(self, epoch, logs=None):
            seen.append(("epoch", epoch))

    pruning = kprune.PruningCallback(kprune.ConstantSchedule(0.75, 20))
    fit(model, kprune.AfterPruning(Watch(), pruning), pruning, epochs=3)

    batches = (
        [("batch", 72)] * 4 + [("epoch", 1)] + [("batch", 72)] * 12 + [("epoch", 2)]
    )
    assert seen == [(model.name, 3), *batches]


def test_a_pruned_model_is_evaluated_and_asked_without_being_written_to(model):
    pruning = kprune.PruningCallback(0.75)
    fit(model, pruning)
    twin = kprune.prune(model)
    x, y = data()

    model.evaluate(x, y, verbose=0, callbacks=[pruning])
    model.predict(x, verbose=0, callbacks=[pruning])

    assert_equal_states(model, twin)


def _flat_network():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(16)])
    return kprune.prune(model)


def _flat_fit(model, *callbacks, **kwargs):
    x = np.random.default_rng(0).normal(size=(80, 6)).astype("float32")
    options = {"batch_size": 8, "verbose": 0, "callbacks": list(callbacks), **kwargs}
    build_optimizer(model)
    return model.fit(x, np.zeros((80, 16), "float32"), **options)


@pytest.mark.parametrize("start", ["fit", "model"])
def test_initial_epoch_of_a_new_run_does_not_move_its_schedule(start):
    model = _flat_network()
    model.compile("sgd", "mse")
    _flat_fit(model, epochs=4)  # 40 steps without pruning
    pruning = kprune.PruningCallback(0.75, start=start)

    history = _flat_fit(model, pruning, initial_epoch=4, epochs=8)

    first_epoch = history.history["sparsity"][0]
    assert 0 < first_epoch < 0.7
    assert history.history["sparsity"][-1] == 0.75


def test_updates_keep_up_with_several_optimizer_steps_in_a_batch():
    class Thrice(keras.Model):
        def train_step(self, data):
            for _ in range(3):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean(self(data[0], training=True) ** 2)
                variables = self.trainable_variables
                self.optimizer.apply(tape.gradient(loss, variables), variables)
            return {"loss": loss}

    inputs = keras.Input((6,))
    model = kprune.prune(Thrice(inputs, keras.layers.Dense(16)(inputs)))
    model.compile("sgd")
    schedule = kprune.PolynomialSchedule(0.75, end_step=100, frequency=10)

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            clock = kprune.summary(model, print_fn=None).step
            wanted = schedule(schedule.last_due(clock))
            seen.append((clock, wanted, pruning.sparsity))

    seen = []
    pruning = kprune.PruningCallback(schedule)

    with pytest.warns(UserWarning, match="too short"):
        _flat_fit(model, pruning, Watch(), epochs=4)

    late = [clock for clock, wanted, is_now in seen if abs(wanted - is_now) > 0.01]
    assert len(late) <= 4  # at most once an epoch, before the pace is known
    assert pruning.sparsity == 0.75


def test_terminate_on_nan_ends_a_run_in_good_order():
    model = _flat_network()
    model.compile("sgd", "mse")
    x = np.ones((80, 6), "float32")
    x[30] = np.nan
    pruning = kprune.PruningCallback(
        kprune.PolynomialSchedule(0.9, end_step=20, frequency=1)
    )
    stop = keras.callbacks.TerminateOnNaN()

    with (
        pytest.warns(UserWarning, match="Training ended at step 4"),
        pytest.warns(UserWarning, match="NaN or infinite"),
    ):
        history = model.fit(
            x,
            np.zeros((80, 16), "float32"),
            batch_size=8,
            epochs=2,
            shuffle=False,
            verbose=0,
            callbacks=[pruning, stop],
        )

    assert len(history.epoch) == 1


def test_two_pruning_callbacks_in_one_fit_are_refused():
    model = _flat_network()
    model.compile("sgd", "mse")

    with pytest.raises(ValueError, match="More than one PruningCallback"):
        _flat_fit(model, kprune.PruningCallback(0.5), kprune.PruningCallback(0.9))


def test_short_form_plans_anew_for_another_model():
    pruning = kprune.PruningCallback(0.75)
    for epochs, end_step in ((1, 7), (4, 30)):
        model = _flat_network()
        model.compile("sgd", "mse")

        _flat_fit(model, pruning, epochs=epochs)

        assert pruning.schedule.end_step == end_step
