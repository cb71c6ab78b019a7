import numpy as np
import pytest

from kprune.compress.kmeans import borders, k_means, midpoints


def test_rounds_are_those_done_by_hand():
    values = np.array([1.0, 2.0, 3.0, 9.0])
    start = np.array([2.0, 1.0])

    # Borders at 1.5, 2.83 and 3.75: the centroids are (1, 4.67), (1.5, 6), (2, 9).
    rounds = [k_means(values, start, iterations) for iterations in (1, 2, 3, 9)]

    np.testing.assert_allclose(rounds[0], [1, 14 / 3])
    np.testing.assert_allclose(rounds[1], [1.5, 6])
    np.testing.assert_allclose(rounds[2], [2, 9])
    np.testing.assert_allclose(rounds[3], [2, 9])


def test_centroid_that_lost_its_values_goes_to_the_one_farthest_from_its_own():
    values = np.array([0.0, 1.0, 2.0, 20.0])

    # Nothing is nearest to 40, so it is put onto 20, which is 14.25 off the mean.
    centroids = k_means(values, np.array([5.0, 40.0]), 9)

    np.testing.assert_array_equal(centroids, [1, 20])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_value_lies_within_the_borders_of_its_nearest_centroid(dtype):
    random = np.random.default_rng(0)
    values = np.sort(random.normal(size=500)).astype(dtype)
    centroids = np.sort(random.normal(size=9)).astype(dtype)

    ends = borders(values, centroids)

    exact = np.abs(values[:, None].astype("float64") - centroids.astype("float64"))
    np.testing.assert_array_equal(
        np.repeat(np.arange(9), np.diff(ends)), np.argmin(exact, axis=1)
    )


def test_value_halfway_belongs_to_the_lower_centroid():
    halfway = midpoints(np.array([1.0, 2.0], "float32"), np.dtype("float32"))
    between = midpoints(np.array([1, 1 + 2**-23], "float32"), np.dtype("float32"))

    assert halfway == 1.5
    assert between == 1  # The largest float32 up to the middle.
