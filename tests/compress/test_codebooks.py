import ml_dtypes
import numpy as np
import pytest
from sklearn.cluster import KMeans

from kprune import registry
from kprune.compress.codebooks import (
    CodebookInitialization,
    codebook,
    existing_codebook,
)

NAMES = registry.keys("codebook_initializations")


def pruned_kernel(size=5000, zeros=0.5, seed=0):
    """Normal weights of which the smallest are zero, as magnitude pruning leaves."""
    weights = np.random.default_rng(seed).normal(size=size).astype("float32")
    weights[np.abs(weights) < np.quantile(np.abs(weights), zeros)] = 0
    return weights


def inertia(weights, centroids, indices):
    return np.sum((weights.astype("float64") - centroids[indices]) ** 2)


def test_small_codebook_is_what_one_finds_by_eye():
    weights = np.array([[0.0, 0.9, 1.1], [5.0, -3.0, 0.0]], "float32")

    centroids, indices = codebook(weights, bits=1)

    # The start, -3 and 5, has its border at 1, and so have the two means.
    np.testing.assert_allclose(centroids, [0, -1.05, 3.05], rtol=1e-6)
    np.testing.assert_array_equal(indices, [[0, 1, 2], [2, 1, 0]])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [1, 3, 4])
def test_k_means_is_that_of_scikit_learn(name, bits):
    weights = pruned_kernel(1000, zeros=0.1, seed=1)
    values = np.sort(weights[weights != 0])
    start = registry.get("codebook_initializations", name)(
        values, 2**bits, np.random.default_rng(3)
    )
    assert _all_used(values, start), "scikit-learn moves unused centroids elsewhere"

    centroids, indices = codebook(weights, bits, name, seed=3)

    column = values[:, None].astype("float64")
    start = np.asarray(start, "float64")[:, None]
    reference = KMeans(2**bits, init=start, n_init=1, tol=0, max_iter=300).fit(column)
    expected = np.sort(reference.cluster_centers_[:, 0])
    np.testing.assert_allclose(centroids[1:], expected, rtol=1e-5, atol=1e-6)
    ours = inertia(weights, centroids, indices)
    np.testing.assert_allclose(ours, reference.inertia_, rtol=1e-6)


def _all_used(values, start):
    nearest = np.argmin(np.abs(values[:, None] - np.asarray(start)[None]), axis=1)
    return len(np.unique(nearest)) == len(start)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_each_weight_has_the_index_of_the_nearest_centroid(name, seed):
    weights = pruned_kernel(2000, seed=seed).reshape(20, 100)

    centroids, indices = codebook(weights, 4, name)

    assert indices.shape == weights.shape
    assert centroids[0] == 0
    assert np.all(np.diff(centroids[1:]) > 0)
    np.testing.assert_array_equal(indices == 0, weights == 0)
    distance = np.abs(weights.astype("float64") - centroids[indices])
    nearest = np.min(
        np.abs(weights[..., None].astype("float64") - centroids[1:]), axis=-1
    )
    np.testing.assert_array_equal(distance[weights != 0], nearest[weights != 0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_no_centroid_is_wasted(name, zeros):
    weights = pruned_kernel(zeros=zeros)
    weights[7] = 40.0  # far away from all others

    centroids, indices = codebook(weights, 5, name)

    assert len(centroids) == 33
    assert set(np.unique(indices)) - {0} == set(range(1, 33))


@pytest.mark.parametrize("bits", [5, 8])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_cube_root_start_loses_no_more_than_any_of_the_paper(zeros, bits):
    weights = pruned_kernel(50_000, zeros)

    losses = {name: inertia(weights, *codebook(weights, bits, name)) for name in NAMES}

    best = min(losses[name] for name in ("linear", "density", "random"))
    assert losses["cube_root"] < (1.02 if bits == 5 else 0.9) * best


def test_more_bits_lose_less():
    weights = pruned_kernel()

    losses = [inertia(weights, *codebook(weights, bits)) for bits in range(1, 9)]

    assert all(more < less / 2 for less, more in zip(losses, losses[1:], strict=False))


@pytest.mark.parametrize("name", NAMES)
def test_few_distinct_values_are_kept_bit_for_bit(name):
    values = np.array([-0.3, 0.0, 0.1, 1e-30, 7.0], "float32")
    weights = np.random.default_rng(0).choice(values, (30, 40))

    centroids, indices = codebook(weights, 2, name)

    np.testing.assert_array_equal(centroids[indices], weights)
    np.testing.assert_array_equal(centroids, values[[1, 0, 3, 2, 4]])


def test_centroid_never_is_zero():
    weights = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 50.0], "float32")

    centroids, indices = codebook(weights, 1)

    assert 0 not in centroids[1:]
    assert 0 not in indices
    np.testing.assert_array_equal(centroids[1:], [-1, 50])


