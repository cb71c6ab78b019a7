"""`Rollback`: back to the last masks that kept a metric, when pruning went too far."""

import math
import sys
import warnings
import zlib

import numpy as np

from kprune.arguments import check_number, check_whole
from kprune.memory import NOT_YET, has_removed, removed_now, tracked_with
from kprune.registry import Configurable
from kprune.snapshot import Snapshot, drop, empty, make_room
from kprune.tracking import check_built
from kprune.weight_access import as_array

_SMALLER_IS_BETTER = ("loss", "error", "mae", "mse", "perplexity")
_LARGER_IS_BETTER = ("acc", "auc", "precision", "recall", "f1", "iou", "r2")


class Rollback(Configurable):
    """Says how much a metric may suffer before pruning goes back and stops.

    A `PruningCallback` looks at the metric after every epoch. While it stays within
    the tolerance, weights, masks, the optimizer's state and the clock are kept aside
    in memory. When it does not, they are brought back bit for bit, and the sparsity is
    raised no further; training goes on with those masks. A model remembers it: a later
    `fit` with the same `Rollback` is held too, one with another begins anew.

    An update that no metric judges is left out: one that is due when training ends, or
    after the last epoch has measured the metric.

    Args:
        monitor: String, a metric in the logs of `fit`, as in `"val_accuracy"`.
        tolerance: Float of 0 or more, how much worse than the reference the metric
            may be, in its own unit.
        reference: Float, the metric to compare with. Defaults to that of the last
            epoch that ended before the first weight was removed.
        mode: `"max"` if larger is better, `"min"` if smaller is. Defaults to what
            the name of the metric tells.
        patience: Int of 0 or more, how many epochs in a row may be worse, so that
            training can make up for a step of pruning. For a run that is resumed
            then, or from within an epoch, what is kept aside has room in the model
            until `fit` ends, which is about twice as large by it, and so are its
            files. Defaults to 0: no room, and a warning where that is missed.

    Raises:
        ValueError: If an argument lies outside its range, or if the name does not
            tell what is better.

    Example:
    >>> rollback = Rollback("val_accuracy", tolerance=0.01)
    >>> rollback.keeps(0.955, reference=0.96), rollback.keeps(0.94, reference=0.96)
    (True, False)
    """

    def __init__(self, monitor, tolerance, *, reference=None, mode=None, patience=0):
        if not isinstance(monitor, str):
            raise ValueError(f"monitor={monitor!r} must be the name of a metric.")
        in_range, expected = lambda n: 0 <= n < math.inf, "a number of 0 or more"
        check_number("tolerance", tolerance, in_range, expected)
        if reference is not None:
            expected = f"a finite number, what {monitor!r} is without pruning, or None"
            check_number("reference", reference, math.isfinite, expected)
        self.monitor = monitor
        self.tolerance = float(tolerance)
        self.reference = None if reference is None else float(reference)
        self.mode = _mode_of(monitor) if mode is None else mode
        if self.mode not in ("min", "max"):
            raise ValueError(
                f"The name {monitor!r} does not tell whether larger is better: pass "
                f"mode='max' or mode='min'. mode={mode!r} says neither."
            )
        self.patience = check_whole("patience", patience, 0, "epochs")

    @property
    def validates(self):
        """Bool, whether the metric is one of validation."""
        return self.monitor.startswith("val_")

    def keeps(self, value, reference):
        """Tells whether a metric is good enough beside a reference."""
        worse = reference - value if self.mode == "max" else value - reference
        return worse <= self.tolerance  # never so for NaN

    def get_config(self):
        return dict(vars(self))


def _mode_of(monitor):
    if any(part in monitor for part in _SMALLER_IS_BETTER):
        return "min"
    return "max" if any(part in monitor for part in _LARGER_IS_BETTER) else None


def checked_rollback(rollback):
    """Returns what was given, if it is a `Rollback` or `None`."""
    if rollback is not None and not isinstance(rollback, Rollback):
        raise ValueError(
            f"Expected rollback=kprune.Rollback(monitor, tolerance), got {rollback!r}."
        )
    return rollback


