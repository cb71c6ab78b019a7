"""What a model costs for one example: parameters, multiply-adds, activations."""

import dataclasses
import math

import ml_dtypes  # noqa: F401  so that NumPy knows bfloat16 and float8
import numpy as np

from kprune.cloning import is_graph
from kprune.delegation import DelegatingWrapper
from kprune.inspection import check_built, check_keras_model, own_weights
from kprune.layer_graph import read_graph
from kprune.multiply_adds import shapes_of_one, works
from kprune.tables import laid_out


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What one call of a layer or operation costs.

    Attributes:
        name: String, its name after those of the nested models around it.
        parameters: Int, number of weights, trained or not. Those of a layer that is
            called more than once stand at its first call.
        macs: Int, multiply-adds for one example, or `None` where they are not known.
        activation_bytes: Int, bytes of the tensors that come out for one example, or
            `None` where a size is open.
    """

    name: str
    parameters: int
    macs: int | None
    activation_bytes: int | None


@dataclasses.dataclass(frozen=True)
class ModelCosts:
    """What a model costs; printed, a table.

    Attributes:
        model: String, the model's name.
        layers: List of `LayerCost`, one a call, in running order.
        parameters: Int, number of weights, trained or not; each counts once.
    """

    model: str
    layers: list
    parameters: int

    @property
    def macs(self):
        """Int, multiply-adds for one example, or `None` if some are not known."""
        return None if self.uncounted else self.known_macs

    @property
    def known_macs(self):
        """Int, multiply-adds for one example of all that is known."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def uncounted(self):
        """Tuple of strings, names of what has multiply-adds that are not known."""
        names = (layer.name for layer in self.layers if layer.macs is None)
        return tuple(dict.fromkeys(names))

    @property
    def activation_bytes(self):
        """Int, bytes of all tensors that layers put out, or `None`.

        They are not all held at once, and some may share memory.
        """
        found = [layer.activation_bytes for layer in self.layers]
        return None if None in found else sum(found)

    def to_dict(self):
        """Returns everything as plain Python, fit for JSON."""
        return {
            **dataclasses.asdict(self),
            "macs": self.macs,
            "known_macs": self.known_macs,
            "uncounted": list(self.uncounted),
            "activation_bytes": self.activation_bytes,
        }

    @property
    def headline(self):
        """String, the totals in one line."""
        macs = in_words(f"{self.known_macs:,}", self.uncounted)
        size = in_digits(self.activation_bytes)
        return (
            f"{self.parameters:,} parameters; for one example {macs} and {size} bytes "
            "of activations"
        )

    def __str__(self):
        rows = [
            (c.name, *map(in_digits, (c.parameters, c.macs, c.activation_bytes)))
            for c in self.layers
        ]
        table = laid_out(("layer", *NUMBERS), rows, numbers=NUMBERS)
        return f"{self.model}: {self.headline}\n\n{table}"


NUMBERS = ("parameters", "multiply-adds", "activation bytes")


def in_digits(number):
    """Returns a number in groups of digits; of one that is not known, `"?"`."""
    return "?" if number is None else f"{number:,}"


def in_words(number, uncounted):
    """Says how many multiply-adds there are, or what of them is known.

    Args:
        number: String, those that are known.
        uncounted: Sequence of strings, names of what has others.

    Example:
    >>> in_words("64", []), in_words("64", ["own"])
    ('64 multiply-adds', 'at least 64 multiply-adds (not known: own)')
    """
    macs = f"{number} multiply-adds"
    return f"at least {macs} (not known: {', '.join(uncounted)})" if uncounted else macs


