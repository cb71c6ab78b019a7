"""Coders that need a package of their own: `pip install 'kprune[archive]'`."""

import heapq
import importlib
import itertools

import numpy as np

from kprune.compress import rans
from kprune.compress.coders import LEARNING_BITS, Coder, Rans
from kprune.compress.packing import ArchiveError, Reader, Writer
from kprune.registry import register


def _package(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"This coder needs the package {name!r}: pip install 'kprune[archive]'."
        ) from error


@register("coders")
class Huffman(Coder):
    """Canonical Huffman codes, of which only the lengths are stored.

    Each symbol takes a whole number of bits, which costs up to a few per cent
    against the entropy, and much more where one symbol is very frequent.

    Raises:
        ImportError: If the package `bitarray` is not installed.

    Reference:
        Huffman, "A method for the construction of minimum-redundancy codes", Proc.
        IRE, 1952; Han, Mao and Dally, "Deep Compression", ICLR 2016.

    Example:
    >>> len(Huffman().encode(np.array([0, 0, 0, 0, 0, 0, 0, 1] * 100), 2))
    107
    """

    code = 2
    _LONGEST = 31  # Of the codes that `bitarray` decodes.

    def __init__(self):
        _package("bitarray")

    def encode(self, symbols, alphabet):
        """Encodes a stream; see `Coder.encode`."""
        from bitarray import bitarray

        lengths = self._lengths(symbols, alphabet)
        bits = bitarray(endian="big")
        bits.encode(_codes(lengths), symbols.tolist())
        writer = Writer()
        writer.string(self._table(lengths), "table")
        return bytes(writer.data) + bits.tobytes()

    def decode(self, data, count, alphabet):
        """Decodes a stream; see `Coder.decode`."""
        from bitarray import bitarray
        from bitarray.util import canonical_decode

        reader = Reader(data)
        table = reader.string()
        lengths = Rans().decode(table, alphabet, self._LONGEST + 1)
        sizes = np.bincount(lengths, minlength=self._LONGEST + 1)
        sizes[0] = 0
        if (
            np.sum(sizes << (self._LONGEST - np.arange(len(sizes))))
            != 1 << self._LONGEST
        ):
            raise ArchiveError("The code lengths of a stream form no Huffman code.")
        bits = bitarray(endian="big")
        bits.frombytes(bytes(reader.bytes(reader.left)))
        ordered = [s for s in np.argsort(lengths, kind="stable").tolist() if lengths[s]]
        decoded = canonical_decode(bits, sizes.tolist(), ordered)
        try:
            return np.fromiter(itertools.islice(decoded, count), np.int64, count)
        except ValueError as error:
            raise ArchiveError(f"A Huffman stream is damaged: {error}") from error

    def table_bytes(self, symbols, alphabet):
        """Returns the size of the code lengths; see `Coder.table_bytes`."""
        table = self._table(self._lengths(symbols, alphabet))
        writer = Writer()
        writer.string(table, "table")
        return len(writer.data)

    def estimate(self, counts):
        """Estimates the bits of a stream; see `Coder.estimate`."""
        used = np.count_nonzero(counts)
        return float(np.sum(counts * _huffman_lengths(counts)) + LEARNING_BITS * used)

    def _table(self, lengths):
        return Rans().encode(lengths, self._LONGEST + 1)

    def _lengths(self, symbols, alphabet):
        return self._shortened(np.bincount(symbols, minlength=alphabet))

    def _shortened(self, counts):
        lengths = _huffman_lengths(counts)
        while lengths.max() > self._LONGEST:  # Needs counts like Fibonacci's numbers.
            counts = (counts + 1) // 2
            lengths = _huffman_lengths(counts)
        return lengths


def _huffman_lengths(counts):
    """Returns the length of each symbol's Huffman code, 0 for one without."""
    used = np.flatnonzero(counts).tolist()
    used += [s for s in (0, 1) if s not in used][: max(0, 2 - len(used))]
    # Trees are pairs of trees, leaves are symbols; the second entry breaks ties.
    heap = [(int(counts[symbol]), symbol, symbol) for symbol in used]
    heapq.heapify(heap)
    for number in itertools.count(len(counts)):
        if len(heap) == 1:
            break
        (light, _, left), (heavy, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (light + heavy, number, (left, right)))
    lengths = np.zeros(len(counts), np.int64)
    open_trees = [(heap[0][2], 0)]
    while open_trees:
        tree, depth = open_trees.pop()
        if isinstance(tree, tuple):
            open_trees += [(branch, depth + 1) for branch in tree]
        else:
            lengths[tree] = depth
    return lengths


