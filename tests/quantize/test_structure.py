import keras
import numpy as np
import pytest

from kprune.quantize.structure import (
    StructureConstraint,
    count_clusters,
    equalized,
)


@pytest.mark.parametrize(
    ("kernel", "count"),
    [
        ([[1.0, 1.0], [2.0, 2.0]], 2),
        ([[1.0, 1.0], [0.0, 0.0]], 2),
        ([[1.0, 2.0], [3.0, 4.0]], 0),
        ([[0.0, 2.0], [0.0, 4.0]], 0),
        ([[0.0, 0.0], [0.0, 0.0]], 0),
        ([[1.0, 1.0], [1.0, 1.0]], 0),
        (np.repeat(np.arange(1.0, 256.0), 2), 255),
        (np.repeat(np.arange(1.0, 257.0), 2), 0),
    ],
)
def test_kernel_is_clustered_if_int8_can_tell_its_shared_values_apart(kernel, count):
    assert count_clusters(np.array(kernel)) == count


def test_members_of_a_cluster_become_their_mean():
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(6, 5)).astype("float32")
    members = generator.integers(0, 4, (6, 5)).astype("uint8")

    result = np.asarray(equalized(weight, members, 4))

    for cluster in range(4):
        inside = members == cluster
        np.testing.assert_allclose(result[inside], weight[inside].mean(), rtol=1e-5)
        assert len(np.unique(result[inside])) == 1


def test_mean_of_a_large_cluster_does_not_drift():
    weight = np.full(1_000_000, 0.1, "float32")
    members = np.zeros(weight.shape, "uint8")

    for _ in range(10):
        weight = np.asarray(equalized(weight, members, 1))

    assert (weight == np.float32(0.1)).all()


def test_constraint_runs_after_the_users_own_and_zeros_last():
    kernel = keras.Variable([-3.0, 1.0, 3.0, 0.0])
    mask = keras.Variable([True, True, True, False], dtype="bool")
    members = keras.Variable([0, 1, 1, 1], dtype="uint8")
    own = keras.constraints.NonNeg()

    held = StructureConstraint(kernel, mask, members, 2, own)(kernel.value + 2)

    # NonNeg gives [0, 3, 5, 2]; the mean of the last three is 10 / 3.
    np.testing.assert_allclose(held, [0, 10 / 3, 10 / 3, 0], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_means_of_large_clusters_are_right_in_half_precision(dtype):
    weight = keras.ops.cast(np.linspace(-1, 1, 20_001), dtype)

    result = equalized(weight, np.zeros(20_001, "uint8"), 1)

    assert keras.backend.standardize_dtype(result.dtype) == dtype
    assert abs(float(result[0])) < 1e-3
