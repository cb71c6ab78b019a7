import sys

import numpy as np
import pytest
from keras import saving

from kprune import registry
from kprune.compress import ArchiveError, entropy_bits, rans
from kprune.compress import values as _values  # noqa: F401  (registers all coders)
from kprune.compress.coders import Coder
from tests.compress.streams_of import skewed

CODERS = ["raw", "rans", "huffman", "range", "brotli"]
STREAMS = {
    "one symbol": (np.zeros(1, int), 2),
    "constant": (np.full(1000, 3), 4),
    "two symbols": (np.array([0, 1, 1, 0, 1]), 2),
    "skewed": (skewed(), 16),
    "very skewed": (np.arange(5000) % 500 == 0, 2),
    "bytes": (np.random.default_rng(0).integers(0, 256, 3000), 256),
    "large alphabet": (np.random.default_rng(0).integers(0, 4096, 3000), 4096),
    "unused symbols": (skewed() * 7, 200),
    "drifting": (np.repeat(np.arange(8), 1000) + skewed(8000, 4), 16),
    "many": (skewed(200_000), 16),
}


@pytest.fixture(params=CODERS)
def coder(request):
    return registry.get("coders", request.param)


def test_all_coders_are_registered():
    assert set(registry.keys("coders")) == set(CODERS)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_what_is_decoded_is_what_was_encoded(coder, stream):
    symbols, alphabet = stream
    symbols = symbols.astype(np.int64)

    decoded = coder.decode(coder.encode(symbols, alphabet), len(symbols), alphabet)

    assert decoded.dtype == np.int64
    np.testing.assert_array_equal(decoded, symbols)


def test_an_alphabet_of_thousands_goes_through_the_coders_that_take_it(coder):
    symbols = np.random.default_rng(0).integers(0, 60_000, 500)
    if coder.fits(60_000):
        data = coder.encode(symbols, 60_000)

        np.testing.assert_array_equal(coder.decode(data, 500, 60_000), symbols)
    else:
        assert type(coder).__name__ in ("Rans", "Range")


def test_coders_survive_their_config(coder):
    config = saving.serialize_keras_object(coder)

    assert registry.get("coders", config) == coder


def test_entropy_is_the_sum_of_the_logarithms_of_the_frequencies():
    # Eight symbols: four of 1 bit, two of 2 bits, two of 3 bits.
    assert entropy_bits(np.array([0, 0, 0, 0, 1, 1, 2, 3])) == 4 * 1 + 2 * 2 + 2 * 3
    assert entropy_bits(np.array([5, 5, 5])) == 0.0


@pytest.mark.parametrize("name", ["rans", "range"])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.5])
def test_fractional_coders_are_within_a_per_cent_of_the_entropy(name, density):
    random = np.random.default_rng(0)
    symbols = random.geometric(density, 50_000).clip(max=100) - 1

    data = registry.get("coders", name).encode(symbols, 100)

    assert entropy_bits(symbols) / 8 <= len(data) < 1.01 * entropy_bits(symbols) / 8


@pytest.mark.parametrize("count", [20_000, 300_000])
def test_learnt_tables_follow_a_distribution_that_drifts(count):
    random = np.random.default_rng(0)
    symbols = random.integers(0, 8, count) + np.arange(count) * 24 // count

    data = registry.get("coders", "rans").encode(symbols, 32)

    assert len(data) < 0.97 * entropy_bits(symbols) / 8


def test_huffman_codes_have_the_lengths_of_the_textbook():
    # Counts 5, 2, 1, 1 give lengths 1, 2, 3, 3: 5 + 4 + 3 + 3 = 15 bits, 2 bytes.
    symbols = np.array([0] * 5 + [1] * 2 + [2, 3])
    huffman = registry.get("coders", "huffman")

    data = huffman.encode(symbols, 4)

    assert len(data) - huffman.table_bytes(symbols, 4) == 2
    assert huffman.estimate(np.bincount(symbols)) == 15 + 4 * 5


