"""Synaptic flow: how much gets from the inputs to the outputs through a weight."""

import contextlib
import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kprune.calibration.base import gathers
from kprune.weight_access import as_array

# Functions whose slope vanishes where flow is large, and for whole outputs.
_SATURATING = (
    "ClipByValue",
    "LogSoftmax",
    "Relu6",
    "Sigmoid",
    "Softmax",
    "Softsign",
    "Tanh",
)
_OFFSETS = ("beta", "bias", "mean", "moving_mean")
_OPEN_SIZE = 32
_STEP = 30  # powers of ten
_SCALES = [10.0**-exponent for exponent in range(0, 300, _STEP)]


@tf.RegisterGradient("KprunePassOn")
def _pass_on(operation, gradient):
    """Returns a derivative that is the same for all, and lets no flow get lost.

    Of a function that is linear as a whole, it is the ratio of what comes out to what
    goes in. A derivative of 1 would multiply the flow at each gate.
    """
    goes_in = tf.reduce_sum(tf.abs(operation.inputs[0]))
    comes_out = tf.reduce_sum(tf.abs(operation.outputs[0]))
    share = tf.math.divide_no_nan(comes_out, goes_in)
    return gradient * share, *[None] * (len(operation.inputs) - 1)


@gathers("synaptic_flow")
class SynapticFlow:
    """Gathers the derivative of the summed outputs by each weight's absolute value.

    The model sees ones and runs in inference mode with the absolute values of all its
    weights, in place of the weights themselves, which nobody touches. Offsets
    (biases, means and offsets of batch normalizations) are left out, so that only
    what comes from the inputs flows. Saturating functions count as linear ones, so that
    a softmax at the end counts by its logits, and neither gates nor the bound of a
    `relu6` cut off what lies before them. What normalizes each example by its own
    statistics (`LayerNormalization` and its like) counts as a linear layer, by the
    scales of its channels, that brings the mean of what goes in to 1.

    In a deep network flow goes far beyond float32. It is computed in float64, whatever
    the model computes in, and then scaled down, for all weights alike, which changes
    no order.

    Args:
        model: A built model. Sizes of its inputs that are left open count as 32.
        kinds: Set, `"synaptic_flow"`.
        data: `CalibrationData`, for the shapes of a subclassed model alone, or `None`.

    Raises:
        ValueError: If the shapes of the inputs are unknown, or if inputs are no
            floats.
    """

    def __init__(self, model, kinds, data):
        self._model = model
        self._data = data
        self._compiled = {}
        self._scale = 0  # which of `_SCALES` the last update needed
        if model.built:
            self._ones()

    def __call__(self, entries):
        """Returns the evidence for some weights.

        Args:
            entries: List of `MaskedWeight`.

        Returns:
            List of dicts, one a weight, with a float32 array of its own shape.

        Raises:
            ValueError: If the flow overflows however it is scaled, if none gets
                through a weight before anything is pruned, or later through all of
                them, or if a weight is of an embedding.
        """
        for entry in entries:
            if isinstance(entry.layer, layers.Embedding):
                _refuse_embedding(entry.layer)
        shared = {id(entry.variable): entry.variable for entry in entries}
        flow = self._compiled.setdefault(
            tuple(shared), self._flow_through(list(shared.values()))
        )
        found = self._in_range(flow)
        of_variable = dict(zip(shared, found, strict=True))
        self._check_reached(entries, of_variable)
        return [{"synaptic_flow": of_variable[id(e.variable)]} for e in entries]

    def _in_range(self, flow):
        """Returns what flows at the largest scale that float32 can hold."""
        ones, lowest = self._ones(), 0
        while lowest < len(_SCALES):
            scale = tf.constant(_SCALES[self._scale], "float64")
            found = [np.asarray(memoryview(f)) for f in flow(ones, scale)]  # no copies
            if not all(np.isfinite(array).all() for array in found):
                self._scale = lowest = self._scale + 1
            # Begun where the last update ended, while less flows the more is pruned.
            elif self._scale > lowest and _leaves_room(found):
                self._scale -= 1
            else:
                return found
        self._scale = 0
        raise ValueError(
            f"The synaptic flow of {self._model.name!r} overflows, even in "
            "float64: the network is too deep, or its weights are too large. Take "
            "another criterion."
        )

    def _check_reached(self, entries, of_variable):
        without = [e for e in entries if not of_variable[id(e.variable)].any()]
        # Where pruning has cut a branch off, its weights do rank last.
        if without and (len(without) == len(entries) or _is_whole(entries)):
            raise ValueError(
                f"No synaptic flow gets from the inputs of {self._model.name!r} to its "
                f"outputs through {without[0].name!r}, so that its weights can't be "
                "ranked: what lies before or behind it lets none through. Leave it "
                f"out with `skip={without[0].layer.name!r}`, or take another criterion."
            )

    def _flow_through(self, variables):
        """Returns a compiled function that gives the derivative by each variable."""

        @tf.function(autograph=False)
        def flow(ones, scale):
            weights = [tf.abs(v.value) for v in variables]
            replaced = list(zip(variables, weights, strict=True))
            replaced += self._others_without_signs(variables)
            overridden = dict.fromkeys(_SATURATING, "KprunePassOn")
            graph = tf.compat.v1.get_default_graph()
            with graph.gradient_override_map(overridden):
                with keras.StatelessScope(replaced), _precise(self._model):
                    outputs = self._model(ones, training=False)
                outputs = [
                    y for y in keras.tree.flatten(outputs) if y.dtype.is_floating
                ]
            seeds = [tf.fill(tf.shape(y), tf.cast(scale, y.dtype)) for y in outputs]
            # Unlike a tape, symbolic derivatives respect what is overridden.
            gradients = tf.gradients(
                outputs, weights, seeds, unconnected_gradients="zero"
            )
            return [tf.cast(gradient, "float32") for gradient in gradients]

        return flow

    def _others_without_signs(self, pruned):
        """Returns pairs of the other float variables and what flow makes of them."""
        known = set(map(id, pruned))
        return [
            (v, tf.zeros_like(v.value) if v.name in _OFFSETS else tf.abs(v.value))
            for v in self._model.variables
            if tf.as_dtype(v.dtype).is_floating and id(v) not in known
        ]

    def _ones(self):
        """Returns one example of ones, in the structure that the model takes."""
        inputs = getattr(self._model, "inputs", None)
        if inputs:
            inputs = getattr(self._model, "_inputs_struct", inputs[0])
        elif self._data is not None:
            inputs, _, _ = next(iter(self._data))
        else:
            raise ValueError(
                f"The shapes of the inputs of {self._model.name!r} are unknown, since "
                "it is a subclassed model. Pass `calibration_data` of a few examples, "
                "of which the shapes alone are looked at."
            )
        return keras.tree.map_structure(self._ones_like, inputs)

    def _ones_like(self, array):
        dtype = tf.as_dtype(array.dtype)
        if not dtype.is_floating:
            raise ValueError(
                f"An input of {self._model.name!r} is of {dtype.name}, and synaptic "
                "flow starts from real numbers. Take another criterion."
            )
        fixed = getattr(self._model, "inputs", None) and array.shape[0]
        sizes = (_OPEN_SIZE if size is None else size for size in array.shape[1:])
        return tf.ones((fixed or 1, *sizes), dtype)


