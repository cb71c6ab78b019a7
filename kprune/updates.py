"""One update of a model's masks: weights and evidence in, masks out and written."""

import numpy as np

from kprune import whole_model
from kprune.calibration import Calibration
from kprune.layout import layout_of
from kprune.optimizer_slots import average_of, clean
from kprune.regrowth import Update
from kprune.ties import coupled_kernels, couplings, ties_of
from kprune.tracking import check_followed, optimizers_of
from kprune.weight_access import as_array, write, write_masked


def updaters(model, criteria, scope, regrowth, calibration_data, among=None):
    """Returns an `Updater` for each criterion; all read the same calibration data.

    Args:
        model: A pruned model.
        criteria: Sequence of criteria, one for each stage of a schedule.
        scope: As for `Updater`.
        regrowth: As for `Updater`.
        calibration_data: As for `Updater`.
        among: As for `Updater`. Defaults to all.

    Returns:
        List of `Updater`; the last one's `calibration_data` has been checked for all.
    """
    made, data = [], calibration_data
    for criterion in criteria:
        made.append(Updater(model, criterion, scope, regrowth, data, among))
        data = made[-1].calibration_data
    return made


class Updater:
    """Finds new masks for a model and writes them.

    Args:
        model: A pruned model.
        criterion: `Criterion`, or a function of a weight.
        scope: `Scope`.
        regrowth: `Regrowth` or `None`.
        calibration_data: What `kprune.calibration.CalibrationData` takes, or one, or
            `None`.
        among: Collection of the `MaskStore` that are looked at. Defaults to all.

    Attributes:
        calibration_data: `CalibrationData` that has been checked. As given, if it is
            not looked at.

    Raises:
        ValueError: If calibration data is missing.
    """

    def __init__(
        self,
        model,
        criterion,
        scope,
        regrowth=None,
        calibration_data=None,
        among=None,
    ):
        self.model = model
        self.criterion = criterion
        self.scope = scope
        self.regrowth = regrowth
        self._among = among
        self._requires = requires = getattr(criterion, "requires", ())
        self._calibration = Calibration(model, requires, calibration_data)
        self.calibration_data = self._calibration.data
        if regrowth is not None:
            both = dict.fromkeys((*requires, *regrowth.requires))
            self._growing = Calibration(model, both, self.calibration_data)
            self.calibration_data = self._growing.data

    def trained(self):
        """Lists pairs of a store and an entry, for the weights that are trained."""
        return whole_model.trained_weights(self.model, self._among)

    def update(self, sparsity, step=0, *, regrows=False, reopens=False):
        """Carries out an update.

        Args:
            sparsity: Float in [0, 1).
            step: Int, the step of the schedule that training stands at, for the
                regrowth. Defaults to 0.
            regrows: Bool, whether the regrowth takes part. Defaults to `False`.
            reopens: Bool, whether all weights that were removed compete again.
                Defaults to `False`.

        Returns:
            Float, the fraction of zeros.

        Raises:
            ValueError: If a weight is NaN or infinite, or if movements shall decide
                and none has been seen in a layer.
        """
        pruned = self.trained()
        weights = [as_array(entry.variable) for _, entry in pruned]
        present = [as_array(entry.mask) for _, entry in pruned]
        masks = list(
            self._masks(pruned, weights, present, sparsity, step, regrows, reopens)
        )
        entries = [entry for _, entry in pruned]
        followed = (*self._requires, *getattr(self.regrowth, "tracks", ()))
        check_followed(zip(entries, present, masks, strict=True), followed)
        del present
        fraction, written = _fraction_removed(masks), set()
        for (_, entry), mask in zip(pruned, masks, strict=True):
            # Let go one by one, so that no two copies of all weights are held.
            weight = weights.pop(0)
            if id(entry.variable) in written:  # shared by two layers wrapped by hand
                weight = as_array(entry.variable)
            if regrows or reopens:
                weight = self._open(entry, mask, weight)
            _assign_mask(entry, mask, weight)
            written.add(id(entry.variable))
        self._follow()
        return fraction

    def _follow(self):
        """Masks what goes with the channels that are gone, all over the model."""
        ranked = coupled_kernels(self.model)
        if not ranked:
            return
        masks = {
            id(entry.variable): as_array(entry.mask)
            for entry in whole_model.masked_weights(self.model)
        }
        followers = whole_model.followers(self.model)
        ids = {id(variable) for variable in ranked}
        for coupling in couplings(self.model):
            left = coupling.left(masks, ranked)
            for follower in followers:
                variable, shape = follower.variable, follower.mask.shape
                if coupling.reaches(variable):
                    mask = coupling.mask(variable, shape, id(variable) in ids, left)
                    _assign_mask(follower, mask, as_array(variable))

    def rehearse(self):
        """Finds masks that remove nothing, and drops them.

        Raises:
            ValueError: What an update would raise.
        """
        pruned = self.trained()
        weights = [as_array(entry.variable) for _, entry in pruned]
        present = [as_array(entry.mask) for _, entry in pruned]
        for _ in self._masks(pruned, weights, present, 0.0, 0, False, False):
            pass
        if self.regrowth is not None and self.regrowth.requires:
            self._gather([entry for _, entry in pruned], regrows=True)

    def _masks(self, pruned, weights, present, sparsity, step, regrows, reopens):
        entries = [entry for _, entry in pruned]
        layouts = [layout_of(entry.layer, entry.variable) for entry in entries]
        granularities = [store.granularity for store, _ in pruned]
        update = Update(
            weights=_canonical(layouts, weights),
            masks=_canonical(layouts, present),
            sparsity=sparsity,
            step=step,
            names=[entry.name for entry in entries],
            evidence=list(
                map(_beside, layouts, weights, self._gather(entries, regrows))
            ),
            criterion=self.criterion,
            granularity=granularities,
            scope=self.scope,
            ties=ties_of(self.model, granularities, [e.variable for e in entries]),
            reopens=reopens,
        )
        found = self.regrowth(update) if regrows else update.prune()
        shapes = [weight.shape for weight in weights]
        for layout, shape, mask in zip(layouts, shapes, found, strict=True):
            yield np.ascontiguousarray(layout.own(mask, shape))

    def _gather(self, entries, regrows):
        if not regrows:
            return self._calibration.gather(entries)
        tracked = [
            {kind: as_array(entry.tracked_as(kind)) for kind in self.regrowth.tracks}
            for entry in entries
        ]
        gathered = self._growing.gather(entries)
        return [{**a, **b} for a, b in zip(tracked, gathered, strict=True)]

    def _open(self, entry, mask, weight):
        """Returns a weight with what comes back, and lets optimizers forget that."""
        opened = mask & ~as_array(entry.mask)
        if not opened.any():
            return weight
        has_learnt = "shadow" in getattr(self.regrowth, "tracks", ())
        shadow = entry.tracked_as("shadow") if has_learnt else None
        if shadow is None:
            for optimizer in optimizers_of(self.model):
                clean(optimizer, entry.variable, opened)
            return weight
        learnt = as_array(shadow)  # all the time, and so has the optimizer
        average = average_of(entry.variable, entry.variable.constraint.optimizer)
        if average is not None:
            write(average, np.where(opened, learnt, as_array(average)))
        write(entry.variable, np.where(opened, learnt, weight))
        return np.where(opened, learnt, weight)


