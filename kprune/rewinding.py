"""`Rewind`: kept weights go back to where they were before they were trained."""

import numpy as np

from kprune.arguments import check_whole
from kprune.memory import NOT_YET, tracked_with
from kprune.optimizer_slots import made_anew, restart
from kprune.registry import register
from kprune.regrowth import Regrowth
from kprune.tracking import optimizers_of
from kprune.weight_access import as_array
from kprune.whole_model import held_weights


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

    def prepare(self, model):
        """Makes room for the early weights, into which a checkpoint can be read."""
        tracked = tracked_with(model, "early_step")
        if tracked.get("early_step") is None:
            tracked.hold("early_step", np.asarray(NOT_YET, "int64"))
            for number, variable in enumerate(_weights(model)):
                tracked.hold(
                    f"early_{number}", np.zeros(variable.shape, variable.dtype)
                )

    def carried_out(self, model, step, changed):
        """Takes the weights when their step has come; later brings them back."""
        if step < self.step:
            return
        tracked = tracked_with(model, "early_step")
        taken = tracked.get("early_step")
        if taken is None or as_array(taken) == NOT_YET:
            _take(model, tracked)
        elif changed:
            _bring_back(model, tracked)

    def get_config(self):
        return {"step": self.step}


def _take(model, tracked):
    for optimizer in optimizers_of(model):
        made_anew(optimizer)  # can it be, when weights are brought back?
    steps = [int(as_array(optimizer._iterations)) for optimizer in optimizers_of(model)]
    _note(tracked, "early_step", np.asarray(max(steps, default=0), "int64"))
    for number, variable in enumerate(_weights(model)):
        _note(tracked, f"early_{number}", as_array(variable))


def _note(tracked, name, value):
    tracked.hold(name, value).assign(value)


def _bring_back(model, tracked):
    weights = _weights(model)
    taken = [tracked.get(f"early_{number}") for number in range(len(weights))]
    _check(weights, taken)
    for variable, early in zip(weights, taken, strict=True):
        if variable.trainable:
            variable.assign(early)
    for entry in held_weights(model):
        entry.variable.assign(entry.held(entry.variable))
    for optimizer in optimizers_of(model):
        restart(optimizer, int(as_array(tracked.get("early_step"))))


def _check(weights, taken):
    """Raises a `ValueError` if an early value is missing or of another shape."""
    for variable, early in zip(weights, taken, strict=True):
        if early is None or early.shape != variable.shape:
            raise ValueError(
                f"No early value of {variable.path} is known to rewind to: the model "
                "had other weights when they were taken. Build it whole before "
                "training, and start again with `kprune.prune` on a fresh model."
            )


def _weights(model):
    """Lists what is trained or was before it was frozen, always in one order."""
    found = [v for layer in model._flatten_layers() for v in layer._trainable_variables]
    return list({id(variable): variable for variable in found}.values())
