"""The calls of layers in a model, with nested models opened."""

import dataclasses

import keras
from keras import tree

from kprune.cloning import is_graph


@dataclasses.dataclass(frozen=True)
class Call:
    """One use of a layer or operation in a graph.

    Attributes:
        operation: The layer or `keras.Operation`.
        name: String, its name after those of the nested models around it, as in
            `"body/stem"`.
        inputs: Tuple of int, the values that go in.
        outputs: Tuple of int, the values that come out.
    """

    operation: object
    name: str
    inputs: tuple
    outputs: tuple


@dataclasses.dataclass(frozen=True)
class LayerGraph:
    """The flat graph of a model: values are numbered, calls in running order.

    Attributes:
        calls: List of `Call`, each after those whose values it takes.
        shapes: Dict from value to its shape, a tuple of int or `None`.
        inputs: Tuple of int, the values that the model takes.
        outputs: Tuple of int, the values that it returns.
    """

    calls: list
    shapes: dict
    inputs: tuple
    outputs: tuple

    def consumers(self):
        """Returns a dict from value to the list of calls that take it."""
        found = {value: [] for value in self.shapes}
        for call in self.calls:
            for value in call.inputs:
                found[value].append(call)
        return found


def read_graph(model):
    """Reads the flat graph of a model.

    Args:
        model: A built Functional or Sequential model. Nested ones of these kinds
            are opened; other models and layers are one call.

    Returns:
        A `LayerGraph`.

    Example:
    >>> inner = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.ReLU(name="r")], name="inner"
    ... )
    >>> inputs = keras.Input((4,))
    >>> graph = read_graph(keras.Model(inputs, inner(inputs)))
    >>> [(call.name, call.inputs, call.outputs) for call in graph.calls]
    [('inner/r', (0,), (1,))]
    """
    graph = LayerGraph([], {}, (), ())
    values = {}
    inputs = tuple(_number(graph, values, x) for x in tree.flatten(model.inputs))
    _read(graph, model, "", values)
    outputs = tuple(values[id(x)] for x in tree.flatten(model.outputs))
    return dataclasses.replace(graph, inputs=inputs, outputs=outputs)


def nodes_of(model):
    """Lists the nodes of one model, nested models unopened, in running order.

    Args:
        model: A built Functional or Sequential model.

    Returns:
        List of Keras nodes with `operation`, `input_tensors`, `output_tensors`.
    """
    function = getattr(model, "_functional", model)
    by_depth = function._nodes_by_depth
    depths = sorted(by_depth, reverse=True)
    nodes = [node for depth in depths for node in by_depth[depth]]
    return [node for node in nodes if not node.is_input]


def _number(graph, values, tensor):
    value = values[id(tensor)] = len(graph.shapes)
    graph.shapes[value] = tuple(tensor.shape)
    return value


def _read(graph, model, prefix, values):
    for node in nodes_of(model):
        operation = node.operation
        inputs = tuple(values[id(x)] for x in node.input_tensors)
        if isinstance(operation, keras.Model) and is_graph(operation):
            inner = dict(zip(map(id, operation.inputs), inputs, strict=True))
            _read(graph, operation, f"{prefix}{operation.name}/", inner)
            results = (inner[id(x)] for x in operation.outputs)
            values.update(zip(map(id, node.output_tensors), results, strict=True))
        else:
            outputs = tuple(_number(graph, values, x) for x in node.output_tensors)
            name = prefix + operation.name
            graph.calls.append(Call(operation, name, inputs, outputs))
