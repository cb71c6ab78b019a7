"""A model's weight arrays as streams, and back, bit for bit.

Of each array, what is stored depends on what is shortest:

- where its nonzeros are, as gaps, if many of its values are zero;
- which entry of a codebook each value is, if it has few distinct values;
- the values themselves otherwise.

Values and codebook entries of all arrays are pooled, so that a model with many
small arrays has few streams. Where every value of an array is a float16, it is
stored as one.
"""

import dataclasses
import itertools
import math

import numpy as np

from kprune.compress.coders import Rans, entropy_bits
from kprune.compress.packing import ArchiveError, Writer
from kprune.compress.positions import mask_bits, read_positions, write_positions
from kprune.compress.values import (
    ITEM_SIZES,
    as_bits,
    doubled,
    halved,
    planes_of,
    read_stream,
    write_stream,
)

# What is said of an array in its first byte.
_SPARSE, _SHARED, _HALVED, _TRANSPOSED = 1, 2, 4, 8
_KINDS = 16
_LARGEST_CODEBOOK = 1 << 16
_STREAM_BITS = 40  # What one more stream costs, about.
_PATIENCE = 0.01  # Bits to be saved for each symbol more to decode.


@dataclasses.dataclass(frozen=True)
class ArraySizes:
    """How one weight array is stored.

    Args:
        name: String, its path in the model.
        shape: Tuple of int.
        nonzeros: Int, how many of its values are not zero.
        codebook: Int, entries of its codebook, 0 if it has none.
        positions: Int, bytes that tell where the nonzeros are.
        indices: Int, bytes of the indices into the codebook.
        positions_bound: Float, entropy of a mask of as many independent elements,
            in bytes; 0 if no positions are stored.
        indices_bound: Float, entropy of independent indices, in bytes.

    Example:
    >>> ArraySizes("dense/bias", (10,), 10, 0, 0, 0, 0.0, 0.0).nonzeros
    10
    """

    name: str
    shape: tuple
    nonzeros: int
    codebook: int
    positions: int
    indices: int
    positions_bound: float
    indices_bound: float


_PARTS = ("codebooks", "values")


def write_arrays(writer, arrays, coders):
    """Writes arrays one after another.

    Args:
        writer: A `Writer`.
        arrays: Dict from name to NumPy array of any numeric type.
        coders: List of `Coder`s to choose from.

    Returns:
        List of `ArraySizes`.
    """
    pools = _Pools()
    records = [
        _write_array(writer, name, array, coders, pools)
        for name, array in arrays.items()
    ]
    pools.write(writer, coders)
    return records


def _write_array(writer, name, array, coders, pools):
    matrix = _as_matrix(as_bits(array), array.shape)
    is_sparse, is_shared = _best_layout(matrix.ravel())
    positions, is_transposed = Writer(), False
    if is_sparse:
        positions, is_transposed = write_positions(matrix != 0, coders)
    ordered = (matrix.T if is_transposed else matrix).ravel()
    stored = kept = ordered[ordered != 0] if is_sparse else ordered
    indices = Writer()
    if is_shared:
        stored, entries = np.unique(kept, return_inverse=True)
        indices.number(len(stored), "header")
        write_stream(indices, entries, len(stored), coders, "indices")
    half = halved(stored, array.dtype.name)
    kind = _SPARSE * is_sparse | _SHARED * is_shared | _TRANSPOSED * is_transposed
    writer.number(kind | _HALVED * (half is not None), "header")
    writer.append(positions)
    writer.append(indices)
    pools.add("codebooks" if is_shared else "values", stored if half is None else half)
    nonzeros = int(np.count_nonzero(matrix))
    return ArraySizes(
        name=name,
        shape=array.shape,
        nonzeros=nonzeros,
        codebook=len(stored) if is_shared else 0,
        positions=positions.sizes.get("positions", 0),
        indices=indices.sizes.get("indices", 0),
        positions_bound=mask_bits(matrix.size, nonzeros) / 8 if is_sparse else 0.0,
        indices_bound=entropy_bits(entries) / 8 if is_shared else 0.0,
    )


def _as_matrix(flat, shape):
    return flat.reshape(-1, max(1, shape[-1]) if len(shape) > 1 else 1)


