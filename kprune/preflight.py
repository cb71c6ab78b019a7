"""What can be said before any training: whether pruning has a meaning as asked."""

import numpy as np

from kprune import mask_store, registry
from kprune.inspection import check_keras_model
from kprune.layout import layout_of
from kprune.masks import check_combination
from kprune.scopes import Contender, as_one, tied_groups
from kprune.ties import ties_of


def check_pruned(model):
    """Raises unless this is a Keras 3 model with masks.

    Args:
        model: Anything.

    Raises:
        TypeError: If it is no Keras 3 model.
        ValueError: If it holds no masks.
    """
    check_keras_model(model)
    stores = mask_store.stores(model)
    if not stores or model.built and not any(store.entries for store in stores):
        raise ValueError(
            f"The model {model.name!r} holds no masks, so that nothing in it can be "
            "pruned. Wrap it first, `model = kprune.prune(model)`, and compile it."
        )


def check_start(start):
    """Raises a `ValueError` unless `start` is `"model"` or `"fit"`."""
    if start not in ("model", "fit"):
        raise ValueError(
            f"start={start!r} must be 'model' (steps count from when the model was "
            "first pruned) or 'fit' (from the start of this training)."
        )


def check_parts(model, criterion, scope, regrowth, highest):
    """Refuses parts that have no meaning together, and what can't be reached.

    Args:
        model: A pruned model. One without weights yet is not looked at.
        criterion: `Criterion`, or a function of a weight.
        scope: `Scope`.
        regrowth: `Regrowth` or `None`.
        highest: Float in [0, 1), the highest sparsity that will be asked for.

    Raises:
        ValueError: With what does have a meaning, or what can be reached.
    """
    trained = mask_store.trained_weights(model)
    granularities = [store.granularity for store, _ in trained]
    check_combination(criterion, granularities, scope)
    if regrowth is not None:
        regrowth.check(granularities)
    contenders = contenders_of(model)
    if contenders:
        scope.check(contenders, highest)


def contenders_of(model):
    """Lists what a scope will see of a model, without scores.

    Args:
        model: A pruned model.

    Returns:
        List of `Contender`, one for the weights that are chosen together.
    """
    trained = mask_store.trained_weights(model)
    granularities = [store.granularity for store, _ in trained]
    ties = ties_of(model, granularities, [entry.variable for _, entry in trained])
    parts = [
        _contender(store.granularity, entry, tie)
        for (store, entry), tie in zip(trained, ties, strict=True)
    ]
    return [as_one([parts[i] for i in group]) for group in tied_groups(ties)]


def _contender(granularity, entry, tie):
    """Returns what a scope needs to know of a weight to say what can be reached."""
    layout = layout_of(entry.layer, entry.variable)
    zeros = layout.canonical(np.zeros(entry.variable.shape, "float32"))
    # What is removed evenly from all parts of a weight has its limit from `reachable`.
    scores, sizes = range(zeros.size), 1
    if not (granularity.elementwise or granularity.within_layer):
        units = granularity.units(
            zeros, None, *(() if granularity.tied_by is None else (tie,))
        )
        scores, sizes = units.scores, units.sizes
    return Contender(
        scores,
        sizes=sizes,
        shape=zeros.shape,
        name=entry.name,
        reachable=granularity.reachable(zeros.shape),
    )


def check_clocks(model):
    """Raises unless what is trained has one time.

    Args:
        model: A pruned model.

    Raises:
        ValueError: If the clocks of its layers disagree, or if all are frozen.
    """
    trained = [s for s in mask_store.stores(model) if s.trained_entries()]
    if not trained:
        raise ValueError(
            "All layers with masks are frozen, so that nothing can be pruned: "
            f"{', '.join(map(repr, frozen(model)))}. Set `trainable = True` on "
            "those that shall be pruned, and compile again."
        )
    steps = {s.entries[0].layer.name: s.clock.steps for s in trained}
    clock = mask_store.clock_of(model)
    if set(steps.values()) != {clock}:
        raise ValueError(
            "The clocks of the pruned layers disagree: "
            f"{', '.join(f'{name!r} at step {n}' for name, n in steps.items())}. "
            "Layers with different pasts were put together, or trained apart. "
            "Say which step the schedule shall go on from: "
            f"`kprune.set_clock(model, {clock})`."
        )


def frozen(model):
    """Lists the names of the layers with masks that are frozen now."""
    layers = {
        entry.layer.name: None
        for store in mask_store.stores(model)
        for entry in store.entries
        if not entry.variable.trainable
    }
    return list(layers)


def as_criterion(criterion):
    """Returns the criterion that a name, config, object or function stands for.

    Args:
        criterion: What `registry.get` takes, or a function of a weight.

    Returns:
        `Criterion`, or the function, which asks for no evidence.
    """
    is_function = callable(criterion) and not isinstance(criterion, type)
    if is_function and not hasattr(criterion, "requires"):
        return criterion
    return registry.get("criteria", criterion)
