"""Who gathers which evidence, and the one call that brings it all."""

import dataclasses

from kprune import registry
from kprune.calibration.data import CalibrationData

_FAMILY = "evidence"


@dataclasses.dataclass(frozen=True)
class _Source:
    """A function that gathers some kinds of evidence in one pass.

    Attributes:
        gather: Function of a model, a list of `MaskedWeight`, the set of the kinds
            that are wanted, and a `CalibrationData` or `None`. It returns a list
            of dicts, one a weight, from kind to array: of the weight's shape, or
            one that can be broadcast to it in the layout `(..., inputs, outputs)`.
        needs_data: Bool, whether it looks at examples.
        needs_labels: Bool, whether it looks at the loss as well.
    """

    gather: callable
    needs_data: bool
    needs_labels: bool


def gathers(*kinds, data=False, labels=False):
    """Returns a decorator for a function that gathers evidence.

    Args:
        *kinds: Strings, the kinds of evidence, as criteria name them in `requires`.
        data: Bool, whether it needs calibration data. Defaults to `False`.
        labels: Bool, whether the data must have labels. Defaults to `False`.

    Returns:
        A decorator that returns what it was given.
    """

    def decorator(function):
        for kind in kinds:
            registry.register(_FAMILY, kind)(_Source(function, data or labels, labels))
        return function

    return decorator


class Calibration:
    """Gathers the evidence that a criterion requires, anew for each update.

    Args:
        model: The pruned model.
        requires: Sequence of strings, the kinds of evidence.
        data: What `CalibrationData` takes, or `None`.

    Raises:
        ValueError: If nobody gathers a kind, or if it needs data, or labels, that
            are not there.

    Example:
    >>> Calibration(None, [], None).gather([])
    []
    """

    def __init__(self, model, requires, data=None):
        self.model = model
        self._kinds = {}
        for kind in requires:
            source = registry.lookup(_FAMILY, kind)
            if source is None:
                raise ValueError(
                    f"Evidence {kind!r} is required, and nobody gathers it. There is "
                    f"{', '.join(map(repr, registry.keys(_FAMILY)))}."
                )
            self._kinds.setdefault(source, set()).add(kind)
        of_data = {k for s, kinds in self._kinds.items() if s.needs_data for k in kinds}
        if of_data and data is None:
            raise ValueError(
                f"{', '.join(sorted(of_data))} must be gathered over examples: pass "
                "`calibration_data`, a few hundred of them, such as "
                "`(x_train[:512], y_train[:512])`."
            )
        labels = any(source.needs_labels for source in self._kinds)
        self.data = CalibrationData(data, model, labels) if of_data else None

    def gather(self, entries):
        """Returns the evidence for some weights.

        Args:
            entries: List of `MaskedWeight`.

        Returns:
            List of dicts, one a weight, from kind to array.
        """
        evidence = [{} for _ in entries]
        for source, kinds in self._kinds.items():
            found = source.gather(self.model, entries, kinds, self.data)
            for known, new in zip(evidence, found, strict=True):
                known.update(new)
        return evidence
