"""`prune` and `strip`: from a plain Keras model to one with masks, and back."""

import dataclasses
import warnings

import keras

from kprune import cloning, pruned_model, registry
from kprune.clock import Clock
from kprune.copier import CannotCopyError, Copier
from kprune.inspection import (
    check_keras_model,
    is_pruned,
    is_pruned_in_place,
    own_weights,
)
from kprune.layer_graph import layers_of_outputs
from kprune.mask_store import MaskStore, clock_of, stores
from kprune.prunable import Selection, find_weights, has_no_prunable_weights
from kprune.pruned_model import PrunedModel
from kprune.ties import ties_of
from kprune.wrapper import PruningWrapper


def prune(model, *, only=None, skip=None, granularity="element"):
    """Makes a copy of a model whose weights can be pruned while it trains.

    Each layer with prunable weights is wrapped in a `PruningWrapper`; a
    subclassed model keeps its class and gets one set of masks as a whole. All
    masks keep everything until a `PruningCallback` or a `Pruner` raises the
    sparsity. Kernels of rank 2 and more are prunable; biases and
    normalization never are, depthwise kernels only in layers that `only`
    selects. Where whole output channels are removed, layers whose channels are the
    model's outputs, such as classes, stay dense unless `only` selects them (of a
    subclassed model that is not known: name them in `skip`). What stays dense is
    listed with its reason by `kprune.summary`.

    Args:
        model: A `keras.Model`: Sequential (built or not), Functional, nested, or
            subclassed and built. It is not changed, unless its class can't make
            a second one; then it is pruned in place, with a warning. A model
            that is pruned already goes on from its masks and its clock.
        only: Layers to prune: a name, a glob pattern, a layer class, a function
            of a layer that returns a bool, or a list of these. Sublayers and
            nested models count too. Layers that are pruned already go on being so.
            Defaults to all.
        skip: Layers to leave dense, likewise. Defaults to none.
        granularity: Name or object, what is removed together. Defaults to
            `"element"`.

    Returns:
        A model with the same predictions, layer names, inputs and compile
        arguments.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the model is subclassed and not built, if nothing in it
            can be pruned, if `only` or `skip` matches nothing, or if a weight
            can't be pruned by this granularity.

    Example:
    >>> model = keras.Sequential(
    ...     [keras.Input((3,)), keras.layers.Dense(2, name="head")]
    ... )
    >>> prune(model).layers[0].masks["kernel"].numpy().all()
    np.True_
    """
    check_keras_model(model)
    if any(type(store) is not MaskStore for store in stores(model)):
        raise ValueError(
            f"The weights of the model {model.name!r} are shared, and it holds masks "
            "already. Train on as it is, or make it plain first (`kprune.strip`), "
            "prune, and share anew."
        )
    if is_pruned_in_place(model):
        return model  # it goes on from its masks, as a copy would
    granularity = registry.get("granularities", granularity)
    spared = layers_of_outputs(model) if granularity.channel_axis == -1 else ()
    selection = Selection(only, skip, spared)
    selection.check(model)
    if granularity.tied_by is not None:
        _check_units(model, selection, granularity)
    with model.distribute_strategy.scope():
        wrapping = _Wrapping(selection, granularity, Clock())
        try:
            pruned = _pruned_copy(model, wrapping)
        except CannotCopyError as error:
            pruned = _prune_in_place(model, wrapping, error)
    if not is_pruned(pruned):
        reasons = {w.reason for w in find_weights(model, selection)}
        raise ValueError(
            f"Nothing in the model {model.name!r} can be pruned. Its weights are "
            f"left dense because: {'; '.join(sorted(reasons)) or 'there are none'}."
        )
    return pruned


def _check_units(model, selection, granularity):
    """Refuses weights without units of this kind before anything is made."""
    masked = {id(e.variable) for store in stores(model) for e in store.entries}
    weights = find_weights(model, selection, None)
    chosen = [w.variable for w in weights if not w.reason]
    chosen = [variable for variable in chosen if id(variable) not in masked]
    ties_of(model, [granularity] * len(chosen), chosen)


def strip(model):
    """Makes a plain Keras model with the pruned weights at exact zero.

    No mask, constraint, clock or class of kprune is left, so that the result
    saves, loads and exports where kprune is not installed. Fit for use at any
    time, also in the middle of training.

    What was written past masks or shared weights, by `assign` or `set_weights`,
    comes out as the next update would have left it: zeros behind a mask are zero,
    and weights of one cluster have their mean. Values below 1.2e-38 (denormals), which
    TensorFlow takes for zero, come out as zero in weights that had a mask.

    Args:
        model: A model that `prune` has made. It is not changed, unless it was
            pruned in place; then it is stripped in place.

    Returns:
        A plain model with the same predictions, names and compile arguments.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the model is not pruned.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> [type(layer).__name__ for layer in strip(prune(model)).layers]
    ['Dense']
    """
    check_keras_model(model)
    if not is_pruned(model):
        raise ValueError(
            f"The model {model.name!r} holds no masks, so there is nothing to strip. "
            "Pass the model that `kprune.prune` returned."
        )
    if is_pruned_in_place(model):
        for entry in model.kprune_store.entries:
            entry.variable.assign(entry.held(entry.variable))
        warnings.warn(
            f"The model {model.name!r} was pruned in place and is stripped in place.",
            stacklevel=2,
        )
        return pruned_model.detach(model)
    with model.distribute_strategy.scope():
        return _Copy(model, _plain_stand_in).model


