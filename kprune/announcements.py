"""What a `PruningCallback` says: its plan, its result, and what stands in its way."""

import math
import warnings

import numpy as np

from kprune.layout import layout_of
from kprune.preflight import contenders_of
from kprune.ties import ties_of
from kprune.weight_access import as_array
from kprune.whole_model import trained_weights


class Target:
    """What a run is to reach; as a string, in words.

    Args:
        model: The pruned model.
        schedule: `Schedule`.
        scope: `Scope`.
        regrowth: `Regrowth` or `None`.
    """

    def __init__(self, model, schedule, scope, regrowth):
        self._model = model
        self._scope = scope
        self._final = schedule(schedule.end_step)
        parts = [scope] if regrowth is None else [scope, regrowth]
        self._finder = next((part for part in parts if not part.fixed_count), None)

    @property
    def sparsity(self):
        """Float, of all weights together, or `None` if their scores decide."""
        if self._finder is not None:
            return None
        contenders = contenders_of(self._model)
        # There are none yet in a Sequential that is not built.
        return self._scope.asked(contenders, self._final) if contenders else self._final

    def __str__(self):
        sparsity = self.sparsity
        if sparsity is None:
            return f"the sparsity that {self._finder or self._scope!r} finds"
        return f"sparsity {sparsity:g}"

    def warn_if_missed(self, reached):
        """Warns if fewer weights are gone than were asked for.

        Args:
            reached: Float, the fraction of zeros. What whole units, the last of which
                stays, account for is passed over.
        """
        sparsity = self.sparsity
        if sparsity is None:
            return
        weights = [(mask.size, largest) for _, mask, largest, _ in _units(self._model)]
        size, slack = map(sum, zip(*weights, strict=True))
        if reached < sparsity - slack / size:
            warnings.warn(
                f"Asked for sparsity {sparsity:g}, reached {reached:.4g}, although the "
                "schedule has come to its end: masks or weights were set since its "
                "last update, or another model's were loaded. `kprune.Pruner(model, "
                f"kprune.ConstantSchedule({self._final:g})).step()` makes up for it.",
                stacklevel=3,
            )

    def describe_last_units(self):
        """Returns which weights could not become so sparse, or the empty string."""
        if self._finder is not None or self._scope.ranks_layers_together:
            return ""
        found = [
            f"{str(name)!r} has sparsity {1 - mask.mean():.4g}"
            for name, mask, _, (units, kept) in _units(self._model)
            if kept == 1 and units * (1 - self._final) < 0.5
        ]
        return f"the last unit of a weight stays: {', '.join(found)}." if found else ""


def _units(model):
    """Yields name, mask, size of the largest unit, and counts of all and kept units."""
    trained = trained_weights(model)
    granularities = [store.granularity for store, _ in trained]
    ties = ties_of(model, granularities, [entry.variable for _, entry in trained])
    for (_, entry), granularity, tie in zip(trained, granularities, ties, strict=True):
        mask = layout_of(entry.layer, entry.variable).canonical(as_array(entry.mask))
        if granularity.elementwise:
            yield entry.name, mask, 1, (mask.size, np.count_nonzero(mask))
            continue
        known = () if tie is None else (tie,)
        units = granularity.units(np.zeros(mask.shape, "float32"), None, *known)
        counts = len(units.scores), np.count_nonzero(units.kept(mask))
        yield entry.name, mask, int(np.max(units.sizes)), counts


def describe_plan(schedule, target, step, remaining):
    """Returns what will happen, in a sentence.

    Args:
        schedule: A `Schedule`.
        target: String, what is to be reached.
        step: Int, the step of the schedule that training stands at.
        remaining: Int, the steps that are planned, or `None` if unknown.
    """
    until = "an unknown number" if remaining is None else step + remaining
    if schedule.updates is None:
        return f"asks at each step what is wanted (now at step {step} of {until})."
    if step > schedule.end_step:
        plan = f"holds {target}, past its last update"
    else:
        plan = f"reaches {target} at step"
    return (
        f"{plan} {schedule.end_step} of {until} (now at step {step}, "
        f"{schedule.updates} updates from step {schedule.begin_step} on)."
    )


