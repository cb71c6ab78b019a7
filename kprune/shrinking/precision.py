"""Layers and operations called in float32, whatever types they compute in."""

import contextlib

import keras
import numpy as np
from keras.dtype_policies import DTypePolicyMap
from keras.src import backend

from kprune.channels.rules.base import has_rescaling_rule, rule_of
from kprune.layer_graph import parts_of
from kprune.shrinking.removal import Narrowed
from kprune.weight_access import as_array

# The largest part by which rounding to a type with few bits changes a number.
_ROUNDOFFS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


class Precise:
    """Makes the calls of a graph in float32, where that can be done.

    Half precision leaves errors as large as those of a wrong removal. What weights and
    inputs hold is what the model has, only what is computed of them has more digits.
    Code that insists on a type, as it may where it calls TensorFlow, gets its own.

    Attributes:
        roundoff: Float, by what part a number may be off where a call was not made in
            float32; 0 if all were.
    """

    def __init__(self):
        self.roundoff = 0.0

    def __call__(self, call, operation, inputs):
        """Returns what comes out of a call, a list of tensors.

        Args:
            call: `Call`.
            operation: What is called in the place of its own. It is no other
                afterwards.
            inputs: List of tensors.
        """
        try:
            with _in_float32(operation):
                return _called(call, operation, inputs)
        except Exception:  # any that layers and backends can think of
            types = {tensor.dtype for tensor in call.node.input_tensors}
            low = _ROUNDOFFS.keys() & {*types, *map(_type_of, parts_of(operation))}
            if not low:
                raise
        inputs = list(map(_as_in_graph, inputs, call.node.input_tensors))
        variables = getattr(operation, "variables", ())
        with keras.StatelessScope([(one, one.value) for one in variables]):
            outputs = _called(call, operation, inputs)
        self.roundoff = max(self.roundoff, *(_ROUNDOFFS[one] for one in low))
        return outputs


def _called(call, operation, inputs):
    args, kwargs = call.arguments(inputs)
    if "training" in getattr(operation, "_call_context_args", {}):
        kwargs["training"] = False
    return keras.tree.flatten(operation(*args, **kwargs))


def raised(tensor):
    """Returns a tensor or array, in float32 if its type has fewer bits."""
    low = backend.standardize_dtype(tensor.dtype) in _ROUNDOFFS
    return keras.ops.cast(tensor, "float32") if low else tensor


@contextlib.contextmanager
def _in_float32(operation):
    """Lets all that computes within an operation do so in float32."""
    low = [part for part in parts_of(operation) if _type_of(part) in _ROUNDOFFS]
    # All parts, since any may keep something of its first call.
    before = [(vars(part), dict(vars(part))) for part in parts_of(operation)]
    try:
        for part in low:
            # Not by the setter, which quantizes a layer of a policy that is quantized.
            if isinstance(part, keras.Layer):
                vars(part)["_dtype_policy"] = _policy_in_float32(part)
            else:
                vars(part)["dtype"] = "float32"
        with backend.AutocastScope("float32") if low else contextlib.nullcontext():
            yield
    finally:
        for attributes, values in before:
            attributes.clear()
            attributes.update(values)


def _type_of(part):
    """Returns the type that a layer computes in, or that an operation makes."""
    is_layer = isinstance(part, keras.Layer)
    return part.compute_dtype if is_layer else getattr(part, "dtype", None)


def _policy_in_float32(layer):
    """Returns the policy of a layer, as of an `int8` one, with float32 in it."""
    policy = layer.dtype_policy
    if isinstance(policy, DTypePolicyMap):
        policy = policy[layer.path]
    quantized, within, _ = policy.name.rpartition("_from_")
    return keras.dtype_policies.get(quantized + within + "float32")


def _as_in_graph(value, symbol):
    """Returns a tensor, mask included, in the type that it has in the graph."""
    if symbol.dtype not in _ROUNDOFFS:
        return value
    found = keras.ops.cast(value, symbol.dtype)
    mask = backend.get_keras_mask(value)
    if mask is not None:
        backend.set_keras_mask(found, mask)
    return found


def lost_digits(tracing, graph, removed):
    """Returns weights of a small model as they were before they were rounded.

    Args:
        tracing: `Tracing` of the model that it was made of.
        graph: Its `LayerGraph`.
        removed: Bool array, by channel: which of them are gone.

    Returns:
        Dict from the ids of variables that were rescaled, and whose type has few
        bits, to float32 arrays.
    """
    narrowed, found = Narrowed(tracing, removed), {}
    ours = {call.name: call.operation for call in graph.calls}
    for call in tracing.graph.calls:
        layer = call.operation
        if has_rescaling_rule(layer):
            new = ours[call.name].variables
            for variable, mine in zip(layer.variables, new, strict=True):
                if mine.dtype in _ROUNDOFFS:
                    value = np.asarray(raised(as_array(variable)))
                    left = narrowed.array(variable, value)
                    rule = rule_of(layer)
                    found[id(mine)] = rule.rescaled(layer, variable, left, narrowed)
    return found
