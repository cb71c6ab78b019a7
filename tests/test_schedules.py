import json

import keras
import numpy as np
import pytest

import kprune
from kprune import registry

# Constructor arguments of each schedule, all of them off their defaults.
ARGUMENTS = {
    "constant_schedule": [
        {"final_sparsity": 0.5, "begin_step": 10},
        {"final_sparsity": 0.0, "begin_step": 0},
    ],
    "polynomial_schedule": [
        {
            "final_sparsity": 0.9,
            "begin_step": 7,
            "end_step": 107,
            "initial_sparsity": 0.25,
            "power": 2.5,
            "frequency": 30,
        },
        {
            "final_sparsity": 0.9,
            "begin_step": 5,
            "end_step": 5,
            "initial_sparsity": 0.1,
            "power": 3,
            "frequency": 10,
        },
    ],
    **{
        name: [
            {
                "final_sparsity": 0.9,
                "begin_step": 7,
                "end_step": 107,
                "initial_sparsity": 0.25,
                "frequency": 30,
            },
            {
                "final_sparsity": 0.7,
                "begin_step": 0,
                "end_step": 99,
                "initial_sparsity": 0.0,
                "frequency": 1,
            },
        ]
        for name in ("linear_schedule", "exponential_schedule", "cosine_schedule")
    },
    "iterative_schedule": [
        {"final_sparsity": 0.9, "rounds": 4, "steps_per_round": 25, "begin_step": 3},
        {"final_sparsity": 0.5, "rounds": 1, "steps_per_round": 10, "begin_step": 0},
    ],
    "two_stage_schedule": [
        {
            "final_sparsity": 0.95,
            "coarse_sparsity": 0.8,
            "coarse_rounds": 3,
            "fine_rounds": 6,
            "coarse_steps": 20,
            "fine_steps": 7,
            "begin_step": 11,
        },
        {
            "final_sparsity": 0.6,
            "coarse_sparsity": 0.6,
            "coarse_rounds": 1,
            "fine_rounds": 1,
            "coarse_steps": 5,
            "fine_steps": 5,
            "begin_step": 0,
        },
    ],
    "cyclic_schedule": [
        {
            "final_sparsity": 0.9,
            "cycles": 3,
            "sparse_steps": 20,
            "dense_steps": 15,
            "begin_step": 10,
        },
        {
            "final_sparsity": 0.5,
            "cycles": 2,
            "sparse_steps": 1,
            "dense_steps": 1,
            "begin_step": 0,
        },
    ],
}
CASES = [
    pytest.param(registry._families["schedules"][name], arguments, id=f"{name}-{i}")
    for name in registry.keys("schedules")
    for i, arguments in enumerate(ARGUMENTS.get(name, [{}]))
]


def formula(steps, final, initial, begin, end, power):
    """Zhu and Gupta's equation 1, step by step."""
    values = []
    for step in steps:
        if step < begin:
            values.append(0.0)
        elif step >= end:
            values.append(final)
        else:
            passed = (step - begin) / (end - begin)
            values.append(final + (initial - final) * (1 - passed) ** power)
    return np.array(values)


@pytest.mark.parametrize("final, initial", [(0.9, 0.0), (0.8, 0.3), (0.5, 0.5)])
@pytest.mark.parametrize("begin, end", [(0, 40), (13, 77), (20, 20)])
@pytest.mark.parametrize("power", [1, 3, 0.5])
def test_polynomial_schedule_is_the_formula(final, initial, begin, end, power):
    schedule = kprune.PolynomialSchedule(
        final, begin, end_step=end, initial_sparsity=initial, power=power
    )

    values = schedule(np.arange(100))

    expected = formula(range(100), final, initial, begin, end, power)
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-15)


def test_polynomial_schedule_has_power_three_by_default():
    schedule = kprune.PolynomialSchedule(0.8, end_step=100)

    assert schedule(50) == pytest.approx(0.8 - 0.8 / 8)
    assert schedule.begin_step == 0


@pytest.mark.parametrize(
    "window, frequency", [(0, 1), (5, 1), (50, 2), (2000, 100), (10**6, 100)]
)
def test_a_short_window_still_has_some_twenty_updates(window, frequency):
    schedule = kprune.PolynomialSchedule(0.8, 10, end_step=10 + window)

    assert schedule.frequency == frequency


