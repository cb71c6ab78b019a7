"""What narrowing a model does to each layer, told before the small model is made."""

import math

from kprune.shrinking.costs import macs_of
from kprune.shrinking.groups import made_axes
from kprune.shrinking.removal import Narrowed
from kprune.shrinking.report import LayerChange


def macs_without(tracing, removed):
    """Returns the multiply-adds for one example that are left, those that are known.

    Args:
        tracing: `Tracing`.
        removed: Bool array, by channel: which of them go.
    """
    return sum(macs or 0 for macs in _macs(tracing, removed))


def _macs(tracing, removed):
    def shape_of_value(number):
        return tracing.values[number].narrowed(removed)

    weight = Narrowed(tracing, removed).weight
    return macs_of(tracing.graph, shape_of_value, weight)


def layer_changes(tracing, removed):
    """Lists what is left of each layer that has weights.

    Args:
        tracing: `Tracing`.
        removed: Bool array, by channel: which of them go.

    Returns:
        List of `LayerChange`, in running order.
    """
    narrowed = Narrowed(tracing, removed)
    widths = _widths(tracing, removed)
    macs = {}
    before, after = macs_of(tracing.graph), _macs(tracing, removed)
    for call, *pair in zip(tracing.graph.calls, before, after, strict=True):
        macs.setdefault(id(call.operation), []).append(pair)
    calls = {id(call.operation): call for call in reversed(tracing.graph.calls)}
    return [
        LayerChange(
            calls[key].name,
            *widths.get(key, ((), ())),
            _sizes(calls[key].operation, narrowed),
            _sum(pairs),
        )
        for key, pairs in macs.items()
        if getattr(calls[key].operation, "weights", None)
    ]


def _widths(tracing, removed):
    """Returns the widths before and after by the id of the layer."""
    groups, found = tracing.channels.groups(), {}
    gone = set(groups[removed].tolist())
    for made, _ in made_axes(tracing):
        of_layer = found.setdefault(id(made.weight.layer), {})
        variable = next(iter(of_layer), id(made.weight.variable))
        if variable == id(made.weight.variable):
            left = sum(group not in gone for group in made.units.tolist())
            of_layer.setdefault(variable, []).append((len(made.units), left))
    return {
        key: tuple(zip(*next(iter(of_layer.values())), strict=True))
        for key, of_layer in found.items()
    }


def _sizes(layer, narrowed):
    before = sum(math.prod(v.shape) for v in layer.weights)
    return before, sum(math.prod(narrowed.weight(v)) for v in layer.weights)


def _sum(pairs):
    if any(None in pair for pair in pairs):
        return None
    return tuple(map(sum, zip(*pairs, strict=True)))
