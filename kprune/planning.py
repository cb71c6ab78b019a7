"""What a `fit` plans: when it began, when it is to end, and what follows from that."""

import dataclasses
import math
import sys

import keras

from kprune.memory import plan_of, set_plan
from kprune.optimizer_slots import plain_optimizer
from kprune.schedules import PolynomialSchedule
from kprune.whole_model import clock_of


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps of a `fit`, by the clock of its model.

    Attributes:
        clock: Int, the present.
        began: Int, the clock when the run began, perhaps before it was interrupted.
        end: Int, the clock when it is to end, or `None` if unknown.
        remaining: Int, the steps from now on, or `None` if unknown.
        an_epoch: Float, the steps of an epoch, or `None` if unknown.
        origin: Int, the clock from which the schedule's steps count.
    """

    clock: int
    began: int
    end: int | None
    remaining: int | None
    an_epoch: float | None
    origin: int

    @property
    def step(self):
        """Int, the present in the schedule's time."""
        return self.clock - self.origin

    def short_form(self, final_sparsity):
        """Returns the schedule over the first three quarters of the steps.

        Args:
            final_sparsity: Float in [0, 1).

        Raises:
            ValueError: If the number of steps is unknown.
        """
        if self.end is None:
            raise ValueError(
                f"PruningCallback({final_sparsity:g}) can't plan: the number "
                "of batches is unknown. Pass `steps_per_epoch` to `fit`, or give "
                f"a schedule: kprune.PolynomialSchedule({final_sparsity:g}, "
                "end_step=...)."
            )
        begin_step, end_step = self.began - self.origin, self._three_quarters()
        return PolynomialSchedule(final_sparsity, begin_step, end_step)

    def first_sparsity(self, schedule):
        """Returns the sparsity that a schedule asks for by the end of an epoch."""
        last_batch = self.step + math.ceil(self.an_epoch or 1) - 1
        due = schedule.last_due(last_batch)
        return 0.0 if due is None else schedule(due)

    def regrowth(self, regrowth):
        """Returns a regrowth that knows its end, after three quarters if not given.

        Args:
            regrowth: `Regrowth` or `None`.

        Raises:
            ValueError: If neither it nor the number of steps is known.
        """
        if regrowth is None or regrowth.end_step is not None:
            return regrowth
        if self.end is None:
            raise ValueError(
                f"{regrowth!r} can't plan: the number of batches is unknown. Give it "
                "an `end_step`, or pass `steps_per_epoch` to `fit`."
            )
        return regrowth.planned(self.began - self.origin, self._three_quarters())

    def _three_quarters(self):
        return self.began - self.origin + (self.end - self.began) * 3 // 4


def make_plan(model, epoch, params, start, clock_before):
    """Returns the plan of a `fit`, and notes it in the model.

    Args:
        model: The pruned model, its clock what it will be.
        epoch: Int, the first epoch of this `fit`.
        params: Dict, what Keras tells callbacks.
        start: `"model"` or `"fit"`, from when the schedule's steps count.
        clock_before: Int, the clock when this `fit` began. It is another by now if a
            callback has restored a backup.

    Returns:
        `Plan`.
    """
    clock = clock_of(model)
    remaining = _remaining_steps(model, epoch, params)
    # A plan that was stored is that of a run that is now resumed, if the clock
    # stands within it; otherwise a new one begins, whatever `initial_epoch` is. From
    # epoch 0 only backups are resumed, a `fit` of its own that was stopped is not.
    began, end = plan_of(model)
    is_new = epoch == 0 and clock == clock_before
    if is_new or not _lies_within(clock, began, end):
        began = clock
        end = None if remaining is None else clock + remaining
        set_plan(model, began, end)
    an_epoch = remaining and remaining / (params.get("epochs", epoch + 1) - epoch)
    origin = began if start == "fit" else 0
    return Plan(clock, began, end, remaining, an_epoch, origin)


def end_plan(model):
    """Notes in a pruned model when its latest `fit` ended, if that was not known."""
    began, end = plan_of(model)
    if end is None:
        set_plan(model, began, clock_of(model))


def _lies_within(step, began, end):
    """Tells whether a plan that was stored is that of a run to be resumed."""
    return began is not None and began <= step and (end is None or step < end)


def _remaining_steps(model, epoch, params):
    """Returns the optimizer steps from `epoch` on, if one batch makes one."""
    batches = params.get("steps")
    if batches is None:
        return None
    optimizer = plain_optimizer(getattr(model, "optimizer", None))
    accumulated = getattr(optimizer, "gradient_accumulation_steps", None) or 1
    return (params.get("epochs", epoch + 1) - epoch) * batches // accumulated


def running_callbacks():
    """Finds the `CallbackList` whose `set_model` is running.

    Keras tells a callback nothing of the others. The list is needed for the place
    in it, and to warn of callbacks that undo pruning.
    """
    frame = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            return caller
        frame = frame.f_back
    return None
