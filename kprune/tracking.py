"""What is followed through every training step, beside the masks.

`follow` makes the variables that a method asks for, before the training step is
compiled. They are part of the model: saved, loaded, and taken off by `strip`.
"""

import keras
import numpy as np
import tensorflow as tf

from kprune.optimizer_slots import plain_optimizer
from kprune.registry import keys, lookup, register
from kprune.weight_access import as_array, write
from kprune.whole_model import held_weights, masked_weights


def follow(model, kinds):
    """Follows what some methods need through the training steps to come, no more.

    What was followed for a method that is no longer in use is let go.

    Args:
        model: A pruned model, built. Its training step is compiled anew if need be.
        kinds: Sequence of strings; those that nobody here can follow are left to
            others.

    Raises:
        ValueError: If the model is trained on several replicas, is not built, or if
            it is not compiled with the optimizer whose gradients are wanted.
    """
    wanted = [kind for kind in kinds if kind in keys("trackers")]
    entries = masked_weights(model)
    changed = [_let_go(model, entries, k) for k in keys("trackers") if k not in wanted]
    if wanted:
        _check(model, wanted)
    changed += [lookup("trackers", kind)(model, entries) for kind in wanted]
    if any(changed) and getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)  # the old one is traced as it was


def optimizers_of(model):
    """Lists the optimizers that train a model, in `fit` or in another loop.

    Args:
        model: A pruned model.

    Returns:
        List of Keras optimizers, without those that scale the loss around them.
    """
    found = [getattr(model, "optimizer", None)]
    found += [entry.variable.constraint.optimizer for entry in masked_weights(model)]
    plain = [plain_optimizer(optimizer) for optimizer in found if optimizer is not None]
    return list({id(optimizer): optimizer for optimizer in plain}.values())


def forget_replaced(model):
    """Forgets the optimizers that `compile` has replaced since a model was trained.

    To be called before `fit` has made a training step of it. Optimizers that the
    model or a layer has as an attribute, for a step of its own, are not forgotten.

    Args:
        model: A pruned model. It is changed.
    """
    # `compile` gives up the step that was traced with the optimizer before.
    if getattr(model, "train_function", None) is None:
        kept = {id(plain_optimizer(optimizer)) for optimizer in _optimizers_in(model)}
        forget(model, [o for o in optimizers_of(model) if id(o) not in kept])


def _optimizers_in(model):
    """Lists the optimizers that a model or a layer holds, also in lists and dicts."""
    found = []
    for layer in model._flatten_layers():
        for value in list(vars(layer).values()):
            values = value.values() if isinstance(value, dict) else value
            found += values if isinstance(value, (list, tuple, dict)) else [value]
    return [value for value in found if isinstance(value, keras.optimizers.Optimizer)]


def forget(model, optimizers):
    """Forgets that some optimizers have updated a model, all but its own.

    What `compile` has replaced would pass for what trains it still. Its training step
    is traced anew, which shows those that do.

    Args:
        model: A pruned model. It is changed.
        optimizers: List of Keras optimizers.
    """
    own = plain_optimizer(getattr(model, "optimizer", None))
    others = [plain_optimizer(o) for o in optimizers if plain_optimizer(o) is not own]
    ids = {id(optimizer) for optimizer in others}
    for entry in held_weights(model):
        if id(plain_optimizer(entry.variable.constraint.optimizer)) in ids:
            entry.variable.constraint.optimizer = None
    for optimizer in others:
        _unwatch(optimizer)
    if others and getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)


def begin_anew(model, variables):
    """Sets what is followed of a model to what it begins with.

    Args:
        model: A pruned model. It is changed.
        variables: List of Keras variables; those that nobody here follows are left
            to others.
    """
    ids = {id(variable) for variable in variables}
    for entry in masked_weights(model):
        for kind, beginning in _BEGINNINGS.items():
            if id(entry.tracked_as(kind)) in ids:
                entry.tracked_as(kind).assign(beginning(entry))


def _let_go(model, entries, kind):
    """Drops what was followed; tells whether there was anything."""
    held = [entry for entry in entries if entry.tracked_as(kind) is not None]
    for entry in held:
        entry.tracked.release(entry.tracked_as(kind))
    if kind == "movement":
        for optimizer in optimizers_of(model):
            _unwatch(optimizer)
    return bool(held)


def check_followed(changes, kinds):
    """Raises if weights shall go of which nothing has been seen that decides.

    Args:
        changes: Sequence of triples of a `MaskedWeight`, its present mask and the one
            that shall follow.
        kinds: Sequence of strings, what is wanted of them.

    Raises:
        ValueError: If weights of a layer were ranked by movements and none has moved,
            or by what removed ones have learnt and no step writes that down.
    """
    changes = list(changes)
    if "shadow" in kinds:
        _check_shadows(changes)
    if "movement" in kinds:
        _check_movements(changes)


def _check_shadows(changes):
    unseen = [
        repr(str(entry.name))
        for entry, present, _ in changes
        if _is_unseen(entry)
        and (as_array(entry.tracked_as("shadow")) != as_array(entry.variable))[
            present
        ].any()
    ]
    if unseen:
        raise ValueError(
            f"What the removed weights of {', '.join(unseen)} learn is not written "
            "down: the training step was traced before they were followed. Wrap your "
            "step in `tf.function` once more, or compile the model that is trained, "
            "after the `Pruner` was made."
        )


