"""What goes into layers and what comes out of them, over calibration data."""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kprune.calibration.base import gathers
from kprune.calibration.observed import Observed, channel_axes
from kprune.calibration.watching import Watch, attribute
from kprune.layout import layout_of
from kprune.whole_model import trained_weights

_LINEAR_IN_KERNEL = (
    layers.Dense,
    layers.EinsumDense,
    layers.Embedding,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)
_SAMPLE = 4096  # So many activations a channel are kept for percentiles.


class _Watching:
    """Base of what looks at layers while the model runs over data.

    A subclass defines `_check(entry)`, which refuses a weight that it can tell
    nothing of, before any training where that is known; and `_prepare(entries)`,
    which is asked once for the same weights.

    Args:
        model: The pruned model.
        kinds: Set of strings, the kinds that are wanted.
        data: `CalibrationData`.
    """

    def __init__(self, model, kinds, data):
        self._model = model
        self._kinds = kinds
        self._data = data
        self._prepared = {}
        for _, entry in trained_weights(model):
            self._check(entry)

    def _prepared_for(self, entries):
        for entry in entries:
            self._check(entry)
        key = tuple(id(entry.variable) for entry in entries)
        if key not in self._prepared:
            self._prepared[key] = self._prepare(entries)
        return self._prepared[key]


@gathers("input_norm", data=True)
class InputNorms(_Watching):
    """Gathers the norm of the inputs that each weight meets."""

    def __call__(self, entries):
        """Returns a list of dicts with float32 arrays of the weights' own shapes."""
        watch = self._prepared_for(entries)
        sums = [0.0] * len(entries)
        for found in watch.over(self._data):
            for i, entry in enumerate(entries):
                for squares in found[id(entry.layer)]:
                    sums[i] = sums[i] + squares.numpy().astype("float64")
        for entry, total in zip(entries, sums, strict=True):
            _check_numbers(total, entry, "meets")
        return [{"input_norm": np.sqrt(total).astype("float32")} for total in sums]

    def _check(self, entry):
        _check_linear(entry)

    def _prepare(self, entries):
        # Read here: within a layer's call, Keras gives a copy in its compute dtype.
        watched = {
            id(e.layer): (e.layer, functools.partial(_squares, e, e.variable.value))
            for e in entries
        }
        return Watch(self._model, watched)


def _check_linear(entry):
    if not isinstance(entry.layer, _LINEAR_IN_KERNEL):
        raise ValueError(
            f"The inputs that {entry.name!r} meets can't be told: "
            f"{type(entry.layer).__name__} is none of the layers whose outputs "
            "are linear in their kernel. Leave it out with "
            f"`skip={entry.layer.name!r}`, or take another criterion."
        )


def _check_numbers(found, entry, verb):
    if not np.isfinite(found).all():
        raise ValueError(
            f"Over the calibration data, what the weight {entry.name!r} {verb} holds "
            "NaN or infinite values. Either the examples hold them: leave these out; "
            "or training has diverged: lower the learning rate or clip gradients."
        )


def _squares(entry, kernel, call, inputs, outputs):
    """Returns the sum of the squared inputs that each weight meets.

    The outputs are linear in the kernel. So with squared inputs, the derivative of
    the sum of all outputs by a weight is the sum of the squares that it meets: with
    any padding, strides, groups or equation.
    """
    layer = entry.layer
    if isinstance(layer, layers.Embedding):  # indices, maybe as floats: ones are met
        squares, scale = inputs, 1.0
    else:
        scale = tf.maximum(tf.reduce_max(tf.abs(inputs)), 1e-6)
        squares = tf.square(inputs / scale)
    activation = getattr(layer, "activation", None)
    linear = attribute(layer, "activation", keras.activations.linear, activation)
    # Neither this share of the sum nor its derivative by an output leaves the range
    # of half precision, however many outputs there are.
    share = tf.math.rsqrt(tf.cast(tf.size(outputs), "float32"))
    with linear, tf.GradientTape() as tape:
        total = share * tf.reduce_sum(tf.cast(call(squares), "float32"))
    gradient = tf.convert_to_tensor(tape.gradient(total, kernel))
    factor = tf.square(tf.cast(scale, "float32")) / share
    return tf.cast(gradient, "float32") * factor


