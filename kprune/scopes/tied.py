"""Weights that stay or go together, shown to a scope as one."""

import dataclasses

import numpy as np

from kprune.scopes.base import Contender


def tied_groups(ties):
    """Returns which weights are ranked as one.

    Args:
        ties: Sequence with a `Tie` or `None` for each weight.

    Returns:
        List of lists of their numbers.

    Example:
    >>> from kprune.granularity import Tie
    >>> tie = Tie("attention", axis=-1, number=2)
    >>> tied_groups([tie, None, tie])
    [[0, 2], [1]]
    """
    groups = {}
    for i, tie in enumerate(ties):
        key = ("alone", i) if tie is None else ("tied", tie.key)
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def as_one(parts, tie=None):
    """Returns what a scope is shown of weights that are ranked as one.

    Units that can't go, and the best of those of which one should stay, get an
    infinite score.

    Args:
        parts: List of `Contender`, one a weight.
        tie: `Tie` of one of them. Defaults to none.

    Returns:
        `Contender`, with the name of the first.

    Raises:
        ValueError: If they have different numbers of units.
    """
    if tie is None or tie.units is None:
        return parts[0] if len(parts) == 1 else _merged(parts)
    one = _merged(parts)
    scores = one.scores.astype("float64")
    scores[tie.stays] = np.inf
    for guard in tie.guards:
        present = guard if one.candidates is None else guard[one.candidates[guard]]
        if present.size:
            scores[present[np.argmax(scores[present])]] = np.inf
    size = one.weights_in(np.ones(tie.number, bool))
    return dataclasses.replace(
        one,
        scores=scores,
        shape=(size,),
        reachable=min(one.reachable, one.weights_in(~tie.stays) / size),
        names=[part.name for part in parts],
    )


def _merged(parts):
    """Returns a contender whose units are those of all parts."""
    units = {part.name: len(part.scores) for part in parts}
    if len(set(units.values())) > 1:
        raise ValueError(
            "Tied weights must have as many units as each other, and there are "
            f"{', '.join(f'{n} in {name!r}' for name, n in units.items())}. Mend the "
            "rule that ties them."
        )
    size = sum(part.sizes for part in parts)
    present = [c for c in (part.candidates for part in parts) if c is not None]
    return Contender(
        sum(part.scores[0 : len(part.scores)] * part.sizes for part in parts) / size,
        np.any(present, axis=0) if present else None,
        _one_if_alike(size),
        (sum(part.size for part in parts),),
        parts[0].name,
        min(part.reachable for part in parts),
        [part.shape for part in parts],
    )


def _one_if_alike(sizes):
    """Returns one number for sizes that are all the same."""
    is_array = isinstance(sizes, np.ndarray)
    return int(sizes[0]) if is_array and (sizes == sizes[0]).all() else sizes
