"""An entropy coder whose tables are learnt on both sides, so none is stored.

The coder is a range variant of asymmetric numeral systems. Several lanes, each a
state of its own, take turns: the symbol at position t belongs to lane t modulo the
number of lanes. NumPy then decodes one symbol of every lane at once.

The frequencies come from the symbols already known, block by block, so that the
decoder can form the same ones. All arithmetic is in whole numbers: what one machine
writes, every other one reads.

Reference:
    Duda, "Asymmetric numeral systems", arXiv:1311.2540, 2013; Giesen, "Interleaved
    entropy coders", arXiv:1402.3392, 2014.
"""

from bisect import bisect_right

import numpy as np

from kprune.compress.packing import ArchiveError

PRECISION = 15  # Frequencies add up to 2**15.
ONE = 1 << PRECISION
LARGEST_ALPHABET = ONE >> 3

_WORD = 16  # Bits that a state gives away or takes in at a time.
_LOW = 1 << 24  # States are in [_LOW, _LOW << _WORD).
_STATE_BYTES = 5
_ROOM = 24 + _WORD - PRECISION
_FIRST_BLOCK = 32
# A symbol seen weighs this much against the 1 that every symbol begins with.
_WEIGHT = 4
# What is expected before weighs as much as so many seen, times that.
_PRIOR = 100 * _WEIGHT


def encode(starts, frequencies, lanes=1):
    """Encodes symbols, each given as its interval of [0, 2**15).

    Args:
        starts: Integer array of shape `(count,)`, where the intervals begin.
        frequencies: Integer array of that shape, how long they are, at least 1.
        lanes: Int, number of states.

    Returns:
        Bytes, for a `Decoder` of as many lanes.

    Example:
    >>> data = encode(np.array([0, 100]), np.array([100, 100]))
    >>> Decoder(data).symbols(np.array([0, 100, 200, ONE]), 2)
    array([0, 1])
    """
    code = _encode_one if lanes == 1 else _encode_lanes
    states, words = code(starts, frequencies, lanes)
    states = np.asarray(states, "<u8").view(np.uint8).reshape(lanes, 8)
    return states[:, :_STATE_BYTES].tobytes() + np.asarray(words, "<u2").tobytes()


def _encode_one(starts, frequencies, lanes):
    state, words = _LOW, []
    pairs = zip(reversed(starts.tolist()), reversed(frequencies.tolist()), strict=True)
    for start, frequency in pairs:
        if state >= frequency << _ROOM:
            words.append(state & 0xFFFF)
            state >>= _WORD
        quotient, rest = divmod(state, frequency)
        state = (quotient << PRECISION) + rest + start
    return [state], words[::-1]


