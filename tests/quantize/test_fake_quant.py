import numpy as np
import pytest
import tensorflow as tf

from kprune.quantize.fake_quant import (
    fake_quantize,
    fake_quantize_kernel,
    kernel_limits,
)


def kernel_of(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def rounded_by_numpy(kernel, channel_axes):
    """Rounds each channel to the multiples of its largest weight over 127."""
    others = tuple(range(kernel.ndim - len(channel_axes)))
    scale = np.abs(kernel).max(axis=others, keepdims=True).astype("float64") / 127
    return np.round(kernel / scale) * scale


CASES = [
    ((5, 4), ()),
    ((3, 5, 4), ()),
    ((3, 3, 5, 4), (-1,)),
    ((3, 3, 5, 1), (-2, -1)),
    ((3, 3, 5, 2), (-2, -1)),
    ((3, 3, 1, 2), (-2, -1)),
]


@pytest.mark.parametrize(("shape", "channel_axes"), CASES)
def test_kernel_is_rounded_to_127ths_of_the_largest_weight(shape, channel_axes):
    kernel = kernel_of(*shape)

    limits = kernel_limits(kernel, channel_axes)
    rounded = fake_quantize_kernel(kernel, limits)

    channels = np.prod(shape[len(shape) - len(channel_axes) :], dtype=int)
    assert limits.shape == ((channels,) if channel_axes else ())
    expected = rounded_by_numpy(kernel, channel_axes)
    np.testing.assert_allclose(rounded, expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "channel_axes"), CASES)
def test_exact_zeros_stay_exact_zeros(shape, channel_axes):
    kernel = kernel_of(*shape)
    zeros = np.random.default_rng(1).random(shape) < 0.5
    kernel[zeros] = 0

    rounded = fake_quantize_kernel(kernel, kernel_limits(kernel, channel_axes))

    assert not np.asarray(rounded)[zeros].any()


@pytest.mark.parametrize(("shape", "channel_axes"), CASES)
def test_gradient_reaches_every_weight_also_the_widest(shape, channel_axes):
    kernel = tf.Variable(kernel_of(*shape))

    with tf.GradientTape() as tape:
        limits = tf.stop_gradient(kernel_limits(kernel, channel_axes))
        total = tf.reduce_sum(fake_quantize_kernel(kernel, limits) * 3)

    np.testing.assert_array_equal(tape.gradient(total, kernel), np.full(shape, 3))


def test_shared_limits_make_equal_weights_equal_in_all_channels():
    kernel = np.array([[0.5, 0.5], [4.0, 0.25]], "float32").reshape(1, 1, 2, 2)

    limits = kernel_limits(kernel, (-1,), shared=True)
    rounded = np.asarray(fake_quantize_kernel(kernel, limits))

    np.testing.assert_allclose(limits, [4, 4], rtol=1e-5)
    assert rounded[0, 0, 0, 0] == rounded[0, 0, 0, 1]


@pytest.mark.parametrize("channel_axes", [(), (-1,)])
def test_kernel_of_zeros_is_rounded_to_zeros(channel_axes):
    kernel = np.zeros((1, 1, 2, 3), "float32")

    rounded = fake_quantize_kernel(kernel, kernel_limits(kernel, channel_axes))

    np.testing.assert_array_equal(rounded, kernel)


def test_channel_with_hardly_any_weight_has_a_range_that_its_bias_fits():
    kernel = np.array([[1.0, 1e-8]], "float32").reshape(1, 1, 1, 2)

    limits = kernel_limits(kernel, (-1,))

    np.testing.assert_allclose(limits, [1, 2**-10], rtol=1e-5)


def test_activations_are_rounded_to_256_values_one_of_them_zero():
    values = np.linspace(-2, 4, 1001).astype("float32")

    rounded = np.asarray(fake_quantize(values, -1.0, 3.0))

    step = 4 / 255
    integers = rounded / step
    np.testing.assert_allclose(integers, np.round(integers), atol=1e-4)
    assert len(np.unique(rounded)) == 256
    assert 0 in rounded
    inside = (values > -1) & (values < 3)
    assert np.abs(rounded - values)[inside].max() <= step / 2 + 1e-6
