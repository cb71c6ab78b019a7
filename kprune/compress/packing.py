"""Numbers and byte strings, one after another, and the error of reading them."""

import zlib


class ArchiveError(ValueError):
    """A `.kpz` file that cannot be written, or is not what it should be.

    Example:
    >>> issubclass(ArchiveError, ValueError)
    True
    """


class Writer:
    r"""Collects bytes, and counts them under the name of the part they belong to.

    Args:
        sizes: Dict from part to bytes that the counts are added to. Defaults to a
            new one.

    Example:
    >>> writer = Writer()
    >>> writer.number(300, "header")
    >>> bytes(writer.data), writer.sizes
    (b'\xac\x02', {'header': 2})
    """

    def __init__(self, sizes=None):
        self.data = bytearray()
        self.sizes = {} if sizes is None else sizes

    def bytes(self, data, part):
        """Appends a byte string whose length the reader knows."""
        self.data += data
        self.sizes[part] = self.sizes.get(part, 0) + len(data)

    def number(self, value, part):
        """Appends a whole number, not negative, seven bits a byte (LEB128)."""
        value = int(value)
        encoded = bytearray()
        while value > 0x7F:
            encoded.append(value & 0x7F | 0x80)
            value >>= 7
        encoded.append(value)
        self.bytes(encoded, part)

    def string(self, data, part, header="header"):
        """Appends a byte string with its length before it."""
        self.number(len(data), header)
        self.bytes(data, part)

    def append(self, other):
        """Appends what another writer collected."""
        self.data += other.data
        for part, size in other.sizes.items():
            self.sizes[part] = self.sizes.get(part, 0) + size


class Reader:
    r"""Reads what a `Writer` wrote, and never past the end.

    Args:
        data: Bytes-like.

    Example:
    >>> reader = Reader(b"\xac\x02")
    >>> reader.number(1000)
    300
    """

    def __init__(self, data):
        self._data = memoryview(data)
        self._position = 0

    @property
    def left(self):
        """Int, how many bytes are left."""
        return len(self._data) - self._position

    def bytes(self, length):
        """Reads a byte string of a known length."""
        if length > self.left:
            raise ArchiveError(
                f"The archive ends too early: {length} bytes are announced, "
                f"{self.left} are left. Copy the file again."
            )
        self._position += length
        return self._data[self._position - length : self._position]

    def number(self, limit):
        """Reads a whole number and checks it.

        Args:
            limit: Int, the largest value that makes sense.

        Raises:
            ArchiveError: If it is larger, or the data ends.
        """
        value = shift = 0
        while True:
            byte = self.bytes(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            # Past the limit at once, so that endless digits are not followed.
            if value > limit or shift > 63:
                raise ArchiveError(
                    f"The archive announces a number of {value} or more where at most "
                    f"{limit} is possible. It is damaged, or was made to do harm."
                )
            if byte < 0x80:
                return value

    def string(self):
        """Reads a byte string that has its length before it."""
        return self.bytes(self.number(self.left))

    def finish(self):
        """Checks that nothing is left.

        Raises:
            ArchiveError: If something is.
        """
        if self.left:
            raise ArchiveError(
                f"The archive has {self.left} bytes after its end. Copy it again."
            )


def deflate(data, dictionary=b""):
    """Compresses bytes with zlib, without its header.

    Args:
        data: Bytes-like.
        dictionary: Bytes that both sides know, similar to the data.

    Returns:
        Bytes.

    Example:
    >>> len(deflate(b"weights" * 100))
    16
    """
    arguments = {"zdict": dictionary} if dictionary else {}
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9, **arguments)
    return compressor.compress(data) + compressor.flush()


def inflate(data, limit, dictionary=b""):
    """Decompresses what `deflate` gave, up to a limit.

    Args:
        data: Bytes-like.
        limit: Int, the largest size in bytes that makes sense.
        dictionary: As for `deflate`.

    Returns:
        Bytes.

    Raises:
        ArchiveError: If the data is damaged or more than `limit` comes out.

    Example:
    >>> inflate(deflate(b"weights" * 100), 700)[:7]
    b'weights'
    """
    arguments = {"zdict": dictionary} if dictionary else {}
    decompressor = zlib.decompressobj(-15, **arguments)
    try:
        out = decompressor.decompress(data, limit + 1)
    except zlib.error as error:
        raise ArchiveError(f"A compressed part is damaged: {error}.") from error
    if len(out) > limit:
        raise ArchiveError(
            f"A compressed part unpacks to more than {limit} bytes, the most that "
            "makes sense for this file. It is damaged, or was made to do harm."
        )
    if not decompressor.eof or decompressor.unused_data:
        raise ArchiveError("A compressed part ends too early or too late.")
    return out
