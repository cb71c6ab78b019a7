"""What can be said before any training: whether pruning has a meaning as asked."""

import numpy as np

from kprune import registry, whole_model
from kprune.inspection import check_keras_model
from kprune.layout import layout_of
from kprune.masks import check_combination
from kprune.optimizer_slots import initial_slots
from kprune.scopes import Contender, as_one, tied_groups
from kprune.ties import coupled_kernels, ties_of
from kprune.tracking import optimizers_of


def check_pruned(model):
    """Raises unless this is a Keras 3 model with masks.

    Args:
        model: Anything.

    Raises:
        TypeError: If it is no Keras 3 model.
        ValueError: If it holds no masks.
    """
    check_keras_model(model)
    stores = whole_model.stores(model)
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


def check_parts(model, criteria, scope, regrowth, highest, among=None):
    """Refuses parts that have no meaning together, and what can't be reached.

    Args:
        model: A pruned model. One without weights yet is not looked at.
        criteria: Sequence of `Criterion`, or functions of a weight, one for each stage.
        scope: `Scope`.
        regrowth: `Regrowth` or `None`.
        highest: Float in [0, 1), the highest sparsity that will be asked for.
        among: Collection of the mask stores that are looked at. Defaults to all.

    Raises:
        ValueError: With what does have a meaning, or what can be reached.
    """
    trained = whole_model.trained_weights(model, among)
    granularities = [store.granularity for store, _ in trained]
    for criterion in criteria:
        check_combination(criterion, granularities, scope)
    if regrowth is not None:
        regrowth.check(granularities, scope)
    contenders = contenders_of(model, among)
    if contenders:
        scope.check(contenders, highest)


def check_return(model, schedule, regrowth):
    """Refuses to bring channels back of which nothing would learn again.

    Args:
        model: A pruned model.
        schedule: `Schedule`.
        regrowth: `Regrowth` or `None`.

    Raises:
        ValueError: With what brings them back.
    """
    returning = schedule if schedule.lowers else None
    if regrowth is not None and (regrowth.exchanges or "shadow" in regrowth.tracks):
        returning = regrowth
    if returning is not None and coupled_kernels(model):
        raise ValueError(
            f"{returning!r} brings back what was removed, and channels that go "
            "together with all that hangs on them don't come back: between kernels, "
            "scales and later weights that are all zero, nothing learns. Let each "
            "kernel lose channels of its own, `kprune.prune(model, "
            "granularity=kprune.Channel(coupled=False))`, or remove them for good."
        )


def contenders_of(model, among=None):
    """Lists what a scope will see of a model, without scores.

    Args:
        model: A pruned model.
        among: Collection of the mask stores that are looked at. Defaults to all.

    Returns:
        List of `Contender`, one for the weights that are chosen together.
    """
    trained = whole_model.trained_weights(model, among)
    granularities = [store.granularity for store, _ in trained]
    ties = ties_of(model, granularities, [entry.variable for _, entry in trained])
    parts = [
        _contender(store.granularity, entry, tie)
        for (store, entry), tie in zip(trained, ties, strict=True)
    ]
    return [
        as_one([parts[i] for i in group], ties[group[0]]) for group in tied_groups(ties)
    ]


def _contender(granularity, entry, tie):
    """Returns what a scope needs to know of a weight to say what can be reached."""
    layout = layout_of(entry.layer, entry.variable)
    zeros = layout.canonical(np.zeros(entry.variable.shape, "float32"))
    # What is removed evenly from all parts of a weight has its limit from `reachable`.
    scores, sizes = range(zeros.size), 1
    if not (granularity.elementwise or granularity.within_layer):
        units = granularity.units(zeros, None, *(() if tie is None else (tie,)))
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
    trained = [s for s in whole_model.stores(model) if s.trained_entries()]
    if not trained:
        raise ValueError(
            "All layers with masks are frozen, so that nothing can be pruned: "
            f"{', '.join(map(repr, frozen(model)))}. Set `trainable = True` on "
            "those that shall be pruned, and compile again."
        )
    steps = {s.entries[0].layer.name: s.clock.steps for s in trained}
    clock = whole_model.clock_of(model)
    if set(steps.values()) != {clock}:
        raise ValueError(
            "The clocks of the pruned layers disagree: "
            f"{', '.join(f'{name!r} at step {n}' for name, n in steps.items())}. "
            "Layers with different pasts were put together, or trained apart. "
            "Say which step the schedule shall go on from: "
            f"`kprune.set_clock(model, {clock})`."
        )


def check_forgetting(model):
    """Raises unless the optimizers can forget what they know of weights.

    Args:
        model: A pruned model. One that was never trained nor compiled has none.

    Raises:
        ValueError: If the class of an optimizer can't be made from its config.
    """
    ranks = {len(e.variable.shape) for _, e in whole_model.trained_weights(model)}
    for optimizer in optimizers_of(model):
        for rank in ranks:
            initial_slots(optimizer, rank)


def frozen(model):
    """Lists the names of the layers with masks that are frozen now."""
    layers = {
        entry.layer.name: None
        for entry in whole_model.masked_weights(model)
        if not entry.variable.trainable
    }
    return list(layers)


def as_criterion(criterion):
    """Returns the criterion that a name, config, object or function stands for.

    Args:
        criterion: What `registry.get` takes, or a function of a weight; or a tuple of
            such, one for each stage of a schedule.

    Returns:
        `Criterion`, or the function, which asks for no evidence; or a tuple of such.
    """
    if isinstance(criterion, (tuple, list)):
        return tuple(map(as_criterion, criterion))
    is_function = callable(criterion) and not isinstance(criterion, type)
    if is_function and not hasattr(criterion, "requires"):
        return criterion
    return registry.get("criteria", criterion)


def by_stage(criterion, schedule):
    """Returns the criteria of a schedule's stages.

    Args:
        criterion: What `as_criterion` returns.
        schedule: `Schedule`, or `None` for what a sparsity alone will become.

    Returns:
        Tuple with one criterion for each stage, or with a single one for all.

    Raises:
        ValueError: If there are more or fewer criteria than stages.
    """
    if not isinstance(criterion, tuple):
        return (criterion,)
    stages = 1 if schedule is None else 1 + len(schedule.stage_steps)
    if len(criterion) != stages:
        has = f"the schedule has {stages}"
        if schedule is None:
            has = "what follows from a sparsity alone has a single one"
        raise ValueError(
            f"criterion={criterion!r} holds {len(criterion)} criteria, one for each "
            f"stage, and {has}. Pass one criterion, or a pair with a "
            "`TwoStageSchedule`."
        )
    return criterion
