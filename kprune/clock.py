"""The clock of a pruned model, and the optimizer step that moves it.

The clock is a variable that counts optimizer steps. It is advanced inside the
compiled step, by the first constraint of a pruned weight that an update applies,
and it is saved with the model's weights.
"""

import keras
import tensorflow as tf
from keras import ops
from keras.src.backend.common.global_state import get_global_attribute

from kprune.registry import register
from kprune.weight_access import as_array


@register("parts")
class Clock:
    """Counts the optimizer steps of a model since it was first pruned.

    All layers that `kprune.prune` wraps in one model share one clock, and so they
    do after loading, since Keras restores shared objects within a file. Layers
    wrapped by hand have one each, and Keras counts them all alike. A training step of
    your own in which two optimizers update pruned weights counts as two: give a
    schedule twice the steps there, since the short form plans one a batch.

    Attributes:
        variable: Int64 Keras variable.
        plan: Int64 Keras variable of shape `(2,)`: the steps at which the latest
            `fit` with pruning began and was to end, -1 where unknown. A resumed run
            can't tell them from the epoch, since a batch need not be a step.

    Example:
    >>> Clock().steps
    0
    """

    def __init__(self):
        options = {
            "dtype": "int64",
            "trainable": False,
            "aggregation": "only_first_replica",
        }
        self.variable = keras.Variable(0, name="step", **options)
        self.plan = keras.Variable([-1, -1], name="plan", **options)

    @property
    def steps(self):
        """Int, what the clock shows."""
        return int(as_array(self.variable))

    def advance(self, updated):
        """Counts the optimizer step that is being applied, once.

        Args:
            updated: Variable that the step has changed.
        """
        update = _current_update()
        # Not every weight is part of every update (a layer may be frozen, or the
        # loss may not depend on it), so that no weight can be put in charge.
        if update is None or self in update.__dict__.setdefault("kprune_clocks", []):
            return
        update.kprune_clocks.append(self)
        # In a graph, what depends on no data would run although the data have come
        # to their end, and count a step that never was.
        with tf.control_dependencies([tf.convert_to_tensor(updated)]):
            self.variable.value.assign_add(_steps_done(update.caller))

    def get_config(self):
        """Returns an empty config; what it shows is saved as a weight."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Makes a new clock."""
        return cls()


def applying_optimizer():
    """Returns the optimizer that is applying constraints now, or `None`."""
    update = _current_update()
    return None if update is None else update.caller


def _current_update():
    """Finds the name scope of the update that is being applied.

    A constraint is not told who calls it. Keras opens a name scope for each call
    of `apply` and notes the optimizer in it.
    """
    for scope in reversed(get_global_attribute("name_scope_stack") or []):
        if isinstance(scope.caller, keras.optimizers.Optimizer):
            return scope
    return None


def _steps_done(optimizer):
    """Returns how many optimizer steps an update completes.

    Under gradient accumulation Keras applies constraints after every batch, but
    only each n-th batch completes a step.
    """
    accumulated = optimizer.gradient_accumulation_steps
    if not accumulated:
        return 1
    # The public `iterations` counts completed steps, the private one batches.
    is_step = ops.equal((optimizer._iterations + 1) % accumulated, 0)
    return ops.cast(is_step, "int64")
