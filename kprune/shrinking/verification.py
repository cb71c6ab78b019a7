"""Compares a narrowed model with the model that it was made of."""

import contextlib

import keras
import numpy as np
from keras import layers

from kprune.calibration import CalibrationData
from kprune.calibration.watching import attribute
from kprune.layer_graph import layers_of_outputs, read_graph
from kprune.weight_access import as_array

_TOLERANCE = 1e-4  # of the largest output: many times what float32 rounds
_ROUNDINGS = 50  # so many steps of the type that a layer computes in
_OPEN_SIZE = 64


def change(model, small, tracing, removed, data=None):
    """Returns by how much the removal of channels has changed a model's outputs.

    The model is run with zeros in all slices of weights that were removed, the small
    one as it is, both without a softmax or the like at their ends. Neither is changed.

    Args:
        model: The model that was traced.
        small: What is left of it.
        tracing: `Tracing`.
        removed: Bool array, by channel: which of them are gone.
        data: What `CalibrationData` takes, of which the first two examples are
            looked at. Defaults to random numbers.

    Returns:
        Float, the largest difference of any two outputs, by the largest output.
    """
    inputs = _examples(model, tracing.graph) if data is None else _first(model, data)

    def zeroed(variable):
        value, known = as_array(variable), tracing.weights.get(id(variable))
        for axis, kept in known.value.kept(removed).items() if known else ():
            value = np.array(value)
            np.moveaxis(value, axis, 0)[~kept] = 0
        return value

    expected = _outputs(model, inputs, zeroed)
    found = _outputs(small, inputs, lambda variable: variable.value)
    return max(map(_difference, expected, found))


def tolerance(model):
    """Returns how large a change may be that roundings explain.

    Args:
        model: A model. What its layers compute in decides.
    """
    types = {layer.compute_dtype for layer in model._flatten_layers()}
    steps = [1e-2 if t == "bfloat16" else 1e-3 for t in types if t in _HALF]
    return max([_TOLERANCE, *(_ROUNDINGS * step for step in steps)])


_HALF = ("float16", "bfloat16")


def _difference(expected, found):
    expected, found = (np.asarray(x, "float64") for x in (expected, found))
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    scale = np.abs(expected).max(initial=0) or 1.0
    return float(np.abs(expected - found).max(initial=0) / scale)


def _outputs(model, inputs, value_of):
    """Lists the outputs of a model with other values in its variables."""
    with _not_saturated(model):
        outputs, _ = model.stateless_call(
            [value_of(v) for v in model.trainable_variables],
            [value_of(v) for v in model.non_trainable_variables],
            inputs,
            training=False,
        )
    return keras.tree.flatten(outputs)


@contextlib.contextmanager
def _not_saturated(model):
    """Leaves out what hides differences at the end: probabilities near 0 or 1."""
    graph = read_graph(model)
    last = [c.operation for c in graph.calls if {*c.outputs} & {*graph.outputs}]
    with contextlib.ExitStack() as stack:
        for layer in {id(x): x for x in (*layers_of_outputs(model), *last)}.values():
            function = getattr(layer, "activation", None)
            if function in _SATURATING:
                linear = keras.activations.linear
                stack.enter_context(attribute(layer, "activation", linear, function))
        yield


_SATURATING = (
    keras.activations.softmax,
    keras.activations.sigmoid,
    keras.activations.tanh,
)


def _first(model, data):
    """Returns the inputs of a few examples, as the model takes them."""
    x, _, _ = next(iter(CalibrationData(data, model, labels=False)))
    rows = 2 if model.inputs[0].shape[0] is None else None
    return keras.tree.map_structure(lambda array: array[:rows], x)


def _examples(model, graph):
    """Returns random inputs that a model accepts, of its input structure."""
    random = np.random.default_rng(0)
    numbers = dict(zip(map(id, model.inputs), graph.inputs, strict=True))
    is_chain = isinstance(model, keras.Sequential)
    return keras.tree.map_structure(
        lambda tensor: _random(tensor, _vocabulary(graph, numbers[id(tensor)]), random),
        model.inputs[0] if is_chain else model.input,
    )


def _random(tensor, vocabulary, random):
    first, *others = tensor.shape
    shape = [first or 2, *(size or _OPEN_SIZE for size in others)]
    if tensor.dtype == "string":
        return random.integers(0, 10, shape).astype(str)
    if tensor.dtype == "bool":
        return random.random(shape) < 0.5
    if vocabulary is not None:
        return random.integers(0, vocabulary, shape).astype(tensor.dtype)
    if "int" in tensor.dtype:
        return random.integers(0, 2, shape).astype(tensor.dtype)
    return random.normal(size=shape).astype("float32").astype(tensor.dtype)


def _vocabulary(graph, number):
    """Returns the number of rows of the embedding that an input goes to, or `None`."""
    found, coming, consumers = [], [number], graph.consumers()
    while coming:
        for call in consumers[coming.pop()]:
            operation = call.operation
            if isinstance(operation, layers.Embedding):
                found.append(operation.input_dim)
            elif not getattr(operation, "weights", None):
                coming += call.outputs
    return min(found, default=None)
