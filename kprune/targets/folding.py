"""What is left of a graph of layers when the converter has folded it."""

import dataclasses

from keras import layers

from kprune.targets.xnnpack_rules import activation_name, is_convolution

_NO_PADDING = ((0, 0), (0, 0))
_WITHOUT_EFFECT = (
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ActivityRegularization,
    layers.Identity,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A call that is left over, with what was folded into it.

    Attributes:
        operation: The layer or operation.
        name: String, with the names of nested models around it.
        inputs: Tuple of int, the values that go in.
        outputs: Tuple of int, the values that come out.
        padding: ((top, bottom), (left, right)), zeros that a `ZeroPadding2D` right
            before it adds.
    """

    operation: object
    name: str
    inputs: tuple
    outputs: tuple
    padding: tuple


class FoldedGraph:
    """The nodes of a graph after folding, as TFLite and XNNPACK fold them.

    BatchNormalization goes into the convolution right before it, zero padding into
    the one right behind it, a reshape to (1, 1, channels) into the pool before it,
    and what does nothing at inference is left out.

    Args:
        graph: A `LayerGraph`.

    Attributes:
        nodes: List of `Node`, in running order.
        shapes: Dict from value to shape.
        returned: Set of int, the values that the model returns.
    """

    def __init__(self, graph):
        self.shapes = dict(graph.shapes)
        self._consumers = graph.consumers()
        self._returned = set(graph.outputs)
        self._alias, self._padding, self._folds_into = {}, {}, {}
        self._pooled = set()
        self.nodes = []
        for call in graph.calls:
            self._add(call)
        self.returned = {self._resolve(value) for value in graph.outputs}

    def _resolve(self, value):
        return self._alias.get(value, value)

    def _add(self, call):
        inputs = tuple(map(self._resolve, call.inputs))
        if self._vanishes(call, inputs):
            self._alias[call.outputs[0]] = inputs[0]
            self.shapes[inputs[0]] = self.shapes[call.outputs[0]]
            return
        if self._is_fused_padding(call):
            self._alias[call.outputs[0]] = inputs[0]
            self._padding[call.outputs[0]] = call.operation.padding
            return
        added = self._padding.get(call.inputs[0], _NO_PADDING)
        node = Node(call.operation, call.name, inputs, call.outputs, added)
        self.nodes.append(node)
        layer = call.operation
        if isinstance(layer, layers.GlobalAveragePooling2D):
            self._pooled.add(call.outputs[0])
        if is_convolution(layer) and activation_name(layer) == "linear":
            self._folds_into[call.outputs[0]] = node

    def _vanishes(self, call, inputs):
        operation = call.operation
        if isinstance(operation, layers.BatchNormalization):
            return inputs[0] in self._folds_into and self._is_private(call.inputs[0])
        if isinstance(operation, layers.Reshape):
            return self._keeps_dimensions(call, inputs[0])
        return isinstance(operation, _WITHOUT_EFFECT) or (
            isinstance(operation, layers.Activation)
            and activation_name(operation) == "linear"
        )

    def _keeps_dimensions(self, call, value):
        """Tells whether a reshape only gives back the dimensions that a pool took."""
        shape = self.shapes[call.outputs[0]]
        return (
            value in self._pooled
            and self._is_private(call.inputs[0])
            and (len(shape), *shape[1:3]) == (4, 1, 1)
        )

    def _is_fused_padding(self, call):
        """Tells whether XNNPACK moves a padding into the convolution behind it."""
        if not isinstance(call.operation, layers.ZeroPadding2D):
            return False
        consumers = self._consumers[call.outputs[0]]
        return (
            self._is_private(call.outputs[0])
            and is_convolution(consumers[0].operation)
            and consumers[0].operation.padding == "valid"
        )

    def _is_private(self, value):
        return len(self._consumers[value]) == 1 and value not in self._returned
