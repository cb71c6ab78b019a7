"""Groups of channels that are zero throughout already, as masks leave them."""

import numpy as np

from kprune.channels.numbers import NONE
from kprune.shrinking.groups import is_kernel, lines_of
from kprune.weight_access import as_array


class Zeros:
    """What is zero in a model, by group.

    Args:
        tracing: `Tracing`.

    Attributes:
        kernels: Bool array by group, whether all kernels that make it are zero in it.
        made: Bool array by group, whether all that makes it is: biases, scales and
            offsets too.
        unfelt: Bool array by group, whether what is made of it is multiplied with
            zeros, or is zero itself.
    """

    def __init__(self, tracing):
        self._tracing = tracing
        number = int(tracing.channels.groups().max()) + 1
        self.kernels = np.ones(number, bool)
        self.made = np.ones(number, bool)
        self.unfelt = np.ones(number, bool)
        has_kernel = np.zeros(number, bool)
        silent = self._silent_inputs()
        for weight in tracing.weights.values():
            quiet = silent.get(id(weight.layer), [])
            variable = weight.variable
            has_sums = is_kernel(tracing.owners[id(variable)], variable)
            for axis, line, is_made in lines_of(weight, tracing.channels.groups()):
                filled = line[_filled(as_array(variable), axis)]
                if is_made:
                    self.made[filled] = False
                    if has_sums:
                        self.kernels[filled] = False
                        has_kernel[line] = True
                elif has_sums:
                    self.unfelt[np.setdiff1d(filled, quiet)] = False
        for found in (self.kernels, self.made):
            found &= has_kernel
            found[NONE] = False

    def _silent_inputs(self):
        """Returns the groups that are zero where they enter, by the id of a layer."""
        groups, values = self._tracing.channels.groups(), self._tracing.values
        found = {}
        for call in self._tracing.graph.calls:
            entering = [values[number] for number in call.inputs]
            quiet = _joined([groups[v.ids()] for v in entering if v.silent])
            loud = _joined([groups[v.ids()] for v in entering if not v.silent])
            quiet = np.setdiff1d(quiet, loud)
            known = found.get(id(call.operation), quiet)
            found[id(call.operation)] = np.intersect1d(known, quiet)
        return found


def _joined(arrays):
    return np.concatenate([[NONE], *arrays])


def _filled(array, axis):
    """Tells which places along an axis hold a number other than zero."""
    others = tuple(a for a in range(array.ndim) if a != axis)
    return np.asarray(array != 0).any(others)