def _codes(lengths):
    """Returns the canonical codes of given lengths: dict from symbol to bits."""
    from bitarray.util import int2ba

    code, codes, before = 0, {}, 0
    for symbol in np.argsort(lengths, kind="stable").tolist():
        length = int(lengths[symbol])
        if length:
            code <<= length - before
            codes[symbol] = int2ba(code, length, endian="big")
            code, before = code + 1, length
    return codes


@register("coders")
class Range(Coder):
    """The range coder of the package `constriction`, with learnt tables.

    Raises:
        ImportError: If the package is not installed.

    Example:
    >>> len(Range().encode(np.array([0, 0, 0, 0, 0, 0, 0, 1] * 100), 2))
    60
    """

    code = 4

    def __init__(self):
        self._stream = _package("constriction").stream

    def fits(self, alphabet):
        """Tells whether tables of this size can be learnt; see `Coder.fits`."""
        return alphabet <= rans.LARGEST_ALPHABET

    def encode(self, symbols, alphabet):
        """Encodes a stream; see `Coder.encode`."""
        encoder = self._stream.queue.RangeEncoder()
        table, done = rans.LearntTable(alphabet), 0
        while done < len(symbols):
            block = symbols[done : done + table.next_block(len(symbols) - done)]
            encoder.encode(block.astype(np.int32), self._model(table))
            table.add(block)
            done += len(block)
        return encoder.get_compressed().astype("<u4").tobytes()

    def decode(self, data, count, alphabet):
        """Decodes a stream; see `Coder.decode`."""
        if len(data) % 4:
            raise ArchiveError("A range coded stream is not whole.")
        words = np.frombuffer(data, "<u4").astype(np.uint32)
        decoder = self._stream.queue.RangeDecoder(words)
        table, blocks, done = rans.LearntTable(alphabet), [np.zeros(0, np.int64)], 0
        while done < count:
            block = table.next_block(count - done)
            try:
                symbols = decoder.decode(self._model(table), block)
            except (AssertionError, ValueError) as error:
                raise ArchiveError(
                    f"A range coded stream is damaged: {error}"
                ) from error
            blocks.append(symbols.astype(np.int64))
            table.add(blocks[-1])
            done += block
        return np.concatenate(blocks)

    def _model(self, table):
        weights = np.diff(table.cumulative()).astype(np.float64)
        return self._stream.model.Categorical(weights / rans.ONE, perfect=False)


@register("coders")
class Brotli(Coder):
    """Brotli on the bytes of the symbols, low bytes first, then high ones.

    Raises:
        ImportError: If the package `brotli` is not installed.

    Example:
    >>> len(Brotli().encode(np.array([0, 0, 0, 0, 0, 0, 0, 1] * 100), 2))
    13
    """

    code = 5

    def __init__(self):
        self._brotli = _package("brotli")

    def encode(self, symbols, alphabet):
        """Encodes a stream; see `Coder.encode`."""
        planes = [symbols >> 8 * place & 0xFF for place in range(_planes(alphabet))]
        joined = np.concatenate(planes).astype(np.uint8).tobytes()
        return self._brotli.compress(joined, quality=11, lgwin=24)

    def decode(self, data, count, alphabet):
        """Decodes a stream; see `Coder.decode`."""
        planes = _planes(alphabet)
        joined = self._decompress(bytes(data), count * planes)
        symbols = np.zeros(count, np.int64)
        for place, plane in enumerate(
            np.frombuffer(joined, np.uint8).reshape(planes, count)
        ):
            symbols |= plane.astype(np.int64) << 8 * place
        if count and symbols.max() >= alphabet:
            raise ArchiveError(f"A stream holds the symbol {symbols.max()}.")
        return symbols

    def _decompress(self, data, size):
        decompressor = self._brotli.Decompressor()
        out = bytearray()
        try:
            out += decompressor.process(data, output_buffer_limit=size + 1)
            while not decompressor.is_finished() and len(out) <= size:
                more = decompressor.process(b"", output_buffer_limit=size + 1)
                if not more:
                    break
                out += more
        except self._brotli.error as error:
            raise ArchiveError(f"A brotli stream is damaged: {error}") from error
        if len(out) != size or not decompressor.is_finished():
            raise ArchiveError(f"A brotli stream does not hold {size} bytes.")
        return bytes(out)


def _planes(alphabet):
    return max(1, (int(alphabet - 1).bit_length() + 7) // 8)
