"""How much the groups of channels of a model matter, by any criterion."""

import keras
import numpy as np
from keras import layers

from kprune import registry
from kprune.calibration import Calibration
from kprune.channels.numbers import NONE
from kprune.layout import layout_of
from kprune.masked_weight import MaskedWeight
from kprune.scopes.names import WeightName
from kprune.shrinking.groups import is_kernel, made_axes
from kprune.weight_access import as_array


def _l2(items, groups, number):
    return np.sqrt(np.bincount(groups, items**2, number))


def _sum(items, groups, number):
    return np.bincount(groups, items, number)


def _mean(items, groups, number):
    count = np.bincount(groups, minlength=number)
    return _sum(items, groups, number) / np.maximum(count, 1)


def _max(items, groups, number):
    found = np.full(number, -np.inf)
    np.maximum.at(found, groups, items)
    return found


# What the norms of filters are called in papers: those by which these rank.
CRITERIA = {"l1": "magnitude", "l2": "squared_magnitude"}
REDUCTIONS = {"mean": _mean, "sum": _sum, "max": _max, "l2": _l2}
NORMS = {
    "mean": lambda scores: np.abs(scores).mean(),
    "max": lambda scores: np.abs(scores).max(),
    "l2": lambda scores: np.sqrt(np.square(scores).sum()),
    None: lambda scores: 1.0,
}


class Importance:
    """Scores groups of channels; all that can be wrong is found before any work.

    Each weight that makes channels is scored by the criterion, in the layout that
    criteria see. The score of a channel is the mean over its slice of the weight, as
    with the granularity `Channel`; that of a group is put together of those of its
    channels, in all layers that make them.

    Args:
        model: The model that was traced.
        tracing: Its `Tracing`.
        families: List of `Family`, those that are to be ranked.
        criterion: Name, `Criterion`, or function of a weight; or `"l1"` or `"l2"`,
            the norms by which `"magnitude"` and `"squared_magnitude"` rank.
        reduce: String, how the channels of a group are put together: `"mean"`,
            `"sum"`, `"max"` or `"l2"`.
        normalize: String or `None`, by what the scores of each weight are divided:
            their mean absolute value `"mean"`, the largest `"max"`, their norm
            `"l2"`, or nothing.
        calibration_data: What `kprune.calibration.CalibrationData` takes, or `None`.

    Raises:
        ValueError: If an argument is unknown, if calibration data or what it needs is
            missing, or if no weight tells the channels of some layer apart.
    """

    def __init__(
        self,
        model,
        tracing,
        families,
        criterion,
        reduce="mean",
        normalize="mean",
        calibration_data=None,
    ):
        if not callable(criterion) or isinstance(criterion, type):
            by_norm = isinstance(criterion, str) and CRITERIA.get(criterion)
            criterion = registry.get("criteria", by_norm or criterion)
        self.criterion = criterion
        self._reduce = _chosen("reduce", reduce, REDUCTIONS)
        self._norm = _chosen("normalize", normalize, NORMS)
        self._tracing = tracing
        self._requires = tuple(getattr(criterion, "requires", ()))
        self._check_criterion()
        self._entries = _entries(tracing, self._by_scales)
        requires = [k for k in self._requires if not (k == _SCALE and self._by_scales)]
        self._check_families(families)
        self._calibration = Calibration(model, requires, calibration_data)

    @property
    def _by_scales(self):
        """Bool, whether what counts are the scales of normalizations.

        These are found in the groups themselves, wherever in the model they stand.
        """
        return _SCALE in self._requires

    def _check_criterion(self):
        if getattr(self.criterion, "axis", None) not in (None, -1):
            raise ValueError(
                f"{self.criterion!r} scores input channels, and what `shrink` ranks "
                "are the channels that layers put out. Take another criterion."
            )
        if "movement" in self._requires:
            raise ValueError(
                f"{self.criterion!r} looks at how weights have moved while the model "
                "was trained with masks, which nobody has followed here. Take another "
                "criterion, such as 'taylor', or train with it: kprune.prune(model, "
                "granularity='channel') and a PruningCallback."
            )

    def _check_families(self, families):
        scored = [made.line for _, axes in self._entries for made in axes]
        scored = np.unique(np.concatenate([[NONE], *scored]))
        without = [f for f in families if not np.isin(f.groups, scored).all()]
        if without:
            what = "batch normalization with a scale" if self._by_scales else "kernel"
            names = [name for family in without for name in family.layers]
            names = list(dict.fromkeys(names))
            raise ValueError(
                f"No {what} tells the channels of {', '.join(map(repr, names))} apart, "
                f"so that {self.criterion!r} can't score them. Leave them out, "
                f"`kprune.shrink(model, skip={names!r})`, or take another criterion."
            )

    def __call__(self):
        """Returns the scores, a float64 array by the number of the group.

        Larger means keep. NaN stands for groups that were not scored.
        """
        number = int(self._tracing.channels.groups().max()) + 1
        evidence = self._calibration.gather([entry for entry, _ in self._entries])
        items, groups = [np.zeros(0)], [np.zeros(0, int)]
        for place, (entry, axes) in enumerate(self._entries):
            scores = self._score(entry, evidence[place], place)
            for made in axes:
                others = tuple(a for a in range(scores.ndim) if a != made.axis)
                line = scores.mean(axis=others, dtype="float64")
                items.append(line / (self._norm(line) or 1.0))
                groups.append(made.line)
        items, groups = np.concatenate(items), np.concatenate(groups)
        scores = self._reduce(items, groups, number)
        scores[np.bincount(groups, minlength=number) == 0] = np.nan
        return scores

    def _score(self, entry, evidence, place):
        """Returns the scores of a weight, an array of its own shape."""
        layout = layout_of(entry.layer, entry.variable)
        own = as_array(entry.variable)
        weight = layout.canonical(own)
        if weight.dtype.itemsize < 4:
            weight = weight.astype("float32")
        evidence = {
            kind: layout.canonical(e) if np.shape(e) == own.shape else e
            for kind, e in evidence.items()
        }
        if self._by_scales:
            evidence[_SCALE] = weight
        known = {"name": entry.name, "place": place}
        evidence |= {kind: known[kind] for kind in self._requires if kind in known}
        _check_numbers(weight, entry, "holds")
        scores = np.asarray(self.criterion(weight, **evidence))
        if scores.shape != weight.shape or scores.dtype.kind not in "biuf":
            raise ValueError(
                f"The criterion {self.criterion!r} gave scores of shape "
                f"{scores.shape} and type {scores.dtype} for the weight "
                f"{entry.name!r}, of which it was shown the shape {weight.shape}. Let "
                "it return an array of floats of the shape that it is shown, larger "
                "where a weight is to stay."
            )
        _check_numbers(scores, entry, "gets scores with")
        return layout.own(scores, own.shape)


