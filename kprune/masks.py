"""Masks of weights: criterion, granularity and scope composed, on plain arrays."""

import functools

import numpy as np

from kprune import registry
from kprune.arguments import check_sparsity
from kprune.scopes import Contender, as_one, tied_groups


def compute_mask(scores, sparsity, granularity="element"):
    """Returns the mask that removes the lowest scores of one weight.

    Args:
        scores: Array of numbers, of any shape, one score a weight, larger means keep.
        sparsity: Float in [0, 1), the fraction of units to remove.
        granularity: Name or object, what is removed together. Defaults to
            `"element"`.

    Returns:
        Bool array of `scores`' shape, `True` keeps the weight. Exactly
        `floor(sparsity * units + 0.5)` units are removed, at most all but one;
        of equal scores the lower C-order index stays.

    Raises:
        ValueError: If `sparsity` is out of range, or a score NaN or infinite.

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
    evidence=None,
    ties=None,
):
    """Yields the mask of every weight, ranked within the scope.

    Args:
        weights: Sequence of float arrays, kernels in the layout
            `(..., inputs, outputs)`.
        sparsity: Float in [0, 1).
        criterion: Name, `Criterion` or function of a weight that gives its scores.
            Defaults to `"magnitude"`.
        granularity: Name or object, or a list of them, one a weight. Defaults to
            `"element"`.
        scope: Name or object, which weights are ranked together. Defaults to
            `"layer_wise"`.
        masks: Sequence of the present masks, bool arrays. What they remove stays
            removed. Defaults to masks that remove nothing.
        names: Sequence of strings, as in `"dense/kernel"`: what errors call the
            weights, and by what scopes and criteria tell them apart. Defaults to
            their numbers.
        evidence: Sequence of dicts, one a weight, from what the criterion requires
            to arrays; those of the weight's shape lie place by place beside it.
            Defaults to none.
        ties: Sequence with a `Tie` or `None` for each weight. Those with one key
            are ranked as one, by the mean over their weights, and lose the same
            units. Defaults to none.

    Yields:
        Bool arrays shaped like the weights, in their order, `True` keeps.

    Raises:
        ValueError: If `sparsity` is out of range, if a weight holds NaN or an
            infinity, if a criterion gives no number for each weight, if criterion,
            granularity and scope have no meaning together, or if tied weights have
            different numbers of units.

    Example:
    >>> weights = [np.array([1.0, -4.0]), np.array([[-2.0, 3.0]])]
    >>> [m.tolist() for m in compute_masks(weights, 0.5, scope="global")]
    [[False, True], [[False, True]]]
    """
    sparsity = check_sparsity("sparsity", sparsity)
    if not callable(criterion) or isinstance(criterion, type):
        criterion = registry.get("criteria", criterion)
    if not isinstance(granularity, (list, tuple)):
        granularity = [granularity] * len(weights)
    granularity = [registry.get("granularities", g) for g in granularity]
    scope = registry.get("scopes", scope)
    check_combination(criterion, granularity, scope)
    scored = [
        _Scored(
            weight,
            None if masks is None else masks[i],
            criterion,
            granularity[i],
            f"number {i}" if names is None else names[i],
            {} if evidence is None else evidence[i],
            None if ties is None else ties[i],
            i,
        )
        for i, weight in enumerate(weights)
    ]
    groups = tied_groups([None] * len(scored) if ties is None else ties)
    contenders = [
        as_one([scored[i].contender() for i in group], scored[group[0]].tie)
        for group in groups
    ]
    chosen = scope(contenders, sparsity)
    found, following = {}, 0
    for group, contender, keep in zip(groups, contenders, chosen, strict=True):
        for i in group:
            scored[i].check()
            found[i] = scored[i].mask_of(keep, contender.candidates)
        while following in found:
            yield found.pop(following)
            following += 1


def check_combination(criterion, granularities, scope):
    """Raises if a criterion, granularities and a scope have no meaning together.

    Args:
        criterion: `Criterion`, or a function of a weight.
        granularities: Sequence of `Granularity`.
        scope: `Scope`.

    Raises:
        ValueError: With what does have a meaning.
    """
    axis = getattr(criterion, "axis", None)
    for granularity in granularities:
        if axis is not None and granularity.channel_axis != axis:
            raise ValueError(
                f"{criterion!r} scores whole units of a layer, and {granularity!r} "
                "removes something else. Prune with a granularity of those units, "
                f"`kprune.prune(model, granularity=kprune.Channel({axis}))`, or take "
                "another criterion."
            )
        if granularity.within_layer and scope.ranks_layers_together:
            raise ValueError(
                f"{granularity!r} removes as much from every part of a weight, so "
                f"that {scope!r} can't rank weights together. Take a scope that "
                "prunes each layer by itself, such as 'layer_wise'."
            )
        if scope.elementwise and not granularity.elementwise:
            raise ValueError(
                f"{scope!r} ranks single weights, and {granularity!r} removes several "
                "together. Prune with the granularity 'element', or take a scope such "
                "as 'layer_wise'."
            )


class _Scored:
    """The scores of one weight's units, computed only where they are looked at."""

    def __init__(
        self, weight, mask, criterion, granularity, name, evidence, tie, place
    ):
        self.weight = weight
        self.mask = mask
        self.tie = tie
        self.criterion = criterion
        self.granularity = granularity
        self.name = name
        self.evidence = dict(evidence)
        requires = getattr(criterion, "requires", ())
        for kind, value in (("name", name), ("place", place)):
            if kind in requires:
                self.evidence[kind] = value
        self._checked = set()
        # Scores made of the weight alone are no numbers where it is none.
        self._hands_on = getattr(criterion, "elementwise", False) and not self.evidence
        self._piecewise = granularity.elementwise and getattr(
            criterion, "elementwise", False
        )
        if self._piecewise:  # The pieces of a turned array would be copies of it all.
            self._flat = weight.reshape(-1)
            self.evidence = {
                kind: e.reshape(-1) if np.shape(e) == weight.shape else e
                for kind, e in self.evidence.items()
            }

    def __len__(self):
        if self.granularity.elementwise:
            return self.weight.size
        return self._units.scores.size

    def __getitem__(self, piece):
        if not self._piecewise:
            return self._units.scores[piece]
        evidence = {k: self._piece_of(v, piece) for k, v in self.evidence.items()}
        span = piece.indices(self.weight.size)
        return self._score(self._flat[piece], evidence, span)

    def _piece_of(self, evidence, piece):
        return evidence[piece] if np.shape(evidence) == self._flat.shape else evidence

    def contender(self):
        """Returns what the scope is shown."""
        elementwise = self.granularity.elementwise
        return Contender(
            self,
            self._candidates(),
            1 if elementwise else self._units.sizes,
            self.weight.shape,
            self.name,
            self.granularity.reachable(self.weight.shape),
        )

    def _candidates(self):
        if self.mask is None:
            return None
        if self.granularity.elementwise:
            return self.mask.reshape(-1)
        return self._units.kept(self.mask)

    def check(self):
        """Raises if the weight has scores that no scope has looked at, and bad ones."""
        if not self._checked:
            _ = self[0 : len(self)]

    def mask_of(self, keep, candidates):
        """Returns the mask of the units chosen; what is removed stays removed."""
        if candidates is not None:
            keep = keep & candidates
        if self.granularity.elementwise:
            return keep.reshape(self.weight.shape)
        mask = self._units.expand(keep)
        kind = np.shape(mask), str(getattr(mask, "dtype", type(mask)))
        if kind != (self.weight.shape, "bool"):
            raise ValueError(
                f"{self.granularity!r} gave a mask of shape {kind[0]} and type "
                f"{kind[1]} for the weight {self.name!r} of shape {self.weight.shape}. "
                "Let its units expand to a bool array of the weight's shape."
            )
        # Of a unit that stays, single weights may be gone.
        return mask if self.mask is None else mask & self.mask

    @functools.cached_property
    def _units(self):
        scores = self._score(self.weight, self.evidence, "all")
        tie = () if self.tie is None else (self.tie,)
        return self.granularity.units(scores, self.mask, *tie)

    def _score(self, weight, evidence, piece):
        if weight.dtype.itemsize < 4:
            weight = weight.astype("float32")
        known = piece in self._checked
        if not known and not self._hands_on:
            self._check_numbers(weight)
        scores = self._as_floats(self.criterion(weight, **evidence), weight.shape)
        if not known:
            self._check_numbers(scores)
        self._checked.add(piece)  # Large weights are read more than once.
        return scores

    def _as_floats(self, scores, shape):
        """Returns what the criterion gave, if it is a number for each weight."""
        scores = np.asarray(scores)
        if scores.dtype.kind in "biu":
            scores = scores.astype("float64")
        is_float = scores.dtype.kind == "f" or np.can_cast(scores.dtype, "longdouble")
        if scores.shape != shape or not is_float:
            raise ValueError(
                f"The criterion {self.criterion!r} gave scores of shape "
                f"{scores.shape} and type {scores.dtype} for the weight {self.name!r}, "
                f"of which it was shown the shape {shape}. Let it return an array of "
                "floats of the shape that it is shown, larger where a weight is to "
                "stay."
            )
        return scores

    def _check_numbers(self, values):
        if not np.isfinite(values).all():
            bad = int(np.count_nonzero(~np.isfinite(values)))
            raise ValueError(
                f"The weight {self.name!r} of shape {self.weight.shape} holds "
                f"{bad} values that are NaN or infinite, so that it can't be ranked. "
                "Training has diverged: lower the learning rate or clip gradients, "
                "and go on from the last good checkpoint."
            )
