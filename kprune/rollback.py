"""`Rollback`: back to the last masks that kept a metric, when pruning went too far."""

import math

import keras
import numpy as np

from kprune import mask_store
from kprune.arguments import check_whole
from kprune.registry import Configurable
from kprune.weight_access import as_array

_SMALLER_IS_BETTER = ("loss", "error", "mae", "mse", "perplexity")
_LARGER_IS_BETTER = ("acc", "auc", "precision", "recall", "f1", "iou", "r2")


class Rollback(Configurable):
    """Says how much a metric may suffer before pruning goes back and stops.

    A `PruningCallback` looks at the metric after every epoch. While it stays within
    the tolerance, weights, masks, the optimizer's state and the clock are kept aside,
    in memory. When it does not, they are brought back bit for bit, and the sparsity
    is raised no further; training goes on with those masks.

    Args:
        monitor: String, a metric in the logs of `fit`, as in `"val_accuracy"`.
        tolerance: Float of 0 or more, how much worse than the reference the metric
            may be, in its own unit.
        reference: Float, the metric to compare with. Defaults to that of the last
            epoch that ended before the first weight was removed.
        mode: `"max"` if larger is better, `"min"` if smaller is. Defaults to what
            the name of the metric tells.
        patience: Int of 0 or more, how many epochs in a row may be worse, so that
            training can make up for a step of pruning. Defaults to 0.

    Raises:
        ValueError: If an argument lies outside its range, or if the name does not
            tell what is better.

    Example:
    >>> rollback = Rollback("val_accuracy", tolerance=0.01)
    >>> rollback.keeps(0.955, reference=0.96), rollback.keeps(0.94, reference=0.96)
    (True, False)
    """

    def __init__(self, monitor, tolerance, *, reference=None, mode=None, patience=0):
        if not 0 <= tolerance < math.inf:
            raise ValueError(f"tolerance={tolerance!r} must be a number of 0 or more.")
        self.monitor = monitor
        self.tolerance = tolerance
        self.reference = reference
        self.mode = _mode_of(monitor) if mode is None else mode
        if self.mode not in ("min", "max"):
            raise ValueError(
                f"The name {monitor!r} does not tell whether larger is better: pass "
                f"mode='max' or mode='min'. mode={mode!r} says neither."
            )
        self.patience = check_whole("patience", patience, 0, "epochs")

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


def _mode_of(monitor):
    if any(part in monitor for part in _SMALLER_IS_BETTER):
        return "min"
    return "max" if any(part in monitor for part in _LARGER_IS_BETTER) else None


class Guard:
    """Carries out a `Rollback` in one training.

    The reference, and whether sparsity is held, are saved with the model.

    Args:
        rollback: `Rollback`.
        pruner: `Pruner` of the model.
    """

    def __init__(self, rollback, pruner):
        self.rollback = rollback
        self.pruner = pruner
        self._snapshot = None
        self._bad_epochs = 0
        start = math.nan if rollback.reference is None else rollback.reference
        tracked = mask_store.stores(pruner.model)[0].tracked
        self._state = tracked.hold("rollback", np.array([start, False], "float64"))
        pruner.held = self.held

    @property
    def reference(self):
        """Float, what the metric is compared with; NaN while it is not known."""
        return float(as_array(self._state)[0])

    @property
    def held(self):
        """Bool, whether the sparsity is raised no further."""
        return bool(as_array(self._state)[1])

    def check_reference(self, first_sparsity):
        """Raises if pruning begins before there is anything to compare with.

        Args:
            first_sparsity: Float, what is asked for by the end of the first epoch.
        """
        if math.isnan(self.reference) and max(self.pruner.measure(), first_sparsity):
            name = self.rollback.monitor
            raise ValueError(
                f"{self.rollback!r} has nothing to compare {name!r} with, since "
                "weights are removed before the first epoch ends. Pass the metric of "
                "the model as it is, Rollback(..., reference=...), or let the schedule "
                "begin after an epoch of training."
            )

    def judge(self, logs):
        """Looks at the metric of an epoch, and goes back if it has to.

        Args:
            logs: Dict from names to metrics.

        Returns:
            String that says what was done, or `None`.

        Raises:
            ValueError: If the metric is not there.
        """
        name = self.rollback.monitor
        if name not in logs:
            raise ValueError(
                f"{self.rollback!r} looks for {name!r}, and the logs hold "
                f"{', '.join(map(repr, logs))}. Compile the model with that metric, "
                "and pass `validation_data` for one that begins with 'val_'."
            )
        value = float(logs[name])
        if self.pruner.measure() == 0 and self.rollback.reference is None:
            self._state.assign([value, self.held])
        if self.rollback.keeps(value, self.reference):
            self._snapshot = _values(self.pruner.model)
            self._bad_epochs = 0
            return None
        self._bad_epochs += 1
        if self._bad_epochs <= self.rollback.patience:
            return None
        return self._go_back(value)

    def _go_back(self, value):
        if self._snapshot is not None:
            for variable, kept in zip(
                _variables(self.pruner.model), self._snapshot, strict=True
            ):
                variable.assign(kept)
            self.pruner.start_over()
        self._bad_epochs = 0
        self._state.assign([self.reference, True])
        self.pruner.held = True
        to = "nothing to go back to" if self._snapshot is None else "went back"
        return (
            f"{self.rollback.monitor} is {value:.4g}, more than "
            f"{self.rollback.tolerance:g} worse than {self.reference:.4g}: {to}, at "
            f"sparsity {self.pruner.measure():.4g} of step {self.pruner.clock}, which "
            "is raised no further."
        )


def _variables(model):
    optimizer = getattr(model, "optimizer", None)
    return model.variables + ([] if optimizer is None else optimizer.variables)


def _values(model):
    return [keras.ops.convert_to_numpy(v).copy() for v in _variables(model)]