def _check_movements(changes):
    still = [
        repr(str(entry.name))
        for entry, present, found in changes
        if (present & ~found).any() and not as_array(entry.tracked_as("movement")).any()
    ]
    if still:
        raise ValueError(
            f"Weights of {', '.join(still)} shall be removed by their movement, and "
            "none has been seen. Either they were not trained yet with this criterion: "
            "let the schedule start later, such as with `begin_step=100`. Or another "
            "optimizer updates them: use `model.optimizer` in a training loop of your "
            "own. Or no gradient comes to them: leave the layer out, by `kprune.prune("
            "model, skip=...)` or `trainable = False`."
        )


def _check(model, kinds):
    if model.distribute_strategy.num_replicas_in_sync > 1:
        raise ValueError(
            f"{', '.join(kinds)} can't be followed while {model.name!r} is trained on "
            f"{model.distribute_strategy.num_replicas_in_sync} replicas: each sees "
            "the gradients of its own examples. Train on one device, or take a method "
            "that needs none of it."
        )
    check_built(model, f"{', '.join(kinds)} has to be followed from the first step on")


def check_built(model, reason):
    """Raises a `ValueError` unless a model has its weights, and says for what."""
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} has no weights yet, and {reason}. Call it once "
            "on a batch, as in `model(x[:1])`, or give it an Input."
        )


@register("trackers", "shadow")
def _cast_shadows(model, entries):
    """Lets removed weights go on learning; `MaskConstraint` takes it up."""
    _check_adds_up(model)
    for entry in entries:
        entry.track("shadow", _BEGINNINGS["shadow"](entry))
        shadow, weight = entry.tracked_as("shadow"), as_array(entry.variable)
        # Weights may have been set since, or loaded from a file without shadows.
        write(shadow, np.where(as_array(entry.mask), weight, as_array(shadow)))
    return any(_is_unseen(entry) for entry in entries if entry.variable.trainable)


def _is_unseen(entry):
    """Tells whether the step that was traced last writes another shadow, or none."""
    return entry.variable.constraint.shadow is not entry.tracked_as("shadow")


def _check_adds_up(model):
    for optimizer in optimizers_of(model):
        if isinstance(optimizer, keras.optimizers.Ftrl):
            raise ValueError(
                f"What removed weights learn can't be followed with {optimizer.name!r} "
                "(Ftrl): it computes weights anew at each step, where others add to "
                "them. Compile with another optimizer, such as SGD, or take another "
                "regrowth, such as kprune.RigL()."
            )


@register("trackers", "movement")
def _follow_movement(model, entries):
    """Adds up `-w * g` over the training steps, with the weight before each step."""
    optimizer = plain_optimizer(getattr(model, "optimizer", None))
    if optimizer is None:
        raise ValueError(
            f"The movement of weights is seen where an optimizer updates them, and "
            f"{model.name!r} is not compiled with one. Call `model.compile(optimizer, "
            "loss)`, and use `model.optimizer` in a training loop of your own."
        )
    for entry in entries:
        entry.track("movement", _BEGINNINGS["movement"](entry))
    sums = [(entry.variable, entry.tracked_as("movement")) for entry in entries]
    if isinstance(vars(optimizer).get("apply"), _Watched):
        optimizer.apply.sums = sums
        return False
    optimizer.apply = _Watched(optimizer, sums)
    return True


_BEGINNINGS = {
    "shadow": lambda entry: as_array(entry.variable),
    "movement": lambda entry: np.zeros(entry.variable.shape, "float32"),
}


def _unwatch(optimizer):
    """Gives an optimizer back the `apply` that it had."""
    watched = vars(optimizer).get("apply")
    if isinstance(watched, _Watched):
        del optimizer.apply
        if watched.own is not None:
            optimizer.apply = watched.own


class _Watched:
    """The `apply` of an optimizer that adds up movements before it updates weights.

    Gradients come here without a scale of the loss, and not yet clipped.
    """

    def __init__(self, optimizer, sums):
        self.optimizer = optimizer
        self.sums = sums
        self.own = vars(optimizer).get("apply")  # beside that of its class
        self._apply = optimizer.apply

    def __call__(self, grads, trainable_variables=None):
        if trainable_variables is None:
            trainable_variables = self.optimizer._trainable_variables
        variables = list(trainable_variables)
        sums = {id(variable): total for variable, total in self.sums}
        for gradient, variable in zip(grads, variables, strict=True):
            if id(variable) in sums and gradient is not None:
                self._add(sums[id(variable)], variable, gradient)
        return self._apply(grads, variables)

    def _add(self, total, variable, gradient):
        gradient = tf.cast(tf.convert_to_tensor(gradient), total.dtype)
        if self.optimizer.loss_scale_factor is not None:
            gradient /= self.optimizer.loss_scale_factor
        # A step over several batches takes the mean of their gradients.
        gradient /= self.optimizer.gradient_accumulation_steps or 1
        total.assign_sub(tf.cast(variable, total.dtype) * gradient)
