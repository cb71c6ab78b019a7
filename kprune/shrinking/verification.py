"""Compares a narrowed model with the model that it was made of."""

import typing

import keras
import numpy as np

from kprune.copier import in_short
from kprune.layer_graph import read_graph
from kprune.shrinking.examples import first_of, made_up
from kprune.shrinking.precision import Precise, lost_digits, raised
from kprune.weight_access import as_array

_TOLERANCE = 1e-4  # of the largest output: many times what float32 rounds
_ROUNDINGS = 50  # so many may add up
_STEP = 1e-7  # of float32
_TRIES = 3  # of one alone, two roundings may be the same by chance
_OPEN_SIZES = (64, 16, 512)  # tried in turn


class NotComparable(ValueError):
    """Raised where nothing can be said of two models."""


class Change(typing.NamedTuple):
    """By how much the removal of channels has changed what a model computes.

    Attributes:
        size: Float, the largest difference of any two numbers, by the largest of the
            same tensor; or, of a tensor that is roundings alone, by what these are
            the roundings of. Infinite if tensors can't be compared.
        unexplained: Float, the same, but for weights that removal rescales, and that
            are rounded to a type with few bits by that: these have all their digits.
        allowed: Float, by how much correct models may differ there. It is 1e-4, and
            more only if some layer can't be made to compute in float32.
    """

    size: float
    unexplained: float
    allowed: float


def change(model, small, tracing, removed, zeroed, data=None):
    """Measures by how much the removal of channels has changed what a model computes.

    The model is run with zeros in all slices of weights that are gone, the small one
    as it is, both in float32, though their layers may have types with fewer bits.
    Compared are the outputs, and what comes before a softmax, a ReLU, an `argmax` or
    the like at their ends, since these hide differences. Where nothing is left but
    roundings, as of the mean of what has none, they may differ by as much as they do
    once all weights are rounded in another way. Neither model is changed.

    Args:
        model: The model that was traced.
        small: What is left of it.
        tracing: `Tracing`.
        removed: Bool array, by channel: which of them are gone.
        zeroed: Bool array, by channel: which of them the model is given zeros for.
        data: What `CalibrationData` takes, of which the first two examples are
            looked at. Defaults to random numbers.

    Returns:
        `Change`.

    Raises:
        NotComparable: If the model can't be run on the examples, or gives NaN.
    """

    def with_zeros(variable):
        value, known = as_array(variable), tracing.weights.get(id(variable))
        for axis, kept in known.value.kept(zeroed).items() if known else ():
            value = np.array(value)
            np.moveaxis(value, axis, 0)[~kept] = 0
        return value

    precise, graph = Precise(), read_graph(small)
    inputs, expected = _first_run(model, tracing.graph, with_zeros, data, precise)
    if _has_nan(expected):
        _explain_nan(model, tracing.graph, inputs, data, precise)

    def largest(value_of):
        found = _run(small, graph, inputs, value_of, precise)
        gaps = {name: _gap(*pair) for name, pair in _pairs(expected, found)}
        differences = {name: gap / _scale(expected[name]) for name, gap in gaps.items()}
        large = [name for name, one in differences.items() if not one <= _TOLERANCE]
        if large:
            noise = _noise(model, tracing.graph, inputs, with_zeros, expected, precise)
        for name in large:
            if gaps[name] <= _ROUNDINGS * noise[name] < np.inf:
                differences[name] = gaps[name] / (noise[name] / _STEP)
        return max(differences.values(), default=0.0)

    def with_digits(variable):
        return digits.get(id(variable), variable.value)

    size, digits = largest(_own_value), lost_digits(tracing, graph, removed)
    unexplained = largest(with_digits) if digits else size
    return Change(size, unexplained, max(_TOLERANCE, _ROUNDINGS * precise.roundoff))


def _noise(model, graph, inputs, value_of, expected, precise):
    """Returns by how much each tensor changes if all weights are rounded anew.

    Args:
        model: The model.
        graph: Its `LayerGraph`.
        inputs: What it is run on.
        value_of: Function that returns what is taken for a variable.
        expected: What is seen without other roundings; see `_run`.
        precise: `Precise`.

    Returns:
        Dict from the names in `expected` to the largest difference in several tries.
    """
    random = np.random.default_rng(0)

    def rounded(variable):
        value = np.asarray(raised(value_of(variable)))
        if "float" not in str(variable.dtype):
            return value
        factor = 1 + _STEP * random.normal(size=value.shape)
        return np.asarray(value * factor).astype(value.dtype)

    runs = [_run(model, graph, inputs, rounded, precise) for _ in range(_TRIES)]
    return {
        name: max(_gap(one, run[name]) for run in runs)
        for name, one in expected.items()
    }


def _gap(expected, found):
    """Returns the largest difference, infinite for tensors that can't be compared."""
    expected, found = _as_floats(expected), _as_floats(found)
    if expected.shape != found.shape:
        return float("inf")
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    if not np.isfinite(found[~same]).all():
        return float("inf")
    return float(np.abs(expected - found)[~same].max(initial=0))


