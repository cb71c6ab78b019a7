"""Steps that small and large selections share."""

import numpy as np

STRIDE = 97  # A guess is made from a sample: each so-manieth score.


def join(parts):
    """Joins 1-D float arrays, at least as float32: half precision has no partition."""
    if len(parts) == 1 and parts[0].dtype.itemsize >= 4:
        return parts[0]
    return np.concatenate(parts, dtype=np.result_type(np.float32, *parts))


def join_candidates(lengths, candidates):
    """Joins what may be kept of each source; `None` if that is all of everything."""
    if candidates is None or all(allowed is None for allowed in candidates):
        return None
    parts = [
        np.ones(length, bool) if allowed is None else allowed
        for length, allowed in zip(lengths, candidates, strict=True)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def among(chosen, allowed):
    """Leaves only candidates in a fresh array of choices."""
    # On one byte a score: far cheaper than to write -inf into the scores.
    if allowed is not None:
        chosen &= allowed
    return chosen


def at_rank(scores, rank):
    """Returns the score of a rank, the lowest has 0. Changes the order of `scores`."""
    # A partition is slow among equals, and a bracket may hold little else.
    lowest = scores.min()
    if np.count_nonzero(scores == lowest) > rank:
        return lowest
    scores.partition(rank)
    return scores[rank]
