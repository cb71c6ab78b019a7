"""`penalize`: a copy of a model whose weights are pushed towards zero."""

import keras

from kprune import cloning
from kprune.inspection import check_keras_model, is_pruned
from kprune.prunable import Selection, find_weights
from kprune.quantize.rebuild import plain_copy, rebuilt
from kprune.regularizers import Penalties


def penalize(model, regularizer, *, only=None, skip=None):
    """Makes a copy of a model with a penalty on the weights that can be pruned.

    For models that are trained already, whose layers would else have to be made
    again with `kernel_regularizer=`. Penalties that weights have stay; the new one is
    added. It is part of the layers' configs, so that files keep it.

    Args:
        model: A built Sequential or Functional model, nested or not, that is not
            pruned yet. It is not changed.
        regularizer: A Keras regularizer, its name or config: `"l1"`,
            `kprune.GroupLasso(1e-4)`.
        only: Layers to penalize, as for `kprune.prune`. Defaults to all whose weights
            `prune` would prune.
        skip: Layers to leave as they are, likewise. Defaults to none.

    Returns:
        A model with the same predictions, layer names, inputs and compile arguments.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the model is pruned, subclassed or not built, if `only` or
            `skip` matches nothing, or if a layer can't hold a penalty on its weight.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    >>> penalized = penalize(model, keras.regularizers.L1(0.01))
    >>> penalized.get_layer("d").kernel_regularizer.get_config()
    {'l1': 0.009999999776482582}
    """
    _check(model)
    selection = Selection(only, skip)
    selection.check(model)
    weights = find_weights(model, selection, parents=None)
    chosen = {w.path for w in weights if not w.reason}
    if not chosen:
        raise ValueError(
            f"Nothing in the model {model.name!r} can be penalized. Its weights are "
            f"left alone because: {'; '.join(sorted({w.reason for w in weights}))}."
        )
    draft = rebuilt(model, _copy)
    wanted = {
        weight.path: _add(weight, keras.regularizers.get(regularizer))
        for weight in find_weights(draft, parents=None)
        if weight.path in chosen
    }
    # Made from the configs once more, it has what it would have from a file.
    penalized = rebuilt(draft, _copy)
    for weight in find_weights(penalized, parents=None):
        if weight.path in chosen:
            _check_held(weight, wanted[weight.path])
    return penalized


def _check(model):
    check_keras_model(model)
    if is_pruned(model):
        raise ValueError(
            f"The model {model.name!r} is pruned already. Penalize it first, "
            "`kprune.prune(kprune.penalize(model, ...))`."
        )
    if not cloning.is_graph(model) or not model.built:
        raise ValueError(
            f"The model {model.name!r} ({type(model).__name__}) is subclassed or not "
            "built, so that its layers can't be made again one by one. Build it, or "
            "give `kernel_regularizer=` to the layers where its class makes them."
        )


def _copy(layer, parents, copier):
    return plain_copy(layer, copier)


def _add(weight, regularizer):
    """Adds a penalty where a layer's config says which its weight has.

    Returns:
        The regularizer that the weight shall have.
    """
    name = weight.variable.name
    # A `recurrent_kernel` has a `recurrent_regularizer`, a `kernel` its own.
    for part in (name, name.removesuffix("_kernel")):
        attribute = f"{part}_regularizer"
        own = getattr(weight.layer, attribute, None)
        if own is not None:
            regularizer = Penalties([own, regularizer])
        if hasattr(weight.layer, attribute):
            setattr(weight.layer, attribute, regularizer)
            break
    return regularizer


def _check_held(weight, wanted):
    """Raises unless a weight has the penalty that it shall have."""
    serialize = keras.regularizers.serialize
    held = weight.variable.regularizer
    if held is None or serialize(held) != serialize(wanted):
        raise ValueError(
            f"The weight {weight.path!r} can't be penalized, since the config of its "
            "layer has no place for it. Leave the layer out with `skip`, or make it "
            "with a `kernel_regularizer`, if it takes one."
        )