# Every window has 100 steps, from 0.2 to 0.9, and begins at 10.
CURVES = {
    kprune.LinearSchedule: lambda p: 0.2 + 0.7 * p,
    kprune.ExponentialSchedule: lambda p: 1 - 0.8 ** (1 - p) * 0.1**p,
    kprune.CosineSchedule: lambda p: 0.55 - 0.35 * np.cos(np.pi * p),
}


@pytest.mark.parametrize("cls", CURVES)
def test_curves_are_the_formulas(cls):
    schedule = cls(0.9, 10, end_step=110, initial_sparsity=0.2)

    values = schedule(np.arange(10, 111))

    expected = [CURVES[cls](i / 100) for i in range(101)]
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_exponential_schedule_removes_the_same_share_at_every_update():
    schedule = kprune.ExponentialSchedule(0.99, end_step=100, frequency=10)

    density = 1 - schedule(np.arange(0, 101, 10))

    np.testing.assert_allclose(density[1:] / density[:-1], 0.01**0.1)


def test_iterative_schedule_multiplies_the_density_by_the_same_in_each_round():
    """20 % of what is left, three times, as of Frankle and Carbin."""
    schedule = kprune.IterativeSchedule(1 - 0.8**3, rounds=3, steps_per_round=50)

    values = schedule([0, 49, 50, 99, 100, 149, 150])

    np.testing.assert_allclose(values, [0.2, 0.2, 0.36, 0.36, 0.488, 0.488, 0.488])
    assert due_steps(schedule) == [0, 50, 100]


def test_two_stages_differ_in_their_steps_and_in_how_often_they_come():
    schedule = kprune.TwoStageSchedule(
        1 - 0.09 * 0.9**2,
        coarse_sparsity=0.91,
        coarse_rounds=2,
        coarse_steps=100,
        fine_rounds=2,
        fine_steps=10,
        begin_step=5,
    )

    values = schedule([4, 5, 104, 105, 204, 205, 214, 215, 999])

    fine = [1 - 0.09 * 0.9, 1 - 0.09 * 0.9**2]
    np.testing.assert_allclose(
        values, [0, 0.7, 0.7, 0.91, 0.91, fine[0], fine[0], fine[1], fine[1]]
    )
    assert due_steps(schedule) == [5, 105, 205, 215]
    assert schedule.fine_step == 205


def test_cyclic_schedule_alternates_and_ends_sparse():
    schedule = kprune.CyclicSchedule(
        0.75, cycles=3, sparse_steps=4, dense_steps=2, begin_step=3
    )

    values = schedule(np.arange(30))

    phases = [(0, 3), (0.75, 4), (0, 2), (0.75, 4), (0, 2), (0.75, 15)]
    np.testing.assert_array_equal(values, [v for v, n in phases for _ in range(n)])
    assert due_steps(schedule) == [3, 7, 9, 13, 15]
    assert schedule.highest == 0.75


def test_equal_phases_and_equal_stages_are_the_defaults():
    cyclic = kprune.CyclicSchedule(0.5, sparse_steps=7)
    staged = kprune.TwoStageSchedule(0.5, 0.25, coarse_steps=9)

    assert cyclic.dense_steps == 7
    assert staged.fine_steps == 9


def due_steps(schedule):
    due, step = [], -1
    while (step := schedule.next_due(step)) is not None:
        due.append(step)
    return due


def test_constant_schedule_is_a_step():
    schedule = kprune.ConstantSchedule(0.5, begin_step=3)

    np.testing.assert_array_equal(schedule(np.arange(5)), [0, 0, 0, 0.5, 0.5])
    assert schedule.end_step == 3


@pytest.mark.parametrize("cls, arguments", CASES)
def test_schedules_survive_their_config(cls, arguments):
    schedule = cls(**arguments)

    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    again = registry.get("schedules", stored)

    assert schedule.get_config() == arguments
    assert again == schedule and again is not schedule
    assert hash(again) == hash(schedule)
    assert type(again) is cls
    np.testing.assert_array_equal(again(np.arange(200)), schedule(np.arange(200)))


