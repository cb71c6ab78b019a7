"""`Rollback`: back to the last masks that kept a metric, when pruning went too far."""

import math
import numbers
import sys
import zlib

import numpy as np

from kprune.arguments import check_whole
from kprune.memory import NOT_YET, has_removed, tracked_with
from kprune.registry import Configurable
from kprune.snapshot import Snapshot, drop, empty, is_empty, make_room
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
            then, what is kept aside has room in the model until `fit` ends, which is
            about twice as large by it, and so are its files. Defaults to 0.

    Raises:
        ValueError: If an argument lies outside its range, or if the name does not
            tell what is better.

    Example:
    >>> rollback = Rollback("val_accuracy", tolerance=0.01)
    >>> rollback.keeps(0.955, reference=0.96), rollback.keeps(0.94, reference=0.96)
    (True, False)
    """

    def __init__(self, monitor, tolerance, *, reference=None, mode=None, patience=0):
        if not _is_number(tolerance) or tolerance < 0:
            raise ValueError(f"tolerance={tolerance!r} must be a number of 0 or more.")
        if reference is not None and not _is_number(reference):
            raise ValueError(
                f"reference={reference!r} must be a finite number, what "
                f"{monitor!r} is without pruning, or None."
            )
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
        return {
            "monitor": self.monitor,
            "tolerance": self.tolerance,
            "reference": self.reference,
            "mode": self.mode,
            "patience": self.patience,
        }


def _is_number(value):
    is_real = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool))
    return is_real and math.isfinite(value)


def _mode_of(monitor):
    if any(part in monitor for part in _SMALLER_IS_BETTER):
        return "min"
    return "max" if any(part in monitor for part in _LARGER_IS_BETTER) else None


class Guard:
    """Carries out a `Rollback` in one training.

    The reference, whether sparsity is held, and how many epochs in a row were worse
    are saved with the model.

    Args:
        rollback: `Rollback`.
        pruner: `Pruner` of the model.
    """

    def __init__(self, rollback, pruner):
        self.rollback = rollback
        self.pruner = pruner
        model = pruner.model
        unknown = np.array([math.nan, False, NOT_YET, 0, 0], "float64")
        self._state = tracked_with(model, "rollback").hold("rollback", unknown)
        self._begin_unless_known()
        if rollback.patience and not self.held:
            make_room(model)
        is_good = self._is_good()
        self._snapshot = Snapshot(model) if is_good else Snapshot.found_in(model)
        pruner.held = self.held
        pruner.measure()

    def _is_good(self):
        """Tells whether the model as a run begins can be gone back to."""
        if self.held or self._bad_epochs > 0:
            return False
        is_dense = not math.isnan(self.reference) and self.pruner.measure() == 0
        return is_dense or self._bad_epochs == 0

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
        self._state.assign([reference, False, NOT_YET, metric, whole])

    def _note(self, reference, held, bad_epochs):
        self._state.assign([reference, held, bad_epochs, *as_array(self._state)[3:]])

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
            self._note(self.reference, self.held, 0)
            empty(self.pruner.model)
            self._snapshot = Snapshot(self.pruner.model)
            return None
        self._note(self.reference, self.held, max(self._bad_epochs, 0) + 1)
        if self._bad_epochs <= self.rollback.patience:
            if self._snapshot is not None and is_empty(self.pruner.model):
                self._snapshot.put_into(self.pruner.model)  # to be resumed from here
            return None
        return self._go_back(value)

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
        if is_empty(self.pruner.model):
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
