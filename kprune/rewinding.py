"""`Rewind`: kept weights go back to where they were before they were trained."""

import keras

from kprune import mask_store
from kprune.arguments import check_whole
from kprune.optimizer_slots import plain_optimizer, restart
from kprune.registry import register
from kprune.regrowth import Regrowth
from kprune.weight_access import as_array


@register("regrowths")
class Rewind(Regrowth):
    """Finds lottery tickets: after each pruning step, kept weights start over.

    All trained weights of the model, pruned or not, go back to their values at an
    early step, and the optimizer begins anew, its learning rate at that step of its
    schedule. Use it with a schedule of few steps far apart, each a round of training.

    Args:
        step: Int of 0 or more, the step of the schedule whose weights are taken. 0
            means the weights at the beginning. Some hundred steps serve large models
            better. Weights removed before that step are not rewound. Defaults to 0.

    Raises:
        ValueError: If `step` is no whole number of 0 or more.

    Example:
    >>> Rewind(step=500).next_due(0)
    500

    Reference:
        Frankle and Carbin, "The lottery ticket hypothesis", ICLR 2019; Frankle et
        al., "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020.
    """

    follows_schedule = True

    def __init__(self, step=0):
        super().__init__(frequency=1, end_step=1)
        self.step = check_whole("step", step, 0)

    def last_due(self, step):
        """Returns the step whose weights are taken, once it has come."""
        return None if step < self.step else self.step

    def next_due(self, step):
        """Returns the step whose weights are taken, until it has come."""
        return self.step if step < self.step else None

    def __call__(self, update):
        """Returns the masks that the schedule asks for."""
        return update.prune()

    def carried_out(self, model, step, changed):
        """Takes the weights when their step has come; later brings them back."""
        if step < self.step:
            return
        tracked = mask_store.stores(model)[0].tracked
        optimizer = plain_optimizer(getattr(model, "optimizer", None))
        if tracked.get("early_step") is None:
            _take(model, tracked, optimizer)
        elif changed:
            _bring_back(model, tracked, optimizer)

    def get_config(self):
        return {"step": self.step}


def _take(model, tracked, optimizer):
    step = 0 if optimizer is None else int(as_array(optimizer._iterations))
    tracked.hold("early_step", keras.ops.convert_to_numpy(step).astype("int64"))
    for number, variable in enumerate(model.trainable_variables):
        tracked.hold(f"early_{number}", as_array(variable))


def _bring_back(model, tracked, optimizer):
    for number, variable in enumerate(model.trainable_variables):
        variable.assign(tracked.get(f"early_{number}"))
    for store in mask_store.stores(model):
        for entry in store.entries:
            entry.variable.assign(entry.held(entry.variable))
    if optimizer is not None:
        restart(optimizer, int(as_array(tracked.get("early_step"))))
