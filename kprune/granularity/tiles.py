"""Units that are tiles: boxes of one size, into which a weight is cut."""

import functools
import math

import numpy as np

from kprune.granularity.base import Granularity, Units, bands

_SHORT = 16  # NumPy is slow on many runs that short, and faster place by place.


def tiled(scores, tile, pooling="mean"):
    """Returns the tiles of a weight, in C order.

    The tiles begin at index 0 of each axis. Where a length does not divide, those at
    the far edge are smaller. A tile's score is the mean over its own weights, or the
    largest of theirs, so that tiles of different sizes can be ranked together.

    Args:
        scores: Float array.
        tile: Sequence of ints of 1 or more, the size of a tile along each axis. A
            size that exceeds the axis means all of it.
        pooling: `"mean"` or `"max"`, how a tile's score is made. Defaults to `"mean"`.

    Returns:
        `Units`.

    Example:
    >>> units = tiled(np.array([[1.0, 3.0], [5.0, 7.0], [9.0, 4.0]]), (2, 1))
    >>> units.scores, units.sizes.tolist()
    (array([3., 5., 9., 4.]), [2, 2, 1, 1])
    >>> units.expand(np.array([False, True, True, False]))
    array([[False,  True],
           [False,  True],
           [ True, False]])
    """
    shape = scores.shape
    tile = tuple(map(min, tile, shape))
    sizes = _sizes(shape, tile)
    if pooling == "max":
        pooled = _merge(np.maximum, scores, tile)
    else:
        total = _merge(np.add, scores, tile)
        pooled = total / sizes.astype(total.dtype)

    def collapse(mask):
        return _merge(np.logical_or, mask, tile).reshape(-1)

    whole = sizes.size == 1
    return Units(
        pooled.reshape(-1),
        functools.partial(_expand, shape, tile),
        int(sizes.item()) if whole else np.broadcast_to(sizes, pooled.shape).ravel(),
        collapse,
    )


def _sizes(shape, tile):
    """Returns how many weights each tile has, of length 1 along axes that divide."""
    lengths = [
        np.minimum(t, n - np.arange(0, n if n % t else 1, t, dtype="int32"))
        for n, t in zip(shape, tile, strict=True)
    ]
    return functools.reduce(np.multiply.outer, lengths, np.int32(1))


def _expand(shape, tile, keep):
    mask = keep.reshape([-(-n // t) for n, t in zip(shape, tile, strict=True)])
    for axis, length in reversed(list(enumerate(tile))):
        if length > 1:
            mask = _repeat(mask, length, axis)
    return np.ascontiguousarray(mask[tuple(map(slice, shape))])


def _repeat(mask, length, axis):
    if axis < mask.ndim - 1:
        return np.repeat(mask, length, axis)
    # Single bytes are slow: up to eight are written as one number.
    word = math.gcd(length, 8)
    ones = np.ones(word, "uint8").view(f"uint{8 * word}")
    words = mask.view("uint8").astype(ones.dtype, order="C")
    words *= ones
    if length > word:
        words = np.repeat(words, length // word, axis)
    return words.view(bool)


def _merge(ufunc, array, tile):
    for axis, length in enumerate(tile):
        if length > 1:
            array = _merge_runs(ufunc, array, length, axis)
    return array


def _merge_runs(ufunc, array, length, axis):
    """Reduces runs of a length along an axis, and the shorter run at its end."""
    size = array.shape[axis]
    whole, rest = np.split(array, [size - size % length], axis)
    along_rows = axis == array.ndim - 1
    word = math.gcd(length, 8)
    if along_rows and array.dtype == bool and word > 1:  # bytes read as one number
        whole = np.ascontiguousarray(whole).view(f"uint{8 * word}") != 0
        length //= word
    runs = (whole.shape[axis] // length, length)
    runs = whole.reshape(array.shape[:axis] + runs + array.shape[axis + 1 :])
    if 1 < length <= _SHORT and along_rows:
        merged = np.empty(runs.shape[:-1], runs.dtype)
        for part in bands(merged.shape, length):
            first, second, *others = np.moveaxis(runs[part], -1, 0)
            total = ufunc(first, second, out=merged[part])
            for other in others:
                ufunc(total, other, out=total)
    else:
        merged = ufunc.reduce(runs, axis=axis + 1)
    if not rest.size:
        return merged
    return np.concatenate([merged, ufunc.reduce(rest, axis=axis, keepdims=True)], axis)


class Tiled(Granularity):
    """Base of granularities whose units are tiles of one weight.

    A subclass defines `tile(shape)`.

    Attributes:
        pooling: `"mean"` or `"max"`, how a tile's score is made of those of its
            weights. Defaults to `"mean"`.
    """

    pooling = "mean"

    def tile(self, shape):
        """Returns the size of a tile.

        Args:
            shape: Tuple of two ints or more, `(..., inputs, outputs)`.

        Returns:
            Sequence of ints, one an axis.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `tile`.")

    def units(self, scores, mask=None):
        """Returns the tiles in C order; a vector is one input of many outputs."""
        missing = max(0, 2 - scores.ndim)
        tile = self.tile((1,) * missing + scores.shape)
        return tiled(scores, tile[missing:], self.pooling)
