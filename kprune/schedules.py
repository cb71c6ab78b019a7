"""Schedules: which sparsity is wanted after how many optimizer steps.

A schedule is a pure function of the step. When a mask update is *due* is part of
the schedule too: at `begin_step`, then every `frequency` steps, and at
`end_step`, also when that lies off the grid.
"""

import numpy as np

from kprune.registry import Configurable, register


class Schedule(Configurable):
    """Base of all schedules: a window of steps, a grid of updates, a curve.

    A subclass defines `_curve(progress)`, which maps the fraction of the window
    that has passed, an array in [0, 1], to sparsities.

    Args:
        begin_step: Int of 0 or more, the optimizer step of the first update.
        end_step: Int of `begin_step` or more, the step of the last update.
            Equal to `begin_step` it means one-shot pruning.
        frequency: Int of 1 or more, optimizer steps between updates.

    Attributes:
        lowers: Bool, whether sparsity may fall, so that weights come back. Defaults
            to `False`.
    """

    lowers = False

    def __init__(self, begin_step, end_step, frequency):
        self.begin_step = _whole("begin_step", begin_step, at_least=0)
        self.end_step = _whole("end_step", end_step, at_least=0)
        self.frequency = _whole("frequency", frequency, at_least=1)
        if self.end_step < self.begin_step:
            raise ValueError(
                f"end_step={end_step} lies before begin_step={begin_step}. Give an "
                "end_step that is equal (one-shot pruning) or larger."
            )

    def _curve(self, progress):
        raise NotImplementedError(f"{type(self).__name__} defines no `_curve`.")

    def __call__(self, step):
        """Returns the sparsity wanted at a step.

        Args:
            step: Int, or integer array of any shape: optimizer steps.

        Returns:
            Float in [0, 1), or a float64 array of `step`'s shape. Zero before
            `begin_step`, constant from `end_step` on.
        """
        steps = np.asarray(step, "float64")
        window = max(self.end_step - self.begin_step, 1)
        progress = np.clip((steps - self.begin_step) / window, 0.0, 1.0)
        if self.begin_step == self.end_step:
            progress = np.ones_like(steps)
        sparsity = np.where(steps < self.begin_step, 0.0, self._curve(progress))
        return float(sparsity) if sparsity.ndim == 0 else sparsity

    @property
    def highest(self):
        """Float, the highest sparsity that is ever asked for."""
        return self(self.end_step)

    def last_due(self, step):
        """Returns the step of the latest update that is due by `step`.

        Args:
            step: Int, an optimizer step.

        Returns:
            Int of `step` or less, or `None` before `begin_step`.

        Example:
        >>> schedule = PolynomialSchedule(0.9, begin_step=10, end_step=35, frequency=10)
        >>> [schedule.last_due(s) for s in (9, 10, 29, 34, 35, 99)]
        [None, 10, 20, 30, 35, 35]
        """
        if step < self.begin_step:
            return None
        if step >= self.end_step:
            return self.end_step
        return step - (step - self.begin_step) % self.frequency

    def next_due(self, step):
        """Returns the step of the first update that is due after `step`.

        Args:
            step: Int, an optimizer step.

        Returns:
            Int larger than `step`, or `None` from `end_step` on.

        Example:
        >>> schedule = PolynomialSchedule(0.9, begin_step=10, end_step=35, frequency=10)
        >>> [schedule.next_due(s) for s in (0, 10, 29, 30, 35)]
        [10, 20, 30, 35, None]
        """
        due = self.last_due(step)
        if due is None:
            return self.begin_step
        return min(due + self.frequency, self.end_step) if due < self.end_step else None