def _scale(tensor):
    tensor = _as_floats(tensor)
    return np.abs(tensor[np.isfinite(tensor)]).max(initial=0) or 1.0


def _as_floats(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def _has_nan(seen):
    outputs = (tensor for name, tensor in seen.items() if name[0] == _OUTPUT)
    return any(np.isnan(_as_floats(tensor)).any() for tensor in outputs)


def _pairs(expected, found):
    """Yields the names and pairs of tensors that should be alike; see `_run`.

    Those are left out from which channels were removed, and whole numbers, which may
    be the places of numbers that are nearly alike, if there are others.
    """
    names = [
        name
        for name, one in expected.items()
        if name[0] == _OUTPUT or (name in found and found[name].shape == one.shape)
    ]
    real = [name for name in names if "float" in str(expected[name].dtype)]
    for name in real or names:
        yield name, (expected[name], found[name])


def _first_run(model, graph, value_of, data, precise):
    """Runs a model on the first examples that it accepts.

    Returns:
        Tuple of these inputs, and what is seen; see `_run`.
    """
    is_open = any(None in tensor.shape[1:] for tensor in model.inputs)
    if data is None:
        sizes = _OPEN_SIZES if is_open else _OPEN_SIZES[:1]
        tries = (made_up(model, graph, size) for size in sizes)
    else:
        tries = iter([first_of(model, data)])
    for inputs in tries:
        try:
            return inputs, _run(model, graph, inputs, value_of, precise)
        except Exception as error:  # any that layers and backends can think of
            failure = error
    raise NotComparable(
        f"The model {model.name!r} can't be run on {_in_words(data)}, so that it can't "
        "be compared with what is made of it. Pass some examples that it takes, "
        f"`calibration_data=x`. This is the error: {in_short(failure)}"
    ) from failure


def _in_words(data):
    return "random numbers" if data is None else "the calibration data"


def _explain_nan(model, graph, inputs, data, precise):
    """Raises, and says whether it is the model's own outputs that are NaN."""
    seen = _run(model, graph, inputs, _own_value, precise)
    if _has_nan(seen):
        raise NotComparable(
            f"What the model {model.name!r} computes of {_in_words(data)} is NaN, "
            "before anything was removed. Look for NaN in its weights and in the "
            "examples, or pass others: `calibration_data=x`."
        )
    raise NotComparable(
        f"What the model {model.name!r} computes is NaN if the channels that go are "
        "zero, so that it can't be compared with what is left: it divides by them, or "
        "the like. Leave the layers that make them out with `skip`."
    )


def _own_value(variable):
    return variable.value


def _run(model, graph, inputs, value_of, precise):
    """Runs a model with other values in its variables.

    Args:
        model: The model.
        graph: Its `LayerGraph`.
        inputs: What it is run on, of its input structure.
        value_of: Function that returns what is taken for a variable.
        precise: `Precise`, which makes the calls.

    Returns:
        Dict from a name, the same for the small model, to a tensor: the outputs, what
        follows the last weights, and what is there without these layers' activations.
    """
    tail = _tail(graph)
    whole = getattr(model, "_functional", None) or model
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    found = {}
    with keras.StatelessScope() as scope:
        for one in variables:
            # Given as a mapping, it would be rounded to the type of the variable.
            scope.add_update((one, keras.ops.convert_to_tensor(raised(value_of(one)))))
        inputs = map(raised, whole._standardize_inputs(inputs))
        values = dict(zip(graph.inputs, inputs, strict=True))
        for call, name in zip(graph.calls, _names(graph), strict=True):
            taken = [values[number] for number in call.inputs]
            outputs = precise(call, call.operation, taken)
            values.update(zip(call.outputs, outputs, strict=False))
            if not tail.isdisjoint(call.outputs):
                found |= {(*name, place): one for place, one in enumerate(outputs)}
                if _has_activation(call.operation):
                    twin = _without_activation(call.operation)
                    found[(*name, "bare")] = precise(call, twin, taken)[0]
    outputs = enumerate(graph.outputs)
    return found | {(_OUTPUT, place): values[number] for place, number in outputs}


_OUTPUT = None  # in the place of the name of a layer


def _tail(graph):
    """Returns the values behind the last weights, a set of ints."""
    makers = {number: call for call in graph.calls for number in call.outputs}
    found, coming = set(), list(graph.outputs)
    while coming:
        number = coming.pop()
        if number in makers and number not in found:
            found.add(number)
            if not getattr(makers[number].operation, "weights", None):
                coming += makers[number].inputs
    return found


def _names(graph):
    """Names each call: after its operation, and how often this was called before."""
    seen = {}
    for call in graph.calls:
        seen[call.name] = seen.get(call.name, 0) + 1
        yield call.name, seen[call.name]


def _has_activation(layer):
    is_layer = isinstance(layer, keras.Layer) and layer.weights
    return bool(is_layer) and callable(vars(layer).get("activation"))


def _without_activation(layer):
    """Returns a layer with the same weights whose activation does nothing."""
    twin = object.__new__(type(layer))  # a copy would have weights of its own
    vars(twin).update(vars(layer))
    vars(twin)["activation"] = keras.activations.linear
    return twin
