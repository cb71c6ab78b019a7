"""`PruningCallback`: pruning during `model.fit`."""

import numbers
import warnings

import keras

from kprune import announcements, registry
from kprune.planning import end_plan, make_plan, running_callbacks
from kprune.preflight import (
    as_criterion,
    by_stage,
    check_parts,
    check_pruned,
    check_start,
    frozen,
)
from kprune.pruner import Pruner, kinds_to_follow
from kprune.rewinding import Rewind, forget_early_weights
from kprune.rollback import Guard, checked_rollback, leave
from kprune.schedules import check_sparsity
from kprune.tracking import follow, forget_replaced
from kprune.updates import updaters
from kprune.whole_model import clock_of


class PruningCallback(keras.callbacks.Callback):
    """Raises the sparsity of a model while `fit` trains it.

    Updates are carried out at the beginning of a batch, by the model's own clock
    of optimizer steps, which is saved with its weights. What a checkpoint holds
    and how a resumed run goes on therefore do not depend on the order of the
    callbacks. The sparsity appears in the logs as `sparsity`.

    Args:
        schedule: A `Schedule`, or a float as its short form: the sparsity that a
            polynomial schedule reaches after three quarters of the optimizer
            steps that the first `fit` plans.
        criterion: Name, object or function of a weight, how weights are scored; a
            pair of them, one for each stage, with a `TwoStageSchedule`. Defaults to
            `"magnitude"`.
        scope: Name or object, which weights compete: `"layer_wise"`, `"global"`,
            `"erk"` and others of `kprune.scopes`. Defaults to `"layer_wise"`.
        calibration_data: Examples for a criterion that looks at gradients or
            activations: a pair of arrays `(x, y)`, a batched `tf.data.Dataset` or a
            `keras.utils.PyDataset`. A few hundred do. Defaults to none.
        regrowth: Name or object, how removed weights come back: `kprune.SET()`,
            `kprune.RigL()`, `kprune.DynamicNetworkSurgery()`; or `kprune.Rewind()`,
            by which kept weights start over. Defaults to none.
        rollback: `kprune.Rollback`, how much a metric may suffer before pruning goes
            back and stops. Defaults to none: it does not look.
        start: `"model"`: the schedule's steps count from when the model was
            first pruned, over all runs. `"fit"`: from the start of each `fit`.
            Defaults to `"model"`.

    Raises:
        ValueError: If an argument is unknown or out of range; when training
            begins, if the model holds no masks, all of them are frozen, or the
            short form meets data of unknown length.

    Example:
    >>> import kprune, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    >>> model = kprune.prune(model)
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(
    ...     np.ones((64, 4)), np.ones((64, 5)), batch_size=8, verbose=0,
    ...     callbacks=[kprune.PruningCallback(0.75)],
    ... )
    >>> history.history["sparsity"]
    [0.75]
    """

    def __init__(
        self,
        schedule,
        *,
        criterion="magnitude",
        scope="layer_wise",
        calibration_data=None,
        regrowth=None,
        rollback=None,
        start="model",
    ):
        super().__init__()
        self._is_short_form = isinstance(schedule, numbers.Real)
        if self._is_short_form:
            self.schedule = None
            self._final_sparsity = check_sparsity("The sparsity", schedule)
        else:
            self.schedule = registry.get("schedules", schedule)
        self.criterion = as_criterion(criterion)
        self._criteria = by_stage(self.criterion, self.schedule)
        self.scope = registry.get("scopes", scope)
        self.calibration_data = calibration_data
        self.regrowth = regrowth and registry.get("regrowths", regrowth)
        self.rollback = checked_rollback(rollback)
        check_start(start)
        self.start = start
        self._pruner = None
        self._guard = None
        self._others = []
        self._reporter = None

    @property
    def finished(self):
        """Bool, whether the schedule's last update has been carried out."""
        return self._pruner is not None and self._pruner.finished

    @property
    def sparsity(self):
        """Float, the fraction of zeros in the weights that are being pruned."""
        return 0.0 if self._pruner is None else self._pruner.sparsity

    def set_model(self, model):
        """Notes the model, and takes the first place among the callbacks.

        The last update must come before any other callback looks at an epoch's
        end, and `sparsity` must be in the logs before they are written. The report
        takes the last place, behind those that bring back weights when all is over.
        """
        if self._is_short_form and model is not self.model:
            self.schedule = None  # it was made for the steps of another model
        super().set_model(model)
        forget_replaced(model)
        self._reporter = None
        callback_list = running_callbacks()
        if callback_list is not None and self in callback_list.callbacks:
            if sum(isinstance(c, PruningCallback) for c in callback_list.callbacks) > 1:
                raise ValueError(
                    "More than one PruningCallback is in the list of callbacks, and "
                    "they would work against each other. Pass one."
                )
            callback_list.callbacks.remove(self)
            callback_list.callbacks.insert(0, self)
            self._others = callback_list.callbacks[1:]
            self._reporter = keras.callbacks.LambdaCallback(
                on_train_end=lambda logs: self._conclude()
            )
            callback_list.callbacks.append(self._reporter)

    def on_train_begin(self, logs=None):
        """Checks what can be known before any training, and prepares its step."""
        check_pruned(self.model)
        self._check()
        follow(self.model, kinds_to_follow(self._criteria, self.regrowth))
        self._pruner = self._guard = None
        self._next_look, self._looked = 0, None
        self._clock = clock_of(self.model)  # before a backup is restored

    def _check(self):
        is_known = self.schedule is not None
        highest = self.schedule.highest if is_known else self._final_sparsity
        parts = (self._criteria, self.scope, self.regrowth)
        check_parts(self.model, *parts, highest)
        made = updaters(self.model, *parts, self.calibration_data)
        self._checked_data = made[-1].calibration_data

    def on_epoch_begin(self, epoch, logs=None):
        """Makes the plan when the first epoch begins, after backups are restored."""
        self._epoch = epoch
        if self._pruner is None:
            self._make_plan(epoch)
        self._is_last_epoch = epoch + 1 >= self.params.get("epochs", epoch + 1)
        self._next_look, self._looked = 0, None

    def on_train_batch_begin(self, batch, logs=None):
        """Carries out the update that is due at this step, if there is one."""
        # Between two updates there is no need to read the clock, which would cost
        # more than all else here. How fast it moves, the second look tells.
        if batch >= self._next_look:
            clock = self._pruner.step()
            due = self._pruner.next_due(clock)
            if due is None:
                self._next_look = float("inf")
            elif self._looked is None:
                self._next_look = batch + 1
            else:
                batches, steps = batch - self._looked[0], clock - self._looked[1]
                pace = max(1, steps / batches)
                self._next_look = batch + max(1, int((due - clock) / pace))
            self._looked = batch, clock

    def on_train_batch_end(self, batch, logs=None):
        """Puts the sparsity into the logs."""
        if logs is not None:
            logs["sparsity"] = self._pruner.sparsity

    def on_test_begin(self, logs=None):
        """Carries out the last update before the final evaluation."""
        if self._pruner is not None and self._no_batch_follows():
            self._last_step(judged=self.rollback and self.rollback.validates)

    def on_epoch_end(self, epoch, logs=None):
        """Carries out the last update, if no batch follows; logs the sparsity."""
        if self._no_batch_follows():
            self._last_step()
        self._pruner.synchronize()
        if self._guard is not None:
            self._say(self._guard.judge(logs or {}))
        if self._no_batch_follows() and self._is_last_epoch:
            end_plan(self.model)
        if logs is not None:
            logs["sparsity"] = self._pruner.sparsity

    def on_train_end(self, logs=None):
        """Carries out the update that is due where training was stopped early."""
        if self._pruner is not None:
            self._last_step()
            if self._reporter is None:
                self._conclude()

    def _last_step(self, judged=False):
        """Carries out the update that is due, if the weights still are numbers.

        One that a rollback would not judge is left out.
        """
        if self._guard is not None and not judged:
            return
        try:
            self._pruner.step()
        except ValueError as error:
            if not self.model.stop_training:
                raise
            # `TerminateOnNaN` has ended the run in good order; so it shall end.
            warnings.warn(str(error), stacklevel=2)

    def _conclude(self):
        self.report()
        if self._guard is not None:
            self._guard.end()

    def report(self):
        """Says what was reached, and warns if it is less than was asked for."""
        if self._pruner is None:
            return
        reached, held = self._pruner.measure(), self._pruner.held
        done = self._pruner.clock - self._pruner.origin
        is_over = done >= self.schedule.end_step
        if is_over and self._guard is not None and self._pruner.is_due:
            announcements.warn_of_unjudged(self.rollback.monitor, reached)
        elif is_over or held:
            self._say(announcements.describe_result(self._target, reached, held))
            if not held:
                self._say(self._target.describe_last_units())
                self._target.warn_if_missed(reached)
        else:
            announcements.warn_of_early_end(self.schedule, done, reached)

    def _no_batch_follows(self):
        return self._is_last_epoch or self.model.stop_training

    def _make_plan(self, epoch):
        """Settles schedule and origin, now that the clock is what it will be."""
        plan = make_plan(self.model, epoch, self.params, self.start, self._clock)
        if self.schedule is None:
            self.schedule = plan.short_form(self._final_sparsity)
        self._pruner = self._new_pruner(plan)
        if not isinstance(self.regrowth, Rewind):
            forget_early_weights(self.model)
        if self.rollback is None:
            leave(self.model)
        else:
            self._guard = Guard(self.rollback, self._pruner)
            self._guard.check_reference(plan.first_sparsity(self.schedule))
        self._announce(plan.step, plan.remaining, plan.an_epoch)

    def _new_pruner(self, plan):
        return Pruner(
            self.model,
            self.schedule,
            criterion=self.criterion,
            scope=self.scope,
            calibration_data=self._checked_data,
            regrowth=plan.regrowth(self.regrowth),
            origin=plan.origin,
        )

    def _announce(self, step, remaining, an_epoch):
        parts = (self.schedule, self.scope, self.regrowth)
        self._target = announcements.Target(self.model, *parts)
        plan = (self.schedule, self._target, step, remaining)
        self._say(announcements.describe_plan(*plan))
        left_alone = frozen(self.model)
        if left_alone:
            self._say(f"left alone, since frozen: {', '.join(left_alone)}.")
        announcements.warn_if_too_short(self.schedule, step, remaining)
        end_step, epoch = self.schedule.end_step, self._epoch
        if self.rollback and an_epoch:
            announcements.warn_if_not_evaluated(self.schedule, step, an_epoch)
        if step < end_step:
            announcements.warn_of_restorers(
                self._others,
                end_step,
                begins=lambda other: an_epoch and step + an_epoch * (other - epoch),
            )

    def _say(self, message):
        if message and self.params.get("verbose"):
            print(f"kprune: {message}")
