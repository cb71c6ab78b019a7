"""Selection among more scores than fit the cache, read piece by piece.

A sample gives two scores, a bracket, between which the threshold lies almost
surely. One pass over the scores counts what is above the bracket and collects what
is inside, where the exact threshold is then found; a second pass writes the masks.
Both read the scores in pieces that fit the cache, on a few threads (NumPy releases
the GIL). A bracket that misses costs more passes, never exactness.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from kprune.selection.arrays import among, at_rank, join

_THREADS = min(4, os.cpu_count() or 1)
_PIECE = 1 << 19  # Scores read at once: smaller ones fight for Python's lock.
_RUNS, _RUN = 192, 256  # The sample: at most so many runs of so many neighbours.
_ROOM = 1 << 20  # So many scores may always be collected.


def keep_streamed(scores, keep, candidates, total):
    """Marks the `keep` largest of very many scores; see `keep_largest`.

    Args:
        scores: Sequence of score sources.
        keep: Int from 1 to `total - 1`.
        candidates: Sequence of 1-D bool arrays or `None`, one a source.
        total: Int, how many candidates there are in all.

    Returns:
        List of 1-D bool arrays, one a source.
    """
    field = _Field(scores, candidates)
    room = max(_ROOM, max(map(len, scores)))
    with ThreadPoolExecutor(_THREADS) as pool:
        bracket = _sample_bracket(field, keep / total)
        threshold = _find_threshold(field, keep, bracket, room, pool)
        return _write_masks(field, keep, threshold, pool)


class _Field:
    """All scores with their candidates, to be read piece by piece."""

    def __init__(self, scores, candidates):
        self.scores = scores
        self.candidates = candidates
        self.pieces = [
            (i, begin, min(begin + _PIECE, len(source)))
            for i, source in enumerate(scores)
            for begin in range(0, len(source), _PIECE)
        ]

    def read(self, piece):
        """Returns the scores of a piece, and which are candidates or `None`."""
        i, begin, end = piece
        allowed = self.candidates[i]
        part = self.scores[i][begin:end]
        return part, None if allowed is None else allowed[begin:end]


def _sample_bracket(field, density):
    """Returns two scores around the one that the share `density` lies above.

    The sample consists of runs, which cost one slice each, at places that are
    spread evenly, but shifted at random so that they fall into no rhythm.
    Neighbours resemble each other, so the error is judged by how the runs
    differ, not by their number of scores.
    """
    ends = np.cumsum([end - begin for _, begin, end in field.pieces])
    number = min(_RUNS, max(64, ends[-1] >> 13))
    places = np.arange(number) + np.random.default_rng(0).random(number)
    runs = []
    for place in (places * (ends[-1] / number)).astype(np.int64):
        j = np.searchsorted(ends, place, side="right")
        i, begin, end = field.pieces[j]
        begin = max(begin, min(end - (ends[j] - place), end - _RUN))
        part, allowed = field.read((i, begin, min(begin + _RUN, end)))
        runs.append(part if allowed is None else part[allowed])
    # Also the types of sources that no run has met.
    sample = np.sort(join([*runs, *(source[0:0] for source in field.scores)]))
    infinity = sample.dtype.type(np.inf)
    if not sample.size:
        return -infinity, infinity
    middle = sample[min(int((1 - density) * sample.size), sample.size - 1)]
    shares = [np.count_nonzero(run >= middle) / run.size for run in runs if run.size]
    # Differences of neighbours leave out what differs between layers.
    variance = np.mean(np.diff(shares) ** 2) / 2 if len(shares) > 1 else 1.0
    margin = 5 * (variance / len(shares)) ** 0.5 + 8 / sample.size
    low, high = np.array([1 - density - margin, 1 - density + margin]) * sample.size
    return (
        -infinity if low < 0 else sample[int(low)],
        infinity if high >= sample.size else sample[int(high)],
    )


def _find_threshold(field, keep, bracket, room, pool):
    """Returns the `keep`-th largest score."""
    low, high = bracket
    threshold = _look_inside(field, keep, low, high, room, pool)
    if threshold is not None:
        return threshold
    floor, ceiling = low.dtype.type(-np.inf), low.dtype.type(np.inf)
    while True:
        above, from_high, above_low, from_low, inside = _survey(
            field, low, high, room, pool
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
            return at_rank(inside, inside.size - (keep - from_high))


def _look_inside(field, keep, low, high, room, pool):
    """Returns the `keep`-th largest score if it lies in the bracket, else `None`."""
    collected, held = [], 0

    def look(piece):
        nonlocal held
        part, allowed = field.read(piece)
        above = among(part > high, allowed)
        from_low = among(part >= low, allowed)
        counts = np.count_nonzero(above), np.count_nonzero(from_low)
        held += counts[1] - counts[0]
        if held <= room:
            collected.append(part[np.flatnonzero(from_low ^ above)])
        return counts

    above, from_low = np.sum(list(pool.map(look, field.pieces)), axis=0).tolist()
    if not above < keep <= from_low:
        return None
    if low == high:
        return low
    if held > room:
        return None
    return at_rank(join(collected), from_low - keep)


def _survey(field, low, high, room, pool):
    """Counts the scores `> high`, `>= high`, `> low` and `>= low`.

    Last come those between the two as an array, `None` if more than `room`.
    """
    collected, held = [], 0

    def survey(piece):
        nonlocal held
        part, allowed = field.read(piece)
        from_high, above_low = (
            among(part >= high, allowed),
            among(part > low, allowed),
        )
        counts = (
            np.count_nonzero(among(part > high, allowed)),
            np.count_nonzero(from_high),
            np.count_nonzero(above_low),
            np.count_nonzero(among(part >= low, allowed)),
        )
        number = counts[2] - counts[1]
        if number > 0 and held <= room:
            held += number
            collected.append(part[np.flatnonzero(above_low & ~from_high)])
        return counts

    counts = np.sum(list(pool.map(survey, field.pieces)), axis=0).tolist()
    if counts[2] - counts[1] > room:
        return *counts, None
    return *counts, join([np.empty(0, low.dtype), *collected])


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


def _write_masks(field, keep, threshold, pool):
    """Returns the masks of the scores from `threshold` on, without surplus ties."""
    masks = [np.empty(len(source), bool) for source in field.scores]

    def write(piece):
        i, begin, end = piece
        part, allowed = field.read(piece)
        mask = masks[i][begin:end]
        np.greater_equal(part, threshold, out=mask)
        return np.count_nonzero(among(mask, allowed))

    def ties(piece):
        part, allowed = field.read(piece)
        return among(part == threshold, allowed)

    def trim(piece_and_left):
        piece, left = piece_and_left
        i, begin, _ = piece
        masks[i][begin + np.flatnonzero(ties(piece))[left:]] = False

    surplus = sum(pool.map(write, field.pieces)) - keep
    if not surplus:
        return masks
    equal = np.array(
        list(pool.map(lambda piece: np.count_nonzero(ties(piece)), field.pieces))
    )
    left = np.clip(equal.sum() - surplus - (np.cumsum(equal) - equal), 0, equal)
    borders = np.flatnonzero(left < equal)
    list(pool.map(trim, [(field.pieces[j], left[j]) for j in borders]))
    return masks
