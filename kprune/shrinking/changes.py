"""What narrowing a model does to each layer, told before the small model is made."""

import math

import numpy as np
from keras import layers

from kprune.channels.numbers import NONE
from kprune.shrinking.costs import macs_of, new_weights
from kprune.shrinking.groups import made_axes
from kprune.shrinking.removal import Narrowed
from kprune.shrinking.report import LayerChange


def uncounted(tracing):
    """Lists what may change, and of which the multiply-adds are not known.

    Args:
        tracing: `Tracing`.

    Returns:
        List of strings, the names of layers and operations.
    """
    groups, stuck = tracing.channels.groups(), [NONE, *tracing.channels.reasons()]

    def may_change(call):
        weights = getattr(call.operation, "weights", ())
        known = [tracing.weights[id(v)] for v in weights if id(v) in tracing.weights]
        values = [tracing.values[n] for n in (*call.inputs, *call.outputs)]
        values += [weight.value for weight in known]
        return any(not np.isin(groups[v.ids()], stuck).all() for v in values)

    pairs = zip(tracing.graph.calls, macs_of(tracing.graph), strict=True)
    names = [call.name for call, macs in pairs if macs is None and may_change(call)]
    return list(dict.fromkeys(names))


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
    """Lists what is left of each layer that has weights or multiplies tensors.

    Args:
        tracing: `Tracing`.
        removed: Bool array, by channel: which of them go.

    Returns:
        List of `LayerChange`, in running order; operations are among them.
    """
    narrowed = Narrowed(tracing, removed)
    widths = _widths(tracing, removed)
    macs, counted = {}, set()
    before, after = macs_of(tracing.graph), _macs(tracing, removed)
    for call, *pair in zip(tracing.graph.calls, before, after, strict=True):
        macs.setdefault(id(call.operation), []).append(pair)
    calls = tracing.graph.first_calls()
    changes = (
        LayerChange(
            calls[key].name,
            *widths.get(key, ((), ())),
            _sizes(new_weights(calls[key], counted), narrowed),
            _sum(pairs),
        )
        for key, pairs in macs.items()
    )
    return [c for c in changes if c.widths or any(c.parameters) or c.macs != (0, 0)]


def _widths(tracing, removed):
    """Returns the widths before and after by the id of the layer."""
    groups, found = tracing.channels.groups(), {}
    gone = set(groups[removed].tolist())
    for made, _ in made_axes(tracing):
        of_layer = found.setdefault(id(made.weight.layer), {})
        variable = next(iter(of_layer), id(made.weight.variable))
        if variable == id(made.weight.variable):
            units = made.units.tolist() * _ways(made.weight.layer)
            left = sum(group not in gone for group in units)
            of_layer.setdefault(variable, []).append((len(units), left))
    return {
        key: tuple(zip(*next(iter(of_layer.values())), strict=True))
        for key, of_layer in found.items()
    }


def _ways(layer):
    """Returns how often a layer puts its units out."""
    both = isinstance(layer, layers.Bidirectional)
    return 2 if both and layer.merge_mode in ("concat", None) else 1


def _sizes(weights, narrowed):
    before = sum(math.prod(v.shape) for v in weights)
    return before, sum(math.prod(narrowed.weight(v)) for v in weights)


def _sum(pairs):
    if any(None in pair for pair in pairs):
        return None
    return tuple(map(sum, zip(*pairs, strict=True)))
