"""The bytes of a `.kpz` file.

    "KPZ"             3 bytes
    version           1 byte
    architecture      its length as a number, then compressed JSON
    weights           one array after another, then the pools (see `streams.py`)
    checksum          4 bytes, CRC-32 of all before, little-endian

Numbers have seven bits a byte, low ones first, and a set high bit where more
follow. Shapes, types and names of the arrays are not stored: the architecture
tells them.
"""

import math
import os
import tempfile
import zlib

from kprune.compress.packing import ArchiveError, Reader, Writer

MAGIC = b"KPZ"
VERSION = 1
_CHECKSUM = 4
# A file may ask for so many bytes of weights, and for so many more for each of its
# own. Far more than any model needs, and too few to harm.
_FREE_BYTES = 1 << 26
_LARGEST_RATIO = 2000
_DECODING_BYTES = 16  # What each weight takes while it is decoded, about.
# Likewise for each size in the layers: some are worked with before any weight is made.
_FREE_SIZE = 1 << 20
_SIZE_RATIO = 16


def frame(architecture, weights):
    """Puts the parts of an archive together.

    Args:
        architecture: Bytes.
        weights: `Writer` with the weights.

    Returns:
        `Writer` with the whole file.

    Example:
    >>> len(frame(b"{}", Writer()).data)
    11
    """
    writer = Writer()
    writer.bytes(MAGIC + bytes([VERSION]), "header")
    writer.string(architecture, "architecture")
    writer.append(weights)
    writer.bytes(zlib.crc32(writer.data).to_bytes(_CHECKSUM, "little"), "header")
    return writer


def unframe(data):
    """Checks the frame of an archive.

    Args:
        data: Bytes, the whole file.

    Returns:
        The architecture's bytes and a `Reader` at the weights.

    Raises:
        ArchiveError: If it is no archive, one of a newer version, or damaged.

    Example:
    >>> architecture, reader = unframe(frame(b"{}", Writer()).data)
    >>> bytes(architecture), reader.left
    (b'{}', 0)
    """
    data = memoryview(data)
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise ArchiveError(
            f"The file begins with {bytes(data[:8])!r}, so it is no archive of kprune. "
            "Pass a file that `kprune.save_archive` has written."
        )
    if len(data) > len(MAGIC) and data[len(MAGIC)] > VERSION:
        raise ArchiveError(
            f"The archive has version {data[len(MAGIC)]} of the format, this kprune "
            f"reads up to version {VERSION}. Install a newer one."
        )
    body, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
    if zlib.crc32(body) != int.from_bytes(checksum, "little"):
        raise ArchiveError(
            f"The archive's checksum does not fit its {len(data)} bytes, so it was cut "
            "off or changed. Copy it again from where it came from."
        )
    reader = Reader(body)
    reader.bytes(len(MAGIC) + 1)
    return reader.string(), reader


def check_size(specs, file_bytes, max_bytes=None):
    """Refuses weights that are larger than an archive of this size should hold.

    Args:
        specs: List of pairs, shape and NumPy dtype of each weight.
        file_bytes: Int, size of the archive.
        max_bytes: Int, what the caller allows. Defaults to 64 MiB and 2000 times the
            size of the archive.

    Raises:
        ArchiveError: If they are, before anything of the kind was allocated.

    Example:
    >>> import numpy as np
    >>> check_size([((1 << 30,), np.dtype("float32"))], 1000)
    Traceback (most recent call last):
    kprune.compress.packing.ArchiveError: The archive of 1,000 bytes asks for ...
    """
    limit = max_bytes
    if max_bytes is None:
        limit = _FREE_BYTES + _LARGEST_RATIO * file_bytes
    counts = [math.prod(map(int, shape)) for shape, _ in specs]
    asked = sum(n * dtype.itemsize for n, (_, dtype) in zip(counts, specs, strict=True))
    if asked > limit:
        raise ArchiveError(
            f"The archive of {file_bytes:,} bytes asks for {asked:,} bytes of weights, "
            f"more than {limit:,}. If you trust it, pass max_bytes={asked}."
        )
    if max_bytes is None and sum(counts) * _DECODING_BYTES > limit:
        raise ArchiveError(
            f"The archive of {file_bytes:,} bytes asks for {sum(counts):,} weights, "
            f"more than the {limit // _DECODING_BYTES:,} for which there is memory to "
            f"decode them. If you trust it, pass max_bytes={asked}."
        )


def largest_size(file_bytes, max_bytes=None):
    """Returns the largest size that a layer in an archive may name.

    Args:
        file_bytes: Int, size of the archive.
        max_bytes: Int, what the caller allows; a larger one lifts the limit.

    Returns:
        Int.

    Example:
    >>> largest_size(1000), largest_size(1000, max_bytes=10**9)
    (1064576, 1000000000)
    """
    return max(_FREE_SIZE + _SIZE_RATIO * file_bytes, max_bytes or 0)


def check_place(path):
    """Refuses to write where no file can be.

    Args:
        path: String.

    Raises:
        FileNotFoundError: If there is no such folder.
        IsADirectoryError: If it is a folder itself.
    """
    folder, name = os.path.split(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"There is no folder {folder!r} to write {name!r} into. Make it first, or "
            "mend the path."
        )
    if os.path.isdir(path):
        raise IsADirectoryError(
            f"{path!r} is a folder. Add the name of a file: "
            f"{os.path.join(path, 'model.kpz')!r}."
        )


def write_beside(path, data):
    """Writes a file into the folder of `path`, under a name that nobody uses.

    Args:
        path: String, where the file shall be in the end.
        data: Bytes.

    Returns:
        String, its path for now; `os.replace` makes it the final one.
    """
    folder, name = os.path.split(os.path.abspath(path))
    handle, beside = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=".new")
    with os.fdopen(handle, "wb") as file:
        os.chmod(beside, 0o666 & ~_umask())
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return beside


def _umask():
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
