"""Exact selection among units that remove different numbers of weights."""

import numpy as np

from kprune.selection.arrays import join


def keep_by_size(scores, sizes, zeros, candidates=None):
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

    Returns:
        List of 1-D bool arrays, one a source, `True` for what is kept; one unit
        stays in any case. Of equal scores the lower index survives.

    Example:
    >>> scores = [np.array([3.0, 1.0]), np.array([2.0])]
    >>> [m.tolist() for m in keep_by_size(scores, [4, 10], zeros=13)]
    [[True, False], [False]]
    """
    lengths = [len(source) for source in scores]
    flat = join([source[0 : len(source)] for source in scores])
    size = np.concatenate(
        [np.broadcast_to(s, n) for s, n in zip(sizes, lengths, strict=True)]
    )
    removed = _removed(lengths, candidates)
    # The last key counts most: what is removed, then low scores, then high indices.
    order = np.lexsort([-np.arange(flat.size), flat, ~removed])
    borders = np.cumsum(size[order]) - size[order] / 2
    number = min(np.searchsorted(borders, zeros, side="right"), flat.size - 1)
    keep = ~removed
    keep[order[:number]] = False
    return np.split(keep, np.cumsum(lengths)[:-1])


def _removed(lengths, candidates):
    allowed = candidates or [None] * len(lengths)
    return np.concatenate(
        [
            np.zeros(n, bool) if a is None else ~a
            for n, a in zip(lengths, allowed, strict=True)
        ]
    )
