"""Exact selection among units that remove different numbers of weights."""

import numpy as np

from kprune.selection.arrays import join, join_candidates

_STRIDE = 17  # What a better guess leaves to sort is worth a larger sample.


def keep_by_size(scores, sizes, zeros, candidates=None, stay=1):
    """Marks the units that stay when those of the lowest scores go.

    Units go one after another until the number of weights in them is as near to
    what is wanted as the border between two units allows.

    Args:
        scores: Sequence of score sources, each with a length, giving 1-D float arrays
            when sliced.
        sizes: Sequence with one entry a source: int, how many weights each of its
            units has, or a 1-D int array, one entry a unit.
        zeros: Int, how many weights shall go.
        candidates: Sequence of 1-D bool arrays, or `None`, one a source: which
            units may be kept. The others go first. Defaults to all.
        stay: Int, 0 or 1: how many units stay in any case, if there are candidates.
            Defaults to 1.

    Returns:
        List of 1-D bool arrays, one a source, `True` for what is kept. Of equal
        scores the lower index survives.

    Example:
    >>> scores = [np.array([3.0, 1.0]), np.array([2.0])]
    >>> [m.tolist() for m in keep_by_size(scores, [4, 10], zeros=13)]
    [[True, False], [False]]
    """
    lengths = [len(source) for source in scores]
    flat = join([source[0 : len(source)] for source in scores])
    size = _Sizes(sizes, lengths)
    allowed = join_candidates(lengths, candidates)
    keep = np.ones(flat.size, bool) if allowed is None else allowed.copy()
    zeros -= size.within(~keep)
    if zeros > 0 and keep.any():
        _remove_lowest(keep, flat, size, zeros, stay)
    return np.split(keep, np.cumsum(lengths)[:-1])


class _Sizes:
    """How many weights each unit of all sources has."""

    def __init__(self, sizes, lengths):
        self.each = np.concatenate(
            [np.broadcast_to(s, n) for s, n in zip(sizes, lengths, strict=True)]
        )
        # Most have one size. To count those is far cheaper than to add up sizes.
        self._usual = int(np.median(self.each[::_STRIDE])) if self.each.size else 0
        self._others = np.flatnonzero(self.each != self._usual)
        self._excess = self.each[self._others].astype(np.int64) - self._usual

    def within(self, chosen):
        """Returns how many weights the chosen units have."""
        excess = self._excess * chosen[self._others]
        return self._usual * np.count_nonzero(chosen) + int(excess.sum())


def _remove_lowest(keep, flat, size, zeros, stay):
    """Takes the lowest units, with so many weights, out of those that are kept."""
    share = zeros / size.within(keep)
    most = max(np.count_nonzero(keep) - stay, 0)
    infinity = flat.dtype.type(np.inf)
    for low, high in (_guess(keep, flat, size.each, share), (-infinity, infinity)):
        # All below the bracket go; only what is inside has to be put in order.
        below = keep & (flat < low)
        inside = np.flatnonzero(keep & (flat <= high) & ~below)
        gone, left = np.count_nonzero(below), zeros - size.within(below)
        if gone <= most and 0 <= left <= size.each[inside].sum():
            break
    inside = inside[::-1]  # of equal scores the higher index goes first
    order = inside[np.argsort(flat[inside], kind="stable")]
    ordered = size.each[order]
    borders = np.cumsum(ordered) - ordered / 2
    number = np.searchsorted(borders, left, side="right")
    keep &= ~below
    keep[order[: min(number, most - gone)]] = False


def _guess(keep, flat, size, share):
    """Returns two scores around the border, where a sample sees it."""
    sample = np.flatnonzero(keep[::_STRIDE]) * _STRIDE
    sample = sample[np.argsort(flat[sample])]
    place = np.searchsorted(np.cumsum(size[sample]), share * size[sample].sum())
    # Four standard deviations, and room for what a sample misses at either end.
    margin = 8 + int(4 * (sample.size * share * max(0, 1 - share)) ** 0.5)
    infinity = flat.dtype.type(np.inf)
    return (
        flat[sample[place - margin]] if place >= margin else -infinity,
        flat[sample[place + margin]] if place + margin < sample.size else infinity,
    )
