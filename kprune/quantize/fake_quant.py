"""Fake quantization: floats rounded to what int8 can hold, as functions.

Kernels are symmetric (zero is zero) and use the 255 values -127 to 127, so that an
exact zero stays one. Activations use all 256 values between two bounds, moved a
little so that zero is one of them. Gradients pass through the rounding and stop
where a value is clipped.
"""

import numpy as np
from keras import ops, quantizers

# The widest weight has to stay inside the range whatever float32 does to the bounds,
# since the gradient of what lies outside is zero.
_MARGIN = 1 + 2**-20

# A channel whose weights are nearly all gone gets no range narrower than this part
# of the widest one: its bias, in units of the product of two scales, must fit int32.
_NARROWEST = 2.0**-10


def kernel_limits(kernel, channel_axes=(), shared=False):
    """Finds the largest absolute value that each range of a kernel has to hold.

    Args:
        kernel: Float tensor or array of rank 2 or more.
        channel_axes: Tuple of negative ints, the last axes of the kernel: each index
            along them is a range of its own. Empty for one range in all.
        shared: Bool, whether all channels take the widest range, so that equal
            weights become equal integers whatever channel they are in.

    Returns:
        Float tensor, a scalar without `channel_axes`, else of shape `(channels,)`;
        positive.

    Example:
    >>> kernel = np.array([[1.0, -0.5], [0.25, 0.0]], "float32")
    >>> np.round(kernel_limits(kernel, (-1,)), 3)
    array([1. , 0.5], dtype=float32)
    >>> np.round(kernel_limits(kernel, (-1,), shared=True), 3)
    array([1., 1.], dtype=float32)
    """
    sizes = ops.abs(ops.cast(kernel, "float32"))
    widest = ops.max(sizes)
    # A kernel of nothing but zeros needs some range; any will do.
    widest = ops.where(widest > 0, widest, ops.ones_like(widest)) * _MARGIN
    if not channel_axes:
        return widest
    rank = len(sizes.shape)
    limits = ops.max(sizes, axis=tuple(range(rank - len(channel_axes)))) * _MARGIN
    limits = ops.maximum(ops.reshape(limits, (-1,)), widest * _NARROWEST)
    return ops.full_like(limits, 1.0) * widest if shared else limits


def fake_quantize_kernel(kernel, limits):
    """Rounds a kernel to the 255 values of a symmetric int8 range.

    Args:
        kernel: Float tensor or array.
        limits: As `kernel_limits` returns them: one for the kernel, or one for each
            index along its last axes.

    Returns:
        float32 tensor of the kernel's shape.

    Example:
    >>> kernel = np.array([[1.0, 0.004], [0.0, -1.0]], "float32")
    >>> np.round(fake_quantize_kernel(kernel, np.float32(1.0)) * 127)
    array([[ 127.,    1.],
           [   0., -127.]], dtype=float32)
    """
    kernel = ops.convert_to_tensor(kernel)
    options = {"num_bits": 8, "narrow_range": True}
    if not len(limits.shape):
        return quantizers.fake_quant_with_min_max_vars(
            kernel, -limits, limits, **options
        )
    # Channels that lie along two axes, as those of depthwise kernels, are put in one,
    # the only form in which the TFLite converter knows ranges of channels.
    rows = ops.reshape(kernel, (*_leading(kernel.shape, limits.shape[0]), -1))
    rounded = quantizers.fake_quant_with_min_max_vars(
        rows, -limits, limits, axis=-1, **options
    )
    return ops.reshape(rounded, kernel.shape)


def _leading(shape, channels):
    """Returns the axes of a kernel before those whose product is `channels`."""
    count = next(
        i for i in reversed(range(len(shape))) if np.prod(shape[i:]) == channels
    )
    return shape[:count]


def fake_quantize(values, low, high):
    """Rounds activations to the 256 values of an int8 range.

    Args:
        values: Float tensor or array of any shape.
        low: Scalar, 0 or less.
        high: Scalar, 0 or more.

    Returns:
        Tensor of the shape and type of `values`.

    Example:
    >>> fake_quantize(np.array([-1.0, 0.4, 300.0], "float32"), 0.0, 255.0)
    <tf.Tensor: shape=(3,), dtype=float32, numpy=array([  0.,   0., 255.], ...)>
    """
    return quantizers.fake_quant_with_min_max_vars(values, low, high, num_bits=8)