@pytest.mark.parametrize("cls, arguments", CASES)
def test_schedules_go_from_zero_to_their_target(cls, arguments):
    schedule = cls(**arguments)

    values = schedule(np.arange(300))

    assert np.all((values >= 0) & (values < 1))
    assert np.all(values[: schedule.begin_step] == 0)
    assert np.all(values[schedule.end_step :] == arguments["final_sparsity"])
    assert schedule.highest == values.max()


@pytest.mark.parametrize("cls, arguments", CASES)
def test_sparsity_falls_where_the_schedule_says_so_and_nowhere_else(cls, arguments):
    values = cls(**arguments)(np.arange(300))

    assert (np.diff(values) < 0).any() == cls.lowers


@pytest.mark.parametrize("cls, arguments", CASES)
def test_schedules_take_ints_and_arrays_of_any_shape(cls, arguments):
    schedule = cls(**arguments)
    steps = np.array([[0, 5, 10], [50, 107, 10**9]])

    values = schedule(steps)

    assert values.shape == (2, 3) and values.dtype == np.float64
    for step, value in zip(steps.ravel(), values.ravel(), strict=True):
        assert schedule(int(step)) == schedule(step) == value
    assert type(schedule(5)) is float
    np.testing.assert_array_equal(schedule(steps.tolist()), values)


@pytest.mark.parametrize("cls, arguments", CASES)
def test_steps_that_are_due_agree_looking_back_and_ahead(cls, arguments):
    schedule = cls(**arguments)
    due = due_steps(schedule)

    assert due[0] == schedule.begin_step and due[-1] == schedule.end_step
    assert len(due) == schedule.updates
    for step in range(200):
        past = [d for d in due if d <= step]
        future = [d for d in due if d > step]
        assert schedule.last_due(step) == (past[-1] if past else None)
        assert schedule.next_due(step) == (future[0] if future else None)


@pytest.mark.parametrize(
    "name", ["iterative_schedule", "two_stage_schedule", "cyclic_schedule"]
)
def test_nothing_changes_between_the_updates_of_a_schedule_in_steps(name):
    schedule = registry._families["schedules"][name](**ARGUMENTS[name][0])
    steps = range(schedule.begin_step, 200)

    assert schedule(steps).tolist() == [
        schedule(schedule.last_due(step)) for step in steps
    ]


@pytest.mark.parametrize(
    "begin, end, frequency, due",
    [
        (7, 107, 30, [7, 37, 67, 97, 107]),
        (0, 4, 2, [0, 2, 4]),
        (5, 5, 10, [5]),
        (5, 6, 10, [5, 6]),
    ],
)
def test_updates_are_due_on_the_grid_and_at_the_end(begin, end, frequency, due):
    schedule = kprune.LinearSchedule(0.9, begin, end_step=end, frequency=frequency)

    assert due_steps(schedule) == due


def test_a_long_schedule_is_not_counted_through():
    schedule = kprune.LinearSchedule(0.9, end_step=10**12, frequency=1)

    assert schedule.last_due(10**11) == 10**11
    assert schedule.next_due(10**11) == 10**11 + 1
    assert schedule.updates == 10**12 + 1


def test_table_lists_every_update():
    schedule = kprune.LinearSchedule(0.8, 50, end_step=100, frequency=40)

    assert schedule.table().split() == [
        *("step", "sparsity"),
        *("50", "0.0000"),
        *("90", "0.6400"),
        *("100", "0.8000"),
    ]


