"""Drop and grow at constant sparsity: SET and RigL."""

import math

import numpy as np

from kprune.arguments import check_number, check_whole
from kprune.registry import register
from kprune.regrowth.base import Regrowth


class DropAndGrow(Regrowth):
    """Base of regrowths that exchange kept units for removed ones, layer by layer.

    First the update brings the sparsity that is due. Then, before `end_step`, every
    weight drops the fraction of its kept units that the criterion scores lowest, and
    grows as many of those that are then out: a unit that was just dropped may be
    among them, as RigL's Algorithm 1 has it, which leaves out only what is active and
    not dropped. So the number of zeros stays what it was. A unit that is dropped and
    grows again at once keeps its weights and what the optimizer knows of them, as in
    the code of RigL's authors; others start at zero. Where units differ in size, as
    blocks at the edge of a weight do, it grows no fewer weights than it drops, and at
    most one unit more; the next update makes up for that.

    A subclass defines `growth(update, number)`: the scores by which the weight of a
    number grows, an array of its shape; `fraction_at(step)` if it changes.

    Args:
        fraction: Float in (0, 1), how much of what is kept is exchanged at once.
        frequency: As for `Regrowth`.
        end_step: As for `Regrowth`.
    """

    exchanges = True

    def __init__(self, fraction, frequency, end_step):
        super().__init__(frequency, end_step)
        expected = "a number between 0 and 1, how much of what is kept is exchanged"
        self.fraction = check_number(
            "fraction", fraction, lambda n: 0 < n < 1, expected
        )

    def growth(self, update, number):
        """Returns the scores by which a weight grows; see the class."""
        raise NotImplementedError(f"{type(self).__name__} defines no `growth`.")

    def fraction_at(self, step):
        """Returns the fraction that is exchanged at a step."""
        return self.fraction

    def __call__(self, update):
        """Yields the masks after pruning, dropping and growing."""
        is_over = self.is_over(update.step)
        for number, mask in enumerate(update.prune()):
            yield mask if is_over else self._exchange(update, number, mask)

    def _exchange(self, update, number, mask):
        kept = np.count_nonzero(mask)
        if not kept:  # A scope that ranks weights together may leave nothing of one.
            return mask
        count = self.fraction_at(update.step) * kept
        stays = _keep(
            update,
            number,
            mask.size - kept + count,
            masks=[mask],
            evidence=[update.evidence_for(update.criterion)[number]],
        )
        dropped = kept - np.count_nonzero(stays)
        if not dropped:
            return mask
        return stays | self._grown(update, number, ~stays, dropped)

    def _grown(self, update, number, removed, count):
        """Returns the mask of what grows among removed units, so many weights."""
        scores = self.growth(update, number)
        granularity = update.granularity[number]
        if not granularity.elementwise:
            units = granularity.units(scores, removed)
            if np.ndim(units.sizes):
                return _grow_uneven(units, removed, count)
        return _keep(
            update,
            number,
            removed.size - count,
            weights=[scores],
            criterion=np.asarray,
            masks=[removed],
            evidence=None,
        )

    def get_config(self):
        return {"fraction": self.fraction, **super().get_config()}


def _keep(update, number, zeros, **changes):
    """Returns the mask of one weight by itself, with so many zeros."""
    one = {
        "weights": [update.weights[number]],
        "granularity": [update.granularity[number]],
        "names": [update.names[number]],
        "scope": update.scope.within_weight,
        "ties": None,
        "sparsity": zeros / update.weights[number].size,
    }
    return next(update.prune(**{**one, **changes}))


def _grow_uneven(units, removed, count):
    """Returns the mask of the best removed units that hold at least so many weights.

    The nearest count could be too low, and updates never bring back what is missing.
    """
    best = np.argsort(-units.scores, kind="stable")
    best = best[units.kept(removed)[best]]
    enough = np.searchsorted(np.cumsum(units.sizes[best]), count) + 1
    grows = np.zeros(units.scores.size, bool)
    grows[best[:enough]] = True
    return units.expand(grows)


@register("regrowths")
class SET(DropAndGrow):
    """Drops the lowest scores and grows at random: Sparse Evolutionary Training.

    Needs no gradients of removed weights, hence no calibration data. What grows
    follows from the seed, the step and which of the trained weights it is, by running
    order, so that a run that is resumed grows the same, and so does the model when it
    is built once more.

    Args:
        fraction: Float in (0, 1), how much of what is kept is exchanged at once.
            Defaults to 0.3.
        frequency: Int of 1 or more, steps between updates; the paper's are an epoch
            apart. Defaults to 100.
        end_step: Int, from which on the masks stay. Defaults to three quarters of
            the steps that the `PruningCallback` plans.
        seed: Int of 0 or more. Defaults to 0.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
    >>> SET(fraction=0.2, frequency=50, end_step=120).next_due(0)
    50

    Reference:
        Mocanu et al., "Scalable training of artificial neural networks with adaptive
        sparse connectivity inspired by network science", Nature Communications 2018.
    """

    def __init__(self, fraction=0.3, frequency=100, end_step=None, *, seed=0):
        super().__init__(fraction, frequency, end_step)
        self.seed = check_whole("seed", seed, 0, "a seed")

    def growth(self, update, number):
        """Returns random scores."""
        # Names of layers count on in a process, from one model to the next.
        rng = np.random.default_rng([self.seed, update.step, number])
        return rng.random(update.weights[number].shape, "float32")

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@register("regrowths", "rigl")
class RigL(DropAndGrow):
    """Drops the lowest scores and grows where the loss is steepest.

    Grows weights that are out by their `|gradient|`, the gradient of the mean
    loss over the calibration data. With `t` the steps since `begin_step` and `T`
    those from there to `end_step`, the fraction falls as
    `fraction / 2 * (1 + cos(pi * t / T))`.

    Args:
        fraction: Float in (0, 1), how much of what is kept is exchanged at first.
            Defaults to 0.3.
        frequency: Int of 1 or more, steps between updates. Defaults to 100.
        end_step: Int, from which on the masks stay. Defaults to three quarters of
            the steps that the `PruningCallback` plans, as in the paper.
        begin_step: Int of 0 or more, before which nothing is exchanged. Defaults to
            0, or to the beginning of the run where `end_step` is planned too.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
    >>> rigl = RigL(fraction=0.3, frequency=100, end_step=1000)
    >>> [round(rigl.fraction_at(step), 3) for step in (0, 500, 900)]
    [0.3, 0.15, 0.007]

    Reference:
        Evci et al., "Rigging the lottery: making all tickets winners", ICML 2020.
    """

    requires = ("gradient",)

    def __init__(self, fraction=0.3, frequency=100, end_step=None, *, begin_step=None):
        super().__init__(fraction, frequency, end_step)
        if begin_step is not None:
            begin_step = check_whole("begin_step", begin_step, 0)
            if self.is_over(begin_step):
                raise ValueError(
                    f"end_step={end_step} must lie behind begin_step={begin_step}, or "
                    "nothing would be exchanged. Begin earlier, or train longer."
                )
        self.begin_step = begin_step

    def fraction_at(self, step):
        """Returns the fraction that is exchanged at a step, 0 outside the window."""
        begin_step = self.begin_step or 0
        if step < begin_step or self.is_over(step):
            return 0.0
        passed = (step - begin_step) / (self.end_step - begin_step)
        return self.fraction / 2 * (1 + math.cos(math.pi * passed))

    def growth(self, update, number):
        """Returns the sizes of the gradients."""
        return np.abs(update.evidence[number]["gradient"])

    def get_config(self):
        return {**super().get_config(), "begin_step": self.begin_step}
