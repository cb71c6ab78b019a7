"""What is known of the channels of a model, once they have been followed."""

import dataclasses
import functools

import keras

from kprune.channels.numbers import Channels
from kprune.channels.value import Value
from kprune.layer_graph import LayerGraph


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
