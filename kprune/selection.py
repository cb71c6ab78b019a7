"""Exact selection of the largest of very many scores, in little memory.

Small problems are partitioned as a whole. For large ones a sample gives two
scores, a bracket, between which the threshold lies almost surely. One pass over
the scores counts what is above the bracket and collects what is inside, where
the exact threshold is then found; a second pass writes the masks. Both read the
scores in pieces that fit the cache, on a few threads (NumPy releases the GIL).
A bracket that misses costs more passes, never exactness.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_THREADS = min(4, os.cpu_count() or 1)
_PIECE = 1 << 19  # Scores read at once: smaller ones fight for Python's lock.
_DIRECT = 1 << 20  # Up to so many scores, all are looked at as one array.
_RUNS, _RUN = 192, 256  # The sample: at most so many runs of so many neighbours.
_STRIDE = 31  # Where one partition would do, the sample is each so-manieth score.
_ROOM = 1 << 20  # So many scores may always be collected.


def keep_largest(scores, keep):
    """Marks the `keep` largest of all scores, exactly.

    Of equal scores the lower index survives, earlier sources before later ones.
    Besides the masks, no more is held than one copy of the largest source or a
    million scores.

    Args:
        scores: Sequence of score sources. Each has a length and gives 1-D float
            arrays when sliced with `source[begin:end]`, possibly on several
            threads at once: an array, or an object that computes its scores
            piece by piece. `-inf` is a score like others, NaN is not allowed.
        keep: Int from 0 to the number of all scores.

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
    """
    sizes = [len(source) for source in scores]
    total = sum(sizes)
    if not 0 <= keep <= total:
        raise ValueError(f"keep={keep} must be from 0 to {total}, the scores given.")
    if keep in (0, total):
        return [np.full(size, keep > 0) for size in sizes]
    if total <= _DIRECT:
        flat = _join([source[0 : len(source)] for source in scores])
        return np.split(_keep_directly(flat, keep), np.cumsum(sizes)[:-1])
    pieces = [
        (i, begin, min(begin + _PIECE, size))
        for i, size in enumerate(sizes)
        for begin in range(0, size, _PIECE)
    ]
    room = max(_ROOM, max(sizes))
    with ThreadPoolExecutor(_THREADS) as pool:
        bracket = _sample_bracket(scores, pieces, keep / total)
        threshold = _find_threshold(scores, pieces, keep, bracket, room, pool)
        return _write_masks(scores, pieces, keep, threshold, pool)


def _join(parts):
    # At least float32, for half precision has no partition.
    if len(parts) == 1 and parts[0].dtype.itemsize >= 4:
        return parts[0]
    return np.concatenate(parts, dtype=np.result_type(np.float32, *parts))


def _keep_directly(flat, keep):
    threshold = _guess_and_check(flat, keep)
    if threshold is None:
        # Among equals a partition is slow, and there may be many removed weights.
        ranked = flat[np.flatnonzero(flat > -np.inf)]
        rank = ranked.size - keep
        threshold = np.partition(ranked, rank)[rank] if rank >= 0 else -np.inf
    mask = flat >= threshold
    surplus = np.count_nonzero(mask) - keep
    if surplus:
        mask[np.flatnonzero(flat == threshold)[-surplus:]] = False
    return mask


def _guess_and_check(flat, keep):
    """Returns the `keep`-th largest of a few scores, or `None` if the guess fails."""
    sample = np.sort(flat[::_STRIDE])
    place = int((1 - keep / flat.size) * sample.size)
    margin = 3 * int(sample.size**0.5)  # six standard deviations or more
    # Above -inf, of which there may be many: among equals a partition is slow.
    low = max(sample[max(place - margin, 0)], np.finfo(sample.dtype).min)
    high = sample[min(place + margin, sample.size - 1)]
    above = flat > high
    inside = flat[(flat >= low) ^ above]
    rank = inside.size - (keep - np.count_nonzero(above))
    if not 0 <= rank < inside.size:
        return None
    inside.partition(rank)
    return inside[rank]


def _sample_bracket(scores, pieces, density):
    """Returns two scores around the one that the share `density` lies above.

    The sample consists of runs, which cost one slice each, at places that are
    spread evenly, but shifted at random so that they fall into no rhythm.
    Neighbours resemble each other, so the error is judged by how the runs
    differ, not by their number of scores.
    """
    ends = np.cumsum([end - begin for _, begin, end in pieces])
    number = min(_RUNS, max(64, ends[-1] >> 13))
    places = np.arange(number) + np.random.default_rng(0).random(number)
    runs = []
    for place in (places * (ends[-1] / number)).astype(np.int64):
        j = np.searchsorted(ends, place, side="right")
        i, begin, end = pieces[j]
        begin = max(begin, min(end - (ends[j] - place), end - _RUN))
        runs.append(scores[i][begin : min(begin + _RUN, end)])
    sample = np.sort(_join(runs))
    middle = sample[min(int((1 - density) * sample.size), sample.size - 1)]
    shares = np.array([np.count_nonzero(run >= middle) / run.size for run in runs])
    # Differences of neighbours leave out what differs between layers.
    deviation = np.sqrt(np.mean(np.diff(shares) ** 2) / 2 / number)
    margin = 5 * deviation + 8 / sample.size
    low, high = np.array([1 - density - margin, 1 - density + margin]) * sample.size
    infinity = sample.dtype.type(np.inf)
    return (
        -infinity if low < 0 else sample[int(low)],
        infinity if high >= sample.size else sample[int(high)],
    )


def _find_threshold(scores, pieces, keep, bracket, room, pool):
    """Returns the `keep`-th largest score."""
    low, high = bracket
    threshold = _look_inside(scores, pieces, keep, low, high, room, pool)
    if threshold is not None:
        return threshold
    floor, ceiling = low.dtype.type(-np.inf), low.dtype.type(np.inf)
    while True:
        above, from_high, above_low, from_low, inside = _survey(
            scores, pieces, low, high, room, pool
        )
        if keep <= above:
            floor, low, high = high, high, ceiling
        elif keep <= from_high:
            return high
        elif keep > from_low:
            ceiling, low, high = low, floor, low
        elif keep > above_low:
            return low
        elif inside is None:
            floor, ceiling = low, high
            high = _halfway(low, high)
        else:
            inside.partition(inside.size - (keep - from_high))
            return inside[inside.size - (keep - from_high)]


def _look_inside(scores, pieces, keep, low, high, room, pool):
    """Returns the `keep`-th largest score if it lies in the bracket, else `None`."""
    # Above -inf, of which there may be many: among equals a partition is slow.
    low = max(low, np.finfo(low.dtype).min)
    collected, held = [], 0

    def look(piece):
        nonlocal held
        i, begin, end = piece
        part = scores[i][begin:end]
        above = part > high
        from_low = part >= low
        counts = np.count_nonzero(above), np.count_nonzero(from_low)
        held += counts[1] - counts[0]
        if held <= room:
            collected.append(part[from_low ^ above])
        return counts

    above, from_low = np.sum(list(pool.map(look, pieces)), axis=0).tolist()
    if held > room or not above < keep <= from_low:
        return None
    inside = np.concatenate(collected)
    inside.partition(from_low - keep)
    return inside[from_low - keep]


def _survey(scores, pieces, low, high, room, pool):
    """Counts the scores `> high`, `>= high`, `> low` and `>= low`.

    Last come those between the two as an array, `None` if more than `room`.
    """
    collected, held = [], 0

    def survey(piece):
        nonlocal held
        i, begin, end = piece
        part = scores[i][begin:end]
        from_high, above_low = part >= high, part > low
        counts = (
            np.count_nonzero(part > high),
            np.count_nonzero(from_high),
            np.count_nonzero(above_low),
            np.count_nonzero(part >= low),
        )
        number = counts[2] - counts[1]
        if number > 0 and held <= room:
            held += number
            collected.append(part[np.flatnonzero(above_low & ~from_high)])
        return counts

    counts = np.sum(list(pool.map(survey, pieces)), axis=0).tolist()
    if counts[2] - counts[1] > room:
        return *counts, None
    return *counts, np.concatenate([np.empty(0, low.dtype), *collected])


def _halfway(low, high):
    """Returns the float in the middle, in the order of all floats there are.

    So an interval is used up after as many halvings as a float has bits.
    """
    integer = np.dtype(f"i{low.dtype.itemsize}")
    least = np.iinfo(integer).min

    def swap(bits):  # Negative floats are ordered against their bits.
        return bits if bits >= 0 else least - bits

    middle = sum(swap(int(x.view(integer))) for x in (low, high)) // 2
    return integer.type(swap(middle)).view(low.dtype)


def _write_masks(scores, pieces, keep, threshold, pool):
    """Returns the masks of the scores from `threshold` on, without surplus ties."""
    masks = [np.empty(len(source), bool) for source in scores]

    def write(piece):
        i, begin, end = piece
        part, mask = scores[i][begin:end], masks[i][begin:end]
        np.greater_equal(part, threshold, out=mask)
        return np.count_nonzero(mask)

    def count_ties(piece):
        i, begin, end = piece
        return np.count_nonzero(scores[i][begin:end] == threshold)

    def trim(piece_and_ties):
        (i, begin, end), ties = piece_and_ties
        equal = np.flatnonzero(scores[i][begin:end] == threshold)
        masks[i][begin + equal[ties:]] = False

    surplus = sum(pool.map(write, pieces)) - keep
    if not surplus:
        return masks
    equal = np.array(list(pool.map(count_ties, pieces)))
    left = equal.sum() - surplus
    ties = np.clip(left - (np.cumsum(equal) - equal), 0, equal)
    borders = np.flatnonzero(ties < equal)
    list(pool.map(trim, [(pieces[j], ties[j]) for j in borders]))
    return masks
