"""What a pruned model remembers of its training, beside masks and clock.

A run that is resumed finds here what it can't tell from epochs and batches.
"""

import dataclasses

import numpy as np

from kprune.weight_access import as_array
from kprune.whole_model import clock_of, masked_weights, stores

NOT_YET = -1  # In a variable of `Tracked`: what it is to hold has not come yet.


def tracked_with(model, name, among=None):
    """Returns what holds a variable of a name; masks may have been added before it.

    Args:
        model: A model that `kprune.prune` has made.
        name: String, what the variable is called.
        among: Collection of the mask stores that are looked at. Defaults to all.

    Returns:
        `Tracked` of the model; its first one if none holds the variable.
    """
    found = [store.tracked for store in (stores(model) if among is None else among)]
    return next((t for t in found if t.get(name) is not None), found[0])


def plan_of(model):
    """Returns when the latest `fit` with pruning began and was to end.

    Args:
        model: A model that `kprune.prune` has made.

    Returns:
        Tuple of two ints, steps of the clock, each `None` if it is not known.
    """
    clock = max((store.clock for store in stores(model)), key=lambda c: c.steps)
    return tuple(int(s) if s >= 0 else None for s in clock.plan.numpy())


def set_plan(model, began, end):
    """Notes in a pruned model when a `fit` began and when it is to end, or has ended.

    Args:
        model: A model that `kprune.prune` has made. It is changed.
        began: Int, step of the clock.
        end: Int, step of the clock, or `None` if it is not known.
    """
    for store in stores(model):
        store.clock.plan.assign([began, -1 if end is None else end])


@dataclasses.dataclass(frozen=True)
class Noted:
    """What a model knows of the last update that can't be repeated.

    Attributes:
        step: Int, the step of the schedule at which it was carried out.
        asked: Float in [0, 1), the sparsity that was asked for.
    """

    step: int
    asked: float


def prepare(model, among=None):
    """Gives a pruned model the place in which its updates are noted.

    Where weights come back it has to be there before a checkpoint is read, since
    TensorFlow restores into what there is.

    Args:
        model: A model that `kprune.prune` has made. It is changed.
        among: Collection of the mask stores that are updated together, where parts of
            a model have schedules of their own. Defaults to all.
    """
    empty = np.full(4, NOT_YET, "float64")
    tracked_with(model, "updated", among).hold("updated", empty)


def last_update(model, origin, among=None):
    """Returns what is known of the last update that can't be repeated.

    Args:
        model: A model that `kprune.prune` has made.
        origin: Int, the clock from which the schedule's steps count.
        among: As for `prepare`.

    Returns:
        `Noted`, or `None` if there was none.
    """
    noted = _noted(model, among)
    if noted is None:
        return None
    clock, noted_origin, asked, _ = as_array(noted).tolist()
    # A clock that was set back begins anew, and so does a schedule of each `fit`.
    is_past = NOT_YET < clock <= clock_of(model) and noted_origin == origin
    return Noted(int(clock) - origin, asked) if is_past else None


def origin_of_last_update(model):
    """Returns the clock from which the schedule of the last such update counts."""
    return int(as_array(_noted(model))[1])


def has_removed(model):
    """Tells whether such an update has ever removed weights, back by now or not."""
    noted = _noted(model)
    return noted is not None and as_array(noted)[3] > 0


def removed_now(model):
    """Counts the weights that are removed now, those of frozen layers, too."""
    masks = [as_array(entry.mask) for entry in masked_weights(model)]
    return sum(mask.size - int(np.count_nonzero(mask)) for mask in masks)


def note_update(model, origin, asked, reached, among=None):
    """Notes that an update was carried out now, where weights come back.

    Args:
        model: A model that `kprune.prune` has made. It is changed.
        origin: Int, the clock from which the schedule's steps count.
        asked: Float in [0, 1), the sparsity that was asked for.
        reached: Float in [0, 1), the fraction of zeros.
        among: As for `prepare`.
    """
    prepare(model, among)
    noted = _noted(model, among)
    most = max(reached, as_array(noted)[3])
    noted.assign([clock_of(model), origin, asked, most])


def _noted(model, among=None):
    return tracked_with(model, "updated", among).get("updated")
