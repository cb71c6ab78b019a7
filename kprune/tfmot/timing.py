"""From TFMOT's updates to kprune's: at which clock they are due, and of how much.

TFMOT counts a step when a batch begins, and updates masks then; kprune's clock counts
the steps that are done. What TFMOT does at its step `s`, kprune does when its clock
shows `s - 1`. With TFMOT's timing that is what happens; with kprune's, the numbers of a
schedule are what the clock shows, so that `begin_step=0` means before any training.
"""

import numpy as np
import tensorflow as tf

from kprune.granularity import NofM
from kprune.schedules import Schedule
from kprune.scopes import LayerWise
from kprune.selection import keep_largest
from kprune.tfmot.schedules import ConstantSparsity, PolynomialDecay

TIMINGS = ("kprune", "tfmot")
# How many steps back an update is looked for; each takes a fifth of a millisecond.
_FARTHEST = 1_000


def as_schedule(schedule, granularity, timing):
    """Returns the `kprune.Schedule` that does what a schedule of TFMOT's says.

    Args:
        schedule: `PruningSchedule`, or a `kprune.Schedule`, which is returned.
        granularity: `Granularity` of the weights. N:M patterns are made at once and do
            not follow the schedule, as in TFMOT.
        timing: `"kprune"` or `"tfmot"`.

    Raises:
        ValueError: If TFMOT would not update at all.

    Example:
    >>> decay = PolynomialDecay(0.0, 0.8, begin_step=0, end_step=250)
    >>> [as_schedule(decay, None, t).last_due(240) for t in ("kprune", "tfmot")]
    [200, 199]
    >>> [as_schedule(decay, None, t).end_step for t in ("kprune", "tfmot")]
    [250, 199]
    """
    if isinstance(schedule, Schedule):
        return schedule
    shift = TIMINGS.index(timing)
    if isinstance(granularity, NofM):
        begin = 0 if timing == "tfmot" else _step(schedule, "begin_step", 0)
        whole = ConstantSparsity(granularity.reachable(None), begin + shift)
        return GridSchedule(whole, shift)
    if type(schedule) in (ConstantSparsity, PolynomialDecay):
        return GridSchedule(schedule, shift)
    return FreeSchedule(schedule, shift)


def _step(schedule, name, default):
    """Returns a step that a schedule of the user's may tell, or may not."""
    step = getattr(schedule, name, None)
    return default if step is None else int(step)


class _Translated(Schedule):
    """Base of the two kinds.

    Args:
        schedule: `PruningSchedule`.
        shift: Int, TFMOT's step when kprune's clock shows 0.
    """

    def __init__(self, schedule, shift, begin_step, end_step, frequency=1):
        self.schedule = schedule
        self.shift = shift
        super().__init__(begin_step, end_step, frequency)

    def get_config(self):
        return {"schedule": self.schedule, "shift": self.shift}


class GridSchedule(_Translated):
    """`ConstantSparsity` or `PolynomialDecay`, whose updates lie on a grid.

    Args:
        schedule: The one or the other.
        shift: 0 for kprune's timing: the first update at `begin_step`, the last one at
            `end_step`, also off the grid. 1 for TFMOT's: a batch's step is one more
            than the clock, and there is no update off the grid.

    Raises:
        ValueError: If no step of the grid is ever reached.
    """

    def __init__(self, schedule, shift):
        begin, frequency = schedule.begin_step, schedule.frequency
        if begin < shift:
            begin += frequency  # TFMOT has no step 0
        end = begin if schedule.end_step < 0 else schedule.end_step
        if shift:
            end -= (end - begin) % frequency
        if end < begin:
            raise ValueError(
                f"{type(schedule).__name__} with begin_step={schedule.begin_step}, "
                f"end_step={schedule.end_step} and frequency={frequency} prunes at no "
                "step in TFMOT's timing. Lower `frequency`."
            )
        if isinstance(schedule, ConstantSparsity):
            end = begin  # What is removed stays removed: the first update is the last.
        super().__init__(schedule, shift, begin - shift, end - shift, frequency)
        first, last = self([self.begin_step, self.end_step])
        self.lowers = bool(last < first)

    def _after(self, elapsed):
        steps = elapsed + self.begin_step + self.shift
        if not self.shift or isinstance(self.schedule, ConstantSparsity):
            return self.schedule(steps)[1]
        # One by one: of several TensorFlow computes powers in another way.
        found = [_rounded_as_tfmot(self.schedule, step) for step in steps.flat]
        return np.reshape(found, steps.shape)


