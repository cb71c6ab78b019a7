"""What is settled once channels have been followed through all calls of a graph."""

import numpy as np

from kprune.channels.numbers import NONE, Reason


def settle(tracer):
    """Ties and keeps channels for the sake of the graph as a whole.

    Args:
        tracer: `Tracer` that has followed all calls.
    """
    _tie_tensors_of_shared_models(tracer)
    _line_up(tracer)
    _keep_the_last(tracer)


def _tie_tensors_of_shared_models(tracer):
    """Gives each tensor within a nested model one set of channels."""
    makers = {n: call for call in tracer.graph.calls for n in call.outputs}
    for first, *others in tracer.graph.tensors.values():
        for number in others:
            # An input of the whole model has no maker, and no channels.
            tracer.call = makers.get(number, makers.get(first))
            tracer.unify(tracer.values[first], tracer.values[number])


def _line_up(tracer):
    """Lets all channels that lie along several axes lie along the longest of them.

    Only what leaves a full grid can be removed from a tensor: of channels in two
    rows, as many of each row.
    """
    found = [*tracer.values.values(), *(w.value for w in tracer.weights.values())]
    joint = [(v, m) for v in found for m in v.maps if len(v.axes(m)) > 1]
    text = "some of what lies in one line is no channel"
    reason = Reason("partner", "arrangement", text)
    for value, array in joint:
        groups = tracer.channels.groups()[array]
        axes = [a for a in value.axes(groups) if _changes(groups, a)]
        if len(axes) > 1:
            axis = max(axes, key=lambda a: (array.shape[a], a))
            lines = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
            tracer.channels.tie_lines(lines, reason)


def _changes(array, axis):
    return (array != np.take(array, [0], axis)).any()


def _keep_the_last(tracer):
    """Keeps channels without which nothing would be left of a tensor."""
    groups = tracer.channels.groups()
    named = {n: call.name for call in tracer.graph.calls for n in call.outputs}
    found = [(named[n], v) for n, v in tracer.values.items() if n in named]
    found += [(w.layer.name, w.value) for w in tracer.weights.values()]
    for name, array in ((name, m) for name, v in found for m in v.maps):
        numbers = groups[array]
        if numbers.flat[0] != NONE and (numbers == numbers.flat[0]).all():
            text = "nothing would be left of a tensor or weight"
            tracer.channels.fix(array, Reason("last", name, text))
