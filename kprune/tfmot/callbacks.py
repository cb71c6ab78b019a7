"""`UpdatePruningStep`: TFMOT's callback, which prunes during `fit`."""

import warnings

from kprune import announcements
from kprune.callbacks import PruningCallback
from kprune.preflight import check_parts
from kprune.pruner import Pruner
from kprune.schedules import ConstantSchedule
from kprune.tfmot.timing import TIMINGS, LayerWiseAsTfmot, as_schedule
from kprune.updates import sparsity_of
from kprune.whole_model import set_clock, stores


class UpdatePruningStep(PruningCallback):
    """Prunes a model during `fit` by the schedules that its wrappers hold.

    A `kprune.PruningCallback` that finds its schedules in the model: as many as there
    are, each for its layers. Sparsity appears in the logs, a run that is too short is
    told of, and it does not matter where in the list of callbacks it stands.

    In a training loop of your own, set the model's `optimizer`, and call
    `set_model(model)` and `on_train_begin()`, `on_train_batch_begin(batch)` before each
    step, and `on_train_end()`.

    Where a schedule lowers sparsity, also one of the user's, weights come back.

    With `timing="tfmot"`, for those who compare runs, masks are updated at the batches
    at which TFMOT would update them: a batch counts when it begins, so that the first
    is number 1; `begin_step=0` with `frequency=100` first prunes in the batch of number
    100; an `end_step` that the frequency does not reach is passed over; N:M patterns
    are made in batch 1. Sparsities and counts are rounded as there. From the same
    weights the masks are then the same, except for

    - equal scores, of which TFMOT keeps too many;
    - kernels that blocks or N:M groups don't divide;
    - N:M patterns of `Conv2DTranspose`, which run along the inputs here, and along the
      outputs (axis -2) in TFMOT;
    - a layer that is used several times, for which TFMOT counts a step a call;
    - removed weights that an optimizer makes large within one step, as large learning
      rates do: TFMOT takes them back, here they stay removed;
    - a schedule that lowers sparsity;
    - frozen layers, which TFMOT prunes and which are left alone here;
    - rarely, one weight more or less of a `PolynomialDecay` in a compiled step of
      TFMOT, which rounds otherwise than its schedule does when called.

    Args:
        timing: `"kprune"`: a schedule's first update comes when `begin_step` steps are
            done, its last one at `end_step`. `"tfmot"`: as above. Defaults to
            `"kprune"`.

    Raises:
        ValueError: If `timing` is another; when training begins, if the model has no
            schedule.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> from kprune.tfmot import prune_low_magnitude
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    >>> model = prune_low_magnitude(model)
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(
    ...     np.ones((64, 4)), np.ones((64, 5)), verbose=0,
    ...     callbacks=[UpdatePruningStep()],
    ... )
    >>> history.history["sparsity"]
    [0.5]
    """

    def __init__(self, *, timing="kprune"):
        if timing not in TIMINGS:
            raise ValueError(f"timing={timing!r} must be 'kprune' or 'tfmot'.")
        super().__init__(ConstantSchedule(0.0))  # until the model's are known
        self.timing = timing
        if timing == "tfmot":
            self.scope = LayerWiseAsTfmot()
        self._parts = []
        self._is_called_by_hand = True  # by a loop that tells of no epochs to come
        self._fit_has_called = False

    def set_params(self, params):
        """Notes what `fit` says before each training, and no loop of the user's."""
        super().set_params(params)
        self._fit_has_called = True

    def on_train_begin(self, logs=None):
        """Checks what can be known before any training, and prepares its step."""
        super().on_train_begin(logs)
        self._is_called_by_hand = not self._fit_has_called
        self._fit_has_called = False
        if self._is_called_by_hand:
            self._pruner = self._new_pruner(None)

    def on_epoch_begin(self, epoch, logs=None):
        """Makes the plan when the first epoch begins, after backups are restored."""
        if not self._is_called_by_hand:
            super().on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        """Carries out the update that is due at this step, if there is one."""
        if self._is_called_by_hand:
            self._pruner.step()  # each batch may have the same number
        else:
            super().on_train_batch_begin(batch, logs)

    def on_epoch_end(self, batch, logs=None):
        """Carries out the last update, if no batch follows; logs the sparsity.

        Args:
            batch: Int, the number of the epoch. TFMOT has this name for it.
            logs: Dict that gets the sparsity.
        """
        super().on_epoch_end(batch, logs)

    def _no_batch_follows(self):
        return not self._is_called_by_hand and super()._no_batch_follows()

    def _check(self):
        self._parts = _by_schedule(self.model, self.timing)
        self._checked_data = None
        for schedule, among in self._parts:
            asked = (self._criteria, self.scope, self.regrowth, schedule.highest)
            check_parts(self.model, *asked, among)

    def _new_pruner(self, plan):
        end = None if plan is None else plan.end
        self._parts = [(_until(s, end), among) for s, among in self._parts]
        # The one that ends last stands for all where there are several.
        self.schedule = max((s for s, _ in self._parts), key=lambda s: s.end_step)
        pruners = [
            Pruner(self.model, s, scope=self.scope, among=among)
            for s, among in self._parts
        ]
        return _Together(self.model, pruners)

    def _last_step(self, judged=False):
        if self.timing == "kprune":  # TFMOT updates when a batch begins, and only then
            super()._last_step(judged)

    def _announce(self, step, remaining, an_epoch):
        if len(self._parts) == 1:
            super()._announce(step, remaining, an_epoch)
            return
        for schedule, among in self._parts:
            layers = dict.fromkeys(e.layer.name for s in among for e in s.entries)
            target = f"sparsity {schedule.highest:g} in {', '.join(layers)}"
            said = announcements.describe_plan(schedule, target, step, remaining)
            self._say(said)
            announcements.warn_if_too_short(schedule, step, remaining)

    def report(self):
        """Says what was reached, and warns if it is less than was asked for."""
        if self._pruner is None:
            return
        early = [p for p in self._pruner.pruners if p.is_due or not _is_over(p)]
        for pruner in early:
            _warn_of_missing(pruner)
        if self._is_called_by_hand:
            return
        if len(self._parts) > 1:
            self._say(f"reached {self._pruner.measure():.4g}.")
        elif not early:
            # What a schedule of the user's wants in the end is known only now.
            parts = (self.schedule, self.scope, self.regrowth)
            self._target = announcements.Target(self.model, *parts)
            super().report()


