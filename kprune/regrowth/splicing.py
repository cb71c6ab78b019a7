"""Dynamic network surgery: removed weights learn on, and the large ones come back."""

import math

import numpy as np

from kprune.arguments import check_number
from kprune.registry import register
from kprune.regrowth.base import Regrowth


@register("regrowths")
class DynamicNetworkSurgery(Regrowth):
    """Lets removed weights go on learning, and splices back those that grew large.

    The network computes with the kept weights only. Removed ones are updated all the
    same, in a shadow of their own, by the gradients at their zeros. At each update
    the masks are found anew from the shadow, with two thresholds `a < b`: a weight is
    removed once it falls below `a` and comes back once it is above `b`, so that none
    goes to and fro.

    By default the schedule gives the sparsity and `a` and `b` follow from it: a
    removed weight comes back if it scores more than `1 + margin` times what a kept
    one scores. Given `deviations`, they follow from each weight's mean and standard
    deviation, as in the paper, and so does the sparsity; the schedule then says no
    more than when: nothing is removed while it asks for a sparsity of 0.

    Args:
        margin: Float of 0 or more, how far the thresholds lie apart. Defaults to 0.5;
            the paper's 0.1 goes with SGD. Adam moves a removed weight by about the
            learning rate at every step, so that too many would come back.
        frequency: Int of 1 or more, steps between updates. Defaults to 100.
        end_step: Int, from which on no weight comes back, unless the schedule lowers
            the sparsity. Defaults to three quarters of the steps that the
            `PruningCallback` plans.
        deviations: Float, or `None` for the schedule's sparsity. The thresholds are
            `t / (1 + margin)` and `t * (1 + margin)` with `t` the mean of `|w|` plus
            so many of its standard deviations. Defaults to `None`.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
    >>> surgery = DynamicNetworkSurgery(margin=0.5, end_step=1000, deviations=0.0)
    >>> shadow, mask = np.array([2.0, 4, 6, 8]), np.array([True, True, False, False])
    >>> surgery.splice(shadow, mask)  # t is 5, a is 3.3, b is 7.5
    array([False,  True, False,  True])

    Reference:
        Guo, Yao and Chen, "Dynamic network surgery for efficient DNNs", NeurIPS 2016.
    """

    tracks = ("shadow",)
    follows_schedule = True

    def __init__(self, margin=0.5, frequency=100, end_step=None, *, deviations=None):
        super().__init__(frequency, end_step)
        expected = "a finite number of 0 or more"
        self.margin = check_number(
            "margin", margin, lambda n: 0 <= n < math.inf, expected
        )
        if deviations is not None:
            expected = "a finite number or None"
            deviations = check_number("deviations", deviations, math.isfinite, expected)
        self.deviations = deviations
        self.fixed_count = deviations is None

    def __call__(self, update):
        """Returns the masks that the shadow asks for."""
        shadows = [evidence["shadow"] for evidence in update.evidence]
        _check_numbers(update.names, shadows)
        is_over = self.is_over(update.step)
        if self.deviations is not None and update.sparsity > 0:
            comes_back = update.reopens or not is_over
            return [
                self.splice(shadow, mask, comes_back=comes_back)
                for shadow, mask in zip(shadows, update.masks, strict=True)
            ]
        if self.deviations is None and not is_over:
            return self._at_sparsity(update, shadows)
        return update.prune()

    def _at_sparsity(self, update, shadows):
        evidence = [
            {**one, "kept": mask}
            for one, mask in zip(
                update.evidence_for(update.criterion), update.masks, strict=True
            )
        ]
        return update.prune(
            weights=shadows,
            masks=None,
            evidence=evidence,
            criterion=_Reluctant(update.criterion, self.margin),
        )

    def splice(self, shadow, mask, *, comes_back=True):
        """Returns the mask of one weight by the thresholds of the paper.

        Args:
            shadow: Float array, the weight with what it would be where removed.
            mask: Bool array of its shape, what is kept so far.
            comes_back: Bool, whether what was removed may come back. Defaults to
                `True`.

        Returns:
            Bool array; at least the largest weight that may be kept is kept.
        """
        size = np.abs(shadow.astype("float32"))
        threshold = size.mean() + self.deviations * size.std()
        found = mask & (size >= threshold / (1 + self.margin))
        may_stay = mask | comes_back
        found |= may_stay & (size >= threshold * (1 + self.margin))
        if found.any():
            return found
        return may_stay & (size == size.max(where=may_stay, initial=0))

    def check(self, granularities, scope):
        """Raises a `ValueError` if thresholds meet units of more than a weight."""
        super().check(granularities, scope)
        for granularity in granularities:
            if self.deviations is not None and not granularity.elementwise:
                raise ValueError(
                    f"{self!r} compares single weights with thresholds, and "
                    f"{granularity!r} removes several together. Leave `deviations` "
                    "out, so that the schedule's sparsity decides, or prune single "
                    "weights."
                )

    def get_config(self):
        return {
            "margin": self.margin,
            **super().get_config(),
            "deviations": self.deviations,
        }


def _check_numbers(names, shadows):
    """Raises a `ValueError` if a shadow is no longer made of numbers."""
    for name, shadow in zip(names, shadows, strict=True):
        if not np.isfinite(shadow).all():
            raise ValueError(
                f"What the removed weights of {name} have learnt is NaN or infinite. "
                "Training has diverged: lower the learning rate, or let weights that "
                "are removed no longer learn, without DynamicNetworkSurgery."
            )


class _Reluctant:
    """Scores as a criterion does, those of kept weights raised by a margin."""

    def __init__(self, criterion, margin):
        self.criterion = criterion
        self.margin = margin
        self.requires = getattr(criterion, "requires", ())
        self.elementwise = getattr(criterion, "elementwise", False)
        self.axis = getattr(criterion, "axis", None)

    def __call__(self, weight, *, kept, **evidence):
        scores = self.criterion(weight, **evidence)
        # Scores below zero rise by being divided.
        factor = np.where(scores < 0, 1 / (1 + self.margin), 1 + self.margin)
        return np.where(kept, scores * factor, scores)
