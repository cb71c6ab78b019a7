"""How a budget is shared out among weights, in proportion and within bounds."""

import numpy as np


def in_proportion(total, proportions, lowest, highest):
    """Shares a total out in proportion, within bounds.

    Each share is `clip(c * proportion, lowest, highest)`, with the one factor `c` for
    which they add up. So who would get more than the bound allows gets the bound, and
    what is left is shared out again among the others.

    Args:
        total: Number. Where the bounds do not allow for it, the nearest that they
            do allow for.
        proportions: Sequence of positive numbers, one a share.
        lowest: Sequence of numbers of 0 or more.
        highest: Sequence of numbers, none below its lowest.

    Returns:
        float64 array, one share each.

    Example:
    >>> in_proportion(10, [1, 1, 2], lowest=[0, 0, 0], highest=[9, 9, 4])
    array([3., 3., 4.])
    """
    p, low, high = (np.asarray(x, "float64") for x in (proportions, lowest, highest))
    # The sum grows with the factor, in straight lines between these.
    factors = np.unique([low / p, high / p])
    sums = [np.clip(factor * p, low, high).sum() for factor in factors]
    return np.clip(np.interp(total, sums, factors) * p, low, high)


def in_whole_numbers(shares):
    """Rounds shares so that their sum stays, by largest remainder.

    Args:
        shares: Float array whose sum is a whole number, but for rounding errors.

    Returns:
        int64 array: each share rounded down or up, up where the remainder is
        largest, of equal ones where the index is lower.

    Example:
    >>> in_whole_numbers(np.array([1.5, 2.7, 0.8]))
    array([1, 3, 1])

    Reference:
        Hamilton's method, of 1792, for seats of the House of Representatives.
    """
    whole = np.floor(shares)
    missing = round(float(shares.sum() - whole.sum()))
    whole[np.argsort(whole - shares, kind="stable")[:missing]] += 1
    return whole.astype("int64")
