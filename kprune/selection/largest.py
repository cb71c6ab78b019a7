"""Exact selection of the largest of very many scores, in little memory."""

import numpy as np

from kprune.selection.arrays import STRIDE, among, at_rank, join, join_candidates
from kprune.selection.streamed import keep_streamed

_DIRECT = 1 << 20  # Up to so many scores, all are looked at as one array.


def keep_largest(scores, keep, candidates=None):
    """Marks the `keep` largest of all scores, exactly.

    Of equal scores the lower index survives, earlier sources before later ones.
    Besides the masks, no more is held than one copy of the largest source or a
    million scores.

    Args:
        scores: Sequence of score sources. Each has a length and gives 1-D float
            arrays when sliced with `source[begin:end]`, possibly on several
            threads at once: an array, or an object that computes its scores
            piece by piece. Infinities are scores like others, NaN is not allowed.
        keep: Int from 0 to the number of all scores. Where there are fewer
            candidates, all of them are kept.
        candidates: Sequence with one entry a source, a 1-D bool array that says
            which of its scores may be kept, or `None` if all. Defaults to all.

    Returns:
        List of 1-D bool arrays, one a source, `True` for what is kept.

    Raises:
        ValueError: If `keep` is out of range.

    Example:
    >>> [m.tolist() for m in keep_largest([np.array([3.0, 1.0, 2.0])], keep=2)]
    [[True, False, True]]
    >>> two = [np.array([5.0, 1.0]), np.array([5.0, 5.0, 0.0])]
    >>> [m.tolist() for m in keep_largest(two, keep=2)]
    [[True, False], [True, False, False]]
    >>> allowed = [np.array([False, True]), None]
    >>> [m.tolist() for m in keep_largest(two, keep=2, candidates=allowed)]
    [[False, False], [True, True, False]]
    """
    candidates = candidates or [None] * len(scores)
    sizes = [len(source) for source in scores]
    if not 0 <= keep <= sum(sizes):
        raise ValueError(
            f"keep={keep} must be from 0 to {sum(sizes)}, the scores given."
        )
    if keep == 0:
        return [np.zeros(size, bool) for size in sizes]
    total = sum(
        size if allowed is None else int(np.count_nonzero(allowed))
        for size, allowed in zip(sizes, candidates, strict=True)
    )
    if keep >= total:
        return [
            np.ones(size, bool) if allowed is None else allowed.copy()
            for size, allowed in zip(sizes, candidates, strict=True)
        ]
    if sum(sizes) <= _DIRECT:
        flat = join([source[0 : len(source)] for source in scores])
        allowed = join_candidates(sizes, candidates)
        mask = _keep_directly(flat, allowed, keep, total)
        return [mask] if len(sizes) == 1 else np.split(mask, np.cumsum(sizes)[:-1])
    return keep_streamed(scores, keep, candidates, total)


def _keep_directly(flat, allowed, keep, total):
    infinity = flat.dtype.type(np.inf)
    for low, high in (_guess(flat, allowed, keep / total), (-infinity, infinity)):
        mask = among(flat >= low, allowed)
        above = among(flat > high, allowed)
        # Between the two, places are still to be given away, by rank.
        places = np.flatnonzero(mask ^ above)
        free = keep - np.count_nonzero(above)
        if 0 < free <= places.size:
            break
    contenders = flat[places]
    threshold = at_rank(contenders.copy(), contenders.size - free)
    lost = contenders < threshold
    surplus = lost.size - np.count_nonzero(lost) - free
    if surplus:
        lost[np.flatnonzero(contenders == threshold)[-surplus:]] = True
    mask[places[lost]] = False
    return mask


def _guess(flat, allowed, density):
    """Returns two scores around the one that the share `density` lies above."""
    sample = flat[::STRIDE]
    if allowed is not None:
        sample = sample[allowed[::STRIDE]]
    sample = np.sort(sample)
    place = int((1 - density) * sample.size)
    # Six standard deviations, and room for what a sample misses at either end.
    margin = 8 + int(6 * (sample.size * density * (1 - density)) ** 0.5)
    infinity = flat.dtype.type(np.inf)
    return (
        sample[place - margin] if place >= margin else -infinity,
        sample[place + margin] if place + margin < sample.size else infinity,
    )