def _encode_lanes(starts, frequencies, lanes):
    starts = np.asarray(starts, np.uint64)
    frequencies = np.asarray(frequencies, np.uint64)
    states, words = np.full(lanes, _LOW, np.uint64), []
    count = len(starts)
    for begin in range((count - 1) // lanes * lanes, -1, -lanes):
        turn = slice(begin, min(begin + lanes, count))
        state, frequency = states[: turn.stop - begin], frequencies[turn]
        full = state >= frequency << np.uint64(_ROOM)
        words.append((state[full] & np.uint64(0xFFFF)).astype("<u2"))
        state[full] >>= np.uint64(_WORD)
        quotient, rest = np.divmod(state, frequency)
        state[:] = (quotient << np.uint64(PRECISION)) + rest + starts[turn]
    return states, np.concatenate(words[::-1] or [np.zeros(0, "<u2")])


class Decoder:
    """Decodes what `encode` gave, step by step.

    Args:
        data: Bytes-like.
        lanes: Int, number of states it was encoded with.

    Raises:
        ArchiveError: Here or later, if `data` is not what `encode` gave.
    """

    def __init__(self, data, lanes=1):
        size = lanes * _STATE_BYTES
        if len(data) < size or (len(data) - size) % 2:
            raise ArchiveError(f"A coded stream of {len(data)} bytes cannot be whole.")
        states = np.zeros((lanes, 8), np.uint8)
        states[:, :_STATE_BYTES] = np.frombuffer(data[:size], np.uint8).reshape(
            lanes, _STATE_BYTES
        )
        self._states = states.view("<u8").ravel().astype(np.uint64)
        if (self._states < _LOW).any():
            raise ArchiveError("A coded stream begins with an impossible state.")
        self._words = np.frombuffer(data[size:], "<u2")
        self._position = self._turn = 0

    def symbols(self, cumulative, count):
        """Decodes symbols of one table.

        Args:
            cumulative: Integer array of shape `(alphabet + 1,)`, from 0 to 2**15,
                where each symbol's interval begins and the last one ends.
            count: Int, how many symbols.

        Returns:
            int64 array of shape `(count,)`.
        """
        if len(self._states) == 1:
            return np.array(self._symbols_of_one(cumulative.tolist(), count), np.int64)
        cumulative = np.asarray(cumulative, np.uint64)
        frequencies = np.diff(cumulative)
        table = np.repeat(np.arange(len(frequencies)), frequencies.astype(np.int64))
        symbols = np.empty(count, np.int64)
        done, lanes = 0, len(self._states)
        while done < count:
            first = self._turn
            last = min(lanes, first + count - done)
            state = self._states[first:last]
            low = state & np.uint64(ONE - 1)
            found = table[low]
            symbols[done : done + last - first] = found
            state >>= np.uint64(PRECISION)
            state *= frequencies[found]
            state += low - cumulative[found]
            self._refill(state)
            done, self._turn = done + last - first, last % lanes
        return symbols

    def _refill(self, state):
        empty = np.flatnonzero(state < _LOW)
        words = self._words[self._position : self._position + len(empty)]
        if len(words) < len(empty):
            raise ArchiveError("A coded stream ends too early.")
        state[empty] = (state[empty] << np.uint64(_WORD)) | words
        self._position += len(empty)

    def _symbols_of_one(self, cumulative, count):
        state, position = int(self._states[0]), self._position
        words = self._words[position : position + count].tolist()
        symbols, used = [], 0
        for _ in range(count):
            low = state & (ONE - 1)
            symbol = bisect_right(cumulative, low) - 1
            symbols.append(symbol)
            start = cumulative[symbol]
            state = (cumulative[symbol + 1] - start) * (state >> PRECISION)
            state += low - start
            if state < _LOW:
                if used == len(words):
                    raise ArchiveError("A coded stream ends too early.")
                state = state << _WORD | words[used]
                used += 1
        self._states[0], self._position = state, position + used
        return symbols

    def finish(self):
        """Checks that everything was decoded.

        Raises:
            ArchiveError: If something is left.
        """
        if self._position < len(self._words) or (self._states != _LOW).any():
            raise ArchiveError("A coded stream does not end where it should.")


class LearntTable:
    """Frequencies of symbols as far as they are known.

    Args:
        alphabet: Int, how many symbols there are.
        memory: Int, after about how many symbols a count is worth half, or `None`
            if nothing is forgotten. Defaults to `None`.
        decay: Int below 256, how much less frequent each symbol is than the one
            before it, in 256ths, to begin with: gaps are about so. Defaults to
            `None`, all are equally frequent.

    Example:
    >>> table = LearntTable(2)
    >>> table.add(np.array([1, 1, 1]))
    >>> np.diff(table.cumulative())
    array([ 2341, 30427])
    """

    def __init__(self, alphabet, memory=None, decay=None):
        self._counts = _first_counts(alphabet, decay)
        self._memory = memory
        self._seen = 0

    def next_block(self, left):
        """Returns how many of the symbols left are coded with one table."""
        longest = self._seen // 4 if self._memory is None else self._memory // 4
        return min(left, max(_FIRST_BLOCK, min(longest, self._seen // 4)))

    def add(self, symbols):
        """Counts symbols that both sides know by now."""
        counts = np.bincount(symbols, minlength=len(self._counts))
        self._counts += _WEIGHT * counts
        self._seen += len(symbols)
        if self._memory and self._counts.sum() > 2 * _WEIGHT * self._memory:
            self._counts = (self._counts + 1) // 2

    def cumulative(self):
        """Returns the table, int64 of shape `(alphabet + 1,)`, from 0 to 2**15."""
        counts, room = self._counts, ONE - len(self._counts)
        frequencies = 1 + counts * room // counts.sum()
        frequencies[np.argmax(frequencies)] += ONE - frequencies.sum()
        return np.concatenate([[0], np.cumsum(frequencies)])


def _first_counts(alphabet, decay):
    counts = np.ones(alphabet, np.int64)
    if decay is not None:
        weights = [1 << 20]
        while len(weights) < alphabet:
            weights.append(weights[-1] * decay >> 8)
        counts += _PRIOR * np.array(weights) // sum(weights)
    return counts


def learnt_intervals(symbols, alphabet, memory=None, decay=None):
    """Returns each symbol's interval in the table learnt from those before it.

    Args:
        symbols: Integer array of shape `(count,)`.
        alphabet: Int, they are below it.
        memory: See `LearntTable`.
        decay: See there.

    Returns:
        Two int64 arrays of shape `(count,)`, starts and frequencies.
    """
    table = LearntTable(alphabet, memory, decay)
    starts = np.empty(len(symbols), np.int64)
    frequencies = np.empty(len(symbols), np.int64)
    done = 0
    while done < len(symbols):
        block = slice(done, done + table.next_block(len(symbols) - done))
        cumulative, known = table.cumulative(), symbols[block]
        starts[block] = cumulative[known]
        frequencies[block] = cumulative[known + 1] - cumulative[known]
        table.add(known)
        done = block.stop
    return starts, frequencies


def decode_learnt(decoder, count, alphabet, memory=None, decay=None):
    """Decodes symbols that were encoded with `learnt_intervals`.

    Args:
        decoder: A `Decoder`.
        count: Int, how many symbols.
        alphabet: Int, as they were encoded.
        memory: As they were encoded.
        decay: As they were encoded.

    Returns:
        int64 array of shape `(count,)`.

    Example:
    >>> symbols = np.array([0, 2, 2, 1])
    >>> data = encode(*learnt_intervals(symbols, 3))
    >>> decode_learnt(Decoder(data), 4, 3)
    array([0, 2, 2, 1])
    """
    table = LearntTable(alphabet, memory, decay)
    blocks, done = [np.zeros(0, np.int64)], 0
    while done < count:
        block = decoder.symbols(table.cumulative(), table.next_block(count - done))
        table.add(block)
        blocks.append(block)
        done += len(block)
    return np.concatenate(blocks)


def cost(frequencies):
    """Returns how many bits symbols of these frequencies take, a float."""
    counts = np.bincount(frequencies, minlength=1)
    used = np.flatnonzero(counts)
    return float(np.sum(counts[used] * (PRECISION - np.log2(np.maximum(used, 1)))))
