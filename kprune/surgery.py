"""`prune` and `strip`: from a plain Keras model to one with masks, and back."""

import warnings

from kprune import pruned_model, registry
from kprune.clock import Clock
from kprune.cloning import is_graph
from kprune.copier import CannotCopyError
from kprune.inspection import check_keras_model, is_pruned, is_pruned_in_place
from kprune.layer_choice import Selection
from kprune.layer_graph import layers_of_outputs
from kprune.mask_store import MaskStore
from kprune.prunable import find_weights
from kprune.stand_ins import Wrapping, plain_copy, pruned_copy
from kprune.ties import couplings, ties_of
from kprune.tracking import follow
from kprune.weight_access import as_array
from kprune.whole_model import clock_of, masked_weights, stores
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
    subclassed model that is not known: name them in `skip`). So do layers whose
    channels can't be taken out of the model: see `kprune.Channel`; layers that only
    lose what belongs to channels of others are wrapped, too. What stays dense is
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
    >>> import keras
    >>> model = keras.Sequential(
    ...     [keras.Input((3,)), keras.layers.Dense(2, name="head")]
    ... )
    >>> prune(model).layers[0].masks["kernel"].numpy().all()
    np.True_
    """
    return prune_with(PruningWrapper, model, only, skip, granularity)


def prune_with(make, model, only=None, skip=None, granularity="element"):
    """Makes a copy of a model, as `prune` does, with wrappers of some kind.

    Args:
        make: Function that returns the wrapper of a layer; see `stand_ins.Wrapping`.
        model: As for `prune`, and so are the others.
        only: Layers to prune.
        skip: Layers to leave dense.
        granularity: Name or object, what is removed together.

    Returns:
        A model with the same predictions, layer names, inputs and compile arguments.
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
    followers = _coupled(model, selection) if granularity.coupled else None
    with model.distribute_strategy.scope():
        wrapping = Wrapping(selection, granularity, Clock(), followers, make)
        try:
            pruned = pruned_copy(model, wrapping)
        except CannotCopyError as error:
            pruned = _prune_in_place(model, wrapping, error)
    if not is_pruned(pruned):
        reasons = {w.reason for w in find_weights(model, selection)}
        raise ValueError(
            f"Nothing in the model {model.name!r} can be pruned. Its weights are "
            f"left dense because: {'; '.join(sorted(reasons)) or 'there are none'}."
        )
    return pruned


def _coupled(model, selection):
    """Finds which weights follow channels, and leaves out kernels that keep all theirs.

    Args:
        model: The model.
        selection: `Selection`. It is changed.

    Returns:
        Dict from the ids of weights to shapes of masks; `None` if there is no graph.
    """
    if not is_graph(model):
        return None
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so that nothing is known of which "
            "channels go together. Give it an Input, or call it once on a batch, as in "
            "`model(x[:1])`; or let each kernel lose channels of its own, with "
            "`granularity=kprune.Channel(coupled=False)`."
        )
    masked = {id(weight.variable) for weight in masked_weights(model)}
    found = [w for w in find_weights(model, selection, None) if not w.reason]
    ranked = [w.variable for w in found if id(w.variable) not in masked]
    alike = [store for store in stores(model) if store.granularity.coupled]
    ranked += [entry.variable for store in alike for entry in store.entries]
    (coupling,) = couplings(model)
    asked_for = selection.only is not None
    exempt = {id(v) for v in ranked if asked_for and coupling.is_of_outputs(v)}
    reasons = coupling.dense(ranked)
    selection.dense |= {key: reasons[key] for key in reasons.keys() - exempt}
    return coupling.followers(ranked)


def _check_units(model, selection, granularity):
    """Refuses weights without units of this kind before anything is made."""
    masked = {id(weight.variable) for weight in masked_weights(model)}
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

    Where training went by and no mask removes anything, a warning says so.

    Args:
        model: A model that `prune` has made. It is not changed, unless it was
            pruned in place; then it is stripped in place.

    Returns:
        A plain model with the same predictions, names and compile arguments.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the model is not pruned.

    Example:
    >>> import keras
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
    _warn_if_dense(model)
    return stripped(model)


def stripped(model):
    """Makes a plain model of a pruned one, whatever its masks remove; see `strip`.

    Args:
        model: A pruned model.

    Returns:
        A plain model, the same one if it was pruned in place.
    """
    if is_pruned_in_place(model):
        for entry in model.kprune_store.entries:
            entry.variable.assign(entry.held(entry.variable))
        warnings.warn(
            f"The model {model.name!r} was pruned in place and is stripped in place.",
            stacklevel=3,
        )
        follow(model, [])
        return pruned_model.detach(model)
    return plain_copy(model)


def _warn_if_dense(model):
    """Warns if a model was trained with masks and none of them removes anything."""
    found, steps = stores(model), clock_of(model)
    masks_only = all(type(store) is MaskStore for store in found)
    masks = (e.mask for store in found for e in store.entries)
    if steps and masks_only and all(as_array(mask).all() for mask in masks):
        warnings.warn(
            f"The model {model.name!r} was trained for {steps} steps with masks, and "
            "no weight is removed. Was the PruningCallback left out of `fit`, or has "
            "its schedule not begun?",
            stacklevel=3,
        )


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
    return stripped(model), (note,)


def _prune_in_place(model, wrapping, error):
    warnings.warn(
        f"{error} The model {model.name!r} is therefore pruned in place: the model "
        "that you passed is the one that is returned.",
        stacklevel=3,
    )
    paths = wrapping.prunable_paths(model, None)
    if paths:
        pruned_model.attach(model, paths, wrapping.granularity, wrapping.clock, None)
    return model
