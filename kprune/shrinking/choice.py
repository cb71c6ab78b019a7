"""Which groups of channels go."""

import math

import numpy as np

from kprune.scopes import Contender, PerLayer
from kprune.scopes.names import WeightName


class Chooser:
    """Chooses groups by their scores, for any sparsity that may be asked for.

    The channels that layers make are counted, and of them those that may go: a group
    counts as often as layers make one of its channels.

    Args:
        families: List of `Family` with groups that may go.
        scores: Float array by group.
        scope: `Scope`, which families are ranked together.
        min_width: Int, how many channels each layer keeps at least.
        round_to: Int. The width of each layer that loses channels is a multiple of
            it; the nearest that the groups allow.
    """

    def __init__(self, families, scores, scope, min_width=1, round_to=1):
        self.scope = scope
        self._min_width = min_width
        self._rooms = [Room(f, scores, min_width, round_to) for f in families]
        self.contenders = [room.contender() for room in self._rooms]

    @property
    def size(self):
        """Int, the number of channels that may go."""
        return sum(c.size for c in self.contenders)

    def own_sparsity(self):
        """Returns what a scope asks for that says by itself how much goes."""
        if isinstance(self.scope, PerLayer):
            given = self.scope.given(self.contenders)
            return max(self.scope.default if s is None else s for s in given)
        return 0.5  # any: the scores decide

    def check(self, sparsity):
        """Raises a `ValueError` if a sparsity can't be reached."""
        try:
            self.scope.check(self.contenders, sparsity)
        except ValueError as error:
            if self._min_width == 1:
                raise
            text = f"{error} What bounds them is min_width={self._min_width}, too."
            raise ValueError(text) from error

    def __call__(self, sparsity):
        """Returns the groups that go, an int array.

        Args:
            sparsity: Float in [0, 1), the fraction of the channels that may go.
        """
        kept = self.scope(self.contenders, sparsity)
        found = [np.zeros(0, int)]
        for room, keep in zip(self._rooms, kept, strict=True):
            found.append(room.fitted(keep))
        return np.concatenate(found)


class Room:
    """What one family may lose.

    Args:
        family: `Family`.
        scores: Float array by group.
        min_width: Int, as for `Chooser`.
        round_to: Int, likewise.
    """

    def __init__(self, family, scores, min_width=1, round_to=1):
        self.family = family
        self._groups = family.groups
        self._scores = scores[family.groups]
        self._round_to = round_to
        # By axis and group, how many channels there are, and how many stay anyway.
        self._counts = np.stack([self._count(axis.units) for axis in family.axes])
        self._widths = np.array([len(axis.units) for axis in family.axes])
        self._stuck = self._widths - self._counts.sum(1)
        least = np.minimum(min_width, self._widths) - self._stuck
        self._needs = [(np.isin(self._groups, g) * 1, 1) for g in family.guards]
        self._needs += zip(self._counts, least, strict=True)

    def _count(self, line):
        places = np.searchsorted(self._groups, line)
        places = np.minimum(places, len(self._groups) - 1)
        places = places[self._groups[places] == line]
        return np.bincount(places, minlength=len(self._groups))

    def contender(self):
        """Returns what a scope is shown."""
        sizes = self._counts.sum(0)
        size = int(sizes.sum())
        order, fewest = self._order(np.zeros(len(sizes), bool))
        weights = [axis.weight.variable for axis in self.family.axes]
        return Contender(
            self._scores,
            None,
            int(sizes[0]) if (sizes == sizes[0]).all() else sizes,
            (size,),
            WeightName(self.family.name, "channels"),
            1 - int(sizes[order[:fewest]].sum()) / size,
            [tuple(w.shape) for w in weights],
        )

    def fitted(self, keep, all_stay=False):
        """Returns the groups that go, so many that all widths are as they have to be.

        Args:
            keep: Bool array by group of the family, `True` for those that would stay.
            all_stay: Bool, whether none of these may go for the sake of the widths,
                only some of the others stay. Defaults to `False`.

        Returns:
            Int array of groups.
        """
        order, fewest = self._order(keep)
        wanted = int(keep.sum())
        allowed = np.flatnonzero(self._are_round(order))
        allowed = allowed[allowed >= (max(fewest, wanted) if all_stay else fewest)]
        nearest = np.abs(allowed - wanted) - allowed / (len(keep) + 1)
        number = allowed[np.argmin(nearest)]
        return self._groups[order[number:]]

    def _order(self, keep):
        """Puts groups into the order in which they stay.

        Args:
            keep: Bool array by group, `True` for those that would stay.

        Returns:
            Tuple of an int array of places, those first that have to stay, then those
            that would, each by their scores; and how many have to stay.
        """
        numbers = np.arange(len(keep))
        order = np.lexsort((numbers, -self._scores, ~keep))
        must = np.zeros(len(keep), bool)
        for counts, least in self._needs:
            ranked = order[(counts[order] > 0) & ~must[order]]
            sums = np.cumsum([counts[must].sum(), *counts[ranked]])
            must[ranked[: np.searchsorted(sums, least)]] = True
        return np.lexsort((numbers, -self._scores, ~keep, ~must)), int(must.sum())

    def _are_round(self, order):
        """Tells, by the number of groups that stay, whether all widths are as wanted.

        That is, they are round, or what they were.
        """
        kept = np.pad(np.cumsum(self._counts[:, order], 1), ((0, 0), (1, 0)))
        kept += self._stuck[:, None]
        return ((kept % self._round_to == 0) | (kept == self._widths[:, None])).all(0)


