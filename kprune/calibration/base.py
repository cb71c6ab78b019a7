"""Who gathers which evidence, and the one call that brings it all."""

import dataclasses
import functools

from kprune import registry
from kprune.calibration.data import CalibrationData

_FAMILY = "evidence"


@dataclasses.dataclass(eq=False)
class _Source:
    """Who gathers some kinds of evidence, and what it needs for that.

    Attributes:
        gather: What `gathers` decorates.
        needs_data: Bool, whether it looks at examples.
        needs_labels: Bool, whether it looks at the loss as well.
    """

    gather: callable
    needs_data: bool
    needs_labels: bool

    def __post_init__(self):
        functools.update_wrapper(self, self.gather, updated=())  # its name, for errors

    def start(self, model, kinds, data):
        """Returns a function of entries that gathers the kinds at each update."""
        if isinstance(self.gather, type):
            return self.gather(model, kinds, data)
        return lambda entries: self.gather(model, entries, kinds, data)


def gathers(*kinds, data=False, labels=False):
    """Returns a decorator for a function or class that gathers evidence.

    A function is called at each update with the model, a list of `MaskedWeight`, the
    set of the kinds that are wanted, and a `CalibrationData` or `None`. It returns a
    list of dicts, one a weight, from kind to array: of the weight's own shape, or one
    that can be broadcast to it in the layout `(..., inputs, outputs)`; or to a number.

    A class serves where something is kept from update to update, such as a compiled
    function. It is made once with the model, the kinds and the data, before training
    begins, and its objects are called with the list of `MaskedWeight`.

    Args:
        *kinds: Strings, the kinds of evidence, as criteria name them in `requires`.
        data: Bool, whether it needs calibration data. Defaults to `False`.
        labels: Bool, whether it needs the loss, thus labels and a compiled model.
            Defaults to `False`.

    Returns:
        A decorator that returns what it was given.

    Example:
    >>> @gathers("depth")
    ... def gather_depths(model, entries, kinds, data):
    ...     return [{"depth": model.layers.index(entry.layer)} for entry in entries]
    """

    def decorator(gather):
        source = _Source(gather, data or labels, labels)
        for kind in kinds:
            registry.register(_FAMILY, kind)(source)
        return gather

    return decorator


class Calibration:
    """Gathers the evidence that a criterion requires, anew for each update.

    Args:
        model: The pruned model.
        requires: Sequence of strings, the kinds of evidence.
        data: What `CalibrationData` takes, or one, or `None`.

    Attributes:
        data: `CalibrationData`, which others may take over. As given, if it is not
            looked at.

    Raises:
        ValueError: If nobody gathers a kind, or if it needs data, or labels, that
            are not there.

    Example:
    >>> Calibration(None, [], None).gather([])
    []
    """

    def __init__(self, model, requires, data=None):
        kinds_of = {}
        for kind in requires:
            if kind in ("name", "place"):  # known without gathering
                continue
            source = registry.lookup(_FAMILY, kind)
            if source is None:
                raise ValueError(
                    f"Evidence {kind!r} is required, and nobody gathers it. There is "
                    f"{', '.join(map(repr, registry.keys(_FAMILY)))}."
                )
            kinds_of.setdefault(source, set()).add(kind)
        of_data = {k for s, kinds in kinds_of.items() if s.needs_data for k in kinds}
        if of_data and data is None:
            raise ValueError(
                f"{', '.join(sorted(of_data))} must be gathered over examples: pass "
                "`calibration_data`, a few hundred of them, such as "
                "`(x_train[:512], y_train[:512])`."
            )
        labels = any(source.needs_labels for source in kinds_of)
        if data is not None and kinds_of:
            if not isinstance(data, CalibrationData):
                data = CalibrationData(data, model, labels=False)
            if labels:
                data.check_labels(model)
        self.data = data
        self._gather = [s.start(model, k, data) for s, k in kinds_of.items()]

    def gather(self, entries):
        """Returns the evidence for some weights.

        Args:
            entries: List of `MaskedWeight`.

        Returns:
            List of dicts, one a weight, from kind to array.
        """
        evidence = [{} for _ in entries]
        for gather in self._gather:
            for known, new in zip(evidence, gather(entries), strict=True):
                known.update(new)
        return evidence
