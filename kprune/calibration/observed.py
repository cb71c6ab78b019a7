"""Where the answer of a layer is seen: behind its normalization and activation."""

import dataclasses

import keras
from keras import layers

from kprune.cloning import is_graph
from kprune.layer_graph import read_graph
from kprune.wrapper import PruningWrapper

_PASSED = (
    layers.BatchNormalization,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
_ACTIVATIONS = (
    layers.Activation,
    layers.ELU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ReLU,
)
_OPERATIONS = ("Relu", "Relu6", "Silu", "Gelu", "Sigmoid", "Tanh", "LeakyRelu", "Elu")


@dataclasses.dataclass(frozen=True)
class Answer:
    """Where the outputs are seen that are what a layer answers.

    Attributes:
        operation: The layer or operation whose output it is.
        number: Int, which of the operation's calls, in running order. `None` means
            all of them.
        calls: Int, how many calls of the operation the model's graph has.
    """

    operation: object
    number: int | None = None
    calls: int = 1

    def outputs(self, seen):
        """Returns a list of the outputs that are the answer.

        Args:
            seen: List of the outputs of all the operation's calls.

        Raises:
            ValueError: If the operation is called elsewhere than in the graph.
        """
        if self.number is None:
            return seen
        if len(seen) != self.calls:
            raise ValueError(
                f"The layer {self.operation.name!r} is called {len(seen)} times while "
                f"the model runs, and {self.calls} times in its graph, so that it "
                "can't be told which call follows which layer. Give each layer an "
                "activation of its own, or take another criterion."
            )
        return seen[self.number : self.number + 1]


class Observed:
    """The operations that follow the layers of a model, one after another.

    Args:
        model: A model, pruned or not. Of subclassed models nothing is known, and
            each layer is seen alone.

    Example:
    >>> dense, act = layers.Dense(2), layers.ReLU()
    >>> model = keras.Sequential([keras.Input((3,)), dense, act])
    >>> Observed(model).answer(dense).operation is act
    True
    """

    def __init__(self, model):
        self._calls, self._consumers = {}, {}
        if is_graph(model) and model.built:
            graph = read_graph(model)
            self._consumers = graph.consumers()
            for call in graph.calls:
                layer = _unwrapped(call.operation)
                self._calls.setdefault(id(layer), []).append(call)

    def answer(self, layer):
        """Returns the `Answer` of a layer."""
        seen = None
        for call in self._followers(layer) if _is_linear(layer) else ():
            operation = _unwrapped(call.operation)
            is_activation = _is_activation(operation)
            if is_activation or isinstance(operation, _PASSED):
                seen = call
            if seen is not call or is_activation:
                break
        return Answer(layer) if seen is None else self._answer_of(seen)

    def _answer_of(self, call):
        operation = _unwrapped(call.operation)
        calls = self._calls[id(operation)]
        number = next(i for i, other in enumerate(calls) if other is call)
        return Answer(operation, number, len(calls))

    def normalization(self, layer):
        """Returns the batch normalization right behind a layer, or `None`."""
        if not _is_linear(layer):
            return None
        call = next(self._followers(layer), None)
        following = None if call is None else _unwrapped(call.operation)
        is_norm = isinstance(following, layers.BatchNormalization)
        return following if is_norm else None

    def _followers(self, layer):
        """Yields the calls behind a layer as long as there is one way to go."""
        calls = self._calls.get(id(layer), [])
        while len(calls) == 1 and len(calls[0].outputs) == 1:
            calls = self._consumers.get(calls[0].outputs[0], [])
            if len(calls) == 1:
                yield calls[0]


def channel_axes(layer):
    """Returns the axes of a layer's output that its channels are on.

    Args:
        layer: A Keras layer.

    Returns:
        List of ints, negative ones counted from the end.

    Example:
    >>> channel_axes(layers.EinsumDense("btc,ts->bsc", output_shape=(6, 6)))
    [1]
    >>> channel_axes(layers.EinsumDense("...x,xyz->...yz", output_shape=(6, 6)))
    [-2, -1]
    """
    if isinstance(layer, layers.EinsumDense):
        terms, result = layer.equation.replace(" ", "").split("->")
        kernel = terms.split(",")[1]
        before, dots, _ = result.partition("...")
        return [
            i - len(result) if dots and i > len(before) else i
            for i, letter in enumerate(result)
            if letter in kernel and letter != "."
        ]
    first = getattr(layer, "data_format", None) == "channels_first"
    return [1 if first else -1]


def _unwrapped(operation):
    return operation.layer if isinstance(operation, PruningWrapper) else operation


def _is_linear(layer):
    activation = getattr(layer, "activation", None)
    return activation is None or activation is keras.activations.linear


def _is_activation(operation):
    return isinstance(operation, _ACTIVATIONS) or (
        not isinstance(operation, keras.Layer)
        and type(operation).__name__ in _OPERATIONS
    )
