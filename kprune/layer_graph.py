"""The calls of layers in a model, with nested models opened."""

import dataclasses

import keras
from keras import layers, tree

from kprune.cloning import is_graph
from kprune.prunable import find_weights, has_no_prunable_weights


@dataclasses.dataclass(frozen=True)
class Call:
    """One use of a layer or operation in a graph.

    Attributes:
        operation: The layer or `keras.Operation`.
        name: String, its name after those of the nested models around it, as in
            `"body/stem"`.
        inputs: Tuple of int, the values that go in.
        outputs: Tuple of int, the values that come out.
        node: The Keras node, with the `arguments` of the call.
    """

    operation: object
    name: str
    inputs: tuple
    outputs: tuple
    node: object

    @property
    def given(self):
        """Tuple of a tuple and a dict, positional and named arguments as they are."""
        return self.node.arguments.args, self.node.arguments.kwargs

    def arguments(self, stand_ins):
        """Returns the call's arguments with others in the place of its inputs.

        Args:
            stand_ins: Sequence of anything, one for each of `inputs`.

        Returns:
            Tuple of a tuple and a dict, positional and named arguments.
        """
        tensors = map(id, self.node.input_tensors)
        return self.node.arguments.fill_in(dict(zip(tensors, stand_ins, strict=True)))


@dataclasses.dataclass(frozen=True)
class LayerGraph:
    """The flat graph of a model: values are numbered, calls in running order.

    Attributes:
        calls: List of `Call`, each after those whose values it takes.
        shapes: Dict from value to its shape, a tuple of int or `None`.
        tensors: Dict from the id of each Keras tensor, those within nested models
            too, to the list of its values: several if a nested model is shared.
        inputs: Tuple of int, the values that the model takes.
        outputs: Tuple of int, the values that it returns.
    """

    calls: list
    shapes: dict
    tensors: dict
    inputs: tuple
    outputs: tuple

    def first_calls(self):
        """Returns a dict from the id of each operation to the first call of it."""
        return {id(call.operation): call for call in reversed(self.calls)}

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
    graph = LayerGraph([], {}, {}, (), ())
    values = {}
    inputs = tuple(_number(graph, values, x) for x in tree.flatten(model.inputs))
    _read(graph, model, "", values)
    outputs = tuple(values[id(x)] for x in tree.flatten(model.outputs))
    return dataclasses.replace(graph, inputs=inputs, outputs=outputs)


# Operations that move channels to other places and compute nothing.
_MOVING = ("Concatenate", "Flatten", "Permute", "Reshape", "Transpose")


def layers_of_outputs(model):
    """Lists the layers whose output channels are the outputs of a model.

    What has no kernel lets channels through: activations, normalization, pooling,
    sums and products of several inputs.

    Args:
        model: A model. Of one that is neither Functional nor Sequential nothing is
            known.

    Returns:
        List of layers, sublayers of wrappers and recurrent layers included.

    Example:
    >>> head = keras.layers.Dense(2, name="head")
    >>> body = [keras.Input((3,)), keras.layers.Dense(4), head, layers.Softmax()]
    >>> [layer.name for layer in layers_of_outputs(keras.Sequential(body))]
    ['head']
    """
    if not is_graph(model):
        return []
    if not model.built:
        return _last_layer(model)
    graph = read_graph(model)
    makers = {value: call for call in graph.calls for value in call.outputs}
    found, coming, seen = [], list(graph.outputs), set(graph.inputs)
    while coming:
        value = coming.pop()
        if value in seen:
            continue
        seen.add(value)
        operation = makers[value].operation
        if _has_kernel(operation):
            found += _answering(operation)
        else:
            coming += [
                one
                for one in makers[value].inputs
                if type(operation).__name__ in _MOVING
                or graph.shapes[one][-1:] == graph.shapes[value][-1:]
            ]
    return found


def _last_layer(model):
    """Returns what answers in a Sequential that its first batch will build."""
    for layer in reversed(model.layers):
        if isinstance(layer, keras.Model):
            return layers_of_outputs(layer)
        has_weights = type(layer).build is not keras.Layer.build or layer._layers
        if has_weights and not has_no_prunable_weights(layer):
            return _answering(layer)
    return []


def _has_kernel(operation):
    is_layer = isinstance(operation, keras.Layer)
    return is_layer and any(not w.reason for w in find_weights(operation))


def _answering(layer):
    """Lists the layers within a layer whose outputs are its own, if that is known."""
    if isinstance(layer, keras.Model):
        return []
    if isinstance(layer, layers.Wrapper) and not isinstance(
        layer, layers.Bidirectional
    ):
        return _answering(layer.layer)
    if isinstance(layer, (layers.Bidirectional, layers.RNN)):
        return list(layer._flatten_layers())
    return [getattr(layer, "_output_dense", layer)]  # of attention


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


def parts_of(operation):
    """Lists the layers within a layer and itself; or the operation, if it is none."""
    is_layer = isinstance(operation, keras.Layer)
    return list(operation._flatten_layers()) if is_layer else [operation]


def _given_to(node):
    """Lists the tensors that a nested model takes, without the masks beside them."""
    args, kwargs = node.arguments.args, node.arguments.kwargs
    return tree.flatten(args[0] if args else kwargs["inputs"])


def _number(graph, values, tensor):
    value = len(graph.shapes)
    graph.shapes[value] = tuple(tensor.shape)
    _note(graph, values, tensor, value)
    return value


def _note(graph, values, tensor, value):
    values[id(tensor)] = value
    graph.tensors.setdefault(id(tensor), []).append(value)


def _read(graph, model, prefix, values):
    for node in nodes_of(model):
        operation = node.operation
        if isinstance(operation, keras.Model) and is_graph(operation):
            inner = {}
            for outer, tensor in zip(_given_to(node), operation.inputs, strict=True):
                _note(graph, inner, tensor, values[id(outer)])
            _read(graph, operation, f"{prefix}{operation.name}/", inner)
            for tensor, result in zip(
                node.output_tensors, operation.outputs, strict=True
            ):
                _note(graph, values, tensor, inner[id(result)])
        else:
            inputs = tuple(values[id(x)] for x in node.input_tensors)
            outputs = tuple(_number(graph, values, x) for x in node.output_tensors)
            name = prefix + operation.name
            graph.calls.append(Call(operation, name, inputs, outputs, node))