def test_same_seed_gives_the_same_codebook_and_another_seed_another():
    weights = pruned_kernel()

    # Given time, they all find the one best codebook of so even a distribution.
    first, again, other = (
        codebook(weights, 4, "random", iterations=2, seed=s)[0] for s in (1, 1, 2)
    )

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_codebook_of_256_values_and_zero_needs_wider_indices():
    weights = pruned_kernel()

    narrow, wide = (codebook(weights, bits) for bits in (7, 8))

    assert (len(narrow[0]), narrow[1].dtype) == (129, "uint8")
    assert (len(wide[0]), wide[1].dtype, wide[1].max()) == (257, "uint16", 256)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"])
def test_floats_of_every_width_are_taken(dtype):
    weights = pruned_kernel().astype(dtype)

    centroids, indices = codebook(weights, 6)

    assert centroids.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_allclose(centroids[indices], weights.astype("float32"), atol=0.08)


@pytest.mark.parametrize("weights", [np.zeros((3, 4), "float32"), np.zeros((0, 2))])
def test_nothing_but_zeros_gives_the_zero_alone(weights):
    centroids, indices = codebook(weights, 5)

    np.testing.assert_array_equal(centroids, [0])
    np.testing.assert_array_equal(indices, np.zeros(weights.shape))


def test_weights_are_not_changed():
    weights = pruned_kernel()
    before = weights.copy()

    codebook(weights, 3)

    np.testing.assert_array_equal(weights, before)


def test_iterations_end_the_search():
    weights = pruned_kernel()

    losses = [inertia(weights, *codebook(weights, 4, iterations=n)) for n in (1, 3, 99)]

    assert losses[0] > losses[1] > losses[2]


def test_existing_sharing_is_found_again():
    weights = pruned_kernel().reshape(50, 100)
    centroids, indices = codebook(weights, 5)

    again = existing_codebook(centroids[indices])

    np.testing.assert_array_equal(again[0], centroids)
    np.testing.assert_array_equal(again[1], indices)


def test_existing_sharing_of_very_many_values_is_none():
    with pytest.raises(ValueError, match="More than 4,096 distinct values"):
        existing_codebook(pruned_kernel(20_000))


def test_initialization_of_ones_own_is_used():
    class Given(CodebookInitialization):
        def __call__(self, values, number, random):
            return np.array([-1.0, 2.0])

    weights = np.array([-1.5, -1.0, 1.0, 3.0], "float32")

    centroids, _ = codebook(weights, 1, Given())

    np.testing.assert_array_equal(centroids, [0, -1.25, 2])


@pytest.mark.parametrize("bits", [0, 13, 2.5, True, "5"])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match="must be an int from 1 to 12"):
        codebook(np.ones(3), bits)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="1 of 3 weights are NaN or infinite"):
        codebook(np.array([1.0, bad, 0.0]), 2)


def test_unknown_initialization_is_refused():
    with pytest.raises(ValueError, match="'kmeans\\+\\+' is none of the registered"):
        codebook(np.ones(3), 2, "kmeans++")
    with pytest.raises(ValueError, match="iterations=0 must be 1 or more"):
        codebook(np.ones(3), 2, iterations=0)
