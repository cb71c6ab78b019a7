"""Criteria that look at weights alone, against loops and hand-made values."""

import numpy as np
import pytest

import kprune


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_magnitude_and_squared_magnitude_rank_filters_by_their_norms():
    kernel = np.float32([[3, 0, -2.5], [0, -4, 2.5]])  # L1 3, 4, 5; L2 3, 4, 3.54

    masks = [
        next(
            kprune.compute_masks(
                [kernel], 2 / 3, criterion=criterion, granularity="channel"
            )
        )
        for criterion in ("magnitude", "squared_magnitude")
    ]

    np.testing.assert_array_equal(masks[0], [[0, 0, 1]] * 2)
    np.testing.assert_array_equal(masks[1], [[0, 1, 0]] * 2)


@pytest.mark.parametrize("value", [1e30, 1e-30])
def test_squares_of_large_and_small_weights_are_told_apart(value):
    scores = kprune.SquaredMagnitude()(np.float32([value, 2 * value]))

    np.testing.assert_allclose(scores[1] / scores[0], 4, rtol=1e-6)


@pytest.mark.parametrize("shape", [(9,), (5, 4), (2, 3, 2, 2)])
def test_layer_adaptive_divides_by_all_that_is_not_smaller(shape):
    weight = normal(shape)

    scores = kprune.LayerAdaptive()(weight)

    squares = weight.astype("float64") ** 2
    for place in np.ndindex(shape):
        expected = squares[place] / squares[squares >= squares[place]].sum()
        np.testing.assert_allclose(scores[place], expected, rtol=1e-6)


def test_layer_adaptive_lets_the_lower_index_of_equal_weights_stay():
    scores = kprune.LayerAdaptive()(np.float32([[2, -2], [0, 2]]))

    np.testing.assert_allclose(scores, [[1, 1 / 2], [0, 1 / 3]])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_layer_adaptive_goes_from_the_largest_down_bit_for_bit(share, dtype):
    rng = np.random.default_rng(0)
    weight = np.concatenate([rng.normal(size=300), rng.integers(-4, 5, 200) / 2])
    weight = rng.permutation(weight * (rng.random(500) < share)).astype(dtype)

    scores = kprune.LayerAdaptive()(weight)

    energy, total = weight.astype("float32").astype("float64") ** 2, 0.0
    expected = np.zeros(500)
    for place in sorted(np.flatnonzero(weight), key=lambda i: (-energy[i], i)):
        total += energy[place]
        expected[place] = energy[place] / total
    np.testing.assert_array_equal(scores, expected)


def test_layer_adaptive_ranks_weights_that_differ_in_one_bit():
    bits = np.uint32([0x3F800001, 0x3F800000, 0x3F80FFFF, 0x3F810000, 1, 2, 0x7F7FFFFF])

    scores = kprune.LayerAdaptive()(bits.view("float32"))

    np.testing.assert_array_equal(np.argsort(scores), np.argsort(bits))


def test_layer_adaptive_does_not_see_how_large_a_layer_s_weights_are():
    weights = [normal((20, 10)), normal((10, 30), seed=1)]

    plain, scaled = (
        kprune.compute_masks(w, 0.8, criterion="layer_adaptive", scope="global")
        for w in (weights, [1e3 * weights[0], 1e-3 * weights[1]])
    )

    for one, other in zip(plain, scaled, strict=True):
        np.testing.assert_array_equal(one, other)


def test_random_scores_are_the_same_at_each_update_and_differ_between_weights():
    random, weight = kprune.Random(3), normal((20, 10))

    scores = random(weight, place=0)

    np.testing.assert_array_equal(scores, random(2 * weight, place=0))
    for other in (
        random(weight, place=1),
        kprune.Random(4)(weight, place=0),
        random(weight.reshape(10, 20), place=0).reshape(20, 10),
    ):
        assert abs(np.corrcoef(scores.ravel(), other.ravel())[0, 1]) < 0.25


def test_random_scores_are_uniform():
    scores = kprune.Random()(np.zeros((200, 200), "float32"), place=0)

    counts, _ = np.histogram(scores, bins=4, range=(0, 1))
    np.testing.assert_allclose(counts, 10_000, rtol=0.05)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None])
def test_seed_that_is_no_count_is_refused(seed):
    with pytest.raises(ValueError, match="must be a whole number of 0 or more"):
        kprune.Random(seed)


def test_seed_may_be_a_number_of_numpy():
    assert kprune.Random(np.int64(3)) == kprune.Random(3)
