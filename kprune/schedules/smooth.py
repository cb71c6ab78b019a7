"""Schedules that raise sparsity along one curve, from an update to the next."""

import numpy as np

from kprune.arguments import check_number, check_sparsity
from kprune.registry import register
from kprune.schedules.base import Schedule


@register("schedules")
class ConstantSchedule(Schedule):
    """Asks for one sparsity, all at once, from `begin_step` on: one-shot pruning.

    The right choice for weights that are trained already, for methods that choose
    their mask at initialisation, and for training under a fixed budget.

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
        super().__init__(begin_step, begin_step)
        self.final_sparsity = check_sparsity("final_sparsity", final_sparsity)

    def _curve(self, progress):
        return np.full_like(progress, self.final_sparsity)

    def get_config(self):
        return {"final_sparsity": self.final_sparsity, "begin_step": self.begin_step}


class _RisingSchedule(Schedule):
    """From one sparsity to a higher one; a subclass says how much is still missing.

    `_missing(progress)` falls from 1 to exactly 0: the part of the way that is left.
    """

    def __init__(
        self,
        final_sparsity,
        begin_step=0,
        end_step=None,
        *,
        initial_sparsity=0.0,
        frequency=None,
    ):
        super().__init__(begin_step, end_step, frequency)
        self.final_sparsity = check_sparsity("final_sparsity", final_sparsity)
        self.initial_sparsity = check_sparsity("initial_sparsity", initial_sparsity)
        check_rise("initial_sparsity", initial_sparsity, final_sparsity)

    def _curve(self, progress):
        way = self.final_sparsity - self.initial_sparsity
        return self.final_sparsity - way * self._missing(progress)

    def get_config(self):
        return {
            "final_sparsity": self.final_sparsity,
            "begin_step": self.begin_step,
            "end_step": self.end_step,
            "initial_sparsity": self.initial_sparsity,
            "frequency": self.frequency,
        }


@register("schedules")
class PolynomialSchedule(_RisingSchedule):
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
        frequency: Int of 1 or more, steps between updates. Defaults to 100, or to
            a twentieth of the window where that is less.

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
        frequency=None,
    ):
        super().__init__(
            final_sparsity,
            begin_step,
            end_step,
            initial_sparsity=initial_sparsity,
            frequency=frequency,
        )
        expected = "a finite number above 0"
        self.power = check_number("power", power, lambda n: 0 < n < np.inf, expected)

    def _missing(self, progress):
        return (1 - progress) ** self.power

    def get_config(self):
        return {**super().get_config(), "power": self.power}


@register("schedules")
class LinearSchedule(_RisingSchedule):
    """Raises sparsity by as much at every update.

    With `p` the fraction of the window that has passed, the sparsity is
    `initial + (final - initial) * p`.

    Args:
        final_sparsity: Float in [0, 1), reached at `end_step`.
        begin_step: Int of 0 or more, the step of the first update. Defaults to 0.
        end_step: Int of `begin_step` or more, the step of the last update. Has to
            be given.
        initial_sparsity: Float in [0, final_sparsity], sparsity at `begin_step`.
            Defaults to 0.
        frequency: Int of 1 or more, steps between updates. Defaults to 100, or to
            a twentieth of the window where that is less.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
    >>> LinearSchedule(0.8, end_step=100)([0, 25, 100, 200])
    array([0. , 0.2, 0.8, 0.8])

    Reference:
        Narang et al., "Exploring Sparsity in Recurrent Neural Networks", ICLR 2017,
        which raises a threshold in straight lines.
    """

    def _missing(self, progress):
        return 1 - progress


@register("schedules")
class ExponentialSchedule(_RisingSchedule):
    """Removes the same fraction of what is left at every update.

    Even where sparsity is high no update takes much more than its share. With `p`
    the fraction of the window that has passed, the density `1 - sparsity` is
    `density_0 * (density_1 / density_0) ** p`.

    Args:
        final_sparsity: As for `LinearSchedule`, and so are the others.

    Example:
    >>> ExponentialSchedule(0.75, end_step=100)([0, 50, 100, 200])
    array([0. , 0.5 , 0.75, 0.75])

    Reference:
        Tanaka et al., "Pruning neural networks without any data by iteratively
        conserving synaptic flow", NeurIPS 2020, algorithm 1.
    """

    def _curve(self, progress):
        return equal_shares(1 - progress, self.initial_sparsity, self.final_sparsity)


@register("schedules")
class CosineSchedule(_RisingSchedule):
    """Raises sparsity gently at first and at last, and fast in between.

    With `p` the fraction of the window that has passed, the sparsity is
    `final + (initial - final) * (1 + cos(pi * p)) / 2`.

    Args:
        final_sparsity: As for `LinearSchedule`, and so are the others.

    Example:
    >>> CosineSchedule(0.8, end_step=100)([0, 50, 100, 200])
    array([0. , 0.4, 0.8, 0.8])

    Reference:
        Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm
        Restarts", ICLR 2017, for the curve.
    """

    def _missing(self, progress):
        return (1 + np.cos(np.pi * progress)) / 2


def check_rise(name, lower, higher):
    """Raises a `ValueError` where a sparsity lies above the final one."""
    if lower > higher:
        raise ValueError(
            f"{name}={lower} is above final_sparsity={higher}; this schedule only "
            "raises sparsity."
        )


def equal_shares(missing, initial, final):
    """Returns sparsities on a way that removes equal fractions of what is left.

    Args:
        missing: Float array in [0, 1], the part of the way that is left.
        initial: Float in [0, final], the sparsity where all of it is left.
        final: Float in [0, 1), the sparsity, exactly, where none is.

    Returns:
        Float array of `missing`'s shape.

    Example:
    >>> equal_shares(np.array([1, 0.5, 0]), 0.0, 0.75)
    array([0. , 0.5 , 0.75])
    """
    surplus = ((1 - initial) / (1 - final)) ** missing - 1
    return np.maximum(final - (1 - final) * surplus, initial)