def _best_layout(bits):
    """Tells whether to store positions, and whether to store a codebook."""
    kept = bits[bits != 0]
    layouts = {(False, shared): _value_bits(bits, shared) for shared in (False, True)}
    if len(kept) < len(bits):
        mask = mask_bits(len(bits), len(kept)) + _STREAM_BITS
        for shared in (False, True):
            layouts[True, shared] = mask + _value_bits(kept, shared)
    if len(kept) < len(bits) / 2:
        # Zero could as well be one more entry of the codebook: about as many bits,
        # but a symbol to decode for every weight.
        layouts[False, True] += _PATIENCE * len(bits)
    return min(layouts, key=layouts.get)


def _value_bits(bits, shared):
    if not len(bits):
        return 0.0
    if not shared:
        return _plane_bits(bits)
    codebook, counts = np.unique(bits, return_counts=True)
    if len(codebook) > _LARGEST_CODEBOOK:
        return math.inf
    entropy = np.sum(counts * np.log2(len(bits) / counts))
    return _plane_bits(codebook) + float(entropy) + _STREAM_BITS


def _plane_bits(bits):
    estimates = (Rans().estimate(np.bincount(plane)) for plane in planes_of(bits))
    return sum(min(estimate, 8 * len(bits)) for estimate in estimates)


class _Pools:
    """Codebook entries and values of all arrays, by the bytes of one."""

    def __init__(self):
        self._bits = {key: [] for key in itertools.product(_PARTS, ITEM_SIZES)}

    def add(self, part, bits):
        self._bits[part, bits.itemsize].append(bits)

    def write(self, writer, coders):
        for (part, _), parts in self._bits.items():
            if parts:
                for plane in planes_of(np.concatenate(parts)):
                    write_stream(writer, plane, 256, coders, part)


@dataclasses.dataclass
class _Pending:
    """An array whose values come later, in a pool."""

    shape: tuple
    dtype: np.dtype
    kind: int
    positions: np.ndarray | None
    indices: np.ndarray | None
    stored: int

    @property
    def pool(self):
        part = "values" if self.indices is None else "codebooks"
        return part, 2 if self.kind & _HALVED else self.dtype.itemsize

    def finish(self, bits):
        """Returns the array, from its values or codebook entries."""
        if self.kind & _HALVED:
            bits = doubled(bits)
        if self.indices is not None:
            bits = bits[self.indices]
        flat = np.zeros(math.prod(self.shape), f"u{self.dtype.itemsize}")
        flat[slice(None) if self.positions is None else self.positions] = bits
        if self.kind & _TRANSPOSED:
            rows, columns = _as_matrix(flat, self.shape).shape
            flat = flat.reshape(columns, rows).T.ravel()
        return flat.view(self.dtype).reshape(self.shape)


def read_arrays(reader, specs):
    """Reads what `write_arrays` wrote.

    Args:
        reader: A `Reader`.
        specs: List of pairs, shape and NumPy dtype of each array. Their sizes have
            been found to be acceptable.

    Returns:
        List of arrays.

    Raises:
        ArchiveError: If the data is damaged.
    """
    pending = [_read_array(reader, shape, np.dtype(dtype)) for shape, dtype in specs]
    values = {}
    for part, size in itertools.product(_PARTS, ITEM_SIZES):
        count = sum(array.stored for array in pending if array.pool == (part, size))
        planes = np.empty((count, size), np.uint8)
        for place in range(size):
            planes[:, place] = read_stream(reader, count, 256)
        values[part, size] = planes.view(f"<u{size}").ravel()
    arrays = []
    for array in pending:
        bits, values[array.pool] = np.split(values[array.pool], [array.stored])
        arrays.append(array.finish(bits))
    return arrays


def _read_array(reader, shape, dtype):
    kind = reader.number(_KINDS - 1)
    size = math.prod(shape)
    if kind & _HALVED and dtype != np.float32:
        raise ArchiveError(f"The archive stores an array of {dtype} as float16.")
    positions = read_positions(reader, size) if kind & _SPARSE else None
    count = stored = size if positions is None else len(positions)
    indices = None
    if kind & _SHARED:
        stored = reader.number(min(count, _LARGEST_CODEBOOK))
        indices = read_stream(reader, count, stored)
    return _Pending(shape, dtype, kind, positions, indices, stored)