def _rounded_as_tfmot(decay, step):
    """Returns the sparsity of a `PolynomialDecay` with TFMOT's roundings to float32.

    Their order counts: in kernels of some sizes a weight more or less stays.
    """
    window = decay.end_step - decay.begin_step
    if not window:
        return decay.final_sparsity  # TFMOT divides by zero
    passed = tf.constant(step - decay.begin_step, "float32") / window
    progress = tf.minimum(1.0, tf.maximum(0.0, passed))
    missing = (decay.initial_sparsity - decay.final_sparsity) * tf.pow(
        1 - progress, decay.power
    )
    return (missing + decay.final_sparsity).numpy()


class FreeSchedule(_Translated):
    """A schedule of the user's, which is asked at each step.

    Between updates it wants what it wanted at the latest, of the last 1,000 steps if
    nothing was asked in between. What it will say can't be known, so that it counts as
    one whose sparsity may fall.

    Two are equal if they ask one and the same object: `get_config` may say too little.

    Args:
        schedule: `PruningSchedule`.
        shift: As for `GridSchedule`.
        end_step: Int, the last step that counts. Defaults to the schedule's own
            `end_step`, or to 0 if it has none; see `until`.

    Attributes:
        updates: `None`, since their number can't be known.
    """

    lowers = True
    updates = None

    def __init__(self, schedule, shift, end_step=None):
        own = _step(schedule, "end_step", -1)
        self._has_end = end_step is not None or own >= 0
        self._looked, self._last = -1, None
        super().__init__(
            schedule, shift, 0, max(0, own - shift) if end_step is None else end_step
        )

    def __eq__(self, other):
        is_like = isinstance(other, FreeSchedule) and self.shift == other.shift
        return is_like and self.schedule is other.schedule

    def until(self, end_step):
        """Returns this schedule, with an end if it has none.

        Args:
            end_step: Int, when training ends, or `None` if that is not known.
        """
        if self._has_end or end_step is None:
            return self
        return FreeSchedule(self.schedule, self.shift, end_step)

    def __call__(self, step):
        """Returns the sparsity of the latest update that is due by a step."""
        steps = np.atleast_1d(step).tolist()
        sparsity = np.array([self._wanted(self.last_due(s)) for s in steps])
        return sparsity if np.ndim(step) else sparsity.item()

    def last_due(self, step):
        """Returns the latest step by which the schedule has said to prune."""
        if self._has_end:
            step = min(step, self.end_step)
        if step < self._looked:
            self._looked, self._last = -1, None
        for earlier in range(step, max(self._looked, step - _FARTHEST), -1):
            if bool(self._ask(earlier)[0]):
                self._last = earlier
                break
        self._looked = step
        return self._last

    def next_due(self, step):
        """Returns the next step: what it will say can't be known."""
        return step + 1

    def _wanted(self, due):
        return 0.0 if due is None else float(self._ask(due)[1])

    def _ask(self, step):
        answer = self.schedule(tf.constant(step + self.shift, "int64"))
        try:
            should_prune, sparsity = answer
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The schedule {type(self.schedule).__name__} returned {answer!r} at "
                f"step {step + self.shift}. Expected a pair: whether to prune, a bool, "
                "and the sparsity, in [0, 1). Mend its `__call__`."
            ) from error
        return should_prune, sparsity


class LayerWiseAsTfmot(LayerWise):
    """Prunes each weight by itself, and rounds halves of units as TFMOT does.

    Of `n` units, which are single weights or blocks, `n * (1 - sparsity)` stay,
    computed in float32 and rounded to the even number. N:M patterns have their own
    count.

    Example:
    >>> from kprune.scopes import Contender
    >>> contender = Contender(np.array([1.0, 2.0, 3.0]))
    >>> [next(s([contender], 0.5)).tolist() for s in (LayerWise(), LayerWiseAsTfmot())]
    [[False, False, True], [False, True, True]]
    """

    def _choose(self, contender, sparsity):
        if contender.reachable < 1:
            return super()._choose(contender, sparsity)
        units = np.float32(len(contender.scores))
        stay = np.round(units * (np.float32(1) - np.float32(sparsity)))
        return keep_largest(
            [contender.scores], max(1, int(stay)), [contender.candidates]
        )[0]
