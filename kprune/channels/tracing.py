"""Follows channels through a model: which weights and tensors each of them reaches."""

import dataclasses

import keras
import numpy as np

from kprune.channels.numbers import NONE, Channels, Reason
from kprune.channels.rules import rule_of
from kprune.channels.rules.base import has_rescaling_rule, missing_rule
from kprune.channels.settling import settle
from kprune.channels.traced import Tracing, Weight
from kprune.channels.value import Value, pairs
from kprune.layer_graph import read_graph


def trace(model, exact=True):
    """Follows the channels of a model from its inputs to its outputs.

    Args:
        model: A built Functional or Sequential model.
        exact: Bool, whether channels stay that can't be removed without a change of
            the outputs. Defaults to `True`.

    Returns:
        A `Tracing`.
    """
    return Tracer(read_graph(model), exact).run()


class Tracer:
    """Runs the rules over a graph. The rules use its methods.

    Args:
        graph: `LayerGraph`.
        exact: As for `trace`.
    """

    def __init__(self, graph, exact=True):
        self.graph = graph
        self.exact = exact
        self.channels = Channels()
        self.values = {}
        self.weights = {}
        self.call = None
        self._first_calls = {}
        self._read = []
        self._nodes = {}
        for call in graph.calls:
            self._nodes.setdefault(id(call.operation), []).append(call.node)

    def run(self):
        """Follows all calls, and returns a `Tracing`."""
        for number in self.graph.inputs:
            self.values[number] = Value(self.graph.shapes[number])
        for call in self.graph.calls:
            self.call = call
            inputs = [self.values[number] for number in call.inputs]
            outputs = self._outputs(call.operation, inputs)
            for number, value in zip(call.outputs, outputs, strict=True):
                expected = self.graph.shapes[number]
                assert value.shape == expected, (call.name, value, expected)
                self.values[number] = value
        for number in self.graph.outputs:
            reason = Reason("output", "outputs", "the model returns them")
            self.channels.fix(self.values[number].ids(), reason)
        self._keep_weights_used_elsewhere()
        settle(self)
        return Tracing(self.graph, self.channels, self.values, self.weights)

    def _outputs(self, operation, inputs):
        rule = rule_of(operation)
        if not isinstance(operation, keras.Layer) and self._is_used_again(operation):
            # What stands in for it would be made for the first call alone.
            return self.stop(inputs, "unknown", "one operation at several places")
        if _variables_of(self.call) and not getattr(rule, "takes_variables", False):
            return self.stop(inputs, "unknown", "takes a weight as its argument")
        if rule is not None:
            outputs = rule.trace(operation, inputs, self)
            if outputs is not None:
                return outputs
        return self.stop(inputs, "unknown", missing_rule(operation))

    def _is_used_again(self, operation):
        return len({id(node) for node in self._nodes[id(operation)]}) > 1

    # What the rules call.

    def arguments(self, inputs):
        """Returns the arguments of the present call.

        Args:
            inputs: List of `Value`, the tensors among them.

        Returns:
            Tuple of a tuple and a dict, positional and named arguments, with a `Value`
            in the place of each tensor and of each Keras variable.
        """
        arguments = self.call.arguments(inputs)
        return keras.tree.map_structure(self._as_value, arguments)

    def _as_value(self, argument):
        if not isinstance(argument, keras.Variable):
            return argument
        weight = self.weights.get(id(argument))
        if weight is None:  # of a layer that the graph comes to later, or of none
            return self._kept(argument, "before the layer that it belongs to")
        if has_rescaling_rule(weight.layer):
            return self._kept(argument, "that its layer rescales where channels go")
        value = weight.value
        silent = all(weight.made.issuperset(value.axes(m)) for m in value.maps)
        return dataclasses.replace(value, silent=silent)

    def _kept(self, variable, text):
        """Returns the `Value` of a weight that is to keep all channels it may have."""
        reason = Reason("unknown", self.call.name, f"reads a weight {text}")
        self._read.append((variable, reason))
        return Value(tuple(variable.shape))

    def shape(self, place=0):
        """Returns the shape of an output of the present call."""
        return self.graph.shapes[self.call.outputs[place]]

    def new(self, number):
        """Returns a list of one array of new channels."""
        return [self.channels.new(number)]

    def fix(self, ids, kind, text):
        """Notes that channels stay, for the sake of the present call.

        What takes all channels in, of the kind "statistics", keeps them only if the
        result has to be exact.
        """
        if self.exact or kind != "statistics":
            self.channels.fix(ids, Reason(kind, self.call.name, text))

    def stop(self, inputs, kind, text):
        """Lets no channel through: returns outputs without any."""
        for value in inputs:
            self.fix(value.ids(), kind, text)
        reason = Reason(kind, self.call.name, text)
        own = getattr(self.call.operation, "variables", ())
        self._read += [(v, reason) for v in (*own, *_variables_of(self.call))]
        return [Value(self.graph.shapes[number]) for number in self.call.outputs]

    def pin(self, value, axis):
        """Lets the channels of a tensor lie along one axis, and returns them.

        Where they lie along several, as between two reshapes, those of one place of
        the axis are tied. Channels along other axes alone are not touched.

        Args:
            value: `Value`.
            axis: Int.

        Returns:
            List of int arrays of the axis' length.
        """
        axis %= len(value.shape)
        found = []
        text = "some of what lies in one line is no channel"
        reason = Reason("partner", self.call.name, text)
        for array in value.maps:
            if axis in value.axes(array):
                lines = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
                found.append(self.channels.tie_lines(lines, reason))
        return found

    def pin_alone(self, value, axis, text):
        """Lets channels lie along one axis and returns them; others stay.

        Args:
            value: `Value`.
            axis: Int.
            text: String, what the call does with the other axes.

        Returns:
            List of int arrays of the axis' length.
        """
        for array in self.others(value, axis):
            self.fix(array, "mixed", text)
        return self.pin(value, axis)

    def others(self, value, axis):
        """Returns the maps of channels that do not lie along an axis."""
        axis %= len(value.shape)
        return tuple(m for m in value.maps if axis not in value.axes(m))

    def mix(self, value, *axes, kind="mixed", text):
        """Fixes the channels that lie along the given axes."""
        rank = len(value.shape)
        for array in value.maps:
            if {axis % rank for axis in axes} & set(value.axes(array)):
                self.fix(array, kind, text)

    def hold(self, variable, ids, makes=()):
        """Notes the channels of a weight, and returns those that it has.

        A weight that was seen before, in a layer that is shared, keeps its first
        channels, and the new ones are tied to them.

        Args:
            variable: Keras variable, or `None` for nothing.
            ids: Dict from axis to a list of arrays of channels.
            makes: Tuple of ints, the axes whose channels the weight makes.

        Returns:
            The `Value` of the weight.
        """
        if variable is None:
            return None
        value = Value.of_axes(tuple(variable.shape), ids)
        known = self.weights.setdefault(
            id(variable), Weight(variable, self.call.operation, value, makes)
        )
        if known.value is not value:
            self.unify(known.value, value)
        return known.value

    def same_at_all_calls(self, operation, values):
        """Ties the channels of all calls of an operation whose arguments hold sizes.

        Args:
            operation: The layer or operation of the present call.
            values: List of `Value`, what goes in and what comes out.
        """
        first = self._first_calls.setdefault(id(operation), values)
        for known, value in zip(first, values, strict=True):
            if known is not value and known.shape == value.shape:
                self.unify(known, value)
            elif known is not value:
                text = "shared by tensors of several shapes"
                self.fix(known.ids(), "partner", text)
                self.fix(value.ids(), "partner", text)

    def unify(self, left, right):
        """Ties the channels of two tensors of one shape, element by element."""
        for ours, theirs in pairs(left, right):
            if ours is None or theirs is None:
                alone = theirs if ours is None else ours
                self.fix(alone, "partner", "meets a tensor without such channels")
                continue
            ours, theirs = np.broadcast_arrays(ours, theirs)
            self.channels.tie(ours, theirs)
            text = "meets places that are no channels"
            self.fix(ours[theirs == NONE], "partner", text)
            self.fix(theirs[ours == NONE], "partner", text)

    # What comes after all calls.

    def _keep_weights_used_elsewhere(self):
        """Keeps the channels of weights that are also used in unknown ways."""
        for variable, reason in self._read:
            if id(variable) in self.weights:
                self.channels.fix(self.weights[id(variable)].value.ids(), reason)


def _variables_of(call):
    """Lists the Keras variables among the arguments of a call."""
    given = keras.tree.flatten(call.given)
    return [one for one in given if isinstance(one, keras.Variable)]
