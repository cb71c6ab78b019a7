"""`ActivationRange`: the range of a tensor, learned in training, applied always."""

import keras
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

    Args:
        fixed: Pair of floats, bounds that are known and not learned. Defaults to
            `None`.
        momentum: Float in [0, 1), the weight of the past. Defaults to 0.99.
        static: Bool, whether the bounds are what they are, in training too, the form
            that the TFLite converter reads. Defaults to `False`.
        **kwargs: What every Keras layer takes.

    Attributes:
        low: Float32 scalar variable, 0 or less.
        high: Float32 scalar variable, 0 or more.
        batches: Float32 scalar variable, how many batches it has seen.

    Example:
    >>> layer = ActivationRange()
    >>> _ = layer(ops.array([-1.0, 3.0]), training=True)
    >>> float(layer.low), float(layer.high)
    (-1.0, 3.0)
    """

    def __init__(self, fixed=None, momentum=0.99, static=False, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum} must be at least 0 and below 1.")
        self.fixed = None if fixed is None else tuple(fixed)
        self.momentum = momentum
        self.static = static
        self.supports_masking = True

    def build(self, input_shape):
        """Makes the variables."""
        if self.fixed is None:
            self.low = self._scalar("low")
            self.high = self._scalar("high")
            self.batches = self._scalar("batches")

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
        if training:
            self._follow(*bounds)
        known = self.batches > 0
        low, high = (
            ops.where(known, ours, theirs)
            for ours, theirs in zip((self.low, self.high), bounds, strict=True)
        )
        return fake_quantize(inputs, low, high)

    def _follow(self, low, high):
        """Moves the bounds towards those of a batch."""
        # A plain mean at first, so that the first batches do not weigh forever. A
        # batch that overflowed, as happens in float16, would spoil the mean for good.
        finite = ops.logical_and(ops.isfinite(low), ops.isfinite(high))
        past = ops.minimum(self.batches / (self.batches + 1), self.momentum)
        for variable, value in ((self.low, low), (self.high, high)):
            moved = past * variable + (1 - past) * value
            variable.assign(ops.where(finite, moved, variable))
        self.batches.assign(self.batches + ops.cast(finite, "float32"))

    def compute_output_shape(self, input_shape):
        """Returns the shape of the inputs."""
        return input_shape

    def get_config(self):
        """Returns all constructor arguments, by name."""
        config = {
            "fixed": self.fixed,
            "momentum": self.momentum,
            "static": self.static,
        }
        return {**super().get_config(), **config}


def _bounds(values):
    """Returns the range of a batch, widened to hold zero."""
    values = ops.stop_gradient(ops.cast(values, "float32"))
    return ops.minimum(ops.min(values), 0.0), ops.maximum(ops.max(values), 0.0)
