"""`QuantizationWrapper`: a layer that computes with what int8 can hold."""

import inspect

import keras
import numpy as np
from keras import ops

from kprune.delegation import DelegatingWrapper
from kprune.quantize.fake_quant import (
    fake_quantize,
    fake_quantize_kernel,
    kernel_limits,
)
from kprune.quantize.ranges import ActivationRange
from kprune.quantize.rules import activation_rule, rule_for
from kprune.quantize.structure import QuantizeRefusal, StructureConstraint
from kprune.registry import register
from kprune.weight_access import as_array


@register("layers")
class QuantizationWrapper(DelegatingWrapper):
    """Wraps a layer so that it computes what it will compute in int8.

    `kprune.quantize_aware` makes these. Kernel, inputs and outputs are rounded in the
    forward pass; the kernel variable itself stays float32, and its gradient is that
    of the rounded one. Biases, int32 in the file, are used as they are.

    What it does not know (`units`, `kernel`) it asks the layer.

    Args:
        layer: A Keras layer of a type that has a rule, see
            `kprune.quantize.rules`. It is not copied.
        activation: Name or function, applied to the layer's outputs as a step of its
            own, with a range before it and one behind. Defaults to none.
        inputs: List of bools, which of the layer's inputs are rounded, since nothing
            before does. Defaults to none of them.
        output: Bool, whether the outputs are rounded. Defaults to `True`.
        masked: Bool, whether zeros of the kernel stay zero in training.
        clusters: Int, how many values the kernel has if equal weights stay equal in
            training; 0 if they need not.
        static: Bool, whether all ranges are plain variables, the form that the TFLite
            converter reads. Such a layer is not for training.
        uses: Int, how many times a model calls the layer: each range holds what all
            of them see. Defaults to 1.
        **kwargs: What every Keras layer takes; defaults are the layer's own.

    Attributes:
        layer: The wrapped layer.
        mask: Boolean variable of the kernel's shape, or `None`.
        members: uint8 variable of the kernel's shape, the cluster of each weight, or
            `None`.

    Example:
    >>> wrapper = QuantizationWrapper(keras.layers.Dense(1, use_bias=False))
    >>> wrapper.build((None, 2))
    >>> _ = wrapper.kernel.assign([[1.0], [0.003]])
    >>> wrapper.quantized_kernel()
    <tf.Tensor: shape=(2, 1), dtype=float32, numpy=
    array([[1.00...],
           [0.   ]], dtype=float32)>
    """

    def __init__(
        self,
        layer,
        activation=None,
        inputs=(),
        output=True,
        masked=False,
        clusters=0,
        static=False,
        uses=1,
        **kwargs,
    ):
        kwargs = {"activity_regularizer": layer.activity_regularizer, **kwargs}
        super().__init__(layer, **kwargs)
        # Which `model.quantize` would call.
        layer.quantize = QuantizeRefusal(layer.name)
        self.rule = rule_for(layer)
        # Under another name than the layer's own, which is linear then.
        self.separate_activation = activation and keras.activations.get(activation)
        self.masked = masked
        self.clusters = clusters
        self.static = static
        self.uses = uses
        self._inputs = list(inputs)
        self._output = output
        self._make_ranges()
        self.mask = self.members = self.limits = None
        self._convert_input_args = layer._convert_input_args
        self._allow_non_tensor_positional_args = layer._allow_non_tensor_positional_args

    def _make_ranges(self):
        options = {
            "static": self.static,
            "uses": self.uses,
            "dtype": self.dtype_policy,
        }
        self.input_ranges = [
            ActivationRange(name=f"input_{i}_range", **options) if rounded else None
            for i, rounded in enumerate(self._inputs)
        ]
        self.inner_range = self.output_range = None
        if self.separate_activation:
            self.inner_range = ActivationRange(name="inner_range", **options)
        if self._output:
            self.output_range = ActivationRange(
                fixed=self._fixed_bounds(), name="output_range", **options
            )

    def _fixed_bounds(self):
        if self.separate_activation:
            return activation_rule(self.separate_activation).fixed
        return self.rule.fixed

    @property
    def ranges(self):
        """List of the layer's `ActivationRange`s."""
        found = [*self.input_ranges, self.inner_range, self.output_range]
        return [r for r in found if r is not None]

    @property
    def kernel_variable(self):
        """The weight that is rounded, a Keras variable; `None` if there is none."""
        return self.rule.kernel and getattr(self.layer, self.rule.kernel)

    def call_signature(self, layer):
        """Returns that of the layer, with the argument `training`."""
        signature = super().call_signature(layer)
        parameters = dict(signature.parameters)
        training = inspect.Parameter(
            "training", inspect.Parameter.KEYWORD_ONLY, default=None
        )
        parameters.setdefault("training", training)
        return signature.replace(parameters=parameters.values())

    def build(self, input_shape):
        """Builds the layer, and what its kernel keeps."""
        if not self.layer.built:
            self.layer.build(input_shape)
        for bounds in self.ranges:
            with keras.name_scope(bounds.name):
                bounds.build(None)
        if self.rule.kernel is not None:
            self._build_for_kernel()

    def _build_for_kernel(self):
        options = {"shape": self.kernel_variable.shape, "trainable": False}
        if self.masked:
            self.mask = self.add_weight(
                dtype="bool", initializer="ones", name="mask", **options
            )
        if self.clusters:
            self.members = self.add_weight(
                dtype="uint8", initializer="zeros", name="members", **options
            )
        if self.static:
            self.limits = self.add_weight(
                shape=self._limits().shape,
                initializer="ones",
                trainable=False,
                autocast=False,
                name="limits",
            )
        if self.masked or self.clusters:
            self._hold()

    def _hold(self):
        kernel = self.kernel_variable
        kernel.constraint = StructureConstraint(
            kernel, self.mask, self.members, self.clusters, kernel.constraint
        )

    def capture(self):
        """Notes the zeros and the clusters of the kernel as it is, to be kept."""
        if self.mask is not None:
            self.mask.assign(as_array(self.kernel_variable) != 0)
        if self.members is not None:
            kernel = as_array(self.kernel_variable)
            _, members = np.unique(kernel, return_inverse=True)
            self.members.assign(members.reshape(kernel.shape))

    def settle(self, trained):
        """Takes over the ranges that another wrapper has learned.

        Args:
            trained: The `QuantizationWrapper` of a layer with the same weights;
                this one is static.
        """
        for ours, theirs in zip(self.ranges, trained.ranges, strict=True):
            # What is learned comes first; a range of several uses has more.
            for variable, value in zip(ours.weights, theirs.weights, strict=False):
                variable.assign(value)
        if self.limits is not None:
            self.limits.assign(trained._limits())

    def quantized_kernel(self):
        """Returns the kernel as int8 will hold it, float32."""
        limits = self._limits() if self.limits is None else self.limits.value
        return fake_quantize_kernel(self._float_kernel(), limits)

    def _float_kernel(self):
        return ops.convert_to_tensor(self.kernel_variable, "float32")

    def _limits(self):
        kernel = ops.stop_gradient(self._float_kernel())
        # Equal weights shall be equal integers, in whatever channel they are.
        return kernel_limits(kernel, self.rule.channel_axes, bool(self.clusters))

    def call_layer(self, inputs, training=None, **kwargs):
        """Returns the layer's outputs, rounded wherever int8 rounds them."""
        outputs = self._compute(self._rounded(inputs, training), kwargs)
        if self.separate_activation:
            outputs = self.inner_range(outputs, training=training)
            outputs = self.separate_activation(outputs)
        if self.output_range is not None:
            outputs = self.output_range(outputs, training=training)
        return outputs

    def _rounded(self, inputs, training):
        flat = keras.tree.flatten(inputs)
        for i, bounds in enumerate(self.input_ranges):
            if bounds is not None:
                flat[i] = bounds(flat[i], training=training)
        return keras.tree.pack_sequence_as(inputs, flat)

    def _compute(self, inputs, kwargs):
        if self.rule.offset:
            return inputs + self._offset(inputs.dtype)
        if self.rule.kernel is None:
            return self.layer.call(inputs, **kwargs)
        kernel = self.kernel_variable
        values = [(v, v.value) for v in self.layer.variables if v is not kernel]
        with keras.StatelessScope([(kernel, self.quantized_kernel()), *values]):
            if isinstance(self.layer, keras.layers.Dense) and len(inputs.shape) > 2:
                return self._dense_by_rows(inputs)
            return self.layer.call(inputs)

    def _offset(self, dtype):
        """Returns the number that the layer adds, with a range, as int8 wants it."""
        offset = self.rule.offset
        constant = ops.convert_to_tensor(offset, dtype)
        return fake_quantize(constant, min(offset, 0.0), max(offset, 0.0))

    def _dense_by_rows(self, inputs):
        """Calls a dense layer on rank 2, the only rank that is int8 in TFLite."""
        *between, features = inputs.shape[1:]
        outputs = self.layer.call(ops.reshape(inputs, (-1, features)))
        return ops.reshape(outputs, (-1, *between, outputs.shape[-1]))

    def compute_output_shape(self, input_shape):
        """Returns the shape of the layer's outputs."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self):
        """Returns all constructor arguments, by name."""
        activation = self.separate_activation
        config = super().get_config()
        config["activation"] = activation and keras.activations.serialize(activation)
        config["inputs"] = list(self._inputs)
        config["output"] = self._output
        config["masked"] = self.masked
        config["clusters"] = self.clusters
        config["static"] = self.static
        config["uses"] = self.uses
        return config


def wrappers(model):
    """Lists the quantization wrappers of a model.

    Args:
        model: A layer or model.

    Returns:
        List of `QuantizationWrapper`, empty if nothing in it is quantized.

    Example:
    >>> wrappers(keras.layers.Dense(2))
    []
    """
    parts = model._flatten_layers()
    return [part for part in parts if isinstance(part, QuantizationWrapper)]
