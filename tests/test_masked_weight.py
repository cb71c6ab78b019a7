import numpy as np
import pytest
import tensorflow as tf

from kprune.masked_weight import masked


@pytest.mark.parametrize("rows", [2, 2**18], ids=["small", "large"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_kept_is_the_same_bit_for_bit_and_the_rest_is_zero(rows, dtype):
    values = [1.5, -0.0, np.nan, np.inf, 1.5, -0.0, np.nan, -np.inf]
    weight = tf.cast(tf.tile([values], [rows, 1]), dtype)
    mask = np.tile([[True] * 4 + [False] * 4], [rows, 1])

    held = masked(weight, tf.constant(mask))

    expected = np.where(mask, weight.numpy(), np.zeros((), weight.numpy().dtype))
    assert held.dtype == dtype
    assert held.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("rows", [2, 2**18], ids=["small", "large"])
def test_a_mask_of_channels_is_spread_over_the_weight(rows):
    mask = tf.constant([[True, False, True, False, True]])

    held = masked(tf.ones((rows, 5)), mask)

    np.testing.assert_array_equal(held, np.tile([[1, 0, 1, 0, 1]], [rows, 1]))
