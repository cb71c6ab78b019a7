"""Weights as the shortest streams of bytes that give them back bit for bit.

A stream says where the values are and what they are, each in whichever of two ways
comes out shorter:

    positions   "gaps"      how many zeros stand before each value, a byte each;
                            255 stands for 255 zeros and no value yet
                "mask"      one bit a weight, the first in the highest bit
    values      "planes"    the last bytes of all values, then the bytes before
                            them, and so on up to sign and exponent
                "codebook"  the different values, then one byte for each value that
                            says which (where there are at most 256 different ones)

All of it goes through deflate, which every TensorFlow can undo. Its Huffman code
costs a few hundredths of a bit per byte, so that gaps come close to the entropy of
the mask at any sparsity above one half, and indices close to their own.
"""

import dataclasses
import itertools
import zlib

import numpy as np

from kprune.compress.codebooks import codebook

PACKINGS = ("lossless", "fp16", "codebook8", "codebook4")
_ESCAPE = 255
_VALUE_BITS = {"fp16": 16, "codebook8": 8, "codebook4": 4}
_MOST_ENTRIES = 256
# Runs and repeated rows are found by the first two; the third is best for noise.
_STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_RLE, zlib.Z_HUFFMAN_ONLY)


@dataclasses.dataclass(frozen=True)
class PackedWeight:
    """A weight as a stream of bytes, and what it takes to read it.

    Args:
        shape: Tuple of ints, the weight's shape.
        dtype: String, the weight's type.
        positions: String, `"gaps"` or `"mask"`.
        values: String, `"planes"` or `"codebook"`.
        position_bytes: Int, how many bytes of the inflated stream are positions.
        entries: Int, number of values in the codebook; 0 for planes.
        stream: Bytes, in zlib's format.
    """

    shape: tuple
    dtype: str
    positions: str
    values: str
    position_bytes: int
    entries: int
    stream: bytes


def pack(arrays, cost_of_encoding=0):
    """Encodes weights without loss, so that all of them together are shortest.

    Zero means that all bits are zero: a negative zero is stored like any other
    value, and so are infinities and subnormal numbers.

    Args:
        arrays: List of float arrays of any shapes.
        cost_of_encoding: Int, the bytes that a reader takes for each encoding (and
            type of weight) that occurs. Defaults to 0.

    Returns:
        List of `PackedWeight`s.

    Example:
    >>> kernel = np.zeros((100, 10), "float32")
    >>> kernel[::5] = 0.5
    >>> (packed,) = pack([kernel])
    >>> packed.values, packed.entries, kernel.nbytes, len(packed.stream) < 100
    ('codebook', 1, 4000, True)
    """
    choices = [encodings(array) for array in arrays]
    kinds = sorted({kind for choice in choices for kind in choice})
    best, lowest = [], float("inf")
    for number in range(1, len(kinds) + 1):
        for allowed in itertools.combinations(kinds, number):
            if not all(any(kind in choice for kind in allowed) for choice in choices):
                continue
            found = [_shortest(choice, allowed) for choice in choices]
            cost = number * cost_of_encoding + sum(len(p.stream) for p in found)
            if cost < lowest:
                best, lowest = found, cost
    return best


def _shortest(choice, allowed):
    found = [choice[kind] for kind in allowed if kind in choice]
    return min(found, key=lambda packed: len(packed.stream))


def encodings(array):
    """Encodes a weight in each of the ways.

    Args:
        array: Float array of any shape.

    Returns:
        Dict of `PackedWeight`s by names of positions, of values, and of the dtype.

    Example:
    >>> sorted(encodings(np.float32([0, 1])))[0]
    ('gaps', 'codebook', 'float32')
    """
    patterns = np.ascontiguousarray(array).reshape(-1).view(f"<u{array.itemsize}")
    is_value = patterns != 0
    heads = {
        "gaps": _deflated([_gaps(is_value)]),
        "mask": _deflated([np.packbits(is_value).tobytes()]),
    }
    values = patterns[is_value]
    tails = {"planes": _deflated(_planes(values))}
    codebook, indices = _codebook_of(values)
    if codebook is not None:
        tails["codebook"] = _deflated([codebook.tobytes(), indices.tobytes()])
    return {
        (positions, kind, array.dtype.name): PackedWeight(
            shape=array.shape,
            dtype=array.dtype.name,
            positions=positions,
            values=kind,
            position_bytes=len(head),
            entries=codebook.size if kind == "codebook" else 0,
            stream=_zlib_stream(head + tail, head_blocks + tail_blocks),
        )
        for positions, (head, head_blocks) in heads.items()
        for kind, (tail, tail_blocks) in tails.items()
    }


