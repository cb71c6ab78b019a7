"""The masks and the clock of a model as a whole, whatever holds them in it."""

import dataclasses

import keras

from kprune.mask_store import MaskStore


def stores(model):
    """Lists the mask stores of a model.

    Args:
        model: A layer or model.

    Returns:
        List of `MaskStore`, empty if nothing in it is pruned.
    """
    found = {}
    for layer in model._flatten_layers():
        # A Sequential does not count a layer that is only an attribute.
        for candidate in (layer, vars(layer).get("kprune_store")):
            if isinstance(candidate, MaskStore):
                found[id(candidate)] = candidate
    return list(found.values())


def masked_weights(model):
    """Lists the weights that have masks, layer after layer.

    Args:
        model: A layer or model.

    Returns:
        List of `MaskedWeight`, empty if nothing in it is pruned.

    Example:
    >>> import kprune
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> [weight.path for weight in masked_weights(kprune.prune(model))]
    ['kernel']
    """
    return [entry for store in stores(model) for entry in store.entries]


def held_weights(model):
    """Lists all weights with zeros that are held, whatever the zeros come from.

    Args:
        model: A layer or model.

    Returns:
        List of `MaskedWeight`: the weights that have masks, and those that only lose
        what belongs to channels removed elsewhere.
    """
    return [held for store in stores(model) for held in store.held]


def followers(model):
    """Lists the weights that lose what belongs to channels removed elsewhere.

    Args:
        model: A layer or model.

    Returns:
        List of `MaskedWeight`.
    """
    return [follower for store in stores(model) for follower in store.followers]


def trained_weights(model, among=None):
    """Lists the weights that are pruned and trained, in running order.

    Where models are subclassed, that is the order in which they hold their layers.

    Args:
        model: A pruned model.
        among: Collection of the stores whose weights are listed. Defaults to all.

    Returns:
        List of pairs of a `MaskStore` and a `MaskedWeight`. The names of the weights
        begin with those of the nested models around them.
    """
    wanted = None if among is None else {id(store) for store in among}
    return [
        (store, dataclasses.replace(entry, name=entry.name.within(models)))
        for store, models in _in_running_order(model, (), set())
        if wanted is None or id(store) in wanted
        for entry in store.trained_entries()
    ]


def _in_running_order(layer, models, seen):
    """Yields each store with the names of the nested models around it."""
    # A Sequential does not count a layer that is only an attribute.
    for child in (*layer._layers, vars(layer).get("kprune_store")):
        if child is None or id(child) in seen:
            continue
        seen.add(id(child))
        if isinstance(child, MaskStore):
            yield child, models
        else:
            nests = isinstance(child, keras.Model)
            within = (*models, child.name) if nests else models
            yield from _in_running_order(child, within, seen)


def clock_of(model):
    """Returns the clock of a pruned model: optimizer steps since it was first pruned.

    Args:
        model: A model that `kprune.prune` has made.

    Returns:
        Int. Where layers have clocks of their own, that of a frozen layer stands
        still; the largest is the model's.
    """
    return max(store.clock.steps for store in stores(model))


def set_clock(model, step):
    """Sets the clock of a pruned model, by which its schedule runs.

    Training does this by itself. Needed only where models with different pasts
    were put together, or to run a schedule once more from its beginning.

    Args:
        model: A model that `kprune.prune` has made. It is changed.
        step: Int of 0 or more, optimizer steps.

    Raises:
        ValueError: If `step` is negative.

    Example:
    >>> import kprune
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> kprune.set_clock(kprune.prune(model), 1000)
    """
    if step < 0:
        raise ValueError(f"step={step} must be 0 or more.")
    for clock in {store.clock for store in stores(model)}:
        clock.variable.assign(step)