def _warn_of_missing(pruner):
    """Warns that training ended before a schedule, or before its last update."""
    schedule, clock, reached = pruner.schedule, pruner.clock, pruner.measure()
    if not _is_over(pruner):
        announcements.warn_of_early_end(schedule, clock, reached)
        return
    warnings.warn(
        f"The update that was due at step {schedule.last_due(clock)} was not carried "
        f"out: no batch began between then and the end of training at step {clock}. "
        f"Asked for sparsity {schedule(clock):g}, reached {reached:.4g}. Take "
        "timing='kprune', a lower `steps_per_execution` in `compile`, or an earlier "
        "`end_step`.",
        stacklevel=2,
    )


def _by_schedule(model, timing):
    """Returns pairs of a schedule and the mask stores that go by it."""
    found = []
    for store in stores(model):
        if model.built and not store.entries:
            continue  # that of a layer in which nothing is pruned
        if store.schedule is None:
            raise ValueError(
                f"The model {model.name!r} holds masks without a schedule. Wrap it by "
                "`kprune.tfmot.prune_low_magnitude`, or train it with "
                "`kprune.PruningCallback(schedule)`."
            )
        schedule = as_schedule(store.schedule, store.granularity, timing)
        known = next((among for s, among in found if s == schedule), None)
        if known is None:
            found.append((schedule, [store]))
        else:
            known.append(store)
    return found


def _is_over(pruner):
    return pruner.clock >= pruner.schedule.end_step


def _until(schedule, end_step):
    until = getattr(schedule, "until", None)
    return schedule if until is None else until(end_step)


class _Together:
    """Several pruners of one model, each for its own layers, as if they were one.

    Args:
        model: The pruned model.
        pruners: List of `Pruner`.
    """

    def __init__(self, model, pruners):
        self.model = model
        self.pruners = pruners
        self.sparsity = 0.0

    held = False
    origin = 0

    @property
    def clock(self):
        """Int, the optimizer steps that the model has seen since it was wrapped."""
        return max(pruner.clock for pruner in self.pruners)

    @property
    def finished(self):
        """Bool, whether all schedules have come to their ends."""
        return all(pruner.finished for pruner in self.pruners)

    def step(self):
        """Carries out the updates that are due, and returns the clock."""
        before = [pruner.sparsity for pruner in self.pruners]
        clock = max([pruner.step() for pruner in self.pruners])
        if before != [pruner.sparsity for pruner in self.pruners]:
            self.measure()
        return clock

    def next_due(self, clock):
        """Returns the clock at which the next update is due, or `None`."""
        dues = [pruner.next_due(clock) for pruner in self.pruners]
        return min((due for due in dues if due is not None), default=None)

    def synchronize(self):
        """Brings clocks that stood still up to the model's."""
        set_clock(self.model, self.clock)

    def measure(self):
        """Returns the fraction of zeros in all weights that are being pruned."""
        self.sparsity = sparsity_of(self.model)
        return self.sparsity
