import numpy as np
import pytest
import tensorflow as tf
from keras import saving

from kprune import tfmot

CONSTANT = tfmot.ConstantSparsity(0.5, 100, 200, 10)
DECAY = tfmot.PolynomialDecay(0.2, 0.8, 100, 110, 3, 2)
FOREVER = tfmot.ConstantSparsity(0.5, 0, -1, 10)
KINDS = {
    "constant": lambda sparsity=0.5, *steps: tfmot.ConstantSparsity(sparsity, *steps),
    "decay_from": lambda sparsity=0.2, *steps: tfmot.PolynomialDecay(
        sparsity, 0.8, *steps[:2], 3, *steps[2:]
    ),
    "decay_to": lambda sparsity=0.8, *steps: tfmot.PolynomialDecay(
        0.2, sparsity, *steps[:2], 3, *steps[2:]
    ),
}

REFUSED = {
    "negative begin": ((0.5, -1, 1000), "begin_step=-1 should be >= 0"),
    "negative end": ((0.5, 10, -5), "end_step=-5 can be -1 or >= 0"),
    "end before begin": ((0.5, 10, 5), "begin_step=10 should be <= end_step=5"),
    "frequency of zero": ((0.5, 10, 1000, 0), "frequency=0 should be > 0"),
    "negative frequency": ((0.5, 10, 1000, -5), "frequency=-5 should be > 0"),
    "negative sparsity": ((-0.001, 0, 10), r"-0.001 must be in range \[0, 1\)"),
    "sparsity of one": ((1.0, 0, 10), r"1.0 must be in range \[0, 1\)"),
    "sparsity of ten": ((10.0, 0, 10), r"10.0 must be in range \[0, 1\)"),
}
ACCEPTED = [
    (0.5, 0, 1000),
    (0.5, 100, 1000),
    (0.5, 0, 0),
    (0.5, 10, 10),
    (0.5, 10, 1000, 1),
    (0.0, 0, 10),
    (0.001, 0, 10),
    (0.99, 0, 10),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REFUSED)
def test_arguments_without_a_meaning_are_refused(name, kind):
    arguments, message = REFUSED[name]

    with pytest.raises(ValueError, match=message):
        KINDS[kind](*arguments)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arguments", ACCEPTED)
def test_arguments_at_the_edge_are_accepted(arguments, kind):
    schedule = KINDS[kind](*arguments)

    assert (schedule.begin_step, schedule.end_step) == arguments[1:3]


def test_decay_needs_an_end():
    with pytest.raises(ValueError, match="end_step cannot be -1"):
        tfmot.PolynomialDecay(0.4, 0.8, 10, -1)


@pytest.mark.parametrize(
    "schedule, step, expected",
    [
        # Every step from begin to end, with a frequency of 1.
        (tfmot.ConstantSparsity(0.5, 100, 200, 1), 99, False),
        (tfmot.ConstantSparsity(0.5, 100, 200, 1), 100, True),
        (tfmot.ConstantSparsity(0.5, 100, 200, 1), 117, True),
        (tfmot.ConstantSparsity(0.5, 100, 200, 1), 200, True),
        (tfmot.ConstantSparsity(0.5, 100, 200, 1), 201, False),
        (tfmot.PolynomialDecay(0.2, 0.8, 100, 200, 3, 1), 99, False),
        (tfmot.PolynomialDecay(0.2, 0.8, 100, 200, 3, 1), 200, True),
        (tfmot.PolynomialDecay(0.2, 0.8, 100, 200, 3, 1), 201, False),
        # Of these, only those of the grid.
        (CONSTANT, 100, True),
        (CONSTANT, 109, False),
        (CONSTANT, 110, True),
        (CONSTANT, 111, False),
        (DECAY, 101, False),
        (DECAY, 104, True),
        # Without an end, for ever.
        (FOREVER, 10_000, True),
        (FOREVER, 10_001, False),
        (FOREVER, 100_000_000, True),
    ],
)
@pytest.mark.parametrize("number", [int, tf.constant, tf.Variable])
def test_pruning_is_due_on_the_grid_of_the_window(schedule, step, expected, number):
    due, _ = schedule(number(step))

    assert bool(due) is expected


@pytest.mark.parametrize(
    "schedule, step, expected",
    [
        (CONSTANT, 100, 0.5),
        (CONSTANT, 200, 0.5),
        (FOREVER, 100_000_000, 0.5),
        # 0.8 - 0.6 * (1 - p) ** 3 at p = 0, 0.2, 0.5 and 1
        (DECAY, 100, 0.2),
        (DECAY, 102, 0.4928),
        (DECAY, 105, 0.725),
        (DECAY, 110, 0.8),
        (DECAY, 500, 0.8),
        # TFMOT divides by zero here.
        (tfmot.PolynomialDecay(0.2, 0.8, 7, 7), 7, 0.8),
    ],
)
def test_sparsity_follows_the_formula(schedule, step, expected):
    assert float(schedule(step)[1]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "schedule",
    [
        tfmot.ConstantSparsity(0.7, 10, 20, 10),
        tfmot.PolynomialDecay(0.2, 0.6, 10, 20, 5, 10),
    ],
)
def test_config_makes_an_equal_schedule(schedule):
    config = schedule.get_config()
    own_objects = {kind.__name__: kind for kind in (type(schedule),)}

    copies = [
        type(schedule).from_config(config),
        type(schedule).from_config(config["config"]),
        saving.deserialize_keras_object(config, custom_objects=own_objects),
        saving.deserialize_keras_object(saving.serialize_keras_object(schedule)),
    ]

    assert config["class_name"] == type(schedule).__name__
    for copy in copies:
        assert type(copy) is type(schedule)
        assert copy.get_config() == config
        assert copy == schedule
    assert schedule != CONSTANT


class Stairs(tfmot.PruningSchedule):
    """What a user writes by TFMOT's documentation, with the helpers of the base."""

    def __init__(self, begin_step, end_step, frequency):
        self._validate_step(begin_step, end_step, frequency, False)
        self._validate_sparsity(0.9, "the last sparsity")
        self.steps = begin_step, end_step, frequency

    def __call__(self, step):
        sparsity = tf.minimum(0.9, 0.3 * tf.cast(step // 2, tf.float32))
        return self._should_prune_in_step(step, *self.steps), sparsity

    def get_config(self):
        names = ("begin_step", "end_step", "frequency")
        return dict(zip(names, self.steps, strict=True))


def test_schedule_of_the_user_takes_the_helpers_of_the_base():
    stairs = Stairs(2, 8, 3)

    due, sparsities = zip(*(stairs(tf.constant(s)) for s in range(10)), strict=True)

    assert [step for step in range(10) if due[step]] == [2, 5, 8]
    np.testing.assert_allclose(sparsities, np.minimum(0.9, 0.3 * (np.arange(10) // 2)))
    assert Stairs.from_config(stairs.get_config()) == stairs
    with pytest.raises(ValueError, match="frequency=0"):
        Stairs(2, 8, 0)


@pytest.mark.parametrize("missing", ["__call__", "get_config"])
def test_schedule_of_the_user_has_to_say_when_and_how_it_is_saved(missing):
    methods = {"__call__": lambda self, step: (True, 0.5), "get_config": lambda s: {}}
    del methods[missing]

    with pytest.raises(TypeError, match=missing):
        type("Incomplete", (tfmot.PruningSchedule,), methods)()
