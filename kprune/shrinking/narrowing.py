"""`Narrowing`: what happens to one model between the call of `shrink` and its end."""

import numpy as np

from kprune.channels.numbers import NONE
from kprune.channels.tracing import trace
from kprune.shrinking import verification
from kprune.shrinking.changes import layer_changes, macs_without, uncounted
from kprune.shrinking.choice import Room, least_sparsity
from kprune.shrinking.groups import families_of, protect
from kprune.shrinking.importance import Importance
from kprune.shrinking.removal import ShrinkError, without
from kprune.shrinking.report import ShrinkReport, WhyNot
from kprune.shrinking.why_not import stuck_in
from kprune.shrinking.zeros import Zeros, zeros_left

_EMPTY = ": it has no layer with a kernel that makes any."
_NOT_ZERO = (
    "No channels of the model {!r} that may go are zero throughout. Say how many shall "
    "go, as in `kprune.shrink(model, sparsity=0.5)`, or train with masks on whole "
    "channels: `kprune.prune(model, granularity='channel')`."
)
_ZERO_BUT_LEFT = (
    "The kernels of some channels of the model {!r} are zero, and yet none of these "
    "can go, for the reasons below. Give a `sparsity`, whereupon these channels go "
    "first, or `exact=False`; then fine-tune."
)


class Narrowing:
    """A model that is being narrowed.

    Args:
        model: A plain model.
        only: As for `shrink`.
        skip: Likewise.
        exact: Likewise.
        data: Its `calibration_data`.

    Attributes:
        families: List of `Family`, those that can be narrowed.
        left: List of `Stuck`, what can't be.
        tracing: `Tracing`.

    Raises:
        ShrinkError: If no channel may go.
    """

    def __init__(self, model, only, skip, exact, data):
        self._model = model
        self._exact = exact
        self._data = data
        self.tracing = trace(model, exact)
        protect(model, self.tracing, only, skip)
        families = families_of(self.tracing)
        self.left = stuck_in(self.tracing, families)
        self.families = [f for f in families if len(f.groups) > 1]
        if not self.families:
            raise ShrinkError(
                f"No channel of the model {model.name!r} can be removed"
                + (f".\n\n{WhyNot(model.name, self.left)}" if self.left else _EMPTY)
            )

    def importance(self, criterion, reduce, normalize):
        """Returns an `Importance`, once it is clear that it has all that it needs."""
        arguments = criterion, reduce, normalize, self._data
        return Importance(self._model, self.tracing, self.families, *arguments)

    def lowest(self, chooser, sparsity, macs):
        """Returns which channels go by their scores, a bool array by channel."""
        if macs is None:
            sparsity = chooser.own_sparsity() if sparsity is None else sparsity
            chooser.check(sparsity)
            return self._channels(chooser(sparsity))
        self._check_counted(macs)
        most = macs * macs_without(self.tracing, self._channels([]))

        def cost(groups):
            return macs_without(self.tracing, self._channels(groups))

        return self._channels(least_sparsity(chooser, cost, most))

    def check_some(self, removed, sparsity, min_width, round_to):
        """Raises if the bounds of the widths leave nothing to remove."""
        if not removed.any() and (min_width, round_to) != (1, 1) and sparsity != 0:
            raise ShrinkError(
                f"No channel of the model {self._model.name!r} is removed: with "
                f"min_width={min_width} and round_to={round_to} all widths stay what "
                "they are. Loosen these, or ask for more."
            )

    def _check_counted(self, macs):
        """Raises if some of what may change would count for nothing."""
        names = uncounted(self.tracing)
        if names:
            raise ValueError(
                f"macs={macs!r} needs the multiply-adds of "
                f"{', '.join(map(repr, names))}, which are not known. Give the inputs "
                "sizes in the place of `None`, if that is why, leave the layers out "
                "with `skip`, say how they are counted, `kprune.register("
                "'multiply_adds', ...)`, or give a `sparsity`."
            )

    def zeros(self, min_width, round_to):
        """Returns which channels are zero already, a bool array by channel.

        Zeros that stay are noted for the report.

        Raises:
            ShrinkError: If none may go.
        """
        zeros = Zeros(self.tracing)
        gone = zeros.idle if self._exact else zeros.kernels
        found = [np.zeros(0, int)]
        for family in self.families:
            room = Room(family, (~gone).astype(float), min_width, round_to)
            found.append(room.fitted(~gone[family.groups], all_stay=True))
        groups = np.concatenate(found)
        removed = self._channels(groups)
        left = zeros_left(self.tracing, zeros, removed)
        if not len(groups):
            free = np.concatenate([family.groups for family in self.families])
            why = _ZERO_BUT_LEFT if zeros.kernels[free].any() else _NOT_ZERO
            table = f"\n\n{WhyNot(self._model.name, left)}" if left else ""
            raise ShrinkError(why.format(self._model.name) + table)
        self.left += left
        return removed

    def _channels(self, groups):
        removed = np.isin(self.tracing.channels.groups(), groups)
        removed[NONE] = False
        return removed

    def result(self, removed, compared):
        """Makes the small model and the report, and makes sure that it is right.

        Args:
            removed: Bool array, by channel: which of them go.
            compared: Bool array, by channel: where the model has zeros that the small
                one is compared with.
        """
        small = without(self._model, self.tracing, removed)
        change = self._change(small, removed, compared)
        self._check(change)
        report = ShrinkReport(
            self._model.name,
            layer_changes(self.tracing, removed),
            self._fraction(removed),
            change.size,
            self.left,
        )
        return small, report

    def _change(self, small, removed, compared):
        models = self._model, small, self.tracing
        try:
            return verification.change(*models, removed, compared, self._data)
        except verification.NotComparable as error:
            raise ShrinkError(str(error)) from error

    def _check(self, change):
        tolerance = change.allowed if self._exact else np.inf
        difference = change.unexplained
        if not (difference <= tolerance and np.isfinite(difference)):
            raise ShrinkError(
                f"The small model of {self._model.name!r} does not compute what the "
                "model with zeros in the places of the removed channels does: outputs "
                f"differ by {difference:.1e} of the largest, and {tolerance:.0e} is "
                "what may be. A rule for one of its layers must be wrong; please "
                "report it. Leave layers out with `skip` until it passes."
            )

    def _fraction(self, removed):
        """Returns which fraction of the channels that may go does."""
        gone = np.unique(self.tracing.channels.groups()[removed])
        lines = [(axis.units, f.groups) for f in self.families for axis in f.axes]
        free = sum(np.count_nonzero(np.isin(line, groups)) for line, groups in lines)
        return sum(np.count_nonzero(np.isin(line, gone)) for line, _ in lines) / free
