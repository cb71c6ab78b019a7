"""Wrapping layers and models by TFMOT's names, and taking the wrappers off again."""

import functools

import keras
from keras import saving

from kprune import cloning
from kprune.copier import Copier
from kprune.inspection import check_keras_model, is_pruned
from kprune.prunable import find_weights, has_no_prunable_weights
from kprune.stand_ins import plain_copy
from kprune.surgery import prune_with, strip
from kprune.tfmot.wrapper import PruneLowMagnitude, checked_schedule, granularity_of
from kprune.whole_model import stores
from kprune.wrapper import PruningWrapper

OF_KERAS_2 = (
    "A model of tf_keras is brought over by `kprune.tfmot.from_tf_keras(model)`."
)


def prune_low_magnitude(
    to_prune,
    pruning_schedule=None,
    block_size=(1, 1),
    block_pooling_type="AVG",
    pruning_policy=None,
    sparsity_m_by_n=None,
    **kwargs,
):
    """Sets up a layer, a list of layers or a model for pruning.

    What `kprune.prune` does, with the schedule kept in the wrappers, where
    `UpdatePruningStep` finds it. Other than in TFMOT, layers that can't be pruned are
    left dense, a subclassed model may be given, too, the model that is passed in is
    unchanged, and layers keep their names.

    Args:
        to_prune: A Keras 3 layer, list of layers, or model. A layer that is built is
            copied; one that is not becomes part of the wrapper.
        pruning_schedule: `PruningSchedule`, `ConstantSparsity` or `PolynomialDecay`, or
            a `kprune.Schedule`. Defaults to `ConstantSparsity(0.5, 0)`.
        block_size: As for `PruneLowMagnitude`, and so are the next two.
        block_pooling_type: `"AVG"` or `"MAX"`.
        pruning_policy: `PruningPolicy`, which layers of a model are pruned. Defaults
            to none: all.
        sparsity_m_by_n: Pair `(m, n)`, m zeros in every n weights.
        **kwargs: What every Keras layer takes, if a single layer is given.

    Returns:
        The layer, list or model with wrappers. A layer that is known to have nothing
        to prune comes back without one; of some that are not built it is not known.
        A model that `kprune.prune` has made keeps its wrappers, and masks without a
        schedule get this one, though files don't hold it.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If something else is given, if an argument is out of range, or if
            nothing in a model can be pruned.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> pruned = prune_low_magnitude(model, block_size=(2, 1))
    >>> pruned.layers[0].pruning_schedule.target_sparsity
    0.5
    """
    if kwargs and isinstance(to_prune, (keras.Model, list, tuple)):
        raise TypeError(
            "prune_low_magnitude got keywords that a model or a list of layers has no "
            f"use for: {', '.join(map(repr, sorted(kwargs)))}. Mend the names or leave "
            "them out; what is a layer's goes with a single layer."
        )
    pruning_schedule = checked_schedule(pruning_schedule)
    make = functools.partial(
        _wrapped,
        pruning_schedule=pruning_schedule,
        block_size=block_size,
        block_pooling_type=block_pooling_type,
        sparsity_m_by_n=sparsity_m_by_n,
    )
    granularity = granularity_of(block_size, block_pooling_type, sparsity_m_by_n)
    if isinstance(to_prune, keras.Model):
        return _pruned_model(
            to_prune, make, granularity, pruning_schedule, pruning_policy
        )
    if isinstance(to_prune, (list, tuple)):
        return [
            prune_low_magnitude(part, pruning_policy=pruning_policy, **make.keywords)
            for part in to_prune
        ]
    if isinstance(to_prune, keras.Layer):
        return _pruned_layer(to_prune, functools.partial(make, **kwargs))
    raise ValueError(
        f"Expected a Keras 3 layer, a list of layers or a model, got {to_prune!r}. "
        f"{OF_KERAS_2}"
    )


def _wrapped(layer, _granularity, weights, clock, following, **options):
    options = {"weights": weights, "clock": clock, "following": following, **options}
    return PruneLowMagnitude(layer, **options)


def _pruned_model(model, make, granularity, schedule, policy):
    only = None
    if policy is not None:
        policy.ensure_model_supports_pruning(model)
        only = _allowed_by(policy, model)
    pruned = prune_with(make, model, only, granularity=granularity)
    for store in stores(pruned):
        if store.schedule is None:
            store.schedule = schedule
    return pruned


def _allowed_by(policy, model):
    """Returns the function of a layer that tells whether a policy allows it.

    What a layer is made of goes with it: a policy is not asked about that. About layers
    that are not built it is asked once more, of their copies.
    """
    leaves = list(_leaves(model))
    parts = {
        id(part) for leaf in leaves for part in leaf._flatten_layers(include_self=False)
    }

    def allows(layer):
        if isinstance(layer, keras.Model) or id(layer) in parts:
            return False
        return isinstance(layer, PruningWrapper) or bool(policy.allow_pruning(layer))

    if not any(map(allows, leaves)):
        raise ValueError(
            f"{type(policy).__name__} allows no layer of the model {model.name!r} "
            "to be pruned. Leave `pruning_policy` out, or change the model."
        )
    return allows


def _leaves(model):
    """Yields the layers of a model and of those within it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _pruned_layer(layer, make):
    if isinstance(layer, PruningWrapper):
        return layer
    if isinstance(layer, keras.layers.InputLayer):
        return type(layer).from_config(layer.get_config())
    if has_no_prunable_weights(layer):
        return layer
    if not layer.built:
        return make(layer, None, None, None, None)
    if all(weight.reason for weight in find_weights(layer)):
        return layer
    return make(copied(layer), None, None, None, None)


def copied(layer):
    """Returns a copy of a built layer, with its weights."""
    new = Copier(layer).copy(layer)
    cloning.build_like(layer, new)
    cloning.copy_state(layer, new)
    return new


def collect_prunable_layers(model):
    """Lists the wrappers within a model, also within the models that it holds.

    Args:
        model: A Keras 3 model.

    Returns:
        List of `PruneLowMagnitude`.
    """
    parts = model._flatten_layers()
    return [part for part in parts if isinstance(part, PruneLowMagnitude)]


def strip_pruning(model):
    """Makes a plain model, as `kprune.strip` does.

    Args:
        model: A Keras 3 model, pruned or not. It is not changed.

    Returns:
        A plain model with the pruned weights at exact zero.

    Raises:
        TypeError: If `model` is no Keras 3 model.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> type(strip_pruning(prune_low_magnitude(model)).layers[0]).__name__
    'Dense'
    """
    check_keras_model(model)
    return strip(model) if is_pruned(model) else plain_copy(model)


def prune_scope():
    """Returns a scope within which pruned models are loaded.

    Not needed here, since the classes of kprune are known to Keras as soon as kprune
    is imported. It does no harm.
    """
    return saving.custom_object_scope({"PruneLowMagnitude": PruneLowMagnitude})


class PrunableLayer:
    """What a custom layer may derive from, to say which weights are prunable.

    Any layer with a method `get_prunable_weights` is understood.
    """

    def get_prunable_weights(self):
        """Returns the list of the layer's weights that may be pruned."""
        raise NotImplementedError(
            f"{type(self).__name__} defines no `get_prunable_weights`."
        )