@register("schedules")
class ConstantSchedule(Schedule):
    """Asks for one sparsity, all at once, from `begin_step` on.

    The right choice for weights that are trained already, and for training
    under a fixed budget.

    Args:
        final_sparsity: Float in [0, 1), the fraction of zeros.
        begin_step: Int of 0 or more, the step of the update. Defaults to 0.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
    >>> ConstantSchedule(0.5, begin_step=10)([0, 9, 10, 1000])
    array([0. , 0. , 0.5, 0.5])
    """

    def __init__(self, final_sparsity, begin_step=0):
        super().__init__(begin_step, begin_step, 1)
        self.final_sparsity = check_sparsity("final_sparsity", final_sparsity)

    def _curve(self, progress):
        return np.full_like(progress, self.final_sparsity)

    def get_config(self):
        return {"final_sparsity": self.final_sparsity, "begin_step": self.begin_step}


@register("schedules")
class PolynomialSchedule(Schedule):
    """Raises sparsity fast at first, while much is redundant, then ever slower.

    With `p` the fraction of the window that has passed, the sparsity is
    `final + (initial - final) * (1 - p) ** power`.

    Args:
        final_sparsity: Float in [0, 1), reached at `end_step`.
        begin_step: Int of 0 or more, the step of the first update. Defaults to 0.
        end_step: Int of `begin_step` or more, the step of the last update. Has to
            be given.
        initial_sparsity: Float in [0, final_sparsity], sparsity at `begin_step`.
            Defaults to 0.
        power: Float above 0. 1 is a straight line. Defaults to 3.
        frequency: Int of 1 or more, steps between updates. Defaults to 100.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
    >>> schedule = PolynomialSchedule(0.8, end_step=100)
    >>> schedule([0, 50, 100, 200])
    array([0. , 0.7, 0.8, 0.8])

    Reference:
        Zhu and Gupta, "To prune, or not to prune", ICLR workshop 2018.
    """

    def __init__(
        self,
        final_sparsity,
        begin_step=0,
        end_step=None,
        *,
        initial_sparsity=0.0,
        power=3,
        frequency=100,
    ):
        super().__init__(begin_step, end_step, frequency)
        self.final_sparsity = check_sparsity("final_sparsity", final_sparsity)
        self.initial_sparsity = check_sparsity("initial_sparsity", initial_sparsity)
        if self.initial_sparsity > self.final_sparsity:
            raise ValueError(
                f"initial_sparsity={initial_sparsity} is above "
                f"final_sparsity={final_sparsity}; this schedule only raises sparsity."
            )
        if not 0 < power < np.inf:
            raise ValueError(f"power={power} must be a finite number above 0.")
        self.power = power

    def _curve(self, progress):
        missing = self.final_sparsity - self.initial_sparsity
        return self.final_sparsity - missing * (1 - progress) ** self.power

    def get_config(self):
        return {
            "final_sparsity": self.final_sparsity,
            "begin_step": self.begin_step,
            "end_step": self.end_step,
            "initial_sparsity": self.initial_sparsity,
            "power": self.power,
            "frequency": self.frequency,
        }


def check_sparsity(name, value):
    """Returns `value` as a float, if it is a sparsity.

    Args:
        name: String, how the error shall call it.
        value: Number to check.

    Returns:
        Float in [0, 1).

    Raises:
        ValueError: If it is no number in [0, 1).

    Example:
    >>> check_sparsity("final_sparsity", 90)
    Traceback (most recent call last):
    ...
    ValueError: final_sparsity=90 must be a number in [0, 1), the fraction of zeros; \
90 % is written 0.9.
    """
    is_number = isinstance(value, (int, float, np.number)) and value is not True
    if not is_number or not 0 <= value < 1:
        hint = ""
        if is_number and 1 < value < 100:
            hint = f"; {value:g} % is written {value / 100:g}"
        raise ValueError(
            f"{name}={value} must be a number in [0, 1), the fraction of zeros{hint}."
        )
    return float(value)


def _whole(name, value, at_least):
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < at_least:
        raise ValueError(
            f"{name}={value!r} must be a whole number of {at_least} or more "
            "(optimizer steps)."
        )
    return int(value)