def costs_of(model):
    """Counts what a model costs for one example.

    A multiply-add is one multiplication and the addition of its product to a sum, so
    half of what is often called FLOPs. Those of kernels, of attention's two products
    and of `matmul` and `einsum` are counted, at the edges of padded images too; what
    is done once an element, such as activations, normalization and biases, is not.
    A layer of your own is counted by a rule (`kprune.register("multiply_adds", ...)`).

    Args:
        model: A built Keras model, pruned or not. Of one that is neither Functional
            nor Sequential only the parameters are known, and those of such a model
            within another likewise.

    Returns:
        `ModelCosts`. Activations are counted in the type of number that each layer
        puts out, the model's inputs excepted. Masks are no parameters.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is not built.

    Example:
    >>> import keras
    >>> dense = keras.layers.Dense(4, name="dense")
    >>> body = [keras.Input((5, 3)), dense, keras.layers.ReLU(name="relu")]
    >>> print(costs_of(keras.Sequential(body, name="tiny")))
    tiny: 16 parameters; for one example 60 multiply-adds and 160 bytes of activations
    <BLANKLINE>
    layer  parameters  multiply-adds  activation bytes
    dense          16             60                80
    relu            0              0                80
    """
    check_keras_model(model)
    check_built(model)
    if not is_graph(model):
        parameters = _size(own_weights(model))
        whole = LayerCost(model.name, parameters, None, None)
        return ModelCosts(model.name, [whole], parameters)
    graph, counted = read_graph(model), set()
    layers = [
        LayerCost(call.name, _size(new_weights(call, counted)), macs, size)
        for call, macs, size in zip(
            graph.calls, macs_of(graph), activation_bytes_of(graph), strict=True
        )
    ]
    return ModelCosts(model.name, layers, sum(layer.parameters for layer in layers))


def macs_of(graph, shape_of_value=None, shape_of_weight=None):
    """Counts the multiply-adds of each call for one example, without any model.

    So a model can be judged before it is narrowed.

    Args:
        graph: A `LayerGraph`.
        shape_of_value: Function of a value's number that returns its shape, a tuple
            of int or `None`. Defaults to the graph's own shapes.
        shape_of_weight: Function of a Keras variable that returns its shape, as
            `Narrowed.weight` does. Defaults to its own.

    Returns:
        List of int, one for each of `graph.calls`, or `None` where they are not known.

    Example:
    >>> import keras
    >>> layer = keras.layers.Dense(4)
    >>> graph = read_graph(keras.Sequential([keras.Input((5, 3)), layer]))
    >>> macs_of(graph), macs_of(graph, shape_of_weight=lambda variable: (3, 2))
    ([60], [30])
    """
    shape_of_weight = shape_of_weight or (lambda variable: tuple(variable.shape))
    return [
        None if work is None else work.macs(shape_of_weight)
        for work in works(graph, shape_of_value, shape_of_weight)
    ]


def macs_by_weight(model):
    """Counts the multiply-adds that each weight of a model takes part in.

    Args:
        model: A built Keras model, pruned or not.

    Returns:
        Dict from the id of each weight to an int, for one example; 0 for what is not
        multiplied by sums, such as biases. Those of layers whose multiply-adds are
        not known are missing.
    """
    found, unknown = {}, set()
    graph = read_graph(model) if is_graph(model) else None
    for call, work in zip(graph.calls, works(graph), strict=True) if graph else ():
        ids = {id(weight) for weight in _weights(call)}
        if work is None:
            unknown |= ids
            continue
        for key in ids:
            found.setdefault(key, 0)
        for kernel, times in work.kernels:
            found[id(kernel)] += times * math.prod(kernel.shape)
    return {key: macs for key, macs in found.items() if key not in unknown}


def activation_bytes_of(graph, shape_of_value=None):
    """Counts the bytes of what each call puts out for one example.

    Args:
        graph: A `LayerGraph`.
        shape_of_value: As for `macs_of`.

    Returns:
        List of int, one for each of `graph.calls`, or `None` where a size is open.
    """
    shapes, examples = shapes_of_one(graph, shape_of_value)
    found = []
    for call in graph.calls:
        sizes = [
            _bytes(shapes[number], tensor.dtype)
            for number, tensor in zip(
                call.outputs, call.node.output_tensors, strict=True
            )
        ]
        found.append(None if None in sizes else sum(sizes) // examples)
    return found


def _bytes(shape, dtype):
    if None in shape or dtype == "string":
        return None
    return math.prod(shape) * np.dtype(dtype).itemsize


def new_weights(call, counted):
    """Lists the weights of a call that no call before it has brought in.

    Args:
        call: `Call`.
        counted: Set of int, the ids of the weights that are known. It is changed.
    """
    new = [weight for weight in _weights(call) if id(weight) not in counted]
    counted.update(map(id, new))
    return new


def _weights(call):
    """Lists the weights of a call, without what a wrapper holds beside them."""
    layer = call.operation
    while isinstance(layer, DelegatingWrapper):
        layer = layer.layer
    return getattr(layer, "weights", [])


def _size(weights):
    return sum(math.prod(weight.shape) for weight in weights)
