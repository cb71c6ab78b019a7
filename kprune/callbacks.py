"""`PruningCallback`: pruning during `model.fit`."""

import numbers
import sys
import warnings

import keras

from kprune import registry
from kprune.mask_store import clock_of, plan_of, set_plan
from kprune.pruner import Pruner, check_pruned, check_start
from kprune.schedules import PolynomialSchedule, check_sparsity


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
        criterion: Name or object, how weights are scored. Defaults to
            `"magnitude"`.
        scope: Name or object, which weights compete: `"layer_wise"` or
            `"global"`. Defaults to `"layer_wise"`.
        calibration_data: Examples for a criterion that looks at gradients or
            activations: a pair of arrays `(x, y)`, a batched `tf.data.Dataset` or a
            `keras.utils.PyDataset`. A few hundred do. Defaults to none.
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
        start="model",
    ):
        super().__init__()
        self._is_short_form = isinstance(schedule, numbers.Real)
        if self._is_short_form:
            self.schedule = None
            self._final_sparsity = check_sparsity("The sparsity", schedule)
        else:
            self.schedule = registry.get("schedules", schedule)
            self._final_sparsity = self.schedule(self.schedule.end_step)
        self.criterion = registry.get("criteria", criterion)
        self.scope = registry.get("scopes", scope)
        self.calibration_data = calibration_data
        check_start(start)
        self.start = start
        self._pruner = None
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
        self._reporter = None
        callback_list = _callback_list()
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
                on_train_end=lambda logs: self.report()
            )
            callback_list.callbacks.append(self._reporter)

    def on_train_begin(self, logs=None):
        """Checks that there is something to prune."""
        check_pruned(self.model)
        self._pruner = None
        self._next_look, self._looked = 0, None

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
            self._last_step()

    def on_epoch_end(self, epoch, logs=None):
        """Carries out the last update, if no batch follows; logs the sparsity."""
        if self._no_batch_follows():
            self._last_step()
        self._pruner.synchronize()
        if logs is not None:
            logs["sparsity"] = self._pruner.sparsity

    def on_train_end(self, logs=None):
        """Carries out the update that is due where training was stopped early."""
        if self._pruner is not None:
            self._last_step()
            if self._reporter is None:
                self.report()

    def _last_step(self):
        """Carries out the update that is due, if the weights still are numbers."""
        try:
            self._pruner.step()
        except ValueError as error:
            if not self.model.stop_training:
                raise
            # `TerminateOnNaN` has ended the run in good order; so it shall end.
            warnings.warn(str(error), stacklevel=2)

    def report(self):
        """Says what was reached, and warns if it is less than was asked for."""
        if self._pruner is None:
            return
        reached = self._pruner.measure()
        done = self._pruner.clock - self._pruner.origin
        if done >= self.schedule.end_step:
            asked = self._final_sparsity
            self._say(f"asked for sparsity {asked:g}, reached {reached:.4g}.")
            return
        warnings.warn(
            f"Training ended at step {done}, before the schedule's end at step "
            f"{self.schedule.end_step}: asked for sparsity "
            f"{self._final_sparsity:g}, reached {reached:.4g}. Train longer "
            "(the schedule goes on where it stands) or lower `end_step`.",
            stacklevel=2,
        )

    def _no_batch_follows(self):
        return self._is_last_epoch or self.model.stop_training

    def _make_plan(self, epoch):
        """Settles schedule and origin, now that the clock is what it will be."""
        clock = clock_of(self.model)
        remaining = self._remaining_steps(epoch)
        # A plan that was stored is that of a run that is now resumed, if the clock
        # stands within it; otherwise a new one begins, whatever `initial_epoch` is.
        began, end = plan_of(self.model)
        if epoch == 0 or not _lies_within(clock, began, end):
            began = clock
            end = None if remaining is None else clock + remaining
            set_plan(self.model, began, end)
        origin = began if self.start == "fit" else 0
        if self.schedule is None:
            if end is None:
                raise ValueError(
                    f"PruningCallback({self._final_sparsity:g}) can't plan: the number "
                    "of batches is unknown. Pass `steps_per_epoch` to `fit`, or give "
                    "a schedule: kprune.PolynomialSchedule("
                    f"{self._final_sparsity:g}, end_step=...)."
                )
            self.schedule = _short_form(
                self._final_sparsity, began - origin, end - began
            )
        self._pruner = Pruner(
            self.model,
            self.schedule,
            criterion=self.criterion,
            scope=self.scope,
            calibration_data=self.calibration_data,
            origin=origin,
        )
        self._announce(clock - origin, remaining)
        self._warn_of_restorers(clock - origin, remaining)

    def _remaining_steps(self, epoch):
        """Returns the optimizer steps from `epoch` on, if one batch makes one."""
        batches = self.params.get("steps")
        if batches is None:
            return None
        optimizer = getattr(self.model, "optimizer", None)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        accumulated = getattr(optimizer, "gradient_accumulation_steps", None) or 1
        return (self.params.get("epochs", epoch + 1) - epoch) * batches // accumulated

    def _announce(self, step, remaining):
        schedule = self.schedule
        until = "an unknown number" if remaining is None else step + remaining
        if step > schedule.end_step:
            plan = f"holds sparsity {self._final_sparsity:g}, past its last update"
        else:
            plan = f"reaches sparsity {self._final_sparsity:g} at step"
        self._say(
            f"{plan} {schedule.end_step} of {until} (now at step {step}, updates every "
            f"{schedule.frequency} from step {schedule.begin_step} on)."
        )
        frozen = self._pruner.frozen()
        if frozen:
            self._say(f"left alone, since frozen: {', '.join(frozen)}.")
        if remaining is not None and step + remaining < schedule.end_step:
            due = schedule.last_due(step + remaining)
            reached = 0.0 if due is None else schedule(due)
            warnings.warn(
                f"The run is too short: it ends at step {step + remaining}, and the "
                f"schedule at step {schedule.end_step}. Sparsity will reach "
                f"{reached:.4g} of {self._final_sparsity:g}. Train longer, or lower "
                "`end_step`.",
                stacklevel=2,
            )

    def _warn_of_restorers(self, step, remaining):
        if step >= self.schedule.end_step:
            return
        for callback in self._others:
            if getattr(callback, "restore_best_weights", False):
                option = "restore_best_weights=True"
            elif getattr(callback, "save_best_only", False):
                option = "save_best_only=True"
            else:
                continue
            if self._starts_late(callback, step, remaining):
                continue
            name = type(callback).__name__
            warnings.warn(
                f"{name}({option}) may bring back weights from before step "
                f"{self.schedule.end_step}, when the model is not yet as sparse as "
                "asked for, since those score best. Let it watch from then on: "
                f"kprune.AfterPruning({name}(...), pruning_callback).",
                stacklevel=2,
            )

    def _starts_late(self, callback, step, remaining):
        """Tells whether a callback waits for the schedule's end by itself."""
        first_epoch = getattr(callback, "start_from_epoch", 0)
        if remaining is None or first_epoch == 0:
            return False
        epochs = self.params["epochs"] - self._epoch
        waits = remaining * (first_epoch - self._epoch) // epochs
        return step + waits >= self.schedule.end_step

    def _say(self, message):
        if self.params.get("verbose"):
            print(f"kprune: {message}")


def _lies_within(step, began, end):
    """Tells whether a plan that was stored is that of a run to be resumed."""
    return began is not None and began <= step and (end is None or step < end)


def _short_form(final_sparsity, begin_step, planned):
    """Returns the schedule over the first three quarters of the planned steps."""
    window = planned * 3 // 4
    # At least some twenty updates, also in a short run.
    frequency = min(100, max(1, window // 20))
    return PolynomialSchedule(
        final_sparsity, begin_step, end_step=begin_step + window, frequency=frequency
    )


def _callback_list():
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