def _canonical(layouts, arrays):
    return [layout.canonical(a) for layout, a in zip(layouts, arrays, strict=True)]


def _beside(layout, weight, evidence):
    """Brings evidence that lies place by place beside a weight into its layout."""
    return {
        kind: layout.canonical(e) if np.shape(e) == weight.shape else e
        for kind, e in evidence.items()
    }


def _assign_mask(entry, mask, weight):
    """Sets a mask and zeroes what it removes, in the weight and its average."""
    write(entry.mask, mask)
    mask = np.broadcast_to(mask, weight.shape)
    write_masked(entry.variable, weight, mask)
    optimizer = entry.variable.constraint.optimizer
    average = average_of(entry.variable, optimizer)
    if average is not None:
        write_masked(average, as_array(average), mask)


def sparsity_of(model, among=None):
    """Reads off the masks what fraction of the trained weights is removed.

    Args:
        model: A pruned model.
        among: As for `Updater`. Defaults to all.

    Returns:
        Float in [0, 1].
    """
    trained = whole_model.trained_weights(model, among)
    return _fraction_removed([as_array(entry.mask) for _, entry in trained])


def _fraction_removed(masks):
    """Returns the fraction of zeros in some masks, bool arrays."""
    size = sum(mask.size for mask in masks)
    kept = sum(int(np.count_nonzero(mask)) for mask in masks)
    return (size - kept) / max(size, 1)