def test_huffman_codes_agree_with_those_of_bitarray():
    util = pytest.importorskip("bitarray.util")
    symbols = skewed()
    huffman = registry.get("coders", "huffman")
    codes, *_ = util.canonical_huffman(dict(enumerate(np.bincount(symbols).tolist())))

    body = len(huffman.encode(symbols, 16)) - huffman.table_bytes(symbols, 16)

    assert body == -(-sum(len(codes[s]) for s in symbols.tolist()) // 8)


def test_codes_longer_than_the_decoder_takes_are_cut():
    huffman = registry.get("coders", "huffman")
    counts = [1, 1]
    while len(counts) < 40:
        counts.append(counts[-1] + counts[-2])

    lengths = huffman._shortened(np.array(counts))

    assert lengths.max() <= 31
    assert np.sum(2.0**-lengths) == 1.0


def test_lanes_in_numpy_and_plain_python_agree():
    starts, frequencies = rans.learnt_intervals(skewed(), 16)
    one = rans._encode_one(starts, frequencies, 1)
    vectorized = rans._encode_lanes(starts, frequencies, 1)

    assert one[0] == vectorized[0].tolist()
    assert one[1] == vectorized[1].tolist()


@pytest.mark.parametrize("lanes", [1, 2, 7, 64])
def test_any_number_of_lanes_gives_the_same_symbols(lanes):
    symbols = skewed(3001)
    data = rans.encode(*rans.learnt_intervals(symbols, 16), lanes)
    decoder = rans.Decoder(data, lanes)

    np.testing.assert_array_equal(rans.decode_learnt(decoder, 3001, 16), symbols)
    decoder.finish()


def test_tables_of_the_coder_are_whole_and_leave_no_symbol_out():
    table = rans.LearntTable(4096, memory=1024)
    for _ in range(50):
        table.add(np.full(1000, 7))

    frequencies = np.diff(table.cumulative())

    assert frequencies.sum() == 1 << 15
    assert frequencies.min() >= 1


# The range coder's streams have no end that could be missed.
@pytest.mark.parametrize("name", ["raw", "rans", "huffman", "brotli"])
@pytest.mark.parametrize("missing", [1, 2, 3, 10, 100])
def test_a_stream_cut_off_is_an_error(name, missing):
    coder = registry.get("coders", name)
    data = coder.encode(skewed(500), 16)

    with pytest.raises(ArchiveError):
        coder.decode(data[:-missing], 500, 16)


@pytest.mark.parametrize("name", ["huffman", "range", "brotli"])
def test_a_missing_package_is_named(name, monkeypatch):
    package = {"huffman": "bitarray", "range": "constriction"}.get(name, name)
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ImportError, match=f"{package}.*pip install 'kprune.archive.'"):
        registry.get("coders", name)


def test_long_streams_are_coded_in_lanes_however_few_bytes_they_take():
    symbols = np.zeros((1 << 20) + 1, np.int64)
    symbols[::1000] = 1
    coder = registry.get("coders", "rans")

    data = coder.encode(symbols, 2)

    assert data[0] & 7 == 1
    np.testing.assert_array_equal(coder.decode(data, len(symbols), 2), symbols)


def test_a_long_stream_in_one_lane_is_refused_at_once():
    data = registry.get("coders", "rans").encode(skewed(100), 16)

    with pytest.raises(ArchiveError, match="2,000,000 symbols in one lane"):
        registry.get("coders", "rans").decode(data, 2_000_000, 16)


@pytest.mark.parametrize(
    ("method", "arguments"), [("encode", ([0, 1], 2)), ("decode", (b"", 2, 2))]
)
def test_the_base_class_names_a_coder_that_lacks_a_method(method, arguments):
    class Half(Coder):
        pass

    with pytest.raises(NotImplementedError, match=f"Half defines no `{method}`"):
        getattr(Half(), method)(*arguments)
