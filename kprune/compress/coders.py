"""Coders: streams of small whole numbers to bytes and back, without loss.

A stream is an array of symbols below its alphabet's size. The reader knows how many
there are and the alphabet before it decodes, so that nothing in a damaged file can
make it allocate more than was to be expected.
"""

import numpy as np

from kprune.compress import rans
from kprune.compress.packing import ArchiveError
from kprune.registry import Configurable, register


def entropy_bits(symbols):
    """Returns how many bits the best code of independent symbols takes.

    No code that treats the symbols as drawn one by one from the distribution that
    they have can be shorter, even if that distribution came for free.

    Args:
        symbols: Array of whole numbers, not negative, of any shape.

    Returns:
        Float, bits for the whole stream.

    Example:
    >>> entropy_bits(np.array([0, 0, 0, 1]))
    3.245...
    """
    counts = np.unique_counts(np.ravel(symbols)).counts
    return float(np.sum(counts * (np.log2(counts.sum()) - np.log2(counts))))


# What it costs to tell how frequent one more symbol is.
LEARNING_BITS = 5


class Coder(Configurable):
    """Base of the coders.

    A subclass has a byte `code` of its own, which names it in files, and is
    registered with `@register("coders")`.

    Example:
    >>> coder = Rans()
    >>> symbols = np.array([2, 0, 2, 1])
    >>> coder.decode(coder.encode(symbols, 3), 4, 3)
    array([2, 0, 2, 1])
    """

    code = None

    def fits(self, alphabet):
        """Tells whether streams of an alphabet of this size can be coded."""
        return True

    def encode(self, symbols, alphabet):
        """Encodes a stream.

        Args:
            symbols: int64 array of shape `(count,)`.
            alphabet: Int, they are below it.

        Returns:
            Bytes, with everything that `decode` needs besides its arguments.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `encode`.")

    def decode(self, data, count, alphabet):
        """Decodes a stream.

        Args:
            data: Bytes-like, from `encode`.
            count: Int, how many symbols.
            alphabet: Int, as it was encoded.

        Returns:
            int64 array of shape `(count,)`.

        Raises:
            ArchiveError: If `data` is no such stream.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `decode`.")

    def table_bytes(self, symbols, alphabet):
        """Returns how many of the bytes that `encode` gives describe the code."""
        return 0

    def estimate(self, counts):
        """Estimates how many bits a stream takes, without encoding it.

        Args:
            counts: int64 array of shape `(alphabet,)`, how often each symbol comes.

        Returns:
            Float. The default is the entropy, and what it costs to learn or to
            describe how frequent each symbol is.
        """
        used = counts[counts > 0]
        entropy = np.sum(used * (np.log2(used.sum()) - np.log2(used)))
        return float(entropy) + LEARNING_BITS * len(used)


