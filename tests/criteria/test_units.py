"""Criteria that score output channels, against scikit-learn and hand-made values."""

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

import kprune
from kprune.criteria.units import UnitCriterion


@pytest.mark.parametrize("shape", [(7, 4), (3, 3, 2, 6), (5, 1)])
def test_geometric_median_sums_the_distances_to_all_filters(shape):
    kernel = np.random.default_rng(0).normal(size=shape).astype("float32")

    scores = kprune.GeometricMedian()(kernel)

    filters = kernel.reshape(-1, shape[-1]).T.astype("float64")
    expected = pairwise_distances(filters).sum(axis=0)
    np.testing.assert_allclose(
        scores, np.broadcast_to(expected, shape), rtol=1e-5, atol=1e-6
    )


def test_geometric_median_removes_the_filter_in_the_middle_not_the_smallest():
    kernel = np.array([[0.1, 5.0, 9.0]], "float32")

    (mask,) = kprune.compute_masks(
        [kernel], 1 / 3, criterion="geometric_median", granularity="channel"
    )

    np.testing.assert_array_equal(mask, [[1, 0, 1]])


@pytest.mark.parametrize(
    "criterion",
    [
        kprune.ActivationMean(),
        kprune.ActivationPercentile(),
        kprune.APoZ(),
        kprune.BatchNormScale(),
        kprune.GeometricMedian(),
    ],
)
def test_scores_of_channels_have_no_meaning_for_single_weights(criterion):
    with pytest.raises(ValueError, match="scores whole units .*Element.*Channel"):
        list(kprune.compute_masks([np.ones((2, 2))], 0.5, criterion=criterion))


@pytest.mark.parametrize("percentile", [-1, 101])
def test_percentile_outside_its_range_is_refused(percentile):
    with pytest.raises(ValueError, match=f"percentile={percentile} must be from 0"):
        kprune.ActivationPercentile(percentile)


def test_base_class_names_the_subclass_that_lacks_scores():
    class Half(UnitCriterion):
        pass

    with pytest.raises(NotImplementedError, match="Half defines no `unit_scores`"):
        Half()(np.ones((2, 2)))