@gathers("output_mean", "output_positive", "output_sample", data=True)
class Outputs(_Watching):
    """Gathers what the output channels of layers answer."""

    def __call__(self, entries):
        """Gathers over the data, of which no more than a batch is held.

        Args:
            entries: List of `MaskedWeight`.

        Returns:
            List of dicts with arrays whose last axis is that of the output channels:
            `"output_mean"`, the mean of `|activation|`; `"output_positive"`, the
            fraction above zero; `"output_sample"`, of shape `(samples, channels)`,
            `|activation|` at places spread evenly over the data.
        """
        answers, watch = self._prepared_for(entries)
        gathered = [_Channels(entry, self._kinds) for entry in entries]
        for found in watch.over(self._data):
            for answer, channels in zip(answers, gathered, strict=True):
                for outputs in answer.outputs(found[id(answer.operation)]):
                    channels.add(outputs.numpy())
        return [channels.evidence() for channels in gathered]

    def _check(self, entry):
        _check_own_channels(entry)

    def _prepare(self, entries):
        observed = Observed(self._model)
        answers = [observed.answer(entry.layer) for entry in entries]
        watched = {id(a.operation): (a.operation, _outputs) for a in answers}
        return answers, Watch(self._model, watched)


def _check_own_channels(entry):
    """Refuses a weight whose channels end within its layer."""
    if entry.variable is getattr(entry.layer, "depthwise_kernel", None):
        raise ValueError(
            f"The channels of {entry.name!r} are mixed with each other within "
            f"{type(entry.layer).__name__}, so that nothing behind the layer tells "
            "what each of them is worth. Wrap the layer without it, or take another "
            "criterion."
        )


def _outputs(call, inputs, outputs):
    return tf.nest.flatten(outputs)[0]  # states may follow


class _Channels:
    """Statistics of the output channels of one layer, in bounded memory."""

    def __init__(self, entry, kinds):
        self._entry = entry
        self._kinds = kinds
        shape = tuple(entry.variable.shape)
        kernel = np.broadcast_to(np.float32(0), shape)
        self._units = layout_of(entry.layer, entry.variable).canonical(kernel).shape[-1]
        self._count = 0
        self._sum = self._positive = np.zeros(self._units)
        self._stride = 1
        self._sample = np.zeros((0, self._units), "float32")

    def add(self, outputs):
        """Counts the outputs of a batch."""
        rows = self._rows(outputs)
        self._sum = self._sum + np.abs(rows).sum(axis=0, dtype="float64")
        _check_numbers(self._sum, self._entry, "answers")
        self._positive = self._positive + np.count_nonzero(rows > 0, axis=0)
        if "output_sample" in self._kinds:
            first = -self._count % self._stride
            taken = np.abs(rows[first :: self._stride])
            self._sample = np.concatenate([self._sample, taken])
            while len(self._sample) > _SAMPLE:
                self._sample = self._sample[::2]
                self._stride *= 2
        self._count += len(rows)

    def _rows(self, outputs):
        axes = channel_axes(self._entry.layer)
        outputs = np.moveaxis(outputs, axes, range(-len(axes), 0))
        if self._units != np.prod(outputs.shape[-len(axes) :]):
            raise ValueError(
                f"The layer {self._entry.layer.name!r} answers with shape "
                f"{outputs.shape}, in which the {self._units} output channels of "
                f"{self._entry.name!r} are not found. Leave it out with "
                f"`skip={self._entry.layer.name!r}`, or take another criterion."
            )
        return outputs.reshape(-1, self._units).astype("float32")

    def evidence(self):
        """Returns the kinds that are wanted."""
        found = {
            "output_mean": self._sum / self._count,
            "output_positive": self._positive / self._count,
            "output_sample": self._sample,
        }
        return {kind: found[kind] for kind in self._kinds}


@gathers("batch_norm_scale")
def gather_batch_norm_scales(model, entries, kinds, data):
    """Gathers the scales of the batch normalization right behind each layer.

    Returns:
        List of dicts with arrays of shape `(channels,)`.
    """
    observed = Observed(model)
    return [{"batch_norm_scale": _scale(observed, entry)} for entry in entries]


def _scale(observed, entry):
    _check_own_channels(entry)
    norm = observed.normalization(entry.layer)
    if norm is None or norm.gamma is None or not _is_of_channels(norm, entry.layer):
        raise ValueError(
            f"No batch normalization with a scale follows {entry.layer.name!r} "
            "directly, by which its channels could be scored. Leave it out with "
            f"`skip={entry.layer.name!r}`, or take another criterion."
        )
    return np.asarray(norm.gamma, "float32")


def _is_of_channels(norm, layer):
    rank = norm.input_spec.ndim
    return [axis % rank for axis in channel_axes(layer)] == [norm.axis % rank]
