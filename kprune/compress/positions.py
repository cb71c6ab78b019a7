"""Where the nonzeros of an array are, as a stream of gaps."""

import numpy as np

from kprune.compress.packing import ArchiveError, Writer
from kprune.compress.values import read_stream, write_stream

_LARGEST_POWER = 11
_ESCAPES = tuple(1 << power for power in range(1, _LARGEST_POWER + 1))
# A stream of more symbols takes longer to decode: so many bits a symbol would have to
# be saved to make up for it.
_PATIENCE = 0.01
# Above so many elements, only one order is tried.
_LARGE = 1 << 21
# Up to so many nonzeros, there is time to try several escapes.
_FEW = 1 << 14


def mask_bits(size, nonzeros):
    """Returns the entropy of a mask whose elements are independent.

    Args:
        size: Int, number of elements.
        nonzeros: Int, how many of them are kept.

    Returns:
        Float, bits for the whole mask.

    Example:
    >>> mask_bits(100, 50), round(mask_bits(1000, 100))
    (100.0, 469)
    """
    if nonzeros in (0, size):
        return 0.0
    zeros = size - nonzeros
    return float(
        size * np.log2(size) - nonzeros * np.log2(nonzeros) - zeros * np.log2(zeros)
    )


def to_gaps(mask, escape):
    """Writes a mask as gaps: how many zeros come before each nonzero.

    A gap of `escape` zeros or more is written as one symbol `escape` for every
    `escape` zeros in it, and the rest. For nonzeros that are spread at random this
    loses nothing, since the rest of a long gap is as random as any gap.

    Args:
        mask: Bool array of shape `(size,)`, `True` where a weight is not zero.
        escape: Int, at least 1.

    Returns:
        int64 array of symbols from 0 to `escape`.

    Example:
    >>> to_gaps(np.array([0, 1, 0, 0, 1, 1], bool), escape=2)
    array([1, 2, 0, 0])
    """
    gaps = _gaps(mask)
    escapes = gaps // escape
    last = np.cumsum(escapes + 1) - 1
    symbols = np.full(last[-1] + 1 if len(last) else 0, escape, np.int64)
    symbols[last] = gaps % escape
    return symbols


def _gaps(mask):
    return np.diff(np.flatnonzero(mask), prepend=-1) - 1


def _promising_escapes(mask, coders):
    """Returns the escape that is best for random gaps, and for few gaps more.

    Where nonzeros are not spread at random, as those of a layer that sees the pixels
    of images row after row, longer gaps have a meaning of their own.
    """
    gaps = _gaps(mask)
    if not len(gaps):
        return _ESCAPES[:1]
    best = _best_escape(gaps, coders)
    if len(gaps) > _FEW:
        return (best,)
    return tuple(best << power for power in (0, 2, 4) if best << power in _ESCAPES)


def _best_escape(gaps, coders):
    lengths, counts = np.unique(gaps, return_counts=True)

    def cost(escape):
        histogram = np.bincount(lengths % escape, counts, escape + 1).astype(int)
        histogram[escape] = np.sum(lengths // escape * counts)
        bits = min(coder.estimate(histogram) for coder in coders)
        return bits + _PATIENCE * histogram.sum()

    return min(_ESCAPES, key=cost)


def from_gaps(symbols, escape, size):
    """Returns where the nonzeros are, from their gaps.

    Args:
        symbols: int64 array from `to_gaps`.
        escape: Int, from there too.
        size: Int, number of elements of the mask.

    Returns:
        int64 array of ascending indices below `size`.

    Raises:
        ArchiveError: If the gaps lead out of the mask.

    Example:
    >>> from_gaps(np.array([1, 2, 0, 0]), 2, 6)
    array([1, 4, 5])
    """
    is_gap = symbols < escape
    positions = (np.cumsum(symbols + is_gap) - 1)[is_gap]
    if len(positions) and positions[-1] >= size:
        raise ArchiveError(
            f"The gaps of an array of {size} weights lead to number {positions[-1]}."
        )
    return positions


def write_positions(mask, coders):
    """Writes where the nonzeros of an array are, in the shorter of two orders.

    Args:
        mask: Bool array of shape `(rows, columns)`.
        coders: List of `Coder`s to choose from.

    Returns:
        A `Writer`, and a bool: whether the order is that of the transposed mask.
    """
    orders = (False, True) if min(mask.shape) > 1 and mask.size <= _LARGE else (False,)
    written = [
        (_written(flat, escape, coders), flip)
        for flip in orders
        for flat in [(mask.T if flip else mask).ravel()]
        for escape in _promising_escapes(flat, coders)
    ]
    return min(written, key=lambda pair: len(pair[0].data))


def _written(mask, escape, coders):
    writer = Writer()
    symbols = to_gaps(mask, escape)
    writer.number(escape.bit_length() - 1, "header")
    writer.number(len(symbols), "header")
    write_stream(writer, symbols, escape + 1, coders, "positions")
    return writer


def read_positions(reader, size):
    """Reads what `write_positions` wrote.

    Args:
        reader: A `Reader`.
        size: Int, number of elements of the mask.

    Returns:
        int64 array of ascending indices below `size`, in the order written.

    Raises:
        ArchiveError: If the stream is damaged.
    """
    escape = 1 << reader.number(_LARGEST_POWER)
    # A nonzero is one symbol, and so are `escape` zeros.
    symbols = read_stream(reader, reader.number(size), escape + 1)
    return from_gaps(symbols, escape, size)
