import math
import zlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from kprune.export import packing as module
from kprune.export.packed_module import Decoder
from kprune.export.packing import PACKINGS, bound_bytes, rounded

DTYPES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}


def pack(array):
    """Returns the one weight packed."""
    (packed,) = module.pack([array])
    return packed


def patterns(array):
    """Returns the bits of each number, which, unlike numbers, compare exactly."""
    return np.ascontiguousarray(array).reshape(-1).view(f"u{array.itemsize}")


def unpacked(packed):
    """Reads a stream as the module's docstring says, one number after another."""
    content = zlib.decompress(packed.stream)
    size, itemsize = math.prod(packed.shape), np.dtype(DTYPES[packed.dtype]).itemsize
    head, tail = content[: packed.position_bytes], content[packed.position_bytes :]
    places = []
    if packed.positions == "mask":
        bits = "".join(f"{byte:08b}" for byte in head)
        places = [place for place in range(size) if bits[place] == "1"]
    else:
        place = -1
        for byte in head:
            place += byte + (byte < 255)
            places += [place] * (byte < 255)
    if packed.values == "codebook":
        split = packed.entries * itemsize
        entries = [tail[i : i + itemsize] for i in range(0, split, itemsize)]
        values = [entries[index] for index in tail[split:]]
    else:
        values = [tail[i :: len(places)] for i in range(len(places))]
    rows = [bytes(itemsize)] * size
    for place, value in zip(places, values, strict=True):
        rows[place] = value
    return np.frombuffer(b"".join(rows), DTYPES[packed.dtype]).reshape(packed.shape)


def decoded(packed):
    """Decodes by the operations that a SavedModel does it with."""
    decoder = Decoder([packed])
    decoder._initialize()
    return decoder.weights[0].numpy()


@st.composite
def weights(draw):
    """Draws any bits, in a pattern of zeros that is random, in rows or at the end."""
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=0, max_size=3)))
    dtype = np.dtype(DTYPES[draw(st.sampled_from(sorted(DTYPES)))])
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = rng.integers(0, 256, (*shape, dtype.itemsize), "uint8")
    different = draw(st.sampled_from([1, 2, 17, 256, 257, None]))
    if different:
        bits = bits.reshape(-1, dtype.itemsize)[:different]
        bits = bits[rng.integers(0, len(bits), shape)]
    sparsity = draw(st.sampled_from([0.0, 0.2, 0.5, 0.9, 0.99, 1.0]))
    rows = shape[: draw(st.integers(0, len(shape)))]
    is_zero = rng.random(rows + (1,) * (len(shape) - len(rows))) < sparsity
    bits = np.where(is_zero[..., None], np.uint8(0), bits)
    return np.ascontiguousarray(bits).view(dtype).reshape(shape)


@settings(max_examples=40, deadline=None)
@given(weights())
def test_any_bits_come_back_as_they_were_from_every_encoding(array):
    check_every_encoding(array)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(weights())
def test_many_more_bits_come_back_as_they_were(array):
    check_every_encoding(array)


def check_every_encoding(array):
    for packed in module.encodings(array).values():
        for result in (decoded(packed), unpacked(packed)):
            assert (result.shape, result.dtype) == (array.shape, array.dtype)
            np.testing.assert_array_equal(patterns(result), patterns(array))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_arithmetic_would_lose_is_kept(dtype):
    limits = ml_dtypes.finfo(DTYPES[dtype])
    special = [-0.0, limits.smallest_subnormal, -limits.max, np.inf, -np.inf]
    array = np.array([0.0, *special, 0.0], DTYPES[dtype])

    result = decoded(pack(array))

    np.testing.assert_array_equal(patterns(result), patterns(array))
    assert np.signbit(result[1])
    assert result[2] != 0 or dtype == "bfloat16"


@pytest.mark.parametrize(
    "gaps", [[254, 0], [255], [256, 1], [509, 510, 511], [100_000], []]
)
def test_gaps_of_any_length_are_kept(gaps):
    array = np.zeros(sum(gaps) + len(gaps) + 1000, "float32")
    array[np.cumsum(np.array(gaps, int) + 1) - 1] = 7.0

    np.testing.assert_array_equal(decoded(pack(array)), array)


def test_the_stream_of_a_small_weight_is_what_the_docstring_says():
    array = np.zeros((2, 300), "float32")
    array[0, 2], array[1, 0], array[1, 1] = 1.0, -2.0, 4.0

    packed = pack(array)

    assert (packed.positions, packed.values) == ("gaps", "codebook")
    content = zlib.decompress(packed.stream)
    assert list(content[:4]) == [2, 255, 42, 0]
    assert content[4:] == np.array([1.0, 4.0, -2.0], "<f4").tobytes() + bytes([0, 2, 1])
    assert (packed.position_bytes, packed.entries) == (4, 3)


