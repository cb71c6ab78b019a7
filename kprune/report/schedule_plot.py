"""The plot of schedules, which needs no model and no run."""

import numpy as np
from matplotlib.figure import Figure

_POINTS = 1000


def plot_schedule(schedules, path, steps=None):
    """Draws the sparsity that schedules ask for, step by step, into a file.

    Sparsity moves at updates only, so that each is a staircase; a dot marks each
    update, where they are not too many to be told apart.

    Args:
        schedules: A `Schedule`, or a dict from a label to one.
        path: String or path, the file to write; its ending chooses the format.
        steps: Int, the last step to draw. Defaults to somewhat more than the last
            update of any of them.

    Example:
    >>> import pathlib, tempfile, kprune
    >>> path = pathlib.Path(tempfile.mkdtemp(), "schedules.png")
    >>> plot_schedule(
    ...     {
    ...         "polynomial": kprune.PolynomialSchedule(0.9, end_step=1000),
    ...         "in rounds": kprune.IterativeSchedule(0.9, steps_per_round=250),
    ...     },
    ...     path,
    ... )
    >>> path.stat().st_size > 1000
    True
    """
    if not isinstance(schedules, dict):
        schedules = {type(schedules).__name__: schedules}
    if steps is None:
        steps = max(10, int(1.1 * max(s.end_step for s in schedules.values())))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="sparsity", ylim=(0, 1.02))
    for label, schedule in schedules.items():
        at, sparsity = _corners(schedule, steps)
        few = len(at) <= 50
        axes.step(at, sparsity, where="post", label=label, marker="." if few else None)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def _corners(schedule, steps):
    """Returns the steps at which the staircase may move, and the sparsities there."""
    at, due = [0], schedule.next_due(-1)
    # Where there are more updates than points in the plot, some are left out.
    stride = max(1, steps // _POINTS)
    while due is not None and due <= steps:
        at.append(due)
        due = schedule.next_due(max(due, at[-1] + stride - 1))
    at.append(steps)
    last = [schedule.last_due(step) for step in at]
    return np.array(at), np.array([0.0 if d is None else schedule(d) for d in last])
