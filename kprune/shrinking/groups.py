"""Families of channels: those that compete for the width of the same layers."""

import dataclasses

import keras
import numpy as np
from keras import layers

from kprune.channels.numbers import NONE, Reason, connected
from kprune.channels.value import compressed
from kprune.layer_choice import Selection, layer_chains
from kprune.layout import layout_of
from kprune.prunable import has_no_prunable_weights


@dataclasses.dataclass(frozen=True, eq=False)
class MadeAxis:
    """An axis of a weight along which a layer makes channels.

    Attributes:
        layer: String, the layer's name after those of the nested models around it.
        weight: `Weight`.
        axis: Int.
        line: Int array of the axis' length, the group of each place.
        units: Int array, the group of each channel that the layer makes: a part of
            the line where several gates make each.
    """

    layer: str
    weight: object = dataclasses.field(repr=False)
    axis: int
    line: np.ndarray
    units: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """Groups of channels that lie along the same axes, as those of a residual stream.

    A group goes or stays as a whole, wherever its channels are. It is known by its
    number in `Channels.groups()`.

    Attributes:
        name: String, the name of the first layer that makes them.
        axes: List of `MadeAxis`, where they are made first.
        groups: Int array, the groups that may go, in ascending order.
        stuck: Int array, those that may not.
        reasons: List of `Reason`, why these stay.
        guards: List of int arrays of groups that may go. Of each at least one must
            stay, since some tensor would be empty otherwise.
    """

    name: str
    axes: list
    groups: np.ndarray
    stuck: np.ndarray
    reasons: list
    guards: list

    @property
    def layers(self):
        """List of strings, the names of the layers that make the channels."""
        return list(dict.fromkeys(axis.layer for axis in self.axes))


def families_of(tracing):
    """Finds what competes for the width of the same layers.

    Args:
        tracing: `Tracing`.

    Returns:
        List of `Family`, in running order. No group is in two of them.
    """
    groups, reasons = tracing.channels.groups(), tracing.channels.reasons()
    axes = list(_origins(tracing))
    related = connected([axis.line for axis in axes], int(groups.max()) + 1)
    by_family = {}
    for axis in axes:
        by_family.setdefault(related[axis.line.max()], []).append(axis)
    guards = _guards(tracing, related, reasons)
    taken, found = set(), []
    for number, own in by_family.items():
        members = np.unique(np.concatenate([axis.line for axis in own]))
        members = members[members != NONE]
        is_stuck = np.isin(members, list(reasons))
        found.append(
            Family(
                _name(own[0], taken),
                own,
                members[~is_stuck],
                members[is_stuck],
                _distinct(r for g in members[is_stuck] for r in reasons[int(g)]),
                guards.get(number, []),
            )
        )
    return found


def _origins(tracing):
    """Yields the axes of weights whose channels no weight before them has."""
    seen = np.zeros(len(tracing.channels.groups()), bool)
    for axis, ids in made_axes(tracing):
        if not seen[ids].all():
            yield axis
        seen[ids] = True


def made_axes(tracing):
    """Yields pairs of a `MadeAxis` and the channels that are made along it."""
    groups = tracing.channels.groups()
    for weight in tracing.weights.values():
        name = tracing.names[id(weight.layer)]
        owner = tracing.owners[id(weight.variable)]
        for array in weight.value.maps:
            for axis, line in _lines(array, groups):
                if axis in weight.made:
                    gates = _gates(owner, weight.variable)
                    units = line[: len(line) // gates]
                    yield MadeAxis(name, weight, axis, line, units), np.unique(array)


def is_kernel(layer, variable):
    """Tells whether a weight is what a layer multiplies its inputs with and sums up.

    Args:
        layer: The layer that owns it.
        variable: Keras variable.
    """
    only_scales = has_no_prunable_weights(layer) and not isinstance(layer, _DEPTHWISE)
    is_bias = "bias" in variable.name or len(variable.shape) < 2
    is_statistic = variable is getattr(layer, _STATISTICS.get(type(layer), ""), None)
    is_one = not (only_scales or is_bias or is_statistic)
    return is_one and "float" in str(variable.dtype)


_STATISTICS = {layers.SpectralNormalization: "vector_u"}
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)


