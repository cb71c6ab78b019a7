"""Values of weights as bytes: planes of them, pooled over the arrays of a model."""

import ml_dtypes
import numpy as np

from kprune.compress import extra_coders  # noqa: F401  (registers them)
from kprune.compress.coders import Coder, Raw, smallest
from kprune.compress.packing import ArchiveError
from kprune.registry import keys

_CONSTANT = 0
ITEM_SIZES = (1, 2, 4, 8)


def as_bits(array):
    """Views an array of any numeric type as whole numbers of the same bytes.

    Args:
        array: NumPy array of shape `(size,)`.

    Returns:
        Array of shape `(size,)` of unsigned integers.

    Example:
    >>> as_bits(np.array([1.0, -0.0], "float32"))
    array([1065353216, 2147483648], dtype=uint32)
    """
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def numpy_type(dtype):
    """Returns NumPy's type for the name of a Keras one, bfloat16 and such included.

    Args:
        dtype: String.

    Returns:
        `numpy.dtype`.

    Example:
    >>> numpy_type("bfloat16").itemsize
    2
    """
    return np.dtype(getattr(ml_dtypes, dtype, dtype))


def halved(bits, dtype):
    """Returns float32 values as float16, if that loses nothing.

    Args:
        bits: uint32 array, the bits of the values.
        dtype: String, their type.

    Returns:
        uint16 array, or `None` if some value is no float16.

    Example:
    >>> halved(as_bits(np.array([0.5], "float32")), "float32")
    array([14336], dtype=uint16)
    """
    if dtype != "float32":
        return None
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        half = bits.view(np.float32).astype(np.float16)
    return half.view(np.uint16) if (doubled(half.view("u2")) == bits).all() else None


def doubled(bits):
    """Returns the float32 bits of float16 bits."""
    with np.errstate(invalid="ignore"):
        return bits.view(np.float16).astype(np.float32).view(np.uint32)


def planes_of(bits):
    """Splits values into their bytes: array of shape `(item size, count)`."""
    return bits.view(np.uint8).reshape(len(bits), bits.itemsize).T.astype(np.int64)


def write_stream(writer, symbols, alphabet, coders, part):
    """Writes a stream with the coder that makes it shortest.

    Args:
        writer: A `Writer`.
        symbols: int64 array of shape `(count,)`. The reader has to know the count.
        alphabet: Int, they are below it. The reader has to know it.
        coders: List of `Coder`s to choose from.
        part: String, what the bytes are counted as; those of tables are counted
            as `"tables"`.
    """
    if not len(symbols):
        return
    if (symbols == symbols[0]).all():
        writer.number(_CONSTANT, "header")
        writer.number(symbols[0], part)
        return
    coder, data = smallest([Raw(), *coders], symbols, alphabet)
    writer.number(coder.code, "header")
    if not isinstance(coder, Raw):
        writer.number(len(data), "header")
    table = coder.table_bytes(symbols, alphabet)
    if table:
        writer.bytes(data[:table], "tables")
    writer.bytes(data[table:], part)


def read_stream(reader, count, alphabet):
    """Reads what `write_stream` wrote.

    Args:
        reader: A `Reader`.
        count: Int, how many symbols, already found to be plausible.
        alphabet: Int, as it was written.

    Returns:
        int64 array of shape `(count,)`.

    Raises:
        ArchiveError: If the stream is damaged or its coder unknown.
    """
    if not count:
        return np.zeros(0, np.int64)
    code = reader.number(255)
    if code == _CONSTANT:
        return np.full(count, reader.number(alphabet - 1))
    coder = _coder_of(code)
    if not coder.fits(alphabet):
        raise ArchiveError(f"{coder} codes no alphabet of {alphabet} symbols.")
    if isinstance(coder, Raw):
        return coder.decode(reader.bytes(coder.size(count, alphabet)), count, alphabet)
    return coder.decode(reader.string(), count, alphabet)


def _coder_of(code):
    for coder in Coder.__subclasses__():
        if coder.code == code:
            try:
                return coder()
            except ImportError as error:
                raise ArchiveError(f"The archive cannot be read: {error}") from error
    raise ArchiveError(
        f"The archive uses the coder number {code}, which this version of kprune does "
        f"not know (it has {', '.join(keys('coders'))}). Install a newer one."
    )
