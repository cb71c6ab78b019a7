"""What every schedule is: a pure function of the step, and a grid of updates.

When a mask update is *due* is part of the schedule: at `begin_step`, then on a grid,
and at `end_step`, also when that lies off the grid.
"""

import numpy as np

from kprune.arguments import check_whole
from kprune.registry import Configurable


class Schedule(Configurable):
    """Base of all schedules: a window of steps, a grid of updates, a curve.

    A subclass defines `_curve(progress)`, which maps the fraction of the window
    that has passed, an array in [0, 1], to sparsities. One that moves in steps of
    its own defines `_after(elapsed)` and `_grid()` instead.

    Args:
        begin_step: Int of 0 or more, the optimizer step of the first update.
        end_step: Int of `begin_step` or more, the step of the last update.
            Equal to `begin_step` it means one-shot pruning.
        frequency: Int of 1 or more, optimizer steps between updates. Defaults to
            100, or to a twentieth of the window where that is less.

    Attributes:
        lowers: Bool, whether sparsity may fall, so that weights come back. Defaults
            to `False`.
        stage_steps: Tuple of ints, the steps at which further stages begin, each of
            which may have a criterion of its own. Defaults to none: it has one stage.
    """

    lowers = False
    stage_steps = ()

    def __init__(self, begin_step, end_step, frequency=None):
        self.begin_step = check_whole("begin_step", begin_step, at_least=0)
        self.end_step = check_whole("end_step", end_step, at_least=0)
        if self.end_step < self.begin_step:
            raise ValueError(
                f"end_step={end_step} lies before begin_step={begin_step}. Give an "
                "end_step that is equal (one-shot pruning) or larger."
            )
        if frequency is None:
            # In a short window the sparsity would else jump, at its end.
            frequency = min(100, max(1, (self.end_step - self.begin_step) // 20))
        self.frequency = check_whole("frequency", frequency, at_least=1)

    def _curve(self, progress):
        raise NotImplementedError(f"{type(self).__name__} defines no `_curve`.")

    def _after(self, elapsed):
        """Returns the sparsities at steps since `begin_step`, up to `end_step`."""
        window = self.end_step - self.begin_step
        return self._curve(elapsed / window if window else np.ones_like(elapsed))

    def _grid(self):
        """Returns ranges of steps; an update is due at each step of each of them."""
        grid = range(self.begin_step, self.end_step, self.frequency)
        return grid, range(self.end_step, self.end_step + 1)

    def __call__(self, step):
        """Returns the sparsity wanted at a step.

        Args:
            step: Int, or integer array of any shape: optimizer steps.

        Returns:
            Float in [0, 1), or a float64 array of `step`'s shape. Zero before
            `begin_step`, constant from `end_step` on.
        """
        # Never as a scalar, of which NumPy computes powers in another way.
        steps = np.atleast_1d(np.asarray(step, "float64"))
        elapsed = np.clip(steps - self.begin_step, 0, self.end_step - self.begin_step)
        sparsity = np.where(steps < self.begin_step, 0.0, self._after(elapsed))
        return sparsity if np.ndim(step) else sparsity.item()

    @property
    def highest(self):
        """Float, the highest sparsity that is ever asked for."""
        return self(self.end_step)

    @property
    def updates(self):
        """Int, the number of updates from `begin_step` to `end_step`."""
        return sum(map(len, self._grid()))

    def last_due(self, step):
        """Returns the step of the latest update that is due by `step`.

        Args:
            step: Int, an optimizer step.

        Returns:
            Int of `step` or less, or `None` before `begin_step`.

        Example:
        >>> from kprune import LinearSchedule
        >>> schedule = LinearSchedule(0.9, begin_step=10, end_step=35, frequency=10)
        >>> [schedule.last_due(s) for s in (9, 10, 29, 34, 35, 99)]
        [None, 10, 20, 30, 35, 35]
        """
        begun = [steps for steps in self._grid() if steps and steps.start <= step]
        passed = [min((step - b.start) // b.step, len(b) - 1) for b in begun]
        return max((b[i] for b, i in zip(begun, passed, strict=True)), default=None)

    def next_due(self, step):
        """Returns the step of the first update that is due after `step`.

        Args:
            step: Int, an optimizer step.

        Returns:
            Int larger than `step`, or `None` from `end_step` on.

        Example:
        >>> from kprune import LinearSchedule
        >>> schedule = LinearSchedule(0.9, begin_step=10, end_step=35, frequency=10)
        >>> [schedule.next_due(s) for s in (0, 10, 29, 30, 35)]
        [10, 20, 30, 35, None]
        """
        coming = [g[max(0, (step - g.start) // g.step + 1) :] for g in self._grid()]
        return min((steps[0] for steps in coming if steps), default=None)

    def table(self, rows=20):
        """Returns steps and sparsities as text, to look at before any training.

        Args:
            rows: Int of 2 or more. Where there are more updates, so many of them
                are listed, spread evenly, the first and the last included.

        Returns:
            String, one line an update: the step and the sparsity from there on.

        Example:
        >>> from kprune import LinearSchedule
        >>> print(LinearSchedule(0.8, end_step=1000).table(rows=5))
            step  sparsity
               0    0.0000
             250    0.2000
             500    0.4000
             750    0.6000
            1000    0.8000
        """
        due = sorted(step for steps in self._grid() for step in steps)
        if len(due) > rows:
            due = [
                due[i] for i in np.linspace(0, len(due) - 1, rows).round().astype(int)
            ]
        lines = [f"{step:8}{self(step):10.4f}" for step in due]
        return "\n".join([f"{'step':>8}{'sparsity':>10}", *lines])