def _gates(layer, variable):
    """Returns how many gates make each unit of a recurrent layer, or else 1."""
    shape = tuple(variable.shape)
    if len(shape) < 2:  # no kernel, and only kernels make channels first
        return 1
    nothing = np.broadcast_to(np.float32(0), shape)
    canonical = layout_of(layer, variable).canonical(nothing).shape
    return shape[-1] // canonical[-1] if len(canonical) > len(shape) else 1


def lines_of(weight, groups):
    """Yields where the groups of a weight lie.

    Args:
        weight: `Weight`.
        groups: Int array, the group of each channel.

    Yields:
        Triples of an axis, the group of each of its places, an int array, and a bool,
        whether the weight makes them.
    """
    for array in weight.value.maps:
        for axis, line in _lines(array, groups):
            yield axis, line, axis in weight.made


def _lines(array, groups):
    """Yields the axis that groups lie along, and the group of each of its places."""
    changing = compressed(groups[array])
    axes = [axis for axis, size in enumerate(changing.shape) if size > 1]
    if len(axes) == 1:
        yield axes[0], changing.ravel()
    elif not axes:  # one group along all of an axis
        own = [axis for axis, size in enumerate(array.shape) if size > 1] or [-1]
        yield own[-1], np.full(array.shape[own[-1]], changing.item())


def _guards(tracing, related, reasons):
    """Returns what must not vanish as a whole, by family."""
    groups, found = tracing.channels.groups(), {}
    stays = np.isin(np.arange(int(groups.max()) + 1), [NONE, *reasons])
    values = [*tracing.values.values(), *(w.value for w in tracing.weights.values())]
    for array in {id(m): m for value in values for m in value.maps}.values():
        for _, line in _lines(array, groups):
            if stays[line].any():
                continue
            members = np.unique(line)
            for family in np.unique(related[members]):
                own = members[related[members] == family]
                found.setdefault(family, {})[own.tobytes()] = own
    return {family: list(lines.values()) for family, lines in found.items()}


def _name(axis, taken):
    """Returns the layer's name; of its further families with weight and axis."""
    name = axis.layer
    if name in taken:
        name = f"{name}/{axis.weight.variable.name}:{axis.axis}"
    taken.add(name)
    return name


def _distinct(reasons):
    return list(dict.fromkeys(reasons))


def protect(model, tracing, only=None, skip=None):
    """Lets layers keep their widths.

    Args:
        model: The model that was traced.
        tracing: Its `Tracing`. It is changed.
        only: What `kprune.layer_choice.Selection` takes. All other layers that make
            channels keep their widths.
        skip: Likewise, layers that keep the widths of their outputs and of all that
            they make within.

    Raises:
        ValueError: If an entry is of the wrong kind, or matches no layer.
    """
    Selection(only, skip).check(model)
    only, skip = Selection(only), Selection(skip=skip)
    chains = {id(chain[-1]): chain for chain in layer_chains(model)}
    names = tracing.names
    owners = tracing.owners  # a cell, perhaps, that has a name of its own

    def fix(ids, layer, argument):
        text = f"left out by `{argument}`"
        tracing.channels.fix(ids, Reason("protected", names[id(layer)], text))

    def is_left_out(layer, selection):
        return not selection.selects(chains.get(id(layer), [layer]))

    for axis in list(_origins(tracing)):
        if is_left_out(owners[id(axis.weight.variable)], only):
            fix(_along(axis.weight.value, [axis.axis]), axis.weight.layer, "only")
    for weight in tracing.weights.values():
        if is_left_out(owners[id(weight.variable)], skip):
            fix(_along(weight.value, weight.made), weight.layer, "skip")
    for call in tracing.graph.calls:
        if isinstance(call.operation, keras.Layer) and is_left_out(
            call.operation, skip
        ):
            for number in call.outputs:
                fix(tracing.values[number].ids(), call.operation, "skip")


def _along(value, axes):
    """Returns the channels that lie along some axes of a tensor."""
    found = [m.ravel() for m in value.maps if set(value.axes(m)) & set(axes)]
    return np.concatenate(found) if found else np.array([], int)
