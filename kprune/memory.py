"""What a pruned model remembers of its training, beside masks and clock.

A run that is resumed finds here what it can't tell from epochs and batches.
"""

import numpy as np

from kprune.mask_store import clock_of, stores
from kprune.weight_access import as_array

NOT_YET = -1  # In a variable of `Tracked`: what it is to hold has not come yet.


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
    """Notes in a pruned model when a `fit` began and when it is to end.

    Args:
        model: A model that `kprune.prune` has made. It is changed.
        began: Int, step of the clock.
        end: Int, step of the clock, or `None` if it is not known.
    """
    for store in stores(model):
        store.clock.plan.assign([began, -1 if end is None else end])


def last_update(model, origin):
    """Returns when the last update was carried out that can't be repeated.

    Args:
        model: A model that `kprune.prune` has made.
        origin: Int, the clock from which the schedule's steps count.

    Returns:
        Int, a step of the schedule, or `None` if there was none.
    """
    found = _noted_update(model)
    if found is None:
        return None
    clock, noted_origin = as_array(found).tolist()
    # A clock that was set back begins anew, and so does a schedule of each `fit`.
    is_past = NOT_YET < clock <= clock_of(model) and noted_origin == origin
    return clock - origin if is_past else None


def note_update(model, origin):
    """Notes that an update was carried out now, where weights come back.

    Args:
        model: A model that `kprune.prune` has made. It is changed.
        origin: Int, the clock from which the schedule's steps count.
    """
    now = np.array([clock_of(model), origin])
    found = _noted_update(model)
    if found is None:
        found = stores(model)[0].tracked.hold("updated", now)
    found.assign(now)


def _noted_update(model):
    noted = [store.tracked.get("updated") for store in stores(model)]
    return next((variable for variable in noted if variable is not None), None)
