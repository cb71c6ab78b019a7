"""Two stages of one schedule, each with a criterion of its own, judged in between."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune.announcements import warn_if_not_evaluated
from kprune.whole_model import clock_of
from tests.test_rollback import EPOCH, train
from tests.training_helpers import BATCHES, data, entries, fit, network

# Half goes at the beginning, then a quarter in steps; the fine stage begins at 12.
STAGES = kprune.TwoStageSchedule(
    0.75, 0.5, coarse_rounds=1, coarse_steps=12, fine_rounds=2, fine_steps=6
)


def pruned():
    model = kprune.prune(network())
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


class Masks(keras.callbacks.Callback):
    """Notes weights and masks of the first layer before each batch, after updates."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        entry = entries(self.model)[0]
        self.seen.append((entry.variable.numpy(), entry.mask.numpy()))


def kept_of(scores, count):
    """Which of some scores are the largest."""
    kept = np.zeros(scores.shape, bool)
    kept.flat[np.argsort(-scores, axis=None, kind="stable")[:count]] = True
    return kept


@pytest.mark.parametrize("regrowth", [None, kprune.SET(frequency=100, end_step=200)])
def test_each_stage_scores_by_a_criterion_of_its_own(regrowth):
    model, masks, (x, y) = pruned(), Masks(), data()
    kernel = model.get_layer("hidden").kernel
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x[:16]) - y[:16]) ** 2)
    slope = np.abs(tape.gradient(loss, kernel.value).numpy())
    pruning = kprune.PruningCallback(
        STAGES,
        criterion=("gradient_magnitude", "magnitude"),
        calibration_data=(x[:16], y[:16]),
        regrowth=regrowth,
    )

    fit(model, pruning, masks, shuffle=False)

    np.testing.assert_array_equal(masks.seen[0][1], kept_of(slope, 48))
    assert [m.sum() for _, m in masks.seen] == [48] * 12 + [34] * 6 + [24] * 6
    assert clock_of(model) == 2 * BATCHES


def test_in_the_fine_stage_the_smallest_survivors_go():
    model, (x, y) = pruned(), data()
    pruner = kprune.Pruner(
        model,
        STAGES,
        criterion=("gradient_magnitude", "magnitude"),
        calibration_data=(x, y),
    )
    pruner.step()
    entry = entries(model)[0]
    kprune.set_clock(model, 18)
    weight = entry.variable.numpy()

    pruner.step()

    np.testing.assert_array_equal(entry.mask.numpy(), kept_of(np.abs(weight), 24))


@pytest.mark.parametrize(
    "schedule, criterion",
    [
        (kprune.ConstantSchedule(0.5), ("taylor", "magnitude")),
        (0.5, ("taylor", "magnitude")),
        (STAGES, ("magnitude",)),
        (STAGES, ["taylor", "magnitude", "magnitude"]),
    ],
)
def test_there_are_as_many_criteria_as_stages_or_one(schedule, criterion):
    with pytest.raises(ValueError, match=r"criteria, one for each stage.* Pass one"):
        kprune.PruningCallback(schedule, criterion=criterion)


def test_a_sparsity_alone_never_has_two_stages():
    with pytest.raises(ValueError, match="sparsity alone has a single.*TwoStageSchedu"):
        kprune.PruningCallback(0.5, criterion=("taylor", "magnitude"))


@pytest.mark.parametrize("pair", [("taylor", "magnitude"), ("magnitude", "taylor")])
def test_what_either_stage_needs_is_missed_before_any_training(pair):
    model = pruned()

    with pytest.raises(ValueError, match="absolute_gradient must be gathered over"):
        fit(model, kprune.PruningCallback(STAGES, criterion=pair))

    assert clock_of(model) == 0


def test_a_coarse_stage_that_cost_too_much_is_taken_back_before_the_fine_one():
    schedule = kprune.TwoStageSchedule(
        0.75,
        0.5,
        coarse_rounds=1,
        coarse_steps=EPOCH,
        fine_rounds=2,
        fine_steps=EPOCH,
        begin_step=EPOCH,
    )
    rollback = kprune.Rollback("val_accuracy", 0.05)

    _, _, good = train([0.9, 0.9, 0.9, 0.5], rollback, schedule=schedule)
    _, _, bad = train([0.9, 0.5, 0.9, 0.9], rollback, schedule=schedule)

    np.testing.assert_allclose(good, [0, 0.5, 0.646, 0.646], atol=0.01)
    assert bad == [0, 0, 0, 0]


@pytest.mark.parametrize("steps, instead", [(5, "12"), (15, "12 or 24")])
def test_a_stage_that_ends_within_an_epoch_is_warned_of(steps, instead):
    schedule = kprune.TwoStageSchedule(
        0.75, 0.5, coarse_rounds=1, coarse_steps=steps, fine_rounds=1
    )

    with pytest.warns(UserWarning, match=rf"at step {steps}, within .* step {instead}"):
        warn_if_not_evaluated(schedule, 0, 12.0)


def test_a_stage_is_warned_of_where_a_rollback_is_to_judge_it():
    schedule = kprune.TwoStageSchedule(
        0.75, 0.5, coarse_rounds=1, coarse_steps=2, fine_rounds=1
    )
    rollback = kprune.Rollback("val_accuracy", 0.05, reference=0.9)

    with pytest.warns(UserWarning, match="begins at step 2, within an epoch of 3 ste"):
        train([0.9], rollback, schedule=schedule)