def says_how_much(scope):
    """Tells whether a scope needs no sparsity."""
    return isinstance(scope, PerLayer) or not scope.fixed_count


def scope_for(scope, families, left=()):
    """Returns a scope that finds families where it names layers.

    Args:
        scope: `Scope`.
        families: List of `Family`.
        left: Sequence of `Stuck`, what can't be narrowed. Defaults to none.

    Returns:
        `Scope`; a `PerLayer` with the names of families.

    Raises:
        ValueError: If the scope ranks single weights, if a name matches no layer that
            may be narrowed, or if layers of one family are to differ.
    """
    if scope.elementwise:
        raise ValueError(
            f"{scope!r} ranks single weights, and `shrink` removes channels as a "
            "whole. Take a scope such as 'layer_wise' or 'global'."
        )
    if not isinstance(scope, PerLayer):
        return scope
    named = [(f.name, layer) for f in families for layer in f.layers]
    _check_free(scope, {layer for _, layer in named}, left)
    contenders = [Contender([0.0], name=WeightName(layer, "")) for _, layer in named]
    asked = {}
    for (family, layer), value in zip(named, scope.given(contenders), strict=True):
        if value is not None and asked.setdefault(family, value) != value:
            raise ValueError(
                f"The layer {layer!r} is to lose {value:g} of its channels, and layers "
                f"that lose the same channels {asked[family]:g}: {family!r} and all "
                "that are added to it. Ask for one sparsity for all of them."
            )
    return PerLayer(asked, scope.default)


def _check_free(scope, free, left):
    """Raises if a layer is named that keeps all its channels."""
    for stuck in left:
        for layer in scope.sparsities.keys() & set(stuck.layers) - free:
            raise ValueError(
                f"The layer {layer!r} is to lose {scope.sparsities[layer]:g} of its "
                f"channels, and none of them can go: "
                f"{'; '.join(map(str, stuck.reasons))}. Leave it out."
            )


def least_sparsity(chooser, cost_of, most):
    """Finds the least sparsity at which a cost is low enough.

    Args:
        chooser: `Chooser`.
        cost_of: Function of an int array of groups, those that go, that returns a
            number. It falls as more go.
        most: Number, what the cost may be.

    Returns:
        Int array, the groups that go.

    Raises:
        ValueError: If the cost is too high whatever goes.
    """
    low, high = 0, chooser.size - 1
    groups = chooser(high / chooser.size)
    if cost_of(groups) > most:
        raise ValueError(
            f"The multiply-adds can't be brought below {cost_of(groups):,}, and "
            f"{math.floor(most):,} were asked for. Ask for more, loosen `min_width` or "
            "`round_to`, or let more layers go: `kprune.why_not(model)` says why the "
            "others stay."
        )
    while high - low > 1:
        middle = (low + high) // 2
        tried = chooser(middle / chooser.size)
        if cost_of(tried) > most:
            low = middle
        else:
            high, groups = middle, tried
    return groups
