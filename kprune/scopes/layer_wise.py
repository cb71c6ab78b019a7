"""Scopes that give each weight a sparsity of its own, and rank it by itself."""

import math

import numpy as np

from kprune.registry import register
from kprune.scopes.base import (
    Scope,
    at_most,
    common_unit,
    most_to_go,
    remove_lowest,
    weights_to_go,
    zeros_wanted,
)
from kprune.scopes.shares import in_proportion, in_whole_numbers


@register("scopes")
class LayerWise(Scope):
    """Prunes every weight to the same sparsity; at least one unit of each stays.

    Where some may not become so sparse, the others make up for it.

    Example:
    >>> import numpy as np
    >>> from kprune.scopes import Contender
    >>> contenders = [Contender(np.array([1.0, 2.0, 3.0, 4.0]))]
    >>> contenders.append(Contender(np.array([10.0, 20.0])))
    >>> [k.tolist() for k in LayerWise()(contenders, sparsity=0.5)]
    [[False, False, True, True], [False, True]]
    """

    def __call__(self, contenders, sparsity):
        """Yields the units of each weight that stay, weight after weight."""
        sparsities = _evenly(contenders, sparsity)
        for contender, own in zip(contenders, sparsities, strict=True):
            yield self._choose(contender, own)

    def _choose(self, contender, sparsity):
        """Returns the units of one weight that stay."""
        most = most_to_go(contender, contender.reachable)
        zeros = min(weights_to_go([contender], sparsity), most)
        return remove_lowest([contender], zeros)[0]


def _evenly(contenders, sparsity):
    """Returns sparsities that differ only where a weight has reached its limit."""
    if all(sparsity <= c.reachable for c in contenders):
        return [sparsity] * len(contenders)
    sizes = [c.size for c in contenders]
    lowest = [c.size * (1 - c.reachable) for c in contenders]
    kept = in_proportion((1 - sparsity) * sum(sizes), sizes, lowest, sizes)
    return [1 - k / size for k, size in zip(kept, sizes, strict=True)]


@register("scopes")
class OutputWise(LayerWise):
    """Lets the weights of one output compete with each other, and no others.

    Every output channel keeps as many of the weights by which it sums up its inputs,
    a convolution's at all places together. So no channel is lost, and the size of
    its weights or of its gradients makes no difference: made for `Wanda`, and for
    pruning without retraining. The count is exact in each output.

    Ranks single weights, the granularity `"element"`.

    Example:
    >>> from kprune.scopes import Contender
    >>> scores = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    >>> contenders = [Contender(scores.reshape(-1), shape=scores.shape)]
    >>> next(OutputWise()(contenders, sparsity=0.5)).reshape(4, 2)
    array([[False, False],
           [False, False],
           [ True,  True],
           [ True,  True]])

    Reference:
        Sun et al., "A simple and effective pruning approach for large language
        models", ICLR 2024, section 3.
    """

    elementwise = True
    within_weight = "output_wise"

    def asked(self, contenders, sparsity):
        """Returns the sparsity of all weights, the same number in each output."""
        sparsities = _evenly(contenders, sparsity)
        zeros = map(_zeros_of_an_output, contenders, sparsities)
        of_all = sum(c.shape[-1] * z for c, z in zip(contenders, zeros, strict=True))
        return of_all / sum(c.size for c in contenders)

    def _choose(self, contender, sparsity):
        scores = contender.scores[0 : contender.size].reshape(-1, contender.shape[-1])
        scores = scores.astype(np.result_type(scores, "float32"), copy=False)
        allowed = contender.candidates
        if allowed is not None:
            scores = np.where(allowed.reshape(scores.shape), scores, -np.inf)
        stay = len(scores) - _zeros_of_an_output(contender, sparsity)
        keep = _largest_of_columns(scores, stay).reshape(-1)
        return keep if allowed is None else keep & allowed


def _zeros_of_an_output(contender, sparsity):
    inputs = contender.size // contender.shape[-1]
    return min(zeros_wanted(sparsity, inputs), at_most(contender.reachable, inputs))