def _gaps(is_value):
    positions = np.flatnonzero(is_value)
    escapes, rest = np.divmod(np.diff(positions, prepend=-1) - 1, _ESCAPE)
    ends = np.cumsum(escapes + 1) - 1
    coded = np.full(ends[-1] + 1 if ends.size else 0, _ESCAPE, "uint8")
    coded[ends] = rest
    return coded.tobytes()


def _planes(values):
    by_byte = values.view("uint8").reshape(-1, values.itemsize)
    return [plane.tobytes() for plane in by_byte.T]


def _codebook_of(values):
    """Returns the different values and indices into them, if a byte can hold those."""
    if np.unique(values[: 16 * _MOST_ENTRIES]).size > _MOST_ENTRIES:
        return None, None  # Seen without sorting them all.
    different, indices = np.unique(values, return_inverse=True)
    if different.size > _MOST_ENTRIES:
        return None, None
    return different, indices.astype("uint8")


def _deflated(sections):
    """Joins sections, and joins them deflated.

    Each has Huffman codes of its own, since what is in it has a distribution of its
    own.
    """
    return b"".join(sections), b"".join(map(_blocks, sections))


def _blocks(section):
    """Returns raw deflate blocks that end on a byte and know nothing before them."""

    def deflated(strategy):
        coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
        return coder.compress(section) + coder.flush(zlib.Z_FULL_FLUSH)

    return min(map(deflated, _STRATEGIES), key=len)


def _zlib_stream(content, blocks):
    header, last_block = b"\x78\xda", b"\x03\x00"
    return header + blocks + last_block + zlib.adler32(content).to_bytes(4, "big")


def rounded(array, packing):
    """Returns the weight that a packing stores in place of this one.

    Zeros stay zero. A codebook is found by k-means over the other values; it is the
    same for the same weight.

    Args:
        array: Float array of any shape.
        packing: One of `"lossless"`, `"fp16"` (values rounded to float16),
            `"codebook8"` and `"codebook4"` (256 or 16 different values).

    Returns:
        Array of the same shape and dtype. Infinite where float16 is too narrow
        for a value, and unchanged if infinities are in the way of a codebook.

    Example:
    >>> rounded(np.array([0.0, 1.0001, 3.0], "float32"), "fp16")
    array([0., 1., 3.], dtype=float32)

    Reference:
        Han, Mao and Dally, "Deep Compression", ICLR 2016.
    """
    if packing == "lossless" or 8 * array.itemsize <= _VALUE_BITS[packing]:
        return array
    result = array.copy()
    is_value = array != 0
    result[~is_value] = 0
    if packing == "fp16":
        with np.errstate(over="ignore"):
            result[is_value] = array[is_value].astype("float16")
    elif np.isfinite(array).all():
        bits = _VALUE_BITS[packing]
        centroids, indices = codebook(array, bits, initialization="cube_root")
        result[...] = centroids[indices]
    return result


def bound_bytes(array, packing):
    """Returns what a weight takes if positions are coded at their entropy.

    That is the number of nonzeros times the bits of a value, and the entropy of a
    mask of independent bits. Codebooks are not counted. Values of pruned weights
    have an entropy of their own, so a lossless stream may be shorter than this.

    Args:
        array: Float array of any shape.
        packing: String, see `rounded`.

    Returns:
        Float, in bytes.

    Example:
    >>> bound_bytes(np.array([0.0, 0.0, 1.5, -1.0], "float32"), "lossless")
    8.5
    """
    bits = min(8 * array.itemsize, _VALUE_BITS.get(packing, 64))
    nonzeros = np.count_nonzero(array)
    shares = np.array([nonzeros, array.size - nonzeros]) / max(array.size, 1)
    shares = shares[shares > 0]
    entropy = -array.size * np.sum(shares * np.log2(shares))
    return float(nonzeros * bits + entropy) / 8
