"""`Snapshot`: a model and its optimizer as they were, kept aside or in the model."""

import keras
import numpy as np

from kprune.memory import NOT_YET
from kprune.optimizer_slots import plain_optimizer, restart
from kprune.whole_model import stores

_STORED = "good_"  # begins the names of a snapshot's variables in `Tracked`


class Snapshot:
    """The values of all variables of a model and its optimizer.

    It lives in memory, unless it is put into the model, which is then about twice as
    large on disk until `drop`: for a run that may be resumed before it is settled
    whether it has to go back.

    Args:
        model: A pruned model.

    Example:
    >>> import kprune
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model = kprune.prune(model)
    >>> before = Snapshot(model)
    >>> before.put_into(model)
    >>> _ = model.layers[0].kernel.assign(np.zeros((2, 1)))
    >>> Snapshot.found_in(model).bring_back(model)
    >>> np.array_equal(model.layers[0].kernel, before.values["model_0"])
    True
    """

    def __init__(self, model):
        self.values = {
            key: keras.ops.convert_to_numpy(variable).copy()
            for key, variable in _variables(model).items()
        }

    @classmethod
    def found_in(cls, model):
        """Returns the snapshot that was put into a model, or `None`."""
        snapshot = cls.__new__(cls)
        snapshot.values = {
            name.removeprefix(_STORED): variable
            for name, variable in _tracked(model).variables_by_name.items()
            if name.startswith(_STORED)
        }
        return snapshot if snapshot.values else None

    def put_into(self, model):
        """Adds the values to a model, so that they are saved with it."""
        for key, value in self.values.items():
            _tracked(model).hold(_STORED + key, keras.ops.convert_to_numpy(value))

    def bring_back(self, model):
        """Sets model and optimizer to what they were.

        What a method has noted since goes back to nothing; so does an optimizer that
        was compiled since.

        Args:
            model: The model that the snapshot is of, or one that was restored from
                it. It is changed.
        """
        present = _variables(model)
        new = present.keys() - self.values.keys()
        optimizer = plain_optimizer(getattr(model, "optimizer", None))
        if any(key.startswith("optimizer") for key in new):
            restart(optimizer, 0)
        for key, variable in present.items():
            if key in self.values:
                variable.assign(keras.ops.convert_to_numpy(self.values[key]))
            elif key.startswith("tracked"):
                variable.assign(np.full(variable.shape, NOT_YET, variable.dtype))


def drop(model):
    """Takes a snapshot out of a model, if there is one in it."""
    tracked = _tracked(model)
    for name, variable in list(tracked.variables_by_name.items()):
        if name.startswith(_STORED):
            tracked.release(variable)


def _tracked(model):
    return stores(model)[0].tracked


def _variables(model):
    """Returns the variables by keys that are the same in every copy of a model.

    In which order tracked ones were made, a file does not tell.
    """
    tracked = {
        f"tracked_{number}_{name}": variable
        for number, store in enumerate(stores(model))
        for name, variable in store.tracked.variables_by_name.items()
    }
    ids = {id(variable) for variable in tracked.values()}
    own = [variable for variable in model.variables if id(variable) not in ids]
    optimizer = getattr(model, "optimizer", None)
    others = [] if optimizer is None else optimizer.variables
    return {
        **{f"model_{number}": variable for number, variable in enumerate(own)},
        **{k: v for k, v in tracked.items() if f"_{_STORED}" not in k},
        **{f"optimizer_{number}": variable for number, variable in enumerate(others)},
    }
