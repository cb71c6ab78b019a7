"""`ActivationRange`: the range of a tensor, learned in training, applied always."""

import keras
import tensorflow as tf
from keras import ops

from kprune.quantize.fake_quant import fake_quantize
from kprune.registry import register
from kprune.weight_access import as_array


@register("layers")
class ActivationRange(keras.layers.Layer):
    """Fake-quantizes a tensor between bounds that follow what it has seen.

    In training the bounds are moving averages of the smallest and the largest value
    of a batch, updated inside the compiled step; the first batch sets them. Until
    there was one, inference uses the bounds of its own batch.

    In a layer that a model uses several times, a batch is what all uses of one step
    see together, so that the range holds each of them.

    Args:
        fixed: Pair of floats, bounds that are known and not learned. Defaults to
            `None`.
        momentum: Float in [0, 1), the weight of the past. Defaults to 0.99.
        static: Bool, whether the bounds are what they are, in training too, the form
            that the TFLite converter reads. Defaults to `False`.
        uses: Int, how many calls make up a step. Defaults to 1.
        **kwargs: What every Keras layer takes.

    Attributes:
        low: Float32 scalar variable, 0 or less.
        high: Float32 scalar variable, 0 or more.
        batches: Float32 scalar variable, how many batches it has seen, of all uses.

    Example:
    >>> layer = ActivationRange()
    >>> _ = layer(ops.array([-1.0, 3.0]), training=True)
    >>> float(layer.low), float(layer.high)
    (-1.0, 3.0)
    """

    def __init__(self, fixed=None, momentum=0.99, static=False, uses=1, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum} must be at least 0 and below 1.")
        if uses < 1:
            raise ValueError(f"uses={uses} must be 1 or more.")
        self.fixed = None if fixed is None else tuple(fixed)
        self.momentum = momentum
        self.static = static
        self.uses = uses
        self.supports_masking = True

    def build(self, input_shape):
        """Makes the variables."""
        if self.fixed is None:
            self.low = self._scalar("low")
            self.high = self._scalar("high")
            self.batches = self._scalar("batches")
            if self.uses > 1 and not self.static:
                self.step_low = self._scalar("step_low")
                self.step_high = self._scalar("step_high")
                self.calls = self._scalar("calls")

    def _scalar(self, name):
        return self.add_weight(
            shape=(),
            dtype="float32",
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="mean",
            name=name,
        )

    @property
    def is_known(self):
        """Whether there are bounds to go by."""
        return self.fixed is not None or bool(as_array(self.batches) > 0)

    def call(self, inputs, training=None):
        """Returns the inputs rounded to 256 values."""
        if self.fixed is not None:
            return fake_quantize(inputs, *self.fixed)
        if self.static:
            return fake_quantize(inputs, self.low, self.high)
        bounds = _bounds(inputs)
        if training and self.uses > 1:
            self._follow(*self._of_all_uses(*bounds))
        elif training:
            self._follow(*bounds, True)
        known = self.batches > 0
        low, high = (
            ops.where(known, ours, theirs)
            for ours, theirs in zip(
                (self.low, self.high), _with_zero(*bounds), strict=True
            )
        )
        return fake_quantize(inputs, low, high)

    def _of_all_uses(self, low, high):
        """Returns bounds of all calls in a step so far, and whether it is the last."""
        is_first = self.calls == 0
        self.step_low.assign(ops.where(is_first, low, ops.minimum(self.step_low, low)))
        self.step_high.assign(
            ops.where(is_first, high, ops.maximum(self.step_high, high))
        )
        is_last = self.calls == self.uses - 1
        self.calls.assign(ops.where(is_last, 0.0, self.calls + 1))
        return self.step_low.value, self.step_high.value, is_last

    def _follow(self, low, high, counts):
        """Moves the bounds towards those of a batch, if it counts."""
        # A plain mean at first, so that the first batches do not weigh forever. A
        # batch that overflowed, as happens in float16, would spoil the mean for good.
        # One without any values has no bounds.
        finite = ops.logical_and(ops.isfinite(low), ops.isfinite(high))
        counts = ops.logical_and(counts, finite)
        past = ops.minimum(self.batches / (self.batches + 1), self.momentum)
        bounds = zip((self.low, self.high), _with_zero(low, high), strict=True)
        for variable, value in bounds:
            moved = past * variable + (1 - past) * value
            variable.assign(ops.where(counts, moved, variable))
        self.batches.assign(self.batches + ops.cast(counts, "float32"))

    def compute_output_shape(self, input_shape):
        """Returns the shape of the inputs."""
        return input_shape

    def get_config(self):
        """Returns all constructor arguments, by name."""
        config = {
            "fixed": self.fixed,
            "momentum": self.momentum,
            "static": self.static,
            "uses": self.uses,
        }
        return {**super().get_config(), **config}


def _bounds(values):
    """Returns the smallest and the largest value, infinities if there is none."""
    values = ops.stop_gradient(ops.cast(values, "float32"))
    # Those of keras.ops refuse an empty batch.
    return tf.reduce_min(values), tf.reduce_max(values)


def _with_zero(low, high):
    return ops.minimum(low, 0.0), ops.maximum(high, 0.0)
