"""Recurrent layers: their outputs come back as inputs."""

import numpy as np
from keras import layers, tree
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

from kprune.channels.rules.activation import activate
from kprune.channels.rules.base import ChannelRule, rule_of
from kprune.channels.rules.common import (
    bound_arguments,
    is_narrowed,
    keep_masks,
    narrowed_part,
)
from kprune.channels.value import Value
from kprune.registry import register

# How often a cell's kernel repeats the units, and how many states it has.
_GATES = {
    layers.SimpleRNNCell: (1, 1),
    layers.GRUCell: (3, 1),
    layers.LSTMCell: (4, 2),
    ConvLSTMCell: (4, 2),
}


def _cells(cell):
    """Lists the cells of a cell, one behind the other; `None` if one is not known."""
    cells = cell.cells if isinstance(cell, layers.StackedRNNCells) else [cell]
    return cells if all(type(one) in _GATES for one in cells) else None


def _through_cell(cell, given, tracer):
    """Follows channels through a cell.

    Args:
        cell: The cell.
        given: List of int arrays, the channels of a step that goes in.
        tracer: `Tracer`.

    Returns:
        `Value` of a step that comes out; one channel is a unit with all its gates.
    """
    gates, _ = _GATES[type(cell)]
    width = cell.recurrent_kernel.shape[-2]
    made = tracer.new(width)
    ids = {-2: made, -1: _repeated(made, gates)}
    made = tracer.hold(cell.recurrent_kernel, ids, makes=(-1,)).along(-2)
    ids = {-2: given, -1: _repeated(made, gates)}
    tracer.hold(cell.kernel, ids, makes=(-1,))
    tracer.hold(cell.bias, {-1: ids[-1]}, makes=(-1,))
    step = Value.of_axes((None, width), {-1: made}, silent=True)
    activate(step, getattr(cell, "recurrent_activation", None), tracer)
    return activate(step, cell.activation, tracer)


def _repeated(arrays, number):
    return [np.tile(one, number) for one in arrays]


def kernels_of_states(layer):
    """Lists what makes the states of a recurrent layer.

    Args:
        layer: The layer, built.

    Returns:
        List of Keras variables, one a state: a recurrent kernel, whose last axis but
        one are the units that lie along the last axis of the state. Empty if there is
        a cell that is not known.
    """
    return [
        cell.recurrent_kernel
        for cell in _cells(layer.cell) or ()
        for _ in range(_GATES[type(cell)][1])
    ]


class RecurrentRule(ChannelRule):
    """Goes through the steps of a sequence, with what it has made of the last."""

    def trace(self, layer, inputs, tracer):
        """Makes one channel a unit, in all gates and states."""
        arguments = bound_arguments(layer, inputs, tracer)
        sequence = arguments.pop("sequences")
        states = tree.flatten(arguments.pop("initial_state", ()))
        if not self.knows(layer, sequence, states):
            return None
        keep_masks(arguments, tracer)
        return at_last_axes(self.follow(layer, sequence, states, tracer), tracer)

    def knows(self, layer, sequence, states):
        """Tells whether a layer's cells are known and all that goes in is a tensor."""
        are_tensors = all(isinstance(one, Value) for one in [sequence, *states])
        is_first = getattr(layer, "data_format", None) == "channels_first"
        return _cells(layer.cell) is not None and are_tensors and not is_first

    def follow(self, layer, sequence, states, tracer):
        """Follows channels through a layer, of its own or within another.

        Args:
            layer: The layer.
            sequence: `Value` that goes in.
            states: List of `Value`, the first states if they are given.
            tracer: `Tracer`.

        Returns:
            List of `Value` of shape `(None, units)`, one step of the output and the
            states, if these are put out.
        """
        given = tracer.pin_alone(sequence, -1, "takes one step after the other")
        made = []
        for cell in _cells(layer.cell):
            step = _through_cell(cell, given, tracer)
            given = step.along(-1)
            made += [step] * _GATES[type(cell)][1]
        silent = made[-1].silent and not layer.stateful
        if states:
            silent = silent and all(one.silent for one in states)
            _unify(made, states, tracer)
        made = [Value(one.shape, one.maps, silent and one.silent) for one in made]
        return [made[-1], *(made if layer.return_state else ())]

    def config(self, layer, narrowed):
        """Changes the number of units."""
        return _changes(layer.cell, narrowed)