@pytest.mark.parametrize("rows", [2, 7, 20])
def test_a_long_table_is_thinned_out_and_keeps_both_ends(rows):
    schedule = kprune.LinearSchedule(0.8, 50, end_step=1050, frequency=10)

    lines = schedule.table(rows).splitlines()[1:]

    assert len(lines) == rows
    assert lines[0].split() == ["50", "0.0000"]
    assert lines[-1].split() == ["1050", "0.8000"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"final_sparsity": 1.0}, r"final_sparsity=1.0 must be a number in \[0, 1\)"),
        ({"final_sparsity": -0.1}, r"final_sparsity=-0.1 must be"),
        ({"final_sparsity": 90}, r"90 % is written 0.9"),
        ({"final_sparsity": np.nan}, r"final_sparsity=nan must be"),
        ({"final_sparsity": "0.9"}, "final_sparsity='0.9' must be a number"),
        ({"final_sparsity": True}, r"final_sparsity=True must be"),
        ({"initial_sparsity": 1.5}, r"initial_sparsity=1.5 must be"),
        ({"initial_sparsity": 0.95}, r"0.95 is above final_sparsity=0.9"),
        ({"begin_step": -1}, r"begin_step=-1 must be a whole number of 0 or more"),
        ({"begin_step": 1.5}, r"begin_step=1.5 must be a whole number"),
        ({"begin_step": True}, r"begin_step=True must be a whole number"),
        ({"begin_step": 101}, r"end_step=100 lies before begin_step=101"),
        ({"end_step": -5}, r"end_step=-5 must be a whole number"),
        ({"end_step": 1e3}, r"end_step=1000.0 must be a whole number"),
        ({"frequency": 0}, r"frequency=0 must be a whole number of 1 or more"),
        ({"power": "a"}, "power='a' must be a finite number above 0"),
        ({"power": True}, "power=True must be a finite number above 0"),
        ({"power": 0}, r"power=0 must be a finite number above 0"),
        ({"power": np.nan}, r"power=nan must be a finite number above 0"),
        ({"power": np.inf}, r"power=inf must be a finite number above 0"),
    ],
)
def test_arguments_of_a_curve_are_checked_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        kprune.PolynomialSchedule(
            **{"final_sparsity": 0.9, "end_step": 100, **arguments}
        )


@pytest.mark.parametrize(
    "cls, arguments, message",
    [
        (kprune.IterativeSchedule, {}, "steps_per_round=None must be a whole number"),
        (kprune.IterativeSchedule, {"rounds": 0}, r"rounds=0 .* \(prunings\)"),
        (kprune.CyclicSchedule, {}, "sparse_steps=None must be a whole number of 1"),
        (kprune.CyclicSchedule, {"cycles": 1}, r"cycles=1 must be .* 2 or more"),
        (
            kprune.CyclicSchedule,
            {"sparse_steps": 5, "dense_steps": 0},
            "dense_steps=0 must be a whole number of 1 or more",
        ),
        (
            kprune.TwoStageSchedule,
            {"coarse_sparsity": 0.95},
            "coarse_sparsity=0.95 is above final_sparsity=0.9",
        ),
        (
            kprune.TwoStageSchedule,
            {"coarse_sparsity": 0.5},
            "coarse_steps=None must be a whole number",
        ),
        (
            kprune.TwoStageSchedule,
            {"coarse_sparsity": 0.5, "coarse_steps": 3, "fine_rounds": 1.5},
            "fine_rounds=1.5 must be a whole number of 1 or more",
        ),
    ],
)
def test_arguments_of_schedules_in_steps_are_checked_at_once(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        cls(0.9, **arguments)


def test_a_subclass_needs_no_more_than_a_curve():
    class Halfway(kprune.Schedule):
        def _curve(self, progress):
            return np.where(progress < 0.5, 0.0, 0.5)

    schedule = Halfway(10, 20, 5)

    assert schedule([9, 10, 14, 15, 20]).tolist() == [0, 0, 0, 0.5, 0.5]


def test_base_class_names_the_subclass_that_lacks_a_curve():
    class Straight(kprune.Schedule):
        pass

    with pytest.raises(NotImplementedError, match="Straight defines no `_curve`"):
        Straight(0, 10)(5)


def test_numpy_integers_become_plain_ones():
    schedule = kprune.PolynomialSchedule(
        np.float32(0.5), np.int64(1), end_step=np.int32(9), frequency=np.uint8(2)
    )

    json.dumps(schedule.get_config())
    assert schedule == kprune.PolynomialSchedule(0.5, 1, end_step=9, frequency=2)


def test_the_fine_stage_begins_when_the_coarse_rounds_are_over():
    schedule = kprune.TwoStageSchedule(
        0.9, 0.75, coarse_rounds=2, coarse_steps=100, fine_rounds=2, begin_step=10
    )

    assert schedule.stage_steps == (schedule.fine_step,) == (210,)
    assert kprune.ConstantSchedule(0.9).stage_steps == ()