def test_values_that_all_differ_are_stored_by_planes_of_bytes():
    array = np.arange(0x3F800000, 0x3F800000 + 1000, dtype="<u4").view("float32")

    packed = pack(array)

    assert packed.values == "planes"
    packed = module.encodings(array)["gaps", "planes", "float32"]
    content = zlib.decompress(packed.stream)
    assert content[:1000] == bytes(1000)
    assert content[1000:2000] == bytes(i % 256 for i in range(1000))
    assert content[2000:3000] == bytes(i // 256 for i in range(1000))
    assert content[3000:] == b"\x80" * 1000 + b"\x3f" * 1000


def magnitude_pruned(size, sparsity, seed=0):
    values = np.random.default_rng(seed).normal(size=size).astype("float32")
    threshold = np.quantile(np.abs(values), sparsity)
    return np.where(np.abs(values) > threshold, values, 0).astype("float32")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    "sparsity",
    # Between no zeros and half of them, and slow to code.
    [0.0, pytest.param(0.3, marks=pytest.mark.slow), 0.5, 0.8, 0.9, 0.95, 0.99, 0.999],
)
def test_streams_of_large_weights_are_within_a_tenth_of_the_bound(packing, sparsity):
    array = rounded(magnitude_pruned(200_000, sparsity), packing)

    size = len(pack(array).stream)

    codebook = 4 * 256 + 100 if "codebook" in packing else 100
    assert size <= 1.1 * bound_bytes(array, packing) + codebook


def test_whole_rows_of_zeros_cost_next_to_nothing():
    array = np.zeros((1000, 512), "float32")
    array[::10] = magnitude_pruned(51_200, 0.0).reshape(100, 512)

    positions = len(pack(array).stream) - len(pack(array[::10]).stream)

    assert positions < 2000 < bound_bytes(array, "lossless") - 4 * 51_200


def test_few_different_values_become_a_codebook_without_loss():
    array = rounded(magnitude_pruned(50_000, 0.8), "codebook4")

    packed = pack(array)

    assert (packed.values, packed.entries) == ("codebook", 16)
    np.testing.assert_array_equal(decoded(packed), array)


def test_encodings_that_do_not_pay_for_their_reader_are_left_out():
    few, many = np.tile(np.float32([0, 3]), 1000), magnitude_pruned(2000, 0.0)

    free = module.pack([few, many])
    dear = module.pack([few, many], cost_of_encoding=1000)

    assert [p.values for p in free] == ["codebook", "planes"]
    assert [p.values for p in dear] == ["planes", "planes"]
    assert len({p.positions for p in dear}) == 1
    for packed, array in zip(dear, [few, many], strict=True):
        np.testing.assert_array_equal(decoded(packed), array)


def test_no_weights_are_no_streams():
    assert module.pack([]) == []


def test_bound_is_bits_of_values_plus_entropy_of_the_mask():
    array = np.zeros(1000, "float32")
    array[:100] = 1.0
    entropy = 1000 * (0.1 * np.log2(10) + 0.9 * np.log2(1 / 0.9))

    bounds = [bound_bytes(array, packing) for packing in PACKINGS]

    expected = [(100 * bits + entropy) / 8 for bits in (32, 16, 8, 4)]
    np.testing.assert_allclose(bounds, expected)


@pytest.mark.parametrize(("value", "bound"), [(0.0, 0), (3.0, 4000)])
def test_bound_of_one_kind_of_weight_has_no_mask(value, bound):
    assert bound_bytes(np.full(1000, value, "float32"), "lossless") == bound


def test_half_precision_values_are_those_of_numpy():
    array = magnitude_pruned(10_000, 0.5)
    array[:3] = [-0.0, 1e-9, 70_000]

    result = rounded(array, "fp16")

    with np.errstate(over="ignore"):
        expected = array.astype("float16").astype("float32")
    np.testing.assert_array_equal(result, expected)
    assert not np.signbit(result[0])
    assert result.dtype == "float32"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_are_not_rounded_to_half_precision(dtype):
    array = np.array([0.1, 0.0, 65504.0], DTYPES[dtype])

    assert rounded(array, "fp16") is array


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@pytest.mark.parametrize(
    ("packing", "entries"), [("codebook4", 16), ("codebook8", 256)]
)
def test_shared_values_are_as_good_as_those_of_scikit_learn(packing, entries, sparsity):
    array = magnitude_pruned(int(5000 / (1 - sparsity)), sparsity)
    values = array[array != 0].astype("float64")[:, None]
    reference = KMeans(entries, n_init=1, random_state=0).fit(values)

    result = rounded(array, packing)

    np.testing.assert_array_equal(result == 0, array == 0)
    assert np.unique(result[result != 0]).size <= entries
    assert np.sum((result - array) ** 2) <= 1.1 * reference.inertia_


def test_clusters_that_are_apart_are_shared_by_their_means():
    means = np.linspace(-4, 4, 16)
    array = np.concatenate([means - 0.01, means, means + 0.01, np.zeros(48)])

    result = rounded(array, "codebook4")

    np.testing.assert_allclose(result, [*means, *means, *means, *np.zeros(48)])


def test_every_value_gets_its_nearest_shared_value_and_twice_the_same():
    array = magnitude_pruned(5000, 0.5)

    result = rounded(array, "codebook4")

    centers = np.unique(result[result != 0])
    values = array[array != 0]
    nearest = centers[np.abs(values[:, None] - centers).argmin(axis=1)]
    np.testing.assert_array_equal(result[array != 0], nearest)
    np.testing.assert_array_equal(rounded(array, "codebook4"), result)


def test_rounding_leaves_its_input_and_values_that_fit_alone():
    array = np.array([[0.0, 0.3], [-0.7, 0.3]], "float32")
    before = array.copy()

    result = rounded(array, "codebook4")

    np.testing.assert_array_equal(result, before)
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("packing", ["codebook8", "codebook4"])
def test_infinities_are_in_the_way_of_a_codebook(packing):
    array = np.arange(1000, dtype="float32")
    array[7] = np.inf

    np.testing.assert_array_equal(rounded(array, packing), array)
