"""What is known of the channels of a model, once they have been followed."""

import dataclasses
import functools

import keras
import numpy as np

from kprune.channels.numbers import Channels
from kprune.channels.value import Value, compressed
from kprune.layer_graph import LayerGraph
from kprune.layout import Layout


@dataclasses.dataclass(frozen=True)
class Tracing:
    """All channels of a model.

    Attributes:
        graph: `LayerGraph`.
        channels: `Channels`.
        values: Dict from the number of each value of the graph to its `Value`.
        weights: Dict from the id of each variable that has channels to its `Weight`.
    """

    graph: LayerGraph
    channels: Channels
    values: dict
    weights: dict

    @functools.cached_property
    def names(self):
        """Dict from the id of each operation to its name within the whole model."""
        calls = self.graph.first_calls()
        return {key: call.name for key, call in calls.items()}

    @functools.cached_property
    def owners(self):
        """Dict from the id of each variable to the layer that owns it."""
        operations = (call.operation for call in self.graph.first_calls().values())
        return {
            id(variable): part
            for layer in operations
            if isinstance(layer, keras.Layer)
            for part in layer._flatten_layers()
            for variable in (*part._trainable_variables, *part._non_trainable_variables)
        }


@dataclasses.dataclass(frozen=True)
class Weight:
    """A variable with its channels.

    Attributes:
        variable: Keras variable.
        layer: The layer whose call first used it.
        value: `Value` of its shape.
        makes: Tuple of ints, the axes whose channels it makes: its output channels.
    """

    variable: object
    layer: object
    value: Value
    makes: tuple

    @property
    def made(self):
        """Set of ints, the axes of `makes` counted from the front."""
        return {axis % len(self.value.shape) for axis in self.makes}

    def of_outputs(self, layout):
        """Yields the maps that lie along the output channels and nothing else.

        Args:
            layout: `Layout` of the variable.

        Yields:
            Pairs of the number of a map and the channel of each output, an int array.
        """
        shape = self.value.shape
        for number, ids in enumerate(self.value.maps):
            if layout != Layout():
                ids = compressed(layout.canonical(np.broadcast_to(ids, shape)))
            if Value.axes(ids) == (ids.ndim - 1,):
                yield number, ids.ravel()
