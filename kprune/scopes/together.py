"""Scopes in which weights share one threshold."""

import dataclasses
import math

import numpy as np

from kprune.arguments import check_number
from kprune.registry import register
from kprune.scopes.base import (
    Scope,
    keep_best,
    most_to_go,
    remove_lowest,
    weights_to_go,
)


@register("scopes")
class Global(Scope):
    """Ranks all weights together, so that layers find their own sparsities.

    Usually better than `LayerWise` at high sparsity; a layer whose weights are
    all small may lose every one of them, unless it is kept from that.

    Within the bounds the choice is the best there is: of all choices that respect
    them it keeps the largest scores.

    Args:
        min_layer_sparsity: Float in [0, 1), the least that every weight is pruned,
            once as much is asked for. Rounded down to whole units. Defaults to 0.
        max_layer_sparsity: Float in (0, 1], the most that any weight is pruned.
            Rounded down to whole units. Defaults to 1.

    Raises:
        ValueError: If a bound is out of range; before training, if the sparsity
            can't be reached within them.

    Example:
    >>> from kprune.scopes import Contender
    >>> contenders = [Contender(np.array([1.0, 2.0, 3.0, 4.0]))]
    >>> contenders.append(Contender(np.array([10.0, 20.0])))
    >>> [k.tolist() for k in Global()(contenders, sparsity=0.5)]
    [[False, False, False, True], [True, True]]
    >>> [k.tolist() for k in Global(max_layer_sparsity=0.5)(contenders, sparsity=0.5)]
    [[False, False, True, True], [False, True]]
    """

    ranks_layers_together = True

    def __init__(self, min_layer_sparsity=0.0, max_layer_sparsity=1.0):
        check_number(
            "min_layer_sparsity", min_layer_sparsity, lambda n: 0 <= n < 1, "in [0, 1)"
        )
        check_number(
            "max_layer_sparsity", max_layer_sparsity, lambda n: 0 < n <= 1, "in (0, 1]"
        )
        if min_layer_sparsity > max_layer_sparsity:
            raise ValueError(
                f"min_layer_sparsity={min_layer_sparsity} is above "
                f"max_layer_sparsity={max_layer_sparsity}. Swap them."
            )
        self.min_layer_sparsity = float(min_layer_sparsity)
        self.max_layer_sparsity = float(max_layer_sparsity)

    def get_config(self):
        return {
            "min_layer_sparsity": self.min_layer_sparsity,
            "max_layer_sparsity": self.max_layer_sparsity,
        }

    def limits(self, contenders):
        """Returns the highest sparsity that each weight may be given."""
        return [min(c.reachable, self.max_layer_sparsity) for c in contenders]

    def __call__(self, contenders, sparsity):
        """Returns the units that stay, ranked over all weights."""
        limits = self.limits(contenders)
        if self.min_layer_sparsity == 0 and all(limit == 1 for limit in limits):
            return keep_best(contenders, sparsity)
        least = min(self.min_layer_sparsity, sparsity)
        safe, competing = [], []
        for contender, limit in zip(contenders, limits, strict=True):
            safe.append(_kept(contender, limit))
            open_units = _kept(contender, least) & ~safe[-1]
            competing.append(dataclasses.replace(contender, candidates=open_units))
        # Among those that compete, the safe ones count as gone.
        zeros = weights_to_go(contenders, sparsity) + sum(
            c.weights_in(units) for c, units in zip(contenders, safe, strict=True)
        )
        stay = 0 if any(units.any() for units in safe) else 1
        chosen = remove_lowest(competing, zeros, stay)
        return [s | c for s, c in zip(safe, chosen, strict=True)]


def _kept(contender, sparsity):
    """Returns the units of one weight that are left when none too many are removed."""
    return remove_lowest([contender], most_to_go(contender, sparsity), stay=0)[0]


@register("scopes")
class Threshold(Scope):
    """Removes every unit whose score is below a fixed value; the sparsity follows.

    For magnitudes of single weights this is `|w| < value`. At least one unit of each
    weight stays. The schedule says when: nothing is removed as long as it asks for
    a sparsity of 0, and beyond that it makes no difference how much it asks for.

    Args:
        value: Finite float, in the unit of the scores.

    Raises:
        ValueError: If `value` is no finite number.

    Example:
    >>> from kprune.scopes import Contender
    >>> contenders = [Contender(np.array([1.0, 2.0, 3.0])), Contender(np.array([0.5]))]
    >>> [k.tolist() for k in Threshold(2.0)(contenders, sparsity=0.5)]
    [[False, True, True], [True]]

    Reference:
        Han et al., "Learning both Weights and Connections for Efficient Neural
        Networks", NeurIPS 2015.
    """

    fixed_count = False

    def __init__(self, value):
        expected = "a finite number, a score"
        self.value = float(check_number("value", value, math.isfinite, expected))

    def get_config(self):
        return {"value": self.value}

    def __call__(self, contenders, sparsity):
        """Yields the units of each weight that stay, weight after weight."""
        for contender in contenders:
            lost = np.zeros(len(contender.scores), bool)
            if sparsity > 0:
                lost = contender.scores[0 : len(contender.scores)] < self.value
            if contender.candidates is not None:
                lost |= ~contender.candidates
            zeros = contender.weights_in(lost)
            most = most_to_go(contender, contender.reachable)
            if zeros <= min(most, contender.size - 1):
                yield ~lost
            else:
                yield remove_lowest([contender], most)[0]

    def asked(self, contenders, sparsity):
        """Returns `None`: the scores decide."""
        return None

    def check(self, contenders, sparsity):
        """Accepts any sparsity, since it is not what decides."""