def _leaves_room(found):
    """Returns whether the next larger scale would do."""
    most = float(np.finfo("float32").max) / 10.0**_STEP
    return all(max(array.max(), -array.min()) <= most for array in found)


def _is_whole(entries):
    return all(as_array(entry.mask).all() for entry in entries)


def _refuse_embedding(layer):
    raise ValueError(
        f"The embedding {layer.name!r} looks up rows by whole numbers, and synaptic "
        "flow starts from real numbers. If it looks up positions alone, leave it out "
        f"with `skip={layer.name!r}`; else take another criterion."
    )


def _look_up(layer, call, inputs):
    """Looks rows up, unless by what comes from the inputs of the model."""
    if tf.as_dtype(inputs.dtype).is_floating:
        _refuse_embedding(layer)
    return call(inputs)


def _scale(layer, call, inputs):
    """Scales the channels as a normalization does, and is linear in its inputs."""
    is_rms = isinstance(layer, layers.RMSNormalization)
    gamma = layer.scale if is_rms else getattr(layer, "gamma", None)
    mean = tf.stop_gradient(tf.reduce_mean(tf.abs(inputs)))
    outputs = tf.math.divide_no_nan(inputs, mean)
    if gamma is None:
        return outputs
    shape = [1] * len(inputs.shape)
    for axis in keras.tree.flatten(layer.axis):
        shape[axis] = inputs.shape[axis]
    return outputs * tf.reshape(tf.cast(gamma, inputs.dtype), shape)


# What is computed otherwise: of a layer, its own `call` and its inputs.
_OTHERWISE = {
    layers.Embedding: _look_up,
    layers.GroupNormalization: _scale,
    layers.LayerNormalization: _scale,
    layers.RMSNormalization: _scale,
    layers.UnitNormalization: _scale,
}
_MISSING = object()


@contextlib.contextmanager
def _precise(model):
    """Lets layers compute in float64, and shift no inputs, while they are traced."""
    precise = keras.DTypePolicy("float64")
    precise._variable_dtype = "float32"  # other than above, so that weights are cast
    before = []
    for layer in model._flatten_layers():
        changes = {"_dtype_policy": precise}
        for kind, compute in _OTHERWISE.items():
            if isinstance(layer, kind):
                changes["call"] = functools.partial(compute, layer, layer.call)
        if isinstance(layer, layers.Rescaling):
            changes["offset"] = 0.0
        if isinstance(layer, layers.Normalization) and layer.mean is not None:
            changes["mean"] = tf.zeros_like(layer.mean)
        for name, value in changes.items():
            before.append((layer, name, vars(layer).get(name, _MISSING)))
            object.__setattr__(layer, name, value)
    try:
        yield
    finally:
        for layer, name, value in reversed(before):
            if value is _MISSING:
                object.__delattr__(layer, name)
            else:
                object.__setattr__(layer, name, value)