def stripped_for(caller, model):
    """Returns a model as a file shall hold it, without masks; warns if it had some.

    Args:
        caller: String, the public function that the user has called.
        model: A Keras 3 model. It is not changed.

    Returns:
        Tuple of a model and the notes on it, a tuple of strings. A model that was
        pruned in place comes back as it is: it would lose its masks, and its zeros
        are zeros anyway.
    """
    if not is_pruned(model) or is_pruned_in_place(model):
        return model, ()
    note = (
        "the model was still set up for training with masks or shared weights; what "
        "was written is kprune.strip(model)"
    )
    warnings.warn(f"{caller}: {note}.", stacklevel=3)
    return strip(model), (note,)


class _Copy:
    """A copy of a model in the making: stand-ins first, then their state.

    Args:
        model: The model to copy.
        stand_in: Function `(layer, parents, copier)` that returns the stand-in of
            a layer and a function that, once all is built, carries its state over.
    """

    def __init__(self, model, stand_in):
        self._stand_in = stand_in
        self._copier = Copier(model)
        self._finish = []
        if cloning.is_graph(model):
            self.model = cloning.rebuild(model, self._convert)
        else:
            self.model = self._convert(model, None)
        for finish in self._finish:
            finish()
        _check_ties(model, self.model)
        cloning.copy_compilation(model, self.model)

    def _convert(self, layer, parents):
        new, finish = self._stand_in(layer, parents, self._copier)
        self._finish.append(finish)
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
    if isinstance(layer, PruningWrapper):
        own, marked = layer.layer, [layer.store]
    else:
        own, marked = layer, stores(layer)
    new = _plain_copy(own, copier)

    def finish():
        cloning.copy_state(own, new, ignore=stores(own))
        variables = {w.path: w.variable for w in find_weights(new)}
        for store in marked:
            for entry in store.entries:
                variables[entry.path].assign(entry.held(entry.variable))

    return new, finish


def _plain_copy(layer, copier):
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


@dataclasses.dataclass(frozen=True)
class _Wrapping:
    """How the layers of one model are wrapped."""

    selection: Selection
    granularity: object
    clock: Clock

    def wrap(self, layer, paths=None):
        return PruningWrapper(layer, self.granularity, paths, self.clock)


def _pruned_copy(model, wrapping):
    def stand_in(layer, parents, copier):
        return _pruned_stand_in(layer, parents, copier, wrapping)

    pruned = _Copy(model, stand_in).model
    if is_pruned(model):
        wrapping.clock.variable.assign(clock_of(model))
    for store in stores(pruned)[:1]:
        # In layers that are left dense, too: a model is converted as a whole.
        store.refuse_conversions(pruned)
    return pruned


def _pruned_stand_in(layer, parents, copier, wrapping):
    """Makes the stand-in of a layer in the pruned model."""
    if isinstance(layer, PruningWrapper):
        own = _plain_copy(layer.layer, copier)
        new = PruningWrapper(own, layer.granularity, layer.paths, wrapping.clock)
        new.store.tracked.hold_like(layer.store.tracked)
        return new, lambda: cloning.copy_state(layer, new)
    if isinstance(layer, keras.Model):
        return _pruned_subclass(layer, parents, copier, wrapping)
    new = _plain_copy(layer, copier)
    if _is_settled(layer):
        paths = _prunable_paths(layer, wrapping.selection, parents)
        stand_in = wrapping.wrap(new, paths) if paths else new
    else:
        stand_in = wrapping.wrap(new)
        if any(layer is spared for spared in wrapping.selection.spared):
            wrapping.selection.spared.append(new)
        stand_in.select(wrapping.selection, parents)
    return stand_in, lambda: cloning.copy_state(layer, new)


def _is_settled(layer):
    """Tells whether the weights that a layer will ever have are known."""
    makes_none = type(layer).build is keras.Layer.build and not layer._layers
    return layer.built or makes_none or has_no_prunable_weights(layer)


def _prunable_paths(layer, selection, parents):
    weights = find_weights(layer, selection, parents)
    return [w.path for w in weights if not w.reason]


def _pruned_subclass(model, parents, copier, wrapping):
    """Makes the stand-in of a model that only its own class can build."""
    if not model.built or not model.variables:
        raise ValueError(
            f"The model {model.name!r} ({type(model).__name__}) is subclassed and has "
            "no weights yet. Call it once on a batch, as in `model(x[:1])`, and then "
            "prune it."
        )
    new = _plain_copy(model, copier)
    paths = _prunable_paths(model, wrapping.selection, parents)
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
            new.kprune_store.tracked.hold_like(model.kprune_store.tracked)

    return new, finish


def _prune_in_place(model, wrapping, error):
    warnings.warn(
        f"{error} The model {model.name!r} is therefore pruned in place: the model "
        "that you passed is the one that is returned.",
        stacklevel=3,
    )
    paths = _prunable_paths(model, wrapping.selection, None)
    if paths:
        pruned_model.attach(model, paths, wrapping.granularity, wrapping.clock, None)
    return model