def _largest_of_columns(scores, keep):
    """Marks the largest scores of each column, of equal ones those further up."""
    threshold = np.partition(scores, -keep, axis=0)[-keep]
    above = scores > threshold
    equal = scores == threshold
    free = keep - np.count_nonzero(above, axis=0)
    if (np.count_nonzero(equal, axis=0) > free).any():
        equal &= np.cumsum(equal, axis=0) <= free
    return above | equal


@register("scopes")
class ErdosRenyi(Scope):
    """Leaves small layers denser than large ones, in the manner of random graphs.

    The density of a weight is proportional to `(inputs + outputs) / (inputs *
    outputs)`. Those that would be denser than 1 stay dense, and the others share
    what is left; at least one unit of each stays. The sum is exact to one unit,
    where they differ to half of the largest.

    Example:
    >>> import numpy as np
    >>> from kprune.scopes import Contender
    >>> rng = np.random.default_rng(0)
    >>> shapes = [(30, 20), (20, 10), (10, 2)]
    >>> contenders = [Contender(rng.random(a * b), shape=(a, b)) for a, b in shapes]
    >>> [int(k.sum()) for k in ErdosRenyi()(contenders, sparsity=0.8)]
    [90, 54, 20]

    Reference:
        Mocanu et al., "Scalable training of artificial neural networks with adaptive
        sparse connectivity inspired by network science", Nature Communications 2018.
    """

    def __call__(self, contenders, sparsity):
        """Yields the units of each weight that stay, weight after weight."""
        surplus = 0  # weights gone beyond what was wanted, where units differ
        shares = self._shares(contenders, sparsity)
        for contender, kept in zip(contenders, shares, strict=True):
            # No more than decides whether a unit goes: the error that a few large
            # units leave is not for a layer of small ones to make good.
            decisive = (int(np.max(contender.sizes)) - 1) // 2
            wanted = contender.size - kept
            zeros = wanted - max(-decisive, min(surplus, decisive))
            most = most_to_go(contender, contender.reachable)
            keep = remove_lowest([contender], min(max(zeros, 0), most))[0]
            surplus += contender.size - contender.weights_in(keep) - wanted
            yield keep

    def _shares(self, contenders, sparsity):
        """Returns how many weights of each contender stay, in whole units."""
        unit = common_unit(contenders) or 1
        sizes = [c.size // unit for c in contenders]
        # What is removed stays so; the others get its share.
        highest = [
            s if c.candidates is None else c.weights_in(c.candidates) // unit
            for c, s in zip(contenders, sizes, strict=True)
        ]
        lowest = [
            min(max(s - most_to_go(c, c.reachable) // unit, 1), h)
            for c, s, h in zip(contenders, sizes, highest, strict=True)
        ]
        total = sum(sizes) - zeros_wanted(sparsity, sum(sizes))
        proportions = [self._density(c) * c.size for c in contenders]
        shares = in_proportion(total, proportions, lowest, highest)
        return (in_whole_numbers(shares) * unit).tolist()

    def _density(self, contender):
        """Returns the density of a contender, but for a common factor."""
        shapes = contender.shapes
        return sum(map(self._proportion, shapes)) / sum(map(math.prod, shapes))

    def _proportion(self, shape):
        """Returns the density of a weight times its size, but for a common factor."""
        return sum(shape[-2:]) * math.prod(shape[:-2])


@register("scopes")
class ERK(ErdosRenyi):
    """Like `ErdosRenyi`, with the sides of convolution kernels counted too.

    The density of a weight is proportional to `(inputs + outputs + height + width) /
    (inputs * outputs * height * width)`, or, of a weight of any rank, to the sum of
    its sides by their product.

    Example:
    >>> import numpy as np
    >>> from kprune.scopes import Contender
    >>> rng = np.random.default_rng(0)
    >>> shapes = [(3, 3, 4, 8), (3, 3, 8, 8)]
    >>> contenders = [Contender(rng.random(np.prod(s)), shape=s) for s in shapes]
    >>> [int(k.sum()) for k in ERK()(contenders, sparsity=0.75)]
    [97, 119]

    Reference:
        Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020,
        section 3.
    """

    def _proportion(self, shape):
        return sum(shape)
