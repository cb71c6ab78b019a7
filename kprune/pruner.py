"""`Pruner`: carries out the mask updates that a schedule asks for."""

import numpy as np

from kprune import mask_store, registry
from kprune.calibration import Calibration
from kprune.inspection import check_keras_model
from kprune.layout import layout_of
from kprune.masks import check_combination, compute_masks
from kprune.scopes import Contender
from kprune.weight_access import as_array, write, write_masked


class Pruner:
    """Raises the sparsity of a model as its clock moves on.

    `PruningCallback` does this for `model.fit`. In a training loop of your own,
    call `step` before each optimizer step (and once after the loop, if the
    schedule ends with it).

    Which update is due is decided by the clock alone, which counts optimizer
    steps and is saved with the model's weights. An update is repeatable: carried
    out twice it changes nothing, and a weight once removed stays removed. So a
    resumed run goes on where it stood.

    Args:
        model: A model that `kprune.prune` has made.
        schedule: A `Schedule`.
        criterion: Name or object, how weights are scored. Defaults to
            `"magnitude"`.
        scope: Name or object, which weights compete: `"layer_wise"` or
            `"global"`. Defaults to `"layer_wise"`.
        origin: Int, the clock from which the schedule's steps count. Defaults to
            0, when the model was first pruned; `pruner.clock` is the present.
        calibration_data: What `kprune.calibration.CalibrationData` takes: examples
            for a criterion that looks at gradients or activations. Defaults to none.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the model holds no masks, if an argument is unknown, if
            criterion, granularity and scope have no meaning together, if the
            sparsity can't be reached, or if calibration data is missing.

    Example:
    >>> import keras, kprune
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    >>> model = kprune.prune(model)
    >>> pruner = kprune.Pruner(model, kprune.ConstantSchedule(0.75))
    >>> pruner.step()
    0
    >>> pruner.sparsity
    0.75
    """

    def __init__(
        self,
        model,
        schedule,
        *,
        criterion="magnitude",
        scope="layer_wise",
        origin=0,
        calibration_data=None,
    ):
        check_pruned(model)
        self.model = model
        self.schedule = registry.get("schedules", schedule)
        self.criterion = registry.get("criteria", criterion)
        self.scope = registry.get("scopes", scope)
        self.origin = origin
        self.calibration = Calibration(model, self.criterion.requires, calibration_data)
        self._stores = mask_store.stores(model)
        self._clocks = {store.clock for store in self._stores}
        self._done = _NOTHING_YET
        self.sparsity = 0.0

    @property
    def clock(self):
        """Int, the optimizer steps that the model has seen since it was wrapped."""
        return max(clock.steps for clock in self._clocks)

    @property
    def finished(self):
        """Bool, whether the last update of the schedule has been carried out."""
        return self._done == self.schedule.end_step

    def step(self):
        """Carries out the mask update that is due, if there is one.

        Returns:
            Int, the clock.

        Raises:
            ValueError: If the clocks of the layers disagree, if all pruned
                layers are frozen, or if a weight is NaN or infinite.
        """
        clock = self.clock
        if not any(store.entries for store in self._stores):
            return clock  # a Sequential that its first batch is about to build
        first = self._done is _NOTHING_YET
        if first:
            self._check_clocks(clock)
            self._check_parts()
        due = self.schedule.last_due(clock - self.origin)
        if first or due != self._done:
            self._update(0.0 if due is None else self.schedule(due))
            self._done = due
            self.synchronize()
        return clock

    def next_due(self, clock):
        """Returns the clock at which the next update is due.

        Args:
            clock: Int, the present clock.

        Returns:
            Int, or `None` if all are done.
        """
        if self._done is _NOTHING_YET:
            return clock + 1
        due = self.schedule.next_due(clock - self.origin)
        return None if due is None else due + self.origin

    def synchronize(self):
        """Brings clocks that stood still, of frozen layers, up to the model's."""
        if len(self._clocks) > 1:
            mask_store.set_clock(self.model, self.clock)

    def measure(self):
        """Reads the sparsity off the masks, where others may have set weights.

        Returns:
            Float, the fraction of zeros in the weights that are being pruned.
        """
        masks = [
            as_array(entry.mask)
            for store in self._stores
            for entry in store.trained_entries()
        ]
        self.sparsity = _fraction_removed(masks)
        return self.sparsity

    def frozen(self):
        """Lists the names of the layers with masks that are frozen now."""
        layers = {
            entry.layer.name: None
            for store in self._stores
            for entry in store.entries
            if not entry.variable.trainable
        }
        return list(layers)

    def _check_clocks(self, clock):
        trained = [s for s in self._stores if s.trained_entries()]
        if not trained:
            raise ValueError(
                "All layers with masks are frozen, so that nothing can be pruned: "
                f"{', '.join(map(repr, self.frozen()))}. Set `trainable = True` on "
                "those that shall be pruned, and compile again."
            )
        steps = {s.entries[0].layer.name: s.clock.steps for s in trained}
        if set(steps.values()) != {clock}:
            raise ValueError(
                "The clocks of the pruned layers disagree: "
                f"{', '.join(f'{name!r} at step {n}' for name, n in steps.items())}. "
                "Layers with different pasts were put together, or trained apart. "
                "Say which step the schedule shall go on from: "
                f"`kprune.set_clock(model, {clock})`."
            )

    def _check_parts(self):
        """Refuses parts that have no meaning together, and what can't be reached."""
        granularities = [store.granularity for store, _ in self._trained()]
        check_combination(self.criterion, granularities, self.scope)
        contenders = []
        for store, entry in self._trained():
            shape = tuple(entry.variable.shape)
            reachable = store.granularity.reachable(shape)
            contenders.append(
                Contender((), shape=shape, name=entry.name, reachable=reachable)
            )
        self.scope.check(contenders, self.schedule.highest)

    def _trained(self):
        return [(s, e) for s in self._stores for e in s.trained_entries()]

    def _update(self, sparsity):
        pruned = self._trained()
        weights = [as_array(entry.variable) for _, entry in pruned]
        masks = list(self._masks(pruned, weights, sparsity))
        self.sparsity = _fraction_removed(masks)
        written = set()
        for (_, entry), mask in zip(pruned, masks, strict=True):
            # Let go one by one, so that no two copies of all weights are held.
            weight = weights.pop(0)
            if id(entry.variable) in written:  # shared by two layers wrapped by hand
                weight = as_array(entry.variable)
            _assign_mask(entry, mask, weight)
            written.add(id(entry.variable))

    def _masks(self, pruned, weights, sparsity):
        entries = [entry for _, entry in pruned]
        layouts = [layout_of(entry.layer, entry.variable) for entry in entries]
        evidence = self.calibration.gather(entries)
        found = compute_masks(
            _canonical(layouts, weights),
            sparsity,
            criterion=self.criterion,
            granularity=[store.granularity for store, _ in pruned],
            scope=self.scope,
            masks=_canonical(layouts, [as_array(entry.mask) for entry in entries]),
            names=[entry.name for entry in entries],
            evidence=list(map(_beside, layouts, weights, evidence)),
        )
        shapes = [weight.shape for weight in weights]
        for layout, shape, mask in zip(layouts, shapes, found, strict=True):
            yield np.ascontiguousarray(layout.own(mask, shape))


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
    write_masked(entry.variable, weight, mask)
    optimizer = entry.variable.constraint.optimizer
    average = mask_store.average_of(entry.variable, optimizer)
    if average is not None:
        write_masked(average, as_array(average), mask)


def _fraction_removed(masks):
    size = sum(mask.size for mask in masks)
    kept = sum(int(np.count_nonzero(mask)) for mask in masks)
    return (size - kept) / max(size, 1)


_NOTHING_YET = object()


def check_pruned(model):
    """Raises unless this is a Keras 3 model with masks.

    Args:
        model: Anything.

    Raises:
        TypeError: If it is no Keras 3 model.
        ValueError: If it holds no masks.
    """
    check_keras_model(model)
    stores = mask_store.stores(model)
    if not stores or model.built and not any(store.entries for store in stores):
        raise ValueError(
            f"The model {model.name!r} holds no masks, so that nothing in it can be "
            "pruned. Wrap it first, `model = kprune.prune(model)`, and compile it."
        )


def check_start(start):
    """Raises a `ValueError` unless `start` is `"model"` or `"fit"`."""
    if start not in ("model", "fit"):
        raise ValueError(
            f"start={start!r} must be 'model' (steps count from when the model was "
            "first pruned) or 'fit' (from the start of this training)."
        )
