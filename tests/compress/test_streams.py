import ml_dtypes
import numpy as np
import pytest

from kprune import registry
from kprune.compress import ArchiveError
from kprune.compress.coders import Rans
from kprune.compress.packing import Reader, Writer
from kprune.compress.positions import from_gaps, mask_bits, to_gaps
from kprune.compress.streams import read_arrays, write_arrays
from tests.compress.streams_of import shared_weights

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "shared": shared_weights((60, 50)),
    "shared and dense": shared_weights((3, 3, 8, 16), density=1.0),
    "sparse": np.where(RANDOM.random((80, 40)) < 0.1, RANDOM.normal(size=(80, 40)), 0),
    "dense": RANDOM.normal(size=(30, 20)).astype("float32"),
    "float16 values": RANDOM.normal(size=300).astype("float16").astype("float32"),
    "float16": RANDOM.normal(size=(5, 4)).astype("float16"),
    "bfloat16": RANDOM.normal(size=(5, 4)).astype(ml_dtypes.bfloat16),
    "int8": RANDOM.integers(-128, 128, (20, 20)).astype("int8"),
    "bool": RANDOM.random((20, 20)) < 0.3,
    "int64": np.arange(40),
    "scalar": np.array(7.5, "float32"),
    "zeros": np.zeros((40, 30), "float32"),
    "empty": np.zeros((0, 4), "float32"),
    "no nonzero but one": np.eye(100, 1, dtype="float32"),
    "special": np.array([np.nan, np.inf, -np.inf, 1e-45, 6e4, 7e4, 0], "float32"),
    "more values than a coder takes": np.repeat(RANDOM.normal(size=5000), 20),
}


def there_and_back(arrays, coders=("rans",)):
    writer = Writer()
    coders = [registry.get("coders", name) for name in coders]
    sizes = write_arrays(writer, arrays, coders)
    reader = Reader(writer.data)
    specs = [(array.shape, array.dtype) for array in arrays.values()]
    read = read_arrays(reader, specs)
    reader.finish()
    return writer, dict(zip(arrays, sizes, strict=True)), read


def assert_same(array, expected):
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_every_array_comes_back_bit_for_bit(array):
    _, _, (read,) = there_and_back({"w": array})

    assert_same(read, array)


@pytest.mark.parametrize("coders", [(n,) for n in registry.keys("coders")], ids=str)
def test_arrays_of_all_types_share_a_file_whatever_the_coder(coders):
    writer, _, read = there_and_back(ARRAYS, coders)

    for array, expected in zip(read, ARRAYS.values(), strict=True):
        assert_same(array, expected)
    assert sum(writer.sizes.values()) == len(writer.data)


@pytest.mark.parametrize("levels", [15, 31])
@pytest.mark.parametrize("density", [0.05, 0.1, 0.3])
def test_coded_streams_are_within_two_per_cent_of_the_entropy(levels, density):
    array = shared_weights((784, 300), density, levels)

    writer, sizes, _ = there_and_back({"w": array})

    coded = sizes["w"].positions + sizes["w"].indices
    bound = sizes["w"].positions_bound + sizes["w"].indices_bound
    assert sizes["w"].nonzeros == np.count_nonzero(array)
    assert coded == writer.sizes["positions"] + writer.sizes["indices"]
    assert bound <= coded < 1.01 * bound


def test_sizes_beside_the_streams_are_small():
    writer, sizes, _ = there_and_back({"w": shared_weights((784, 300))})

    # All entries are multiples of 1/16 and so are float16: 30 of 2 bytes.
    assert sizes["w"].codebook == 30
    assert writer.sizes["codebooks"] <= 60
    assert writer.sizes["header"] < 20
    assert "tables" not in writer.sizes


def test_columns_that_are_alike_are_coded_together():
    array = shared_weights((400, 300), density=0.5)
    array[:, np.random.default_rng(0).random(300) < 0.9] = 0  # Whole units are gone.

    writer, sizes, (read,) = there_and_back({"w": array})

    assert_same(read, array)
    assert sizes["w"].positions < 0.6 * sizes["w"].positions_bound


def test_float16_values_take_two_bytes():
    writer, *_ = there_and_back({"w": ARRAYS["float16 values"]})

    assert len(writer.data) <= 2 * 300 + 20


def test_the_smallest_of_several_coders_is_taken():
    arrays = {"w": shared_weights((100, 100))}
    sizes = {
        name: len(there_and_back(arrays, (name,))[0].data)
        for name in registry.keys("coders")
    }

    best, *_ = there_and_back(arrays, registry.keys("coders"))

    assert len(best.data) <= min(sizes.values())
    assert max(sizes, key=sizes.get) == "raw"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_gaps_lead_back_to_the_nonzeros(size, density):
    mask = np.random.default_rng(size).random(size) < density

    for escape in (1, 2, 64):
        symbols = to_gaps(mask, escape)

        positions = from_gaps(symbols, escape, size)
        np.testing.assert_array_equal(positions, mask.nonzero()[0])
        assert len(symbols) <= size


def test_gaps_are_written_as_the_paper_writes_them():
    # Zeros before each nonzero: 1, 0, 9. With an escape of 4: 9 = 4 + 4 + 1.
    mask = np.isin(np.arange(13), [1, 2, 12])
    symbols = np.array([1, 0, 4, 4, 1])

    np.testing.assert_array_equal(to_gaps(mask, 4), symbols)
    np.testing.assert_array_equal(from_gaps(symbols, 4, 13), [1, 2, 12])
    with pytest.raises(ArchiveError, match="of 12 weights lead to number 12"):
        from_gaps(symbols, 4, 12)


def test_entropy_of_a_mask_is_that_of_its_elements():
    # H(1/4) = 1/4 * 2 + 3/4 * log2(4/3) = 0.811278 bits.
    assert mask_bits(400, 100) == pytest.approx(400 * 0.811278, rel=1e-5)
    assert mask_bits(50, 0) == mask_bits(50, 50) == 0.0


def test_a_shape_of_another_size_is_noticed():
    writer = Writer()
    write_arrays(writer, {"w": ARRAYS["dense"]}, [Rans()])

    with pytest.raises(ArchiveError):
        reader = Reader(writer.data)
        read_arrays(reader, [((30, 21), "float32")])
        reader.finish()
