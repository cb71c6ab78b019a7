"""Groups of channels that are zero throughout already, as masks leave them."""

import numpy as np

from kprune.channels.numbers import NONE, Reason
from kprune.layout import layout_of
from kprune.shrinking.groups import is_kernel, lines_of
from kprune.shrinking.report import Stuck
from kprune.weight_access import as_array

_FELT = (
    "zero in kernels alone: of biases, offsets or functions they make something that "
    "layers behind take up"
)
_IN_PART = "zero here, but not in all that they go together with"
_FOR_WIDTH = "zero, but one has to stay, or more for `min_width` and `round_to`"


class Zeros:
    """What is zero in a model, by group.

    Args:
        tracing: `Tracing`.

    Attributes:
        kernels: Bool array by group, whether all kernels that make it are zero in it.
        idle: Bool array by group, which of these do nothing. All else that makes them,
            biases, scales and offsets, is zero too, or is for nothing, since the
            channel never leaves its layer, as a head of attention; and what is made
            of them is multiplied with zeros, or is zero itself.
    """

    def __init__(self, tracing):
        self._tracing = tracing
        self._groups = groups = tracing.channels.groups()
        number = int(groups.max()) + 1
        self.kernels, made, unfelt = np.ones((3, number), bool)
        has_kernel, is_multiplied = np.zeros((2, number), bool)
        silent = self._silent_inputs()
        for weight in tracing.weights.values():
            quiet = silent.get(id(weight.layer), [])
            variable = weight.variable
            has_sums = is_kernel(tracing.owners[id(variable)], variable)
            for axis, line, is_made in lines_of(weight, groups):
                filled = line[_filled(as_array(variable), axis)]
                if is_made:
                    made[filled] = False
                    if has_sums:
                        self.kernels[filled] = False
                        has_kernel[line] = True
                elif has_sums:
                    unfelt[np.setdiff1d(filled, quiet)] = False
                    is_multiplied[line] = True
        self.kernels &= has_kernel
        self.kernels[NONE] = False
        ends_within = is_multiplied & ~self._in_tensors()
        self.idle = self.kernels & unfelt & (made | ends_within)

    def _in_tensors(self):
        """Tells which groups any tensor between layers has, a bool array by group."""
        found = np.zeros(len(self.kernels), bool)
        for value in self._tracing.values.values():
            found[self._groups[value.ids()]] = True
        return found

    def _silent_inputs(self):
        """Returns the groups that are zero where they enter, by the id of a layer."""
        groups, values = self._groups, self._tracing.values
        found = {}
        for call in self._tracing.graph.calls:
            entering = [values[number] for number in call.inputs]
            quiet = _joined([groups[v.ids()] for v in entering if v.silent])
            loud = _joined([groups[v.ids()] for v in entering if not v.silent])
            quiet = np.setdiff1d(quiet, loud)
            known = found.get(id(call.operation), quiet)
            found[id(call.operation)] = np.intersect1d(known, quiet)
        return found


def zeros_left(tracing, zeros, removed):
    """Lists the output channels of kernels that are zero and stay all the same.

    Those are left out that would stay whatever they hold.

    Args:
        tracing: `Tracing`.
        zeros: Its `Zeros`.
        removed: Bool array, by channel: which of them go.

    Returns:
        List of `Stuck`, one a kernel, in running order.
    """
    found = []
    for weight in tracing.weights.values():
        owner = tracing.owners[id(weight.variable)]
        if not is_kernel(owner, weight.variable):
            continue
        layout = layout_of(owner, weight.variable)
        maps = [ids for _, ids in weight.of_outputs(layout)]
        if not maps:
            continue
        filled = _filled(layout.canonical(as_array(weight.variable)), -1)
        name = tracing.names[id(weight.layer)]
        if owner is not weight.layer:
            name += f"/{owner.name}"
        counts = _counts(tracing, zeros, removed, np.stack(maps), ~filled)
        reasons = [Reason("zeros", name, text) for text, n in counts.items() if n]
        if reasons:
            found.append(Stuck([name], filled.size, sum(counts.values()), reasons))
    return found


def _counts(tracing, zeros, removed, channels, is_zero):
    """Counts the output channels of a kernel that are zero and stay.

    Args:
        tracing: As for `zeros_left`.
        zeros: Likewise.
        removed: Likewise.
        channels: Int array with a row for each map along the kernel's outputs.
        is_zero: Bool array by output.

    Returns:
        Dict from the reason, a string, to the number that stays for it, an int.
    """
    groups = tracing.channels.groups()[channels]
    may_go = ~np.isin(groups, [NONE, *tracing.channels.reasons()])
    is_left = is_zero & may_go.any(0) & ~removed[channels].any(0)
    is_whole = (zeros.kernels[groups] & may_go).any(0)
    is_idle = (zeros.idle[groups] & may_go).any(0)
    cases = {_FELT: is_whole & ~is_idle, _IN_PART: ~is_whole, _FOR_WIDTH: is_idle}
    return {text: int((is_left & case).sum()) for text, case in cases.items()}


def _joined(arrays):
    return np.concatenate([[NONE], *arrays])


def _filled(array, axis):
    """Tells which places along an axis hold a number other than zero."""
    others = tuple(a for a in range(array.ndim) if a != axis % array.ndim)
    return np.asarray(array != 0).any(others)