_SCALE = "batch_norm_scale"


def _chosen(argument, value, known):
    if not isinstance(value, (str, type(None))) or value not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(f"{argument}={value!r} must be one of {names}.")
    return known[value]


def _check_numbers(values, entry, verb):
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise ValueError(
            f"The weight {entry.name!r} of shape {tuple(entry.variable.shape)} {verb} "
            f"{bad} values that are NaN or infinite, so that its channels can't be "
            "ranked. Go back to a checkpoint from before the training diverged."
        )


def _entries(tracing, by_scales):
    """Lists the weights that are scored, each with its `MadeAxis` that may shrink.

    Returns:
        List of pairs of a `MaskedWeight` and a list of `MadeAxis`.
    """
    stuck = [NONE, *tracing.channels.reasons()]
    nothing_is_gone = keras.Variable(True, dtype="bool", trainable=False)
    found = {}
    for made, _ in made_axes(tracing):
        variable = made.weight.variable
        owner = tracing.owners[id(variable)]
        is_scored = _is_scale if by_scales else is_kernel
        if is_scored(owner, variable) and not np.isin(made.line, stuck).all():
            if id(variable) not in found:
                entry = _entry(variable, nothing_is_gone, owner, made.layer)
                found[id(variable)] = entry, []
            found[id(variable)][1].append(made)
    return list(found.values())


def _is_scale(owner, variable):
    return isinstance(owner, layers.BatchNormalization) and variable is owner.gamma


def _entry(variable, mask, owner, layer):
    path = variable.path.rpartition(f"{owner.name}/")[2]
    name = WeightName(layer, path)
    return MaskedWeight(path, variable, mask, owner, name, None)