@register("coders")
class Raw(Coder):
    """Every symbol in as many bits as the largest needs.

    Example:
    >>> len(Raw().encode(np.arange(16), 16))
    8
    """

    code = 1

    def size(self, count, alphabet):
        """Returns how many bytes `count` symbols take."""
        return -(-count * _width(alphabet) // 8)

    def encode(self, symbols, alphabet):
        """Encodes a stream; see `Coder.encode`."""
        width = _width(alphabet)
        bits = np.empty((len(symbols), width), np.uint8)
        for place in range(width):
            bits[:, place] = symbols >> place & 1
        return np.packbits(bits, bitorder="little").tobytes()

    def decode(self, data, count, alphabet):
        """Decodes a stream; see `Coder.decode`."""
        width = _width(alphabet)
        if len(data) != self.size(count, alphabet):
            raise ArchiveError(
                f"A stream of {count} symbols of {width} bits has {len(data)} bytes."
            )
        bits = np.unpackbits(
            np.frombuffer(data, np.uint8), count=count * width, bitorder="little"
        ).reshape(count, width)
        symbols = np.zeros(count, np.int64)
        for place in range(width):
            symbols |= bits[:, place].astype(np.int64) << place
        return _checked(symbols, alphabet)

    def estimate(self, counts):
        """Returns the bits of a stream; see `Coder.estimate`."""
        return float(counts.sum() * _width(len(counts)))


def _width(alphabet):
    return max(1, int(alphabet - 1).bit_length())


def _checked(symbols, alphabet):
    if len(symbols) and symbols.max() >= alphabet:
        raise ArchiveError(
            f"A stream holds the symbol {symbols.max()}, of {alphabet} possible ones."
        )
    return symbols


@register("coders")
class Rans(Coder):
    """Fractions of bits, with tables that both sides learn; see `rans.py`.

    Within half a per cent of the entropy where the symbols are independent, below
    it where their distribution drifts along the stream.

    Example:
    >>> len(Rans().encode(np.array([0, 0, 0, 0, 0, 0, 0, 1] * 100), 2))
    62
    """

    code = 3
    # The first byte of a stream tells one of each.
    _MEMORIES = (None, 8192, 1024)
    _DECAYS = (None, 128, 192, 224, 240, 248, 252, 254)
    _LANES = (1, 64, 128, 256, 512, 1024, 2048, 4096)
    _BYTES_A_LANE = 900  # Each costs about four. With under 64, Python is as fast.
    _LONGEST_OF_ONE = 1 << 20  # More symbols take Python too long, one by one.
    _LONG = 1 << 17  # So many symbols tell by themselves how frequent they are.

    def fits(self, alphabet):
        """Tells whether tables of this size can be learnt; see `Coder.fits`."""
        return alphabet <= rans.LARGEST_ALPHABET

    def encode(self, symbols, alphabet):
        """Encodes a stream; see `Coder.encode`."""
        memory, decay, starts, frequencies = self._best_table(symbols, alphabet)
        wanted = rans.cost(frequencies) / 8 / self._BYTES_A_LANE
        lanes = max(i for i, n in enumerate(self._LANES) if i == 0 or n <= wanted)
        if len(symbols) > self._LONGEST_OF_ONE:
            lanes = max(lanes, 1)
        first = bytes([memory << 6 | decay << 3 | lanes])
        return first + rans.encode(starts, frequencies, self._LANES[lanes])

    def _best_table(self, symbols, alphabet):
        def intervals(memory, decay):
            settings = self._MEMORIES[memory], self._DECAYS[decay]
            return memory, decay, *rans.learnt_intervals(symbols, alphabet, *settings)

        decays = range(len(self._DECAYS) if len(symbols) < self._LONG else 1)
        tried = [intervals(0, decay) for decay in decays]
        decay = min(tried, key=lambda entry: rans.cost(entry[3]))[1]
        tried += [intervals(memory, decay) for memory in (1, 2)]
        return min(tried, key=lambda entry: rans.cost(entry[3]))

    def decode(self, data, count, alphabet):
        """Decodes a stream; see `Coder.decode`."""
        if not len(data):
            raise ArchiveError("A coded stream is empty.")
        memory, decay, lanes = data[0] >> 6, data[0] >> 3 & 7, data[0] & 7
        if memory >= len(self._MEMORIES):
            raise ArchiveError(
                f"A coded stream begins with the unknown byte {data[0]}."
            )
        if self._LANES[lanes] == 1 and count > self._LONGEST_OF_ONE:
            raise ArchiveError(
                f"A stream has {count:,} symbols in one lane, at most "
                f"{self._LONGEST_OF_ONE:,} are taken."
            )
        decoder = rans.Decoder(data[1:], self._LANES[lanes])
        settings = self._MEMORIES[memory], self._DECAYS[decay]
        symbols = rans.decode_learnt(decoder, count, alphabet, *settings)
        decoder.finish()
        return symbols


def smallest(coders, symbols, alphabet):
    """Encodes a stream with the coder that makes it shortest.

    Args:
        coders: List of `Coder`s.
        symbols: int64 array of shape `(count,)`.
        alphabet: Int, they are below it.

    Returns:
        Pair of the coder and the bytes.

    Example:
    >>> smallest([Raw(), Rans()], np.arange(16), 16)[0]
    Raw()
    """
    fitting = [coder for coder in coders if coder.fits(alphabet)] or [Raw()]
    encoded = [(coder, coder.encode(symbols, alphabet)) for coder in fitting]
    return min(encoded, key=lambda pair: len(pair[1]))
