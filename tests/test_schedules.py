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
    assert schedule.frequency == 100 and schedule.begin_step == 0


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
def test_schedules_rise_from_zero_to_their_target(cls, arguments):
    schedule = cls(**arguments)

    values = schedule(np.arange(300))

    assert np.all(np.diff(values) >= 0)
    assert np.all(values[: schedule.begin_step] == 0)
    assert np.all(values[schedule.end_step :] == arguments["final_sparsity"])


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
def test_updates_are_due_on_the_grid_and_at_the_end(cls, arguments):
    schedule = cls(**arguments)
    begin, end = schedule.begin_step, schedule.end_step
    due = sorted({*range(begin, end, schedule.frequency), end})

    for step in range(200):
        past = [d for d in due if d <= step]
        future = [d for d in due if d > step]
        assert schedule.last_due(step) == (past[-1] if past else None)
        assert schedule.next_due(step) == (future[0] if future else None)


def test_the_end_is_due_off_the_grid():
    schedule = kprune.PolynomialSchedule(0.9, 7, end_step=107, frequency=30)

    due, step = [], -1
    while (step := schedule.next_due(step)) is not None:
        due.append(step)

    assert due == [7, 37, 67, 97, 107]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"final_sparsity": 1.0}, r"final_sparsity=1.0 must be a number in \[0, 1\)"),
        ({"final_sparsity": -0.1}, r"final_sparsity=-0.1 must be"),
        ({"final_sparsity": 90}, r"90 % is written 0.9"),
        ({"final_sparsity": np.nan}, r"final_sparsity=nan must be"),
        ({"final_sparsity": "0.9"}, r"final_sparsity=0.9 must be a number"),
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
        ({"power": 0}, r"power=0 must be a finite number above 0"),
        ({"power": np.nan}, r"power=nan must be a finite number above 0"),
        ({"power": np.inf}, r"power=inf must be a finite number above 0"),
    ],
)
def test_arguments_are_checked_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        kprune.PolynomialSchedule(
            **{"final_sparsity": 0.9, "end_step": 100, **arguments}
        )


def test_numpy_integers_become_plain_ones():
    schedule = kprune.PolynomialSchedule(
        np.float32(0.5), np.int64(1), end_step=np.int32(9), frequency=np.uint8(2)
    )

    json.dumps(schedule.get_config())
    assert schedule == kprune.PolynomialSchedule(0.5, 1, end_step=9, frequency=2)
