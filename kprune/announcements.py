"""What a `PruningCallback` says: its plan, its result, and what stands in its way."""

import warnings


def describe_plan(schedule, target, step, remaining):
    """Returns what will happen, in a sentence.

    Args:
        schedule: A `Schedule`.
        target: String, what is to be reached.
        step: Int, the step of the schedule that training stands at.
        remaining: Int, the steps that are planned, or `None` if unknown.
    """
    until = "an unknown number" if remaining is None else step + remaining
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
