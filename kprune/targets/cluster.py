"""The part of a model that XNNPACK could run with its sparse kernels."""

import numpy as np
from keras import layers

from kprune.targets.findings import Finding
from kprune.targets.xnnpack_rules import (
    BINARY,
    UNARY,
    activation_name,
    effective_padding,
    inner_problem,
    is_convolution,
    is_pointwise,
    operation_name,
    stem_problem,
)

_KEEP_DIMENSIONS = "GlobalAveragePooling2D(keepdims=True) in front of it"
_REMEDIES = (
    (layers.Concatenate, "add the branches instead"),
    (
        (layers.MaxPooling2D, layers.AveragePooling2D),
        "a depthwise convolution of stride 2 instead",
    ),
    (layers.UpSampling2D, "interpolation='bilinear'"),
    ((layers.Flatten, layers.Reshape), f"{_KEEP_DIMENSIONS} needs none"),
    (layers.Dense, "a 1x1 Conv2D instead"),
)


class Cluster:
    """The part of a graph that sparse kernels could run, and what breaks it.

    Args:
        graph: A `FoldedGraph`.
    """

    def __init__(self, graph):
        self._graph = graph
        self._producer = {v: node for node in graph.nodes for v in node.outputs}
        self._stems = [node for node in graph.nodes if self._is_stem(node)]
        self._members = self._find_members()

    def _parents(self, node):
        return [self._producer[v] for v in node.inputs if v in self._producer]

    def _ancestors(self, nodes):
        found, waiting = set(), list(nodes)
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting += self._parents(node)
        return found

    def _is_stem(self, node):
        if not is_convolution(node.operation):
            return False
        before = self._ancestors(self._parents(node))
        return not any(is_convolution(other.operation) for other in before)

    def _find_members(self):
        """Lists stems and what lies between them and a pool, or behind, if none."""
        reached = set(self._stems)
        for node in self._graph.nodes:
            if not reached.isdisjoint(self._parents(node)):
                reached.add(node)
        behind = [node for node in self._graph.nodes if node in reached]
        self._ends = [node for node in behind if _is_pool(node)]
        if self._ends:
            before = self._ancestors(self._ends)
            return [node for node in behind if node in before]
        return [n for n in behind if len(self._graph.shapes[n.outputs[0]]) == 4]

    @property
    def has_entry(self):
        """Bool, whether sparse kernels would take over at one of the stems."""
        return any(self._problem(stem) is None for stem in self._stems)

    def kernels(self):
        """Yields name, zeros and size of the kernels whose zeros count."""
        for node in self._members:
            layer = node.operation
            if node in self._stems or not is_convolution(layer):
                continue
            kernel = layer.kernel if is_pointwise(layer) else None
            kernel = getattr(layer, "pointwise_kernel", kernel)
            if kernel is not None:
                values = np.asarray(kernel)
                zeros = int(values.size - np.count_nonzero(values))
                yield node.name, zeros, int(values.size)

    def obstacles(self):
        """Yields a finding for each node that breaks the cluster."""
        if not self._stems:
            yield Finding(
                "model",
                "it has no convolution; the sparse kernels are for images",
                "for Dense layers, prune (4, 1) blocks; see kprune.predict_speedup",
            )
            return
        for node in self._members:
            if (problem := self._problem(node)) is not None:
                yield Finding(node.name, *problem)
        yield from self._leaks()
        yield from self._hangers_on()
        if not self._ends:
            yield Finding(
                "model",
                "no GlobalAveragePooling2D ends the convolutions",
                "put one in front of the Dense layers instead of Flatten",
            )
        elif not any(True for _ in self.kernels()):
            yield Finding(
                "model",
                "no 1x1 convolution between the stem and the pool",
                "build it of depthwise and 1x1 convolutions",
            )

    def _problem(self, node):
        layer = node.operation
        if is_convolution(layer):
            return self._convolution_problem(node)
        if not self._comes_from_the_stem(node):
            return (
                "takes a value that does not come through the stem",
                "let every branch begin behind the stem",
            )
        if _is_pool(node) and any(map(_is_pool, self._parents(node))):
            return "takes what another pool gives", "take one of the two out"
        if _is_pool(node) or _is_bilinear(node):
            return None
        if isinstance(layer, layers.BatchNormalization):
            return (
                "does not fold away: no convolution without activation is right in "
                "front of it, with no other layer on that output",
                "order convolution, BatchNormalization, activation",
            )
        return self._elementwise_problem(node)

    def _convolution_problem(self, node):
        layer = node.operation
        shape = self._graph.shapes[node.inputs[0]]
        find = stem_problem if node in self._stems else inner_problem
        problem = find(layer, shape, effective_padding(layer, node.padding))
        return problem or _activation_problem(activation_name(layer))

    def _elementwise_problem(self, node):
        name, kind = activation_name(node.operation), type(node.operation)
        ranks = [len(self._graph.shapes[value]) for value in node.inputs]
        is_merge = kind in (layers.Add, layers.Multiply)
        if is_merge or operation_name(node.operation) in BINARY:
            if len(ranks) > 1 and set(ranks) == {4}:
                return None
            return (
                f"adds or multiplies values of rank {ranks}; expected two or more of "
                "rank 4, and no constant",
                f"{_KEEP_DIMENSIONS}; fold constants into weights",
            )
        if name is None:
            return f"{kind.__name__} has no place in the cluster", _remedy_for(node)
        if ranks != [4]:
            return f"works on values of rank {ranks}; expected 4", _KEEP_DIMENSIONS
        return _activation_problem(name)

    def _comes_from_the_stem(self, node):
        return all(self._producer.get(value) in self._members for value in node.inputs)

    def _hangers_on(self):
        """Yields a finding for each node that takes 4-D values of the last pool."""
        for node in self._graph.nodes:
            pools = [p for p in self._parents(node) if p in self._members]
            is_behind = node not in self._members and any(map(_is_pool, pools))
            if is_behind and self._keeps_dimensions(node):
                yield Finding(
                    node.name,
                    f"{type(node.operation).__name__} takes the 4-D output of the last "
                    "pool; files with sparse tensors then do not load, or are wrong",
                    "GlobalAveragePooling2D() without keepdims, and Dense layers",
                )

    def _keeps_dimensions(self, node):
        """Tells whether a node takes 4-D values and does not only lay them flat."""
        ranks = {len(self._graph.shapes[value]) for value in node.inputs}
        is_flat = len(self._graph.shapes[node.outputs[0]]) == 2
        return 4 in ranks and not (
            is_flat and isinstance(node.operation, (layers.Flatten, layers.Reshape))
        )

    def _leaks(self):
        """Yields a finding for each use of an inner value outside of the cluster."""
        for node in self._graph.nodes:
            for value in () if node in self._members else node.inputs:
                producer = self._producer.get(value)
                if producer in self._members and not _is_pool(producer):
                    yield Finding(
                        node.name,
                        f"{type(node.operation).__name__} reads {producer.name!r} in "
                        "the middle of the cluster, and is not part of it",
                        "let it read what the last global average pool gives",
                    )
        for producer in self._members:
            (value, *_) = producer.outputs
            is_flat = _is_pool(producer) and len(self._graph.shapes[value]) == 2
            if value in self._graph.returned and not is_flat:
                yield Finding(
                    producer.name,
                    "the model returns its output, channels first where they are last",
                    "return what GlobalAveragePooling2D() without keepdims gives",
                )


def _is_pool(node):
    return isinstance(node.operation, layers.GlobalAveragePooling2D)


def _is_bilinear(node):
    return (
        isinstance(node.operation, layers.UpSampling2D)
        and node.operation.interpolation == "bilinear"
    )


def _activation_problem(name):
    if name in UNARY:
        return None
    return (
        f"the activation {name!r} is no single operator in TFLite",
        "relu, relu6, hard_silu or another of: " + ", ".join(sorted(UNARY)),
    )


def _remedy_for(node):
    for types, remedy in _REMEDIES:
        if isinstance(node.operation, types):
            return remedy
    return "take it out, or move it in front of the stem or behind the pool"
