"""`penalize`: a copy of a model whose weights are pushed towards zero."""

import keras

from kprune import cloning
from kprune.inspection import check_keras_model, is_pruned
from kprune.layer_choice import Selection, layer_chains
from kprune.prunable import find_weights
from kprune.rebuilding import rebuilt
from kprune.regularizers import Penalties


def penalize(model, regularizer, *, weight=None, only=None, skip=None):
    """Makes a copy of a model with a penalty on the weights that can be pruned.

    Or on others, that have a name: an L1 penalty on the scales of normalizations,
    `weight="gamma"`, makes some of them small while a network learns, whereupon
    `kprune.shrink(model, 0.5, criterion="batch_norm_scale", scope="global",
    normalize=None)` removes the channels of the smallest: network slimming.

    For models that are trained already, whose layers would else have to be made
    again with `kernel_regularizer=`. Penalties that weights have stay; the new one is
    added. It is part of the layers' configs, so that files keep it.

    Args:
        model: A built Sequential or Functional model, nested or not, that is not
            pruned yet. It is not changed.
        regularizer: A Keras regularizer, its name or config: `"l1"`,
            `kprune.GroupLasso(1e-4)`. `None` takes all penalties off these weights,
            as for fine-tuning.
        weight: String, how layers call the weights to penalize: `"gamma"`, `"bias"`.
            Defaults to `None`, those that `prune` would prune.
        only: Layers to penalize, as for `kprune.prune`. Defaults to all that have
            such weights.
        skip: Layers to leave as they are, likewise. Defaults to none.

    Returns:
        A model with the same predictions, layer names, inputs and compile arguments.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the model is pruned, subclassed or not built, if `only`,
            `skip` or `weight` matches nothing, or if a layer can't hold a penalty on
            its weight, or not on that one alone.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    >>> penalized = penalize(model, keras.regularizers.L1(0.01))
    >>> penalized.get_layer("d").kernel_regularizer.get_config()
    {'l1': 0.009999999776482582}

    Reference:
        Liu et al., "Learning efficient convolutional networks through network
        slimming", ICCV 2017.
    """
    _check(model)
    selection = Selection(only, skip)
    selection.check(model)
    if weight is None:
        chosen = _prunable(model, selection)
    else:
        chosen = _named(model, weight, selection)
    draft = rebuilt(model)
    wanted = _add(draft, chosen, keras.regularizers.get(regularizer))
    # Made from the configs once more, it has what it would have from a file.
    penalized = rebuilt(draft)
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


def _prunable(model, selection):
    """Returns the paths of the weights that `prune` would prune."""
    weights = find_weights(model, selection, parents=None)
    chosen = {w.path for w in weights if not w.reason}
    if not chosen:
        raise ValueError(
            f"Nothing in the model {model.name!r} can be penalized. Its weights are "
            f"left alone because: {'; '.join(sorted({w.reason for w in weights}))}."
        )
    return chosen


def _named(model, name, selection):
    """Returns the paths of the weights that their layers call so."""
    chains = layer_chains(model)
    selected = {id(chain[-1]) for chain in chains if selection.selects(chain)}
    weights = find_weights(model, parents=None)
    weights = [w for w in weights if id(w.layer) in selected]
    chosen = {w.path for w in weights if w.variable.name == name}
    if not chosen:
        names = dict.fromkeys(repr(w.variable.name) for w in weights)
        raise ValueError(
            f"weight={name!r}, and no weight of the selected layers of the model "
            f"{model.name!r} is called so. They have {', '.join(names) or 'none'}."
        )
    return chosen


def _add(draft, chosen, regularizer):
    """Adds a penalty where the configs of layers say which their weights have.

    Returns:
        Dict from the paths of the weights to the regularizers that they shall have.
    """
    makers = _makers(draft)
    weights = find_weights(draft, parents=None)
    places = {w.path: _place_of(w, makers) for w in weights}
    _check_apart(places, chosen)
    for place in dict.fromkeys(places[path] for path in chosen):
        if place is not None:
            own = getattr(*place)
            both = None not in (own, regularizer)
            setattr(*place, Penalties([own, regularizer]) if both else regularizer)
    return {
        path: regularizer if places[path] is None else getattr(*places[path])
        for path in chosen
    }


def _makers(model):
    """Returns the attention layers that make others from their configs, by these."""
    kinds = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    attentions = [part for part in model._flatten_layers() if isinstance(part, kinds)]
    return {id(part): maker for maker in attentions for part in maker._layers}


def _place_of(weight, makers):
    """Returns the layer and the attribute that hold a weight's penalty, or `None`."""
    layer = makers.get(id(weight.layer), weight.layer)
    name = weight.variable.name
    # A `recurrent_kernel` has a `recurrent_regularizer`, a `kernel` its own, but for
    # that of a depthwise convolution.
    names = [name, name.removesuffix("_kernel")]
    if isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)):
        names.append("depthwise")
    for part in names:
        for attribute in (f"{part}_regularizer", f"_{part}_regularizer"):
            if hasattr(layer, attribute):
                return layer, attribute
    return None


def _check_apart(places, chosen):
    """Raises where a weight has one penalty with another that is not chosen."""
    taken = {places[path]: path for path in chosen if places[path] is not None}
    for path, place in places.items():
        if path not in chosen and place in taken:
            raise ValueError(
                f"The weight {path!r} can't be left without the penalty of "
                f"{taken[place]!r}, since the config of the layer {place[0].name!r} "
                "has one for both. Choose the whole layer, or none of it."
            )


def _check_held(weight, wanted):
    """Raises unless a weight has the penalty that it shall have."""
    held = weight.variable.regularizer
    if _config_of(held) != _config_of(wanted):
        raise ValueError(
            f"The weight {weight.path!r} can't be penalized, since the config of its "
            "layer has no place for it. Leave the layer out with `skip`, or make it "
            "with a `kernel_regularizer`, if it takes one."
        )


def _config_of(regularizer):
    return regularizer and keras.regularizers.serialize(regularizer)
