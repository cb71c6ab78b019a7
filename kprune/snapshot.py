"""`Snapshot`: a model and its optimizers as they were, kept aside or in the model."""

import keras
import numpy as np

from kprune.memory import NOT_YET, tracked_with
from kprune.optimizer_slots import made_anew, plain_optimizer, restart
from kprune.tracking import begin_anew, optimizers_of
from kprune.weight_access import as_array
from kprune.whole_model import stores

_STORED = "good_"  # begins the names of a snapshot's variables in `Tracked`
_HOLDS = "good"  # the name of the one that tells whether there is a snapshot in them


class Snapshot:
    """The values of all variables of a model and its optimizers.

    It lives in memory, unless it is put into the room that a model has for it: for a
    run that may be resumed before it is settled whether it has to go back.

    Args:
        model: A pruned model.

    Example:
    >>> import kprune
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model = kprune.prune(model)
    >>> before = Snapshot(model)
    >>> make_room(model)
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
        """Returns the snapshot that was put into a model, or `None`.

        One of a model that had other masks by then is none.
        """
        tracked = _room(model)
        if tracked.get(_HOLDS) is None or not as_array(tracked.get(_HOLDS)):
            return None
        snapshot = cls.__new__(cls)
        snapshot.values = {
            name.removeprefix(_STORED): keras.ops.convert_to_numpy(variable).copy()
            for name, variable in tracked.variables_by_name.items()
            if name.startswith(_STORED)
        }
        return snapshot if snapshot._knows(_own_variables(model)) else None

    def put_into(self, model):
        """Writes the values into the room of a model, so that they are saved with it.

        There may be none, and there is none for what has been made since `make_room`.
        """
        if _room(model).get(_HOLDS) is None:
            return
        for key, value in self.values.items():
            variable = _room(model).get(_STORED + key)
            if variable is not None:
                variable.assign(value)
        _room(model).get(_HOLDS).assign(True)

    def bring_back(self, model):
        """Sets model and optimizers to what they were.

        What a method has noted first since goes back to nothing; an optimizer that was
        compiled since, to its beginning.

        Args:
            model: The model that the snapshot is of, or one that was restored from
                it. It is changed.
        """
        known, others = _own_variables(model), []
        for place, (optimizer, variables) in enumerate(_optimizer_variables(model)):
            count = sum(key.startswith(f"optimizer_{place}_") for key in self.values)
            if self._knows(variables) and len(variables) == count:
                known |= variables
            else:
                made_anew(optimizer)  # can it be, before anything is changed?
                others.append(optimizer)
        for key, variable in known.items():
            variable.assign(self.values[key])
        self._begin_anew(model)
        for optimizer in others:
            restart(optimizer, 0)

    def _knows(self, variables):
        values = self.values
        return all(
            k in values and values[k].shape == variables[k].shape for k in variables
        )

    def _begin_anew(self, model):
        for key, variable in _tracked_variables(model).items():
            if key in self.values:
                variable.assign(self.values[key])
            else:
                variable.assign(np.full(variable.shape, NOT_YET, variable.dtype))
        new = [v for k, v in _tracked_variables(model).items() if k not in self.values]
        begin_anew(model, new)


def make_room(model):
    """Makes room for a snapshot in a model, which is then about twice as large.

    It is made and given up between two trainings, since callbacks such as
    `EarlyStopping` expect the same variables at the beginning and at the end of one.

    Args:
        model: A pruned model. It is changed.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)  # before the first step does it
    tracked, variables = _room(model), _variables(model)
    present = {key: tracked.get(_STORED + key) for key in variables}
    if any(v is not None and v.shape != variables[k].shape for k, v in present.items()):
        drop(model)  # it was made before masks were added
    if not _is_empty(model):
        return  # what has been made since was not yet there
    for key, variable in variables.items():
        tracked.hold(_STORED + key, np.zeros(variable.shape, variable.dtype))
    tracked.hold(_HOLDS, np.zeros((), "bool"))


def empty(model):
    """Tells a model that what is in the room of its snapshot counts no longer."""
    holds = _room(model).get(_HOLDS)
    if holds is not None:
        holds.assign(False)


def _is_empty(model):
    """Tells whether a model has no snapshot in it."""
    holds = _room(model).get(_HOLDS)
    return holds is None or not as_array(holds)


def drop(model):
    """Takes the room for a snapshot out of a model, if there is one."""
    tracked = _room(model)
    for name, variable in list(tracked.variables_by_name.items()):
        if name == _HOLDS or name.startswith(_STORED):
            tracked.release(variable)


def _room(model):
    return tracked_with(model, _HOLDS)


def _variables(model):
    """Returns the variables by keys that are the same in every copy of a model."""
    found = {**_own_variables(model), **_tracked_variables(model)}
    for _, variables in _optimizer_variables(model):
        found |= variables
    return found


def _own_variables(model):
    trackeds = [store.tracked for store in stores(model)]
    ids = {id(v) for t in trackeds for v in t.variables_by_name.values()}
    own = [variable for variable in model.variables if id(variable) not in ids]
    return {f"model_{number}": variable for number, variable in enumerate(own)}


def _tracked_variables(model):
    # In which order they were made, a file does not tell.
    return {
        f"tracked_{number}_{name}": variable
        for number, store in enumerate(stores(model))
        for name, variable in store.tracked.variables_by_name.items()
        if name != _HOLDS and not name.startswith(_STORED)
    }


def _optimizer_variables(model):
    """Lists pairs of an optimizer and its variables by key, which tells its class."""
    own = getattr(model, "optimizer", None)
    others = [o for o in optimizers_of(model) if o is not plain_optimizer(own)]
    found = ([] if own is None else [own]) + others
    return [
        (
            optimizer,
            {
                f"optimizer_{place}_{type(optimizer).__name__}_{number}": variable
                for number, variable in enumerate(optimizer.variables)
            },
        )
        for place, optimizer in enumerate(found)
    ]