def warn_if_too_short(schedule, step, remaining):
    """Warns if training ends before the schedule.

    Args:
        schedule: A `Schedule`.
        step: Int, the step of the schedule that training stands at.
        remaining: Int, the steps that are planned, or `None` if unknown.
    """
    if remaining is None or step + remaining >= schedule.end_step:
        return
    due = schedule.last_due(step + remaining)
    reached = 0.0 if due is None else schedule(due)
    warnings.warn(
        f"The run is too short: it ends at step {step + remaining}, and the "
        f"schedule at step {schedule.end_step}. Sparsity will reach "
        f"{reached:.4g} of {schedule(schedule.end_step):g}. Train longer, or lower "
        "`end_step`.",
        stacklevel=2,
    )


def warn_if_not_evaluated(schedule, step, steps_an_epoch):
    """Warns if a stage ends within an epoch, where a rollback can't judge it.

    Args:
        schedule: A `Schedule`.
        step: Int, the step of the schedule that training stands at.
        steps_an_epoch: Float, how many steps an epoch has.
    """
    for begin in schedule.stage_steps:
        epochs = (begin - step) / steps_an_epoch
        if begin > step and not math.isclose(epochs, round(epochs)):
            nearest = [n for n in (int(epochs), int(epochs) + 1) if n]
            ends = " or ".join(f"{step + steps_an_epoch * n:g}" for n in nearest)
            warnings.warn(
                f"A stage of {schedule!r} begins at step {begin}, within an epoch of "
                f"{steps_an_epoch:g} steps, and the rollback looks at its metric when "
                "an epoch ends, so that it does not judge the stages one by one. Let "
                f"the stage begin at step {ends}.",
                stacklevel=2,
            )


def warn_of_restorers(callbacks, end_step, begins):
    """Warns of callbacks that may bring back weights of lower sparsity.

    Args:
        callbacks: List of the other callbacks.
        end_step: Int, the schedule's last step.
        begins: Function of an epoch that returns the step at which it begins, or
            `None` if that is not known.
    """
    for callback in callbacks:
        if getattr(callback, "restore_best_weights", False):
            option = "restore_best_weights=True"
        elif getattr(callback, "save_best_only", False):
            option = "save_best_only=True"
        else:
            continue
        first_epoch = getattr(callback, "start_from_epoch", 0)
        first_step = begins(first_epoch) if first_epoch else None
        if first_step is not None and first_step >= end_step:
            continue  # it waits for the schedule's end by itself
        name = type(callback).__name__
        warnings.warn(
            f"{name}({option}) may bring back weights from before step "
            f"{end_step}, when the model is not yet as sparse as "
            "asked for, since those score best. Let it watch from then on: "
            f"kprune.AfterPruning({name}(...), pruning_callback).",
            stacklevel=2,
        )


def describe_result(target, reached, held):
    """Returns what was reached, in a sentence.

    Args:
        target: String, what is to be reached.
        reached: Float, the fraction of zeros.
        held: Bool, whether a rollback has stopped the schedule.
    """
    why = ", held there by the rollback" if held else ""
    return f"asked for {target}, reached {reached:.4g}{why}."


def warn_of_unjudged(monitor, reached):
    """Warns that the last update was left out, since no metric would judge it.

    Args:
        monitor: String, the metric of the rollback.
        reached: Float, the fraction of zeros.
    """
    warnings.warn(
        f"The last update was left out at sparsity {reached:.4g}: training ended when "
        f"it was due, and the rollback would not have judged it by {monitor!r}. Train "
        "an epoch longer, or monitor a metric of validation.",
        stacklevel=2,
    )


def warn_of_early_end(schedule, step, reached):
    """Warns that training has ended before the schedule.

    Args:
        schedule: A `Schedule`.
        step: Int, the step of the schedule that training has come to.
        reached: Float, the fraction of zeros.
    """
    warnings.warn(
        f"Training ended at step {step}, before the schedule's end at step "
        f"{schedule.end_step}: asked for sparsity "
        f"{schedule(schedule.end_step):g}, reached {reached:.4g}. Train longer "
        "(the schedule goes on where it stands) or lower `end_step`.",
        stacklevel=2,
    )
