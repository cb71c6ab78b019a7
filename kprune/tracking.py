"""What is followed through every training step, beside the masks.

`follow` makes the variables that a method asks for, before the training step is
compiled. They are part of the model: saved, loaded, and taken off by `strip`.
"""

import numpy as np
import tensorflow as tf

from kprune import mask_store
from kprune.optimizer_slots import plain_optimizer
from kprune.registry import keys, lookup, register
from kprune.weight_access import as_array


def follow(model, kinds):
    """Follows what some methods need through the training steps to come.

    Args:
        model: A pruned model, built. Its training step is compiled anew if need be.
        kinds: Sequence of strings; those that nobody here can follow are left to
            others.

    Raises:
        ValueError: If the model is trained on several replicas, is not built, or if
            it is not compiled with the optimizer whose gradients are wanted.
    """
    kinds = [kind for kind in kinds if kind in keys("trackers")]
    if not kinds:
        return
    _check(model, kinds)
    entries = [entry for store in mask_store.stores(model) for entry in store.entries]
    changed = [lookup("trackers", kind)(model, entries) for kind in kinds]
    if any(changed) and getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)  # the old one is traced without them


def check_followed(entries, kinds):
    """Raises if nothing has been seen of what shall decide.

    Args:
        entries: List of `MaskedWeight`, those that shall be pruned.
        kinds: Sequence of strings, what is wanted of them.

    Raises:
        ValueError: If weights shall be ranked by movements and none has moved.
    """
    if "movement" not in kinds:
        return
    sums = [entry.tracked_as("movement") for entry in entries]
    if not any(np.any(as_array(total)) for total in sums):
        raise ValueError(
            "Weights shall be removed by their movement, and none has been seen. "
            "Either nothing was trained yet with this criterion: let the schedule "
            "start later, such as with `begin_step=100`. Or another optimizer updates "
            "the weights: use `model.optimizer` in a training loop of your own."
        )


def _check(model, kinds):
    if model.distribute_strategy.num_replicas_in_sync > 1:
        raise ValueError(
            f"{', '.join(kinds)} can't be followed while {model.name!r} is trained on "
            f"{model.distribute_strategy.num_replicas_in_sync} replicas: each sees "
            "the gradients of its own examples. Train on one device, or take a method "
            "that needs none of it."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} has no weights yet, and {', '.join(kinds)} has "
            "to be followed from the first step on. Call it once on a batch, as in "
            "`model(x[:1])`, or give it an Input."
        )


@register("trackers", "shadow")
def _cast_shadows(model, entries):
    """Lets removed weights go on learning; `MaskConstraint` takes it up."""
    new = [entry for entry in entries if entry.tracked_as("shadow") is None]
    for entry in new:
        entry.track("shadow", as_array(entry.variable))
    return bool(new)


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
        entry.track("movement", np.zeros(entry.variable.shape, "float32"))
    sums = [(entry.variable, entry.tracked_as("movement")) for entry in entries]
    if isinstance(vars(optimizer).get("apply"), _Watched):
        optimizer.apply.sums = sums
        return False
    optimizer.apply = _Watched(optimizer, sums)
    return True


class _Watched:
    """The `apply` of an optimizer that adds up movements before it updates weights.

    Gradients come here without a scale of the loss, and not yet clipped.
    """

    def __init__(self, optimizer, sums):
        self.optimizer = optimizer
        self.sums = sums
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
