"""When the masks of a model change, by kprune's counting of steps and by TFMOT's."""

import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune import tfmot
from kprune.scopes import Contender
from kprune.tfmot.timing import LayerWiseAsTfmot, as_schedule

HORIZON = 150
SIZES = (72, 500, 800, 864, 1000, 5000)


class Own(tfmot.PruningSchedule):
    """A schedule of the user's: steps 2, 5 and 8, by 0.1 a step."""

    def __call__(self, step):
        return self._should_prune_in_step(step, 2, 8, 3), 0.1 * int(step)

    def get_config(self):
        return {}


TWO_OF_FOUR = kprune.NofM(2, 4)
# Schedule, granularity, and the sparsities by the steps done before them: first with
# kprune's timing, then with TFMOT's, in which batch 1 begins with no step done.
TABLE = {
    "TFMOT's default": (
        tfmot.ConstantSparsity(0.5, 0),
        None,
        {0: 0.5},
        {99: 0.5},
    ),
    "constant, at once": (
        tfmot.ConstantSparsity(0.5, 0, frequency=1),
        None,
        {0: 0.5},
        {0: 0.5},
    ),
    "constant, later": (
        tfmot.ConstantSparsity(0.5, 10, frequency=5),
        None,
        {10: 0.5},
        {9: 0.5},
    ),
    "decay on the grid": (
        tfmot.PolynomialDecay(0.2, 0.6, 2, 10, power=1, frequency=4),
        None,
        {2: 0.2, 6: 0.4, 10: 0.6},
        {1: 0.2, 5: 0.4, 9: 0.6},
    ),
    "decay off the grid": (
        tfmot.PolynomialDecay(0.0, 0.5, 0, 25, power=1, frequency=10),
        None,
        {0: 0.0, 10: 0.2, 20: 0.4, 25: 0.5},
        {9: 0.2, 19: 0.4},
    ),
    "decay of power 3": (
        tfmot.PolynomialDecay(0.2, 0.8, 100, 110, frequency=5),
        None,
        {100: 0.2, 105: 0.725, 110: 0.8},
        {99: 0.2, 104: 0.725, 109: 0.8},
    ),
    "decay in no time": (
        tfmot.PolynomialDecay(0.2, 0.8, 7, 7),
        None,
        {7: 0.8},
        {6: 0.8},
    ),
    "two of four": (
        tfmot.PolynomialDecay(0.0, 0.5, 20, 30),
        TWO_OF_FOUR,
        {20: 0.5},
        {0: 0.5},
    ),
    "own schedule": (Own(), None, {2: 0.2, 5: 0.5, 8: 0.8}, {1: 0.2, 4: 0.5, 7: 0.8}),
    "schedule of kprune": (
        kprune.LinearSchedule(0.5, begin_step=5, end_step=9, frequency=2),
        None,
        {5: 0.0, 7: 0.25, 9: 0.5},
        {5: 0.0, 7: 0.25, 9: 0.5},
    ),
}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("timing", ["kprune", "tfmot"])
def test_updates_are_due_when_the_timing_says(name, timing):
    schedule, granularity, *expected = TABLE[name]
    expected = expected[timing == "tfmot"]

    translated = as_schedule(schedule, granularity, timing)

    clocks = range(HORIZON)
    due = [clock for clock in clocks if translated.last_due(clock) == clock]
    assert due == list(expected)
    np.testing.assert_allclose(
        [translated(clock) for clock in due], [*expected.values()]
    )


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("timing", ["kprune", "tfmot"])
def test_between_updates_the_sparsity_and_the_next_due_step_agree(name, timing):
    schedule, granularity, *_ = TABLE[name]
    translated = as_schedule(schedule, granularity, timing)
    due = [clock for clock in range(HORIZON) if translated.last_due(clock) == clock]

    for clock in range(HORIZON):
        passed = [step for step in due if step <= clock]
        coming = [step for step in due if step > clock]
        assert translated.last_due(clock) == (passed[-1] if passed else None)
        following = translated.next_due(clock)
        assert not coming or clock < following <= coming[0]


@pytest.mark.parametrize(
    "arguments, sizes, differ",
    [
        # Initial and final sparsity, begin, end, power, frequency; kernels of which
        # another number stays where the sparsity is rounded to float32 at the end.
        ((0.0, 0.6, 0, 10, 3, 5), SIZES, 1),
        ((0.5, 0.85, 0, 1000, 2, 100), SIZES, 10),
        ((0.25, 0.9, 2000, 10000, 2, 1000), SIZES, 3),
        ((0.0, 0.8, 2000, 10000, 2.5, 1000), SIZES, 1),
    ],
)
def test_as_many_weights_stay_as_tfmot_computes(incumbent, arguments, sizes, differ):
    theirs = incumbent.sparsity.keras.PolynomialDecay(*arguments)
    decay = tfmot.PolynomialDecay(*arguments)
    exact, ours = (as_schedule(decay, None, timing) for timing in ("kprune", "tfmot"))
    steps = range(
        max(decay.begin_step, decay.frequency), decay.end_step + 1, decay.frequency
    )

    found = [
        (size, step, staying(size, ours(step - 1))) for size in sizes for step in steps
    ]

    expected = [
        (size, step, int(tf.round(size * (1 - theirs(tf.constant(step, "int64"))[1]))))
        for size in sizes
        for step in steps
    ]
    assert found == expected
    rounded = [staying(size, exact(step)) for size, step, _ in expected]
    assert differ == sum(a != b for (*_, a), b in zip(found, rounded, strict=True))


def staying(size, sparsity):
    """Counts the weights of a kernel that stay with TFMOT's timing."""
    contender = Contender(np.arange(1.0, size + 1))
    (kept,) = LayerWiseAsTfmot()([contender], sparsity)
    return int(kept.sum())


@pytest.mark.parametrize(
    "schedule",
    [
        tfmot.PolynomialDecay(0.0, 0.8, 0, 50),
        tfmot.PolynomialDecay(0.0, 0.8, 0, 0, frequency=1),
        tfmot.ConstantSparsity(0.8, 0, end_step=50, frequency=60),
    ],
)
def test_schedule_by_which_tfmot_never_prunes_is_refused_in_its_timing(schedule):
    assert as_schedule(schedule, None, "kprune").highest == 0.8
    with pytest.raises(ValueError, match="prunes at no step in TFMOT's timing"):
        as_schedule(schedule, None, "tfmot")


@pytest.mark.parametrize("answer", [0.5, tf.constant(0.5), None, (True, 0.5, 3)])
def test_schedule_that_does_not_return_a_pair_is_named(answer):
    class Bare(tfmot.PruningSchedule):
        def __call__(self, step):
            return answer

        def get_config(self):
            return {}

    with pytest.raises(
        ValueError, match="schedule Bare returned .* at step 4. Expected"
    ):
        as_schedule(Bare(), None, "kprune").last_due(4)


def test_timing_is_one_of_two():
    with pytest.raises(ValueError, match="timing='TFMOT' must be 'kprune' or 'tfmot'"):
        tfmot.UpdatePruningStep(timing="TFMOT")
