"""Masks of weights: criterion, granularity and scope composed, on plain arrays."""

import functools

import numpy as np

from kprune import registry


def compute_mask(scores, sparsity, granularity="element"):
    """Returns the mask that removes the lowest scores of one weight.

    Args:
        scores: Float array of any shape, one score a weight, larger means keep.
        sparsity: Float in [0, 1), the fraction of units to remove.
        granularity: Name or object, what is removed together. Defaults to
            `"element"`.

    Returns:
        Bool array of `scores`' shape, `True` keeps the weight. Exactly
        `floor(sparsity * units + 0.5)` units are removed, at most all but one;
        of equal scores the lower C-order index stays.

    Example:
    >>> compute_mask(np.array([[0.1, 0.4], [0.3, 0.2]]), sparsity=0.5)
    array([[False,  True],
           [ True, False]])
    """
    return next(
        compute_masks(
            [np.asarray(scores)],
            sparsity,
            criterion=_as_scored,
            granularity=granularity,
        )
    )


def _as_scored(scores):
    return scores


def compute_masks(
    weights,
    sparsity,
    *,
    criterion="magnitude",
    granularity="element",
    scope="layer_wise",
    masks=None,
    names=None,
):
    """Yields the mask of every weight, ranked within the scope.

    Args:
        weights: Sequence of float arrays.
        sparsity: Float in [0, 1).
        criterion: Name, `Criterion` or function of a weight that gives its scores.
            Defaults to `"magnitude"`.
        granularity: Name or object, or a list of them, one a weight. Defaults to
            `"element"`.
        scope: Name or object, which weights are ranked together. Defaults to
            `"layer_wise"`.
        masks: Sequence of the present masks, bool arrays. What they remove stays
            removed. Defaults to masks that remove nothing.
        names: Sequence of strings, what errors call the weights.

    Yields:
        Bool arrays shaped like the weights, in their order, `True` keeps.

    Raises:
        ValueError: If a weight holds NaN or an infinity.

    Example:
    >>> weights = [np.array([1.0, -4.0]), np.array([[-2.0, 3.0]])]
    >>> [m.tolist() for m in compute_masks(weights, 0.5, scope="global")]
    [[False, True], [[False, True]]]
    """
    if not callable(criterion):
        criterion = registry.get("criteria", criterion)
    if not isinstance(granularity, (list, tuple)):
        granularity = [granularity] * len(weights)
    granularity = [registry.get("granularities", g) for g in granularity]
    sources = [
        _UnitScores(
            weight,
            None if masks is None else masks[i],
            criterion,
            granularity[i],
            f"number {i}" if names is None else names[i],
        )
        for i, weight in enumerate(weights)
    ]
    scope = registry.get("scopes", scope)
    candidates = [source.candidates for source in sources]
    chosen = scope(sources, candidates, sparsity)
    for source, allowed, keep in zip(sources, candidates, chosen, strict=True):
        source.check()
        yield source.mask_of(keep, allowed)


class _UnitScores:
    """The scores of one weight's units, computed only where they are looked at."""

    def __init__(self, weight, mask, criterion, granularity, name):
        self.weight = weight
        self.mask = mask
        self.criterion = criterion
        self.granularity = granularity
        self.name = name
        self._checked = set()
        self._piecewise = granularity.elementwise and getattr(
            criterion, "elementwise", False
        )

    def __len__(self):
        return self.weight.size if self.granularity.elementwise else self._units.size

    def __getitem__(self, piece):
        if not self._piecewise:
            return self._units[piece]
        span = piece.indices(self.weight.size)
        return self._score(self.weight.reshape(-1)[piece], span)

    @property
    def candidates(self):
        """Which units the present mask has left, 1-D bool, or `None` if all."""
        if self.mask is None:
            return None
        if self.granularity.elementwise:
            return self.mask.reshape(-1)
        return self.granularity.kept(self.mask, len(self))

    def check(self):
        """Raises if the weight has scores that no scope has looked at, and bad ones."""
        if not self._checked:
            _ = self[0 : len(self)]

    def mask_of(self, keep, candidates):
        """Returns the mask of the units chosen; what is removed stays removed."""
        if candidates is not None:
            keep = keep & candidates
        mask = self.granularity.mask(keep, self.weight.shape)
        kind = np.shape(mask), str(getattr(mask, "dtype", type(mask)))
        if kind != (self.weight.shape, "bool"):
            raise ValueError(
                f"{self.granularity!r} gave a mask of shape {kind[0]} and type "
                f"{kind[1]} for the weight {self.name} of shape {self.weight.shape}. "
                "Let its `mask` return a bool array of the weight's shape."
            )
        return mask

    @functools.cached_property
    def _units(self):
        return self.granularity.scores(self._score(self.weight, "all"))

    def _score(self, weight, piece):
        if weight.dtype.itemsize < 4:
            weight = weight.astype("float32")
        scores = self.criterion(weight)
        if piece not in self._checked and not np.isfinite(scores).all():
            bad = int(np.count_nonzero(~np.isfinite(scores)))
            raise ValueError(
                f"The weight {self.name} of shape {self.weight.shape} holds "
                f"{bad} values that are NaN or infinite, so that it can't be ranked. "
                "Training has diverged: lower the learning rate or clip gradients, "
                "and go on from the last good checkpoint."
            )
        self._checked.add(piece)  # Large weights are read more than once.
        return scores
