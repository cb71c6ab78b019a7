"""Codebooks: a few values that stand for all weights of a kernel.

They are found by k-means, from one of several starts. Zeros are no part of it: a
weight that was pruned stays exactly zero, by a fixed entry of its own at index 0.
"""

import numpy as np
from sklearn.cluster import kmeans_plusplus

from kprune import registry
from kprune.compress.kmeans import borders, k_means, midpoints
from kprune.registry import Configurable, register

MAX_BITS = 12


class CodebookInitialization(Configurable):
    """Base of the rules for where k-means starts.

    A subclass defines `__call__(values, number, random)`.

    Example:
    >>> class AroundTheMedian(CodebookInitialization):
    ...     def __call__(self, values, number, random):
    ...         middle = len(values) // 2 - number // 2
    ...         return values[middle : middle + number]
    >>> codebook(np.arange(1.0, 7.0), 1, AroundTheMedian())[0]
    array([0., 2., 5.])
    """

    def __call__(self, values, number, random):
        """Returns the centroids to start from.

        Args:
            values: Float array of shape `(n,)`, the weights that are not zero,
                ascending. More than `number` of them are distinct.
            number: Int, how many centroids there shall be.
            random: `numpy.random.Generator`.

        Returns:
            Float array of shape `(number,)`, in any order.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `__call__`.")


@register("codebook_initializations", "linear")
class LinearInitialization(CodebookInitialization):
    """Spreads the centroids evenly from the smallest weight to the largest.

    Large weights are few and matter most; this keeps centroids for them, and was
    the best of the three in the paper.

    Example:
    >>> LinearInitialization()(np.array([-1.0, 0.1, 0.2, 5.0]), 3, None)
    array([-1.,  2.,  5.])
    """

    def __call__(self, values, number, random):
        return np.linspace(values[0], values[-1], number, dtype=np.float64)


@register("codebook_initializations", "density")
class DensityInitialization(CodebookInitialization):
    """Spreads the centroids so that each has equally many weights around it.

    Most centroids then lie where most weights are, at small magnitudes.

    Example:
    >>> DensityInitialization()(np.array([-1.0, 0.1, 0.2, 5.0]), 2, None)
    array([0.1, 5. ])
    """

    def __call__(self, values, number, random):
        shares = (np.arange(number) + 0.5) / number
        return values[(shares * len(values)).astype(np.int64)]


@register("codebook_initializations", "random")
class RandomInitialization(CodebookInitialization):
    """Takes weights drawn at random for centroids (Forgy's method).

    Example:
    >>> start = RandomInitialization()(np.arange(9.0), 3, np.random.default_rng(0))
    >>> sorted(start.tolist())
    [4.0, 5.0, 7.0]
    """

    def __call__(self, values, number, random):
        return random.choice(values, number, replace=False)


@register("codebook_initializations", "cube_root")
class CubeRootInitialization(CodebookInitialization):
    """Spreads the centroids with the cube root of the density of the weights.

    That is where the best of many centroids stand. Even steps waste most of them on
    tails and on the hole that pruning leaves around zero, equal shares nearly all
    where weights are dense, and k-means mends neither. Hardly ever worse than the
    others, and with 8 bits by a factor better.

    Example:
    >>> CubeRootInitialization()(np.array([0.0, 1.0, 2.0, 10.0]), 2, None).round(2)
    array([1.25, 6.67])

    Reference:
        Panter and Dite, "Quantization distortion in pulse-count modulation with
        nonuniform spacing of levels", Proceedings of the IRE, 1951.
    """

    def __call__(self, values, number, random):
        # A step times the cube root of the density that it stands for.
        steps = np.diff(values.astype(np.float64)) ** (2 / 3)
        steps = np.minimum(steps, steps.sum() / number)  # One centroid a hole.
        heights = np.concatenate([[0.0], np.cumsum(steps)])
        wanted = (np.arange(number) + 0.5) / number * heights[-1]
        return np.interp(wanted, heights, values)


@register("codebook_initializations", "kmeans_plus_plus")
class KMeansPlusPlusInitialization(CodebookInitialization):
    """Draws weights that lie far from those drawn before, as k-means++ does.

    Of more than 100,000 weights, every so many are looked at.

    Example:
    >>> start = KMeansPlusPlusInitialization()
    >>> values = np.array([-9.0, -8.0, 0.5, 0.6, 9.0])
    >>> sorted(start(values, 3, np.random.default_rng(0)).round().tolist())
    [-9.0, 0.0, 9.0]

    Reference:
        Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding",
        SODA 2007.
    """

    def __call__(self, values, number, random):
        distinct = np.unique(values)
        some = distinct[:: 1 + len(distinct) // max(_MOST_TO_DRAW_FROM, number)]
        seed = int(random.integers(2**31))
        drawn, _ = kmeans_plusplus(some[:, None], number, random_state=seed)
        return drawn[:, 0]


_MOST_TO_DRAW_FROM = 100_000


def codebook(weights, bits, initialization="linear", iterations=300, seed=0):
    """Finds the values that stand best for the weights of a kernel, by k-means.

    Best means the least sum of squared differences. A kernel that has no more
    distinct values than the codebook has room for is kept as it is.

    Args:
        weights: Float array of any shape, finite. Zeros are left out of the
            clusters: they stay zero.
        bits: Int from 1 to 12; there are at most `2**bits` values besides zero.
        initialization: Name or object, where the centroids start: `"linear"`,
            `"density"`, `"random"`, `"kmeans_plus_plus"` or `"cube_root"`. Defaults to
            `"linear"`.
        iterations: Int, the most rounds of Lloyd's algorithm. It ends when no
            weight changes its cluster, mostly far earlier. Defaults to 300.
        seed: Int, for the random initialisation. Defaults to 0.

    Returns:
        Tuple `(centroids, indices)`. Centroids: float32 array (float64 for such
        weights) of shape `(k + 1,)`, zero first, then the k values, ascending.
        Indices: array of `weights`' shape, uint8 where the codebook has at most
        256 entries and uint16 above, such that `centroids[indices]` are the
        shared weights; 0 for exactly the weights that are zero.

    Raises:
        ValueError: If `bits` or `iterations` is out of range, the initialisation
            is unknown, or a weight is NaN or infinite.

    Example:
    >>> weights = np.array([0.0, 1.0, 1.2, -3.0, 0.8, -3.2], "float32")
    >>> centroids, indices = codebook(weights, bits=1)
    >>> centroids, indices
    (array([ 0. , -3.1,  1. ], dtype=float32), array([0, 2, 2, 1, 2, 1], dtype=uint8))

    Reference:
        Han, Mao and Dally, "Deep Compression", ICLR 2016, section 3.
    """
    check_bits(bits)
    return codebook_of(weights, 2**bits, initialization, iterations, seed)


def codebook_of(weights, number, initialization="linear", iterations=300, seed=0):
    """Finds a codebook of any size; see `codebook`.

    Args:
        weights: Float array of any shape, finite.
        number: Int from 1 to 4,096, the most values besides zero.
        initialization: As for `codebook`, and so are the others.
        iterations: Int of 1 or more.
        seed: Int.

    Returns:
        Tuple `(centroids, indices)`.
    """
    if iterations < 1:
        raise ValueError(f"iterations={iterations} must be 1 or more.")
    initialization = registry.get("codebook_initializations", initialization)
    weights = _as_float(weights)
    values = np.sort(weights[weights != 0])
    centroids = _first_distinct(values, number + 1)
    if centroids.size > number:
        start = initialization(values, number, np.random.default_rng(seed))
        centroids = _off_zero(k_means(values, start, iterations), values)
    return _with_zero(centroids), _indices(weights, centroids)


def existing_codebook(weights):
    """Returns the codebook of weights that are shared already.

    Args:
        weights: Float array of any shape, finite.

    Returns:
        Tuple `(centroids, indices)` as `codebook` returns it; `centroids[indices]`
        are the weights, bit for bit (but for -0.0, which becomes 0.0).

    Raises:
        ValueError: If there are more than 4,096 distinct values besides zero, or
            if one is NaN or infinite.

    Example:
    >>> existing_codebook(np.array([0.5, 0.0, -2.0, 0.5], "float32"))
    (array([ 0. , -2. ,  0.5], dtype=float32), array([2, 0, 1, 2], dtype=uint8))
    """
    weights = _as_float(weights)
    centroids = _first_distinct(np.sort(weights[weights != 0]), 2**MAX_BITS + 1)
    if centroids.size > 2**MAX_BITS:
        raise ValueError(
            f"More than {2**MAX_BITS:,} distinct values, so that the weights are not "
            "shared. Say with how many bits they shall be: bits=5."
        )
    return _with_zero(centroids), _indices(weights, centroids)


def check_bits(bits):
    """Raises a `ValueError` unless `bits` is an int from 1 to 12."""
    whole = isinstance(bits, (int, np.integer)) and not isinstance(bits, bool)
    if not whole or not 1 <= bits <= MAX_BITS:
        raise ValueError(
            f"bits={bits!r} must be an int from 1 to {MAX_BITS}: a codebook holds "
            "2**bits values. The paper has 5 for dense kernels and 8 for convolutions."
        )


def _as_float(weights):
    weights = np.asarray(weights)
    if weights.dtype not in (np.float32, np.float64):
        weights = weights.astype(np.float32)  # half precision, bfloat16
    if not np.isfinite(weights).all():
        spoiled = weights.size - np.count_nonzero(np.isfinite(weights))
        raise ValueError(
            f"{spoiled} of {weights.size} weights are NaN or infinite. Go back to a "
            "checkpoint from before the training diverged."
        )
    return weights


def _first_distinct(values, limit):
    """Returns the distinct ones among ascending values, at most `limit` of them."""
    fresh = np.ones(values.size, bool)
    np.not_equal(values[1:], values[:-1], out=fresh[1:])
    return values[np.flatnonzero(fresh)[:limit]]


def _with_zero(centroids):
    return np.concatenate([np.zeros(1, centroids.dtype), centroids])


def _off_zero(centroids, values):
    """Moves a centroid off zero, which stands for pruned weights alone."""
    ends = borders(values, centroids)
    for i in np.flatnonzero(centroids == 0):
        members = values[ends[i] : ends[i + 1]]
        centroids[i] = members[np.argmin(np.abs(members))]
    return centroids


def _indices(weights, centroids):
    """Returns the index of the nearest centroid for each weight, 0 for zeros."""
    narrow = np.uint8 if centroids.size < 256 else np.uint16
    middles = midpoints(centroids, weights.dtype)
    indices = np.searchsorted(middles, weights.reshape(-1), side="left") + 1
    indices = indices.astype(narrow).reshape(weights.shape)
    indices[weights == 0] = 0
    return indices
