"""Copies of models in which masked layers stand for plain ones, or plain for masked.

A graph of layers is made again from stand-ins: a `PruningWrapper` around a copy of each
layer with prunable weights, or the plain copy. A subclassed model, which only its own
class can make, stands for itself as a whole.
"""

import collections.abc
import dataclasses
import functools

import keras

from kprune import cloning, pruned_model
from kprune.clock import Clock
from kprune.copier import CannotCopyError
from kprune.inspection import is_pruned, own_weights
from kprune.layer_choice import Selection
from kprune.prunable import find_weights, has_no_prunable_weights
from kprune.pruned_model import PrunedModel
from kprune.rebuilding import rebuilt
from kprune.whole_model import clock_of, stores
from kprune.wrapper import PruningWrapper


@dataclasses.dataclass(frozen=True)
class Wrapping:
    """How the layers of one model are wrapped.

    Attributes:
        selection: `Selection`, the layers that are.
        granularity: What is removed together, a `Granularity`.
        clock: The `Clock` that all of them share.
        followers: Dict from the id of each weight that loses what belongs to channels
            removed elsewhere to the shape of its mask; `None` where channels are not
            coupled.
        make: Function that returns the wrapper of a layer, for what `PruningWrapper`
            takes in its place. Defaults to that.
    """

    selection: Selection
    granularity: object
    clock: Clock
    followers: dict | None = None
    make: collections.abc.Callable = PruningWrapper

    def wrap(self, layer, paths=None, following=None):
        """Puts a wrapper around a layer, for its weights at some paths or for all."""
        return self.make(layer, self.granularity, paths, self.clock, following)

    def following(self, layer):
        """Returns what follows in a layer, from path to shape; `None` for none."""
        if self.followers is None:
            return None
        return {
            w.path: self.followers[id(w.variable)]
            for w in find_weights(layer)
            if id(w.variable) in self.followers
        }

    def prunable_paths(self, layer, parents):
        """Lists the paths of the weights of a layer or model that shall have masks."""
        weights = find_weights(layer, self.selection, parents)
        return [w.path for w in weights if not w.reason]


def pruned_copy(model, wrapping):
    """Makes a copy of a model with masks; those that it has are kept.

    Args:
        model: A Keras 3 model. It is not changed.
        wrapping: `Wrapping`; its clock goes on from that of the model.

    Returns:
        A model that is pruned, unless there was nothing to prune.

    Raises:
        CannotCopyError: If a layer or the model can't be made again.
        ValueError: If a subclassed model has no weights yet.
    """
    stand_in = functools.partial(_pruned_stand_in, wrapping=wrapping)
    pruned = _copy(model, stand_in)
    if is_pruned(model):
        wrapping.clock.variable.assign(clock_of(model))
    for store in stores(pruned)[:1]:
        # In layers that are left dense, too: a model is converted as a whole.
        store.refuse_conversions(pruned)
    return pruned


def plain_copy(model):
    """Makes a copy of a pruned model without masks, its zeros at exact zero.

    Args:
        model: A pruned model that was not pruned in place. It is not changed.

    Returns:
        A plain Keras model.
    """
    return _copy(model, _plain_stand_in)


def _copy(model, stand_in):
    new = rebuilt(model, stand_in)
    _check_ties(model, new)
    return new


def _check_ties(model, new):
    """Makes sure that no variable that was shared has become two."""
    counts = [len(own_weights(m)) for m in (model, new)]
    if counts[0] != counts[1]:
        raise CannotCopyError(
            f"The model {model.name!r} has {counts[0]} weights and its copy has "
            f"{counts[1]}: layers share weights in a way that their configs don't say."
        )


def _plain_stand_in(layer, parents, copier):
    """Makes the stand-in of a layer in the stripped model."""
    own = layer.layer if isinstance(layer, PruningWrapper) else layer
    new = _without_masks(own, copier)

    def finish():
        cloning.copy_state(own, new, ignore=stores(own))
        variables = {w.path: w.variable for w in find_weights(new)}
        for store in stores(layer):
            for entry in store.held:
                variables[entry.path].assign(entry.held(entry.variable))

    return new, finish