class Guard:
    """Carries out a `Rollback` in one training.

    The reference, whether sparsity is held, how many epochs in a row were worse, and
    how many weights were removed in the last good one are saved with the model.

    Args:
        rollback: `Rollback`.
        pruner: `Pruner` of the model.
    """

    def __init__(self, rollback, pruner):
        self.rollback = rollback
        self.pruner = pruner
        model = pruner.model
        check_built(model, "what is good has to be kept aside before the first step")
        unknown = np.array([math.nan, False, NOT_YET, 0, 0, 0], "float64")
        self._state = tracked_with(model, "rollback").hold("rollback", unknown)
        self._begin_unless_known()
        is_good = self._is_good()
        if is_good:
            empty(model)
        if rollback.patience and not self.held:
            make_room(model)
        self._snapshot = Snapshot.found_in(model)
        if is_good:
            self._keep_aside()
        elif self._snapshot is None and not self.held and removed_now(model):
            self._warn_of_no_way_back()
        pruner.held = self.held
        pruner.measure()

    def _is_good(self):
        """Tells whether the model as a run begins can be gone back to."""
        if self.held or self._bad_epochs > 0:
            return False
        removed, was_judged = removed_now(self.pruner.model), self._bad_epochs == 0
        is_dense = not math.isnan(self.reference) and removed == 0
        # What was removed after the last epoch that was judged may be too much.
        return is_dense or (was_judged and removed <= as_array(self._state)[3])

    def _keep_aside(self):
        """Takes the model as it is for what can be gone back to."""
        self._snapshot = Snapshot(self.pruner.model)
        self._snapshot.put_into(self.pruner.model)  # for a run that is interrupted

    def _warn_of_no_way_back(self):
        warnings.warn(
            f"{self.rollback!r} has not judged the weights that are removed now, and "
            "there is no way back from them until it finds an epoch good. To have one, "
            "resume from a file of the end of a good epoch. With patience=1 or more, "
            "all files hold the last good state.",
            stacklevel=2,
        )

    def _begin_unless_known(self):
        """Begins anew if the model was last guarded by another `Rollback`."""
        rollback, reference = self.rollback, self.rollback.reference
        metric = zlib.crc32(rollback.monitor.encode())
        whole = zlib.crc32(repr(rollback.get_config()).encode())
        *_, last_metric, last_whole = as_array(self._state)
        if whole == last_whole:
            return
        if reference is None:
            reference = self.reference if metric == last_metric else math.nan
        empty(self.pruner.model)  # what is in it is the other's
        self._state.assign([reference, False, NOT_YET, 0, metric, whole])

    def _note(self, reference, held, bad_epochs, removed=None):
        *_, before, metric, whole = as_array(self._state)
        removed = before if removed is None else removed
        self._state.assign([reference, held, bad_epochs, removed, metric, whole])

    @property
    def reference(self):
        """Float, what the metric is compared with; NaN while it is not known."""
        return float(as_array(self._state)[0])

    @property
    def held(self):
        """Bool, whether the sparsity is raised no further."""
        return bool(as_array(self._state)[1])

    @property
    def _bad_epochs(self):
        """Int, how many epochs in a row were worse; `NOT_YET` before the first."""
        return int(as_array(self._state)[2])

    def check_reference(self, first_sparsity):
        """Raises if pruning begins before there is anything to compare with.

        Args:
            first_sparsity: Float, what is asked for by the end of the first epoch.
        """
        if math.isnan(self.reference) and max(self.pruner.measure(), first_sparsity):
            name = self.rollback.monitor
            raise ValueError(
                f"{self.rollback!r} has nothing to compare {name!r} with, since "
                "weights are removed before the first epoch that measures it ends. "
                "Pass the metric of the model as it is, Rollback(..., reference=...), "
                "or let the schedule begin after such an epoch."
            )

    def judge(self, logs):
        """Looks at the metric of an epoch, and goes back if it has to.

        Args:
            logs: Dict from names to metrics. Epochs that `fit` does not validate are
                passed over where the metric is one of validation.

        Returns:
            String that says what was done, or `None`. Once held, it looks no more.

        Raises:
            ValueError: If the metric is not there, or if weights were removed before
                there was anything to compare with.
        """
        name = self.rollback.monitor
        if self.held:
            return None
        if name not in logs:
            if self.rollback.validates and _skips_validation(logs):
                return None
            raise ValueError(
                f"{self.rollback!r} looks for {name!r}, and the logs hold "
                f"{', '.join(map(repr, logs))}. Compile the model with that metric, "
                "and pass `validation_data` for one that begins with 'val_'."
            )
        value = float(logs[name])
        if self._is_before_pruning():
            self._note(value, self.held, self._bad_epochs)
        self.check_reference(0.0)
        if self.rollback.keeps(value, self.reference):
            self._note(self.reference, self.held, 0, removed_now(self.pruner.model))
            self._keep_aside()
            return None
        self._note(self.reference, self.held, max(self._bad_epochs, 0) + 1)
        is_enough = self._bad_epochs > self.rollback.patience
        return self._go_back(value) if is_enough else None

    def _is_before_pruning(self):
        """Tells whether the epoch's metric is that of the model without pruning.

        A dense phase between sparse ones is none.
        """
        if self.rollback.reference is not None or self.pruner.measure() > 0:
            return False
        return math.isnan(self.reference) or not has_removed(self.pruner.model)

    def _go_back(self, value):
        if self._snapshot is not None:
            self._snapshot.bring_back(self.pruner.model)
            empty(self.pruner.model)
            self.pruner.start_over()
        self._note(self.reference, True, 0)
        self.pruner.held = True
        to = "nothing to go back to" if self._snapshot is None else "went back"
        return (
            f"{self.rollback.monitor} is {value:.4g}, more than "
            f"{self.rollback.tolerance:g} worse than {self.reference:.4g}: {to}, at "
            f"sparsity {self.pruner.measure():.4g} of step {self.pruner.clock}, which "
            "is raised no further."
        )

    def end(self):
        """Gives up the room for a way back, unless patience lasts."""
        if self._bad_epochs <= 0:
            drop(self.pruner.model)


def leave(model):
    """Lets a model that is trained without a `Rollback` forget its way back.

    Args:
        model: A pruned model. It is changed.
    """
    drop(model)
    state = tracked_with(model, "rollback").get("rollback")
    if state is not None:
        reference, held, _, *of = as_array(state)
        state.assign([reference, held, NOT_YET, *of])


def _skips_validation(logs):
    """Tells whether `fit` validates, but not at the end of the epoch with these logs.

    Keras tells a callback nothing of `validation_freq`.
    """
    if any(name.startswith("val_") for name in logs):
        return False
    frame = sys._getframe(1)
    while frame is not None:
        if "validation_freq" in frame.f_locals:
            return frame.f_locals.get("validation_data") is not None
        frame = frame.f_back
    return False