def _unify(made, states, tracer):
    for ours, theirs in zip(made, states, strict=True):
        at_last = Value.of_axes(theirs.shape, {-1: ours.along(-1)})
        tracer.unify(at_last, theirs)


def at_last_axes(found, tracer):
    """Returns the tensors of the present call that have some channels at the end.

    Args:
        found: List of `Value`, whose last axes count.
        tracer: `Tracer`.
    """
    return [
        Value.of_axes(tracer.shape(place), {-1: one.along(-1)}, one.silent)
        for place, one in enumerate(found)
    ]


def _changes(cell, narrowed):
    name = "filters" if isinstance(cell, ConvLSTMCell) else "units"
    return {name: narrowed.weight(cell.recurrent_kernel)[-2]}


@register("channel_rules", layers.RNN)
class CellsRule(RecurrentRule):
    """Goes through the steps of a sequence with cells that are given."""

    def config(self, layer, narrowed):
        """Changes the numbers of units of the cells."""
        if not is_narrowed(layer, narrowed):
            return {}
        cell = layer.cell
        if not isinstance(cell, layers.StackedRNNCells):
            return {"cell": narrowed_part(cell, _changes(cell, narrowed))}
        parts = [narrowed_part(one, _changes(one, narrowed)) for one in cell.cells]
        return {"cell": narrowed_part(cell, {"cells": parts})}


for _kind in (
    layers.ConvLSTM1D,
    layers.ConvLSTM2D,
    layers.ConvLSTM3D,
    layers.GRU,
    layers.LSTM,
    layers.SimpleRNN,
):
    register("channel_rules", _kind)(RecurrentRule)


@register("channel_rules", layers.Bidirectional)
class BidirectionalRule(ChannelRule):
    """Goes through a sequence forwards and backwards."""

    def trace(self, layer, inputs, tracer):
        """Follows channels both ways, and ties them unit by unit.

        Keras takes one way to be as wide as the other.
        """
        arguments = bound_arguments(layer, inputs, tracer)
        sequence = arguments.pop("sequences")
        states = tree.flatten(arguments.pop("initial_state", ()))
        half = len(states) // 2
        ways = [
            (rule_of(part), (part, sequence, own))
            for part, own in (
                (layer.forward_layer, states[:half]),
                (layer.backward_layer, states[half:]),
            )
        ]
        for rule, way in ways:
            if not isinstance(rule, RecurrentRule) or not rule.knows(*way):
                return None
        keep_masks(arguments, tracer)
        found = [rule.follow(*way, tracer) for rule, way in ways]
        for one, other in zip(*found, strict=True):
            tracer.unify(one, other)
        (ahead, *states), (back, *more) = found
        merged = _merged(ahead, back, layer.merge_mode)
        return at_last_axes([*merged, *states, *more], tracer)

    def config(self, layer, narrowed):
        """Changes the numbers of units."""
        if not is_narrowed(layer, narrowed):
            return {}
        parts = {"layer": layer.forward_layer, "backward_layer": layer.backward_layer}
        return {
            name: narrowed_part(part, rule_of(part).config(part, narrowed))
            for name, part in parts.items()
        }


def _merged(ahead, back, mode):
    if mode is None:
        return [ahead, back]
    if mode == "concat":
        lines = [
            (one.along(-1) or [np.zeros(one.shape[-1], int)])[0]
            for one in (ahead, back)
        ]
        line = np.concatenate(lines)
        silent = ahead.silent and back.silent
        return [Value.of_axes((None, line.size), {-1: [line]}, silent)]
    both = (ahead.silent, back.silent)
    silent = any(both) if mode == "mul" else all(both)
    return [Value(ahead.shape, ahead.maps, silent)]
