"""Sparsity as a constraint: what a weight may be after each optimizer update."""

import keras
from keras import ops

from kprune.arguments import check_number, check_whole
from kprune.registry import register
from kprune.scopes import zeros_wanted


@register("constraints")
class L0Budget(keras.constraints.Constraint):
    """Leaves a weight no more than a number of values, the largest, after each update.

    This is the projection onto all weights with `||w||_0 <= k`, so that training
    becomes iterative hard thresholding. A value that was set to zero comes back as
    soon as one step takes it among the largest: no mask, no schedule. It runs inside
    the compiled step. Zeros come with the first update.

    On a weight that is pruned as well, only what the mask leaves is counted, and it
    can't bring anything back.

    Args:
        density: Float in (0, 1], the fraction that may be other than zero. Of 64
            values 0.25 leaves 16. One of the two has to be given.
        count: Int of 1 or more, how many values may be other than zero.

    Raises:
        ValueError: If neither or both are given, or one is out of range.

    Example:
    >>> L0Budget(count=2)(ops.array([1.0, -3.0, 2.0, 2.0])).numpy()
    array([ 0., -3.,  2.,  0.], dtype=float32)
    >>> layer = keras.layers.Dense(10, kernel_constraint=L0Budget(density=0.1))

    Reference:
        Blumensath and Davies, "Iterative Hard Thresholding for Compressed Sensing",
        2009; of equal magnitudes the lower C-order index stays.
    """

    def __init__(self, density=None, count=None):
        if (density is None) == (count is None):
            raise ValueError(
                f"L0Budget got density={density} and count={count}. Give one of the "
                "two: the fraction of values that may stay, or their number."
            )
        if density is not None:
            expected = "in (0, 1], the fraction that may be other than zero"
            density = check_number("density", density, lambda n: 0 < n <= 1, expected)
        if count is not None:
            count = check_whole("count", count, at_least=1, unit="values that stay")
        self.density = density
        self.count = count

    def get_config(self):
        return {"density": self.density, "count": self.count}

    def __call__(self, w):
        """Returns the weight with all but its largest values set to zero."""
        w = ops.convert_to_tensor(w)
        size = w.shape.num_elements()
        keep = self.count or size - zeros_wanted(1 - self.density, size)
        if keep >= size:
            return w
        magnitudes = ops.abs(ops.reshape(w, (-1,)))
        largest = ops.reshape(_largest(magnitudes, keep), w.shape)
        return ops.where(largest, w, ops.zeros_like(w))


def _largest(magnitudes, keep):
    """Marks the `keep` largest of some numbers of 0 or more, the first of equal ones.

    The bits of such floats, read as integers, are in the order of the floats. So the
    threshold is found bit by bit, each with one count: several times faster than a
    sort, compiled or not, and exact.
    """
    if magnitudes.dtype.size < 4:
        magnitudes = ops.cast(magnitudes, "float32")
    kind = f"int{8 * magnitudes.dtype.size}"
    bits = ops.view(magnitudes, kind)

    def settle(i, threshold):
        bit = ops.left_shift(ops.ones((), kind), ops.cast(places - i, kind))
        higher = threshold + bit
        enough = _number(bits >= higher) >= keep
        return ops.where(enough, higher, threshold)

    places = 8 * magnitudes.dtype.size - 2  # without the sign
    threshold = ops.fori_loop(0, places + 1, settle, ops.zeros((), kind))
    above, equal = bits > threshold, bits == threshold
    places_left = keep - _number(above)
    first = ops.cumsum(ops.cast(equal, "int32")) <= places_left
    return ops.logical_or(above, ops.logical_and(equal, first))


def _number(marks):
    return ops.sum(ops.cast(marks, "int32"))
