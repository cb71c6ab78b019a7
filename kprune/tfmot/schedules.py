"""When TFMOT prunes: its schedules, which say at each step whether, and how much."""

import abc

import numpy as np

from kprune.registry import register


class PruningSchedule(abc.ABC):
    """Base of the schedules: a function of the step, to be derived from.

    A subclass defines `__call__(step)`, which returns a pair of `should_prune` and
    `sparsity`, and `get_config()`. One that was written for TFMOT works as it is: it is
    given the step as an int64 tensor, its results may be tensors. Where it asks for
    less than before, weights come back. It is asked at each step, up to its `end_step`
    if it has that attribute.

    Example:
    >>> class Halves(PruningSchedule):
    ...     def __call__(self, step):
    ...         return step % 100 == 0, 1 - 0.5 ** (1 + step // 100)
    ...     def get_config(self):
    ...         return {}
    >>> Halves()(200)
    (True, 0.875)
    """

    @abc.abstractmethod
    def __call__(self, step):
        """Returns whether to prune at a step, a bool, and the sparsity, in [0, 1)."""

    @abc.abstractmethod
    def get_config(self):
        """Returns the constructor's arguments, by name or as TFMOT nests them."""

    @classmethod
    def from_config(cls, config):
        """Makes a schedule from what `get_config` returned.

        Args:
            config: Dict of arguments, or of `class_name` and `config`.
        """
        if set(config) == {"class_name", "config"}:
            config = config["config"]
        return cls(**config)

    def __eq__(self, other):
        return type(other) is type(self) and other.get_config() == self.get_config()

    def __hash__(self):
        return hash(type(self))

    def __repr__(self):
        return f"{type(self).__name__}({self.get_config()})"

    def _should_prune_in_step(self, step, begin_step, end_step, frequency):
        """Tells whether a step lies on the grid from `begin_step` to `end_step`."""
        step = np.asarray(step)
        is_within = (step >= begin_step) & ((step <= end_step) | (end_step < 0))
        return _plain(is_within & ((step - begin_step) % frequency == 0))

    def _validate_step(self, begin_step, end_step, frequency, allow_negative_1):
        """Raises a `ValueError` if the steps have no meaning."""
        if begin_step < 0:
            raise ValueError(f"begin_step={begin_step} should be >= 0.")
        if end_step == -1 and not allow_negative_1:
            raise ValueError("end_step cannot be -1: the sparsity rises until then.")
        if end_step < -1:
            raise ValueError(f"end_step={end_step} can be -1 or >= 0.")
        if -1 < end_step < begin_step:
            raise ValueError(
                f"begin_step={begin_step} should be <= end_step={end_step}."
            )
        if frequency <= 0:
            raise ValueError(f"frequency={frequency} should be > 0.")

    def _validate_sparsity(self, sparsity, variable_name):
        """Raises a `ValueError` unless this is a sparsity."""
        if not 0.0 <= sparsity < 1.0:
            raise ValueError(f"{variable_name}={sparsity} must be in range [0, 1).")


@register("tfmot_schedules")
class ConstantSparsity(PruningSchedule):
    """The same sparsity at each update.

    Args:
        target_sparsity: Float in [0, 1).
        begin_step: Int of 0 or more, the first step of the grid of updates.
        end_step: Int, the last one, or -1 for no end. Defaults to -1.
        frequency: Int of 1 or more, steps between updates. Defaults to 100. What is
            removed stays removed here, so that updates after the first find no more.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> ConstantSparsity(0.5, begin_step=10)(110)
    (True, 0.5)
    """

    def __init__(self, target_sparsity, begin_step, end_step=-1, frequency=100):
        self.target_sparsity = target_sparsity
        self.begin_step = begin_step
        self.end_step = end_step
        self.frequency = frequency
        self._validate_step(begin_step, end_step, frequency, True)
        self._validate_sparsity(target_sparsity, "target_sparsity")

    def __call__(self, step):
        """Returns whether the step is one of the grid, and the sparsity."""
        due = self._should_prune_in_step(
            step, self.begin_step, self.end_step, self.frequency
        )
        return due, _plain(np.full(np.shape(step), self.target_sparsity))

    def get_config(self):
        """Returns class name and arguments, as TFMOT does."""
        names = ("target_sparsity", "begin_step", "end_step", "frequency")
        return _config(self, names)


@register("tfmot_schedules")
class PolynomialDecay(PruningSchedule):
    """A sparsity that rises quickly at first and slowly in the end.

    At a fraction `p` of the window it is
    `final + (initial - final) * (1 - p) ** power`.

    Args:
        initial_sparsity: Float in [0, 1), that of the first update.
        final_sparsity: Float in [0, 1), that of the last.
        begin_step: Int of 0 or more, the first step of the grid of updates.
        end_step: Int of `begin_step` or more. If equal, the final sparsity is
            asked for at once (TFMOT divides by zero there).
        power: Float, the exponent. Defaults to 3.
        frequency: Int of 1 or more, steps between updates. Defaults to 100.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> PolynomialDecay(0.0, 0.5, begin_step=0, end_step=1000)(500)
    (True, 0.4375)

    Reference:
        Zhu and Gupta, "To prune, or not to prune", 2017.
    """

    def __init__(
        self,
        initial_sparsity,
        final_sparsity,
        begin_step,
        end_step,
        power=3,
        frequency=100,
    ):
        self.initial_sparsity = initial_sparsity
        self.final_sparsity = final_sparsity
        self.begin_step = begin_step
        self.end_step = end_step
        self.power = power
        self.frequency = frequency
        self._validate_step(begin_step, end_step, frequency, False)
        self._validate_sparsity(initial_sparsity, "initial_sparsity")
        self._validate_sparsity(final_sparsity, "final_sparsity")

    def __call__(self, step):
        """Returns whether the step is one of the grid, and the sparsity there."""
        due = self._should_prune_in_step(
            step, self.begin_step, self.end_step, self.frequency
        )
        passed = np.asarray(step, "float64") - self.begin_step
        window = self.end_step - self.begin_step
        progress = np.clip(passed / window, 0, 1) if window else passed >= 0
        missing = (self.initial_sparsity - self.final_sparsity) * (
            1.0 - progress
        ) ** self.power
        return due, _plain(self.final_sparsity + missing)

    def get_config(self):
        """Returns class name and arguments, as TFMOT does."""
        names = ("initial_sparsity", "final_sparsity", "begin_step", "end_step")
        return _config(self, (*names, "power", "frequency"))


def _config(schedule, names):
    arguments = {name: getattr(schedule, name) for name in names}
    return {"class_name": type(schedule).__name__, "config": arguments}


def _plain(value):
    """Returns an array, or what one without dimensions holds."""
    value = np.asarray(value)
    return value if value.ndim else value.item()