def _without_masks(layer, copier):
    """Copies a layer or a subclassed model, without masks and without state."""
    if isinstance(layer, PrunedModel):
        new = pruned_model.plain_copy(layer)
    elif is_pruned(layer):
        raise ValueError(
            f"{layer.name!r} ({type(layer).__name__}) holds a PruningWrapper that is "
            "made by its own class or config, so that it can't be taken off or added "
            "to from outside. Let it hold the plain layer and call "
            "`kprune.prune(model)`, which wraps it as a whole."
        )
    elif not isinstance(layer, keras.Model):
        return copier.copy(layer)
    else:
        new = copier.copy(layer)
    cloning.build_like(layer, new)
    return new


def _pruned_stand_in(layer, parents, copier, wrapping):
    """Makes the stand-in of a layer in the pruned model."""
    if isinstance(layer, PruningWrapper):
        return _wrapped_again(layer, parents, copier, wrapping)
    if isinstance(layer, keras.Model):
        return _pruned_subclass(layer, parents, copier, wrapping)
    new = _without_masks(layer, copier)
    if _is_settled(layer):
        paths = wrapping.prunable_paths(layer, parents)
        following = wrapping.following(layer)
        is_held = paths or following
        stand_in = wrapping.wrap(new, paths, following) if is_held else new
    else:
        stand_in = wrapping.wrap(new)
        if any(layer is spared for spared in wrapping.selection.spared):
            wrapping.selection.spared.append(new)
        stand_in.select(wrapping.selection, parents)
    return stand_in, lambda: cloning.copy_state(layer, new)


def _wrapped_again(wrapper, parents, copier, wrapping):
    """Makes the stand-in of a layer that has masks already."""
    own = _without_masks(wrapper.layer, copier)
    known, more = wrapper.following, wrapping.following(wrapper.layer)
    following = None if known is more is None else {**(known or {}), **(more or {})}
    if wrapper.paths == []:  # it only follows, so that its kernels are free
        paths = wrapping.prunable_paths(wrapper.layer, parents)
        new = wrapping.wrap(own, paths, following)
    else:
        new = wrapper.around(own, wrapper.paths, wrapping.clock, following)
    new.store.tracked.hold_like(wrapper.store.tracked)

    def finish():
        cloning.copy_state(wrapper.layer, new.layer)
        cloning.copy_state(wrapper.store.tracked, new.store.tracked)
        new.store.plan.assign(wrapper.store.plan)
        for mask, old in _same_masks(new.store, wrapper.store):
            mask.assign(old)

    return new, finish


def _same_masks(new, old):
    """Yields pairs of the masks that two stores hold of the same weights."""
    for kind in ("entries", "followers"):
        known = {entry.path: entry.mask for entry in getattr(old, kind)}
        for entry in getattr(new, kind):
            # That of a weight which is ranked from now on leaves out what it makes.
            if entry.path in known and known[entry.path].shape == entry.mask.shape:
                yield entry.mask, known[entry.path]


def _is_settled(layer):
    """Tells whether the weights that a layer will ever have are known."""
    makes_none = type(layer).build is keras.Layer.build and not layer._layers
    return layer.built or makes_none or has_no_prunable_weights(layer)


def _pruned_subclass(model, parents, copier, wrapping):
    """Makes the stand-in of a model that only its own class can build."""
    if not model.built or not model.variables:
        raise ValueError(
            f"The model {model.name!r} ({type(model).__name__}) is subclassed and has "
            "no weights yet. Call it once on a batch, as in `model(x[:1])`, and then "
            "prune it."
        )
    new = _without_masks(model, copier)
    paths = wrapping.prunable_paths(model, parents)
    granularity, old = wrapping.granularity, {}
    if isinstance(model, PrunedModel):
        granularity = model.kprune_store.granularity
        old = {entry.path: entry for entry in model.kprune_store.entries}
        paths = [*old, *(path for path in paths if path not in old)]

    def finish():
        cloning.copy_state(model, new, ignore=stores(model))
        if not paths:
            return
        config = pruned_model.config_of(model)
        pruned_model.attach(new, paths, granularity, wrapping.clock, config)
        if not new.kprune_store.entries:
            raise CannotCopyError(
                f"{model.name!r} ({type(model).__name__}) made again from its config "
                f"does not have all of the weights {', '.join(map(repr, paths))}."
            )
        for entry in new.kprune_store.entries:
            if entry.path in old:
                entry.mask.assign(old[entry.path].mask)
        if old:
            new.kprune_store.schedule = model.kprune_store.schedule
            new.kprune_store.tracked.hold_like(model.kprune_store.tracked)

    return new, finish
