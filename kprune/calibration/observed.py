"""Where the answer of a layer is seen: behind its normalization and activation."""

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


class Observed:
    """The operations that follow the layers of a model, one after another.

    Args:
        model: A model, pruned or not. Of subclassed models nothing is known, and
            each layer is seen alone.

    Example:
    >>> dense, act = layers.Dense(2), layers.ReLU()
    >>> model = keras.Sequential([keras.Input((3,)), dense, act])
    >>> Observed(model).answer(dense) is act
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
        """Returns the layer or operation whose output is what the layer answers."""
        seen = layer
        if not _is_linear(layer):
            return layer
        for operation in self._followers(layer):
            if _is_activation(operation):
                return operation
            if not isinstance(operation, _PASSED):
                break
            seen = operation
        return seen

    def normalization(self, layer):
        """Returns the batch normalization right behind a layer, or `None`."""
        if not _is_linear(layer):
            return None
        following = next(self._followers(layer), None)
        is_norm = isinstance(following, layers.BatchNormalization)
        return following if is_norm else None

    def _followers(self, layer):
        """Yields what comes behind a layer as long as there is one way to go."""
        calls = self._calls.get(id(layer), [])
        while len(calls) == 1 and len(calls[0].outputs) == 1:
            calls = self._consumers.get(calls[0].outputs[0], [])
            if len(calls) == 1:
                yield _unwrapped(calls[0].operation)


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
