import itertools

import numpy as np
import pytest

import kprune
from kprune.granularity import base, tiled


def tile_numbers(shape, tile):
    """The number of each weight's tile, by integer division of its indices."""
    tile = np.minimum(tile, shape)
    places = [i // t for i, t in zip(np.indices(shape), tile, strict=True)]
    counts = [-(-n // t) for n, t in zip(shape, tile, strict=True)]
    return np.ravel_multi_index(places, counts)


CASES = [
    ((8, 3), (4, 1)),
    ((7, 3), (4, 1)),
    ((3, 5), (16, 1)),
    ((5, 7), (2, 3)),
    ((40, 40), (20, 17)),
    ((2, 3, 6, 5), (1, 1, 4, 2)),
    ((2, 3, 4, 5), (2, 3, 1, 1)),
    ((2, 3, 4, 5), (2, 3, 4, 1)),
    ((9,), (4,)),
]


@pytest.mark.parametrize(("shape", "tile"), CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiles_are_the_boxes_that_indices_fall_into(shape, tile, dtype):
    scores = np.random.default_rng(0).normal(size=shape).astype(dtype)
    owner = tile_numbers(shape, tile)
    sizes = np.bincount(owner.ravel())

    units = tiled(scores, tile)

    expected = np.bincount(owner.ravel(), scores.ravel()) / sizes
    np.testing.assert_allclose(units.scores, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.broadcast_to(units.sizes, sizes.shape), sizes)
    assert units.scores.dtype == dtype
    for seed in range(3):
        keep = np.random.default_rng(seed).random(len(sizes)) < 0.4
        mask = units.expand(keep)
        np.testing.assert_array_equal(mask, keep[owner])
        assert mask.flags.c_contiguous


@pytest.mark.parametrize(("shape", "tile"), CASES)
def test_a_tile_is_left_if_one_of_its_weights_is(shape, tile):
    mask = np.random.default_rng(1).random(shape) < 0.2
    owner = tile_numbers(shape, tile)

    kept = tiled(np.zeros(shape, "float32"), tile).kept(mask)

    np.testing.assert_array_equal(
        kept, np.bincount(owner[mask], minlength=len(kept)) > 0
    )


@pytest.fixture(params=[None, 40], ids=["whole", "in bands"])
def band(request, monkeypatch):
    """Lets arrays be worked on in parts that are far smaller than usual."""
    if request.param:
        monkeypatch.setattr(base, "_BAND", request.param)


@pytest.mark.parametrize("rest", [0, 1, 3])
@pytest.mark.parametrize("length", [2, 3, 4, 6, 8, 12, 16, 24])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.usefixtures("band")
def test_runs_of_any_length_along_the_outputs(dtype, rows, length, rest):
    rng = np.random.default_rng(length)
    shape = (2, 7, 5 * length + rest % length)
    scores = rng.normal(size=shape).astype(dtype)
    owner = tile_numbers(shape, (1, rows, length))

    units = tiled(scores, (1, rows, length))

    for number in range(len(units.scores)):
        own = scores[owner == number].astype("float64")
        tolerance = 1e-6 if dtype == "float32" else 1e-2
        assert units.scores[number] == pytest.approx(own.mean(), abs=tolerance)
    keep, mask = rng.random(len(units.scores)) < 0.5, rng.random(shape) < 0.1
    np.testing.assert_array_equal(units.expand(keep), keep[owner])
    left = np.bincount(owner[mask], minlength=len(keep)) > 0
    for order in "CF":
        np.testing.assert_array_equal(units.kept(np.array(mask, order=order)), left)


@pytest.mark.parametrize("length", [2, 4, 7, 16])
@pytest.mark.usefixtures("band")
def test_a_short_run_of_outputs_is_summed_up_from_the_left(length):
    scores = np.random.default_rng(0).normal(size=(9, 6 * length)).astype("float32")

    found = tiled(scores, (1, length)).scores

    runs = scores.reshape(-1, length).T
    total = runs[0]
    for place in runs[1:]:
        total = total + place
    np.testing.assert_array_equal(found, total / np.float32(length))


def test_tiles_of_single_weights_are_not_the_scores_themselves():
    scores = np.ones((3, 4), "float32")

    units = tiled(scores, (1, 1))

    assert not np.shares_memory(units.scores, scores)


def test_bands_cover_an_array_once():
    for shape, weights in itertools.product([(7,), (1, 5, 3), (4, 6), (1, 1)], [1, 9]):
        for size in (1, 8, 20, 1 << 20):
            seen = np.zeros(shape, int)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(base, "_BAND", size)
                for part in base.bands(shape, weights):
                    seen[part] += 1

            assert (seen == 1).all()


def test_sizes_are_one_number_where_all_tiles_are_whole():
    assert tiled(np.ones((8, 6)), (4, 3)).sizes == 12
    assert tiled(np.ones((9, 6)), (4, 3)).sizes.tolist() == [12, 12, 12, 12, 3, 3]


# Masks written out


def test_block_mask_keeps_the_heaviest_block():
    scores = np.array([[1, 1, 5, 5], [1, 1, 5, 5.0]])

    mask = kprune.compute_mask(scores, 0.5, granularity=kprune.Block(2, 2))

    np.testing.assert_array_equal(mask, [[0, 0, 1, 1]] * 2)


def test_rows_of_a_block_run_along_the_inputs():
    scores = np.array([[1, 9], [2, 1], [9, 3], [9, 9.0]])

    mask = kprune.compute_mask(scores, 0.5, granularity=kprune.Block(2, 1))

    np.testing.assert_array_equal(mask, [[0, 0], [0, 0], [1, 1], [1, 1]])


def test_a_block_at_the_edge_is_ranked_by_the_mean_over_its_own_weights():
    scores = np.array([[3, 4], [3, 4], [3, 4], [5, 1.0]])

    mask = kprune.compute_mask(scores, 2 / 8, granularity=kprune.Block(3, 1))

    # To remove 2 of 8: the edge of 1 (mean 1) goes, the next block would make it 4.
    np.testing.assert_array_equal(mask, [[1, 1], [1, 1], [1, 1], [1, 0]])


@pytest.mark.parametrize(
    ("pooling", "expected"), [("mean", [[1, 0], [1, 0]]), ("max", [[0, 1], [0, 1]])]
)
def test_a_block_is_ranked_by_its_mean_or_by_its_best_weight(pooling, expected):
    scores = np.array([[4, 1], [4, 6.0]])
    block = kprune.Block(2, 1, pooling=pooling)

    mask = kprune.compute_mask(scores, 0.5, granularity=block)

    np.testing.assert_array_equal(mask, expected)


def test_the_best_weight_of_a_block_at_the_edge_is_looked_for_within_it():
    scores = np.array([[3, 2], [1, 7], [5, 2.0]])
    block = kprune.Block(2, 1, pooling="max")

    mask = kprune.compute_mask(scores, 0.5, granularity=block)

    # Maxima 3, 7 (of two weights each), 5 and 2 (of one): 2 and 3 go.
    np.testing.assert_array_equal(mask, [[0, 1], [0, 1], [1, 0]])


def test_a_pooling_that_is_unknown_is_refused():
    with pytest.raises(ValueError, match="pooling='sum' must be 'mean' or 'max'"):
        kprune.Block(2, 1, pooling="sum")


def test_blocks_of_a_convolution_lie_within_one_place_of_its_kernel():
    scores = np.zeros((2, 1, 4, 1))
    scores[0, 0, :, 0] = [1, 1, 4, 4]
    scores[1, 0, :, 0] = [3, 3, 2, 2]

    mask = kprune.compute_mask(scores, 0.5, granularity=kprune.Block(2, 1))

    np.testing.assert_array_equal(mask[:, 0, :, 0], [[0, 0, 1, 1], [1, 1, 0, 0]])


SCORES = np.array([[1, 2, 9], [3, 9, 1.0]])


@pytest.mark.parametrize(
    ("granularity", "sparsity", "expected"),
    [
        (kprune.Vector(-2), 1 / 3, [[0, 1, 1], [0, 1, 1]]),
        (kprune.Vector(-1), 1 / 2, [[0, 0, 0], [1, 1, 1]]),
        (kprune.Channel(-1), 1 / 3, [[0, 1, 1], [0, 1, 1]]),
        (kprune.Channel(-2), 1 / 2, [[0, 0, 0], [1, 1, 1]]),
        (kprune.Kernel(), 1 / 2, [[0, 0, 1], [1, 1, 0]]),
    ],
    ids=repr,
)
def test_lines_and_channels_of_a_matrix(granularity, sparsity, expected):
    mask = kprune.compute_mask(SCORES, sparsity, granularity=granularity)

    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("granularity", "units"),
    [
        (kprune.Vector(-2), 2 * 3 * 5),
        (kprune.Vector(-1), 2 * 3 * 4),
        (kprune.Kernel(), 4 * 5),
        (kprune.Channel(-1), 5),
        (kprune.Channel(-2), 4),
        (kprune.Block(4, 5), 2 * 3),
        (kprune.Block(3, 2), 2 * 3 * 2 * 3),
    ],
    ids=repr,
)
def test_number_of_units_of_a_convolution(granularity, units):
    scores = np.ones((2, 3, 4, 5), "float32")

    assert granularity.units(scores).scores.size == units


@pytest.mark.parametrize(
    "granularity",
    [kprune.Block(3, 1), kprune.Vector(), kprune.Kernel(), kprune.Channel(-2)],
    ids=repr,
)
def test_a_vector_of_weights_is_one_input_of_many_outputs(granularity):
    scores = np.array([3, 1, 2.0])

    keep = granularity.units(scores)

    if granularity == kprune.Channel(-2):
        np.testing.assert_array_equal(keep.scores, [2])
    else:
        np.testing.assert_array_equal(keep.scores, scores)


@pytest.mark.parametrize(
    ("rows", "columns"), [(0, 1), (1, -1), (1.5, 1), (4, None), (True, 1)]
)
def test_blocks_without_a_size_are_refused(rows, columns):
    with pytest.raises(ValueError, match="must be an int of 1 or more"):
        kprune.Block(rows, columns)


@pytest.mark.parametrize("make", [kprune.Channel, kprune.Vector, kprune.NofM])
def test_axes_other_than_inputs_and_outputs_are_refused(make):
    with pytest.raises(ValueError, match=r"axis=0 must be -1 \(the outputs\) or -2"):
        make(axis=0)


# Counts


@pytest.mark.parametrize("scope", ["layer_wise", "global"])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.83])
@pytest.mark.parametrize("block", [(4, 1), (3, 2), (16, 16)])
def test_zeros_are_exact_to_half_a_block_whatever_divides(scope, sparsity, block):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=s) for s in ((33, 17), (64, 10), (3, 3, 7, 9))]

    masks = list(
        kprune.compute_masks(
            weights, sparsity, granularity=kprune.Block(*block), scope=scope
        )
    )

    groups = [masks] if scope == "global" else [[mask] for mask in masks]
    for group in groups:
        zeros = sum(np.count_nonzero(~mask) for mask in group)
        size = sum(mask.size for mask in group)
        assert abs(zeros - sparsity * size) <= block[0] * block[1] / 2 + 0.5


@pytest.mark.parametrize(
    "granularity",
    [kprune.Block(4, 1), kprune.Block(3, 2), kprune.Vector(), kprune.Kernel()],
    ids=repr,
)
def test_masks_nest_as_sparsity_grows_over_updates(granularity):
    rng = np.random.default_rng(0)
    weights, masks = [rng.normal(size=s) for s in ((13, 7), (3, 3, 5, 6))], None

    for sparsity in (0.0, 0.3, 0.31, 0.6, 0.9):
        weights = [w + rng.normal(size=w.shape) for w in weights]
        new = list(
            kprune.compute_masks(
                weights, sparsity, granularity=granularity, masks=masks
            )
        )
        for before, after in itertools.zip_longest(masks or new, new):
            assert (before >= after).all()
        masks = new


def test_of_a_block_that_stays_no_removed_weight_comes_back():
    mask = np.array([[True], [False], [True], [True]])

    (new,) = kprune.compute_masks(
        [np.array([[9.0], [0], [1], [1]])],
        0.5,
        granularity=kprune.Block(2, 1),
        masks=[mask],
    )

    np.testing.assert_array_equal(new.T, [[1, 0, 0, 0]])
