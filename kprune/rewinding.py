"""`Rewind`: kept weights go back to where they were before they were trained."""

import numpy as np

from kprune.arguments import check_whole
from kprune.memory import NOT_YET, origin_of_last_update, tracked_with
from kprune.optimizer_slots import made_anew, restart
from kprune.registry import register
from kprune.regrowth import Regrowth
from kprune.tracking import begin_anew, check_built, optimizers_of
from kprune.weight_access import as_array
from kprune.whole_model import clock_of, held_weights, masked_weights


@register("regrowths")
class Rewind(Regrowth):
    """Finds lottery tickets: after each pruning step, kept weights start over.

    All trained weights of the model, pruned or not, go back to their values at an
    early step, and the optimizer begins anew, its learning rate at that step of its
    schedule; so do the sums of `criterion="movement"`. Use it with a schedule of few
    steps far apart, each a round of training.

    Args:
        step: Int of 0 or more, the step of the schedule whose weights are taken. 0
            means the weights at the beginning. Some hundred steps serve large models
            better. Weights removed before that step are not rewound. Defaults to 0.

    Raises:
        ValueError: If `step` is no whole number of 0 or more; in training, if the
            model had no weights when it began, or if that step was past before the
            method was in use.

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
        """Makes room for the early weights, into which a checkpoint can be read.

        Raises:
            ValueError: If the model has no weights yet.
        """
        check_built(model, "early weights have to be taken before the first step")
        _Early(model).look()

    def carried_out(self, model, step, changed):
        """Takes the weights when their step has come; later brings them back.

        Raises:
            ValueError: If their step was past before this method was in use.
        """
        if step < self.step:
            return
        early, wanted = _Early(model), origin_of_last_update(model) + self.step
        last_look = early.look()
        if early.wanted != wanted:
            self._check_is_to_come(model, wanted, last_look)
            early.take(wanted)
        elif changed:
            early.bring_back()

    def _check_is_to_come(self, model, wanted, last_look):
        # A checkpoint may lie behind the step that is wanted, within a batch of many,
        # and before the update that would have taken the weights.
        if last_look < wanted + (getattr(model, "steps_per_execution", None) or 1):
            return
        now = clock_of(model) - (wanted - self.step)
        raise ValueError(
            f"{self!r} goes back to the weights of clock {wanted}, which nobody kept: "
            f"training was at {last_look} already when it came into use. Name the "
            f"present step or a later one, Rewind(step={now}), or let the schedule "
            "begin with this fit, PruningCallback(..., start='fit')."
        )

    def get_config(self):
        return {"step": self.step}


def forget_early_weights(model):
    """Lets a model that is trained without `Rewind` give up its early weights.

    Args:
        model: A pruned model. It is changed.
    """
    tracked = tracked_with(model, "early")
    for name, variable in list(tracked.variables_by_name.items()):
        if name.startswith("early"):
            tracked.release(variable)


_WANTED, _TAKEN, _SEEN, _OPTIMIZERS = range(4)  # places in the variable `early`


class _Early:
    """What a model keeps of an early step, in variables that are saved with it.

    One of them holds the clock that was wanted, the clock at which the weights were
    taken, the latest clock that was seen, and the step of each optimizer by then.

    Args:
        model: A pruned model, built. It is given the variables if it has none.
    """

    def __init__(self, model):
        self.model = model
        self._tracked = tracked_with(model, "early")
        if self._tracked.get("early") is None:
            # No more optimizers are at work than weights, and one that trains none.
            size = _OPTIMIZERS + 1 + len(_weights(model))
            self._tracked.hold("early", np.full(size, NOT_YET, "int64"))
            for number, variable in enumerate(_weights(model)):
                zeros = np.zeros(variable.shape, variable.dtype)
                self._tracked.hold(f"early_{number}", zeros)
        self._state = self._tracked.get("early")

    @property
    def wanted(self):
        """Int, the clock whose weights these are; `NOT_YET` if none were taken."""
        return int(as_array(self._state)[_WANTED])

    def look(self):
        """Notes the present clock. One that was set back begins another past.

        Returns:
            Int, the clock at the last look in this past, or now if this is the first.
        """
        now, seen = clock_of(self.model), int(as_array(self._state)[_SEEN])
        if now < seen:
            self._note(_WANTED, NOT_YET)
        self._note(_SEEN, now)
        return seen if NOT_YET < seen <= now else now

    def take(self, wanted):
        """Takes the present weights for those of a clock."""
        optimizers = optimizers_of(self.model)
        for optimizer in optimizers:
            made_anew(optimizer)  # can it be, when weights are brought back?
        now = clock_of(self.model)
        state = np.full(self._state.shape, NOT_YET, "int64")
        state[[_WANTED, _TAKEN, _SEEN]] = wanted, now, now
        for place, optimizer in enumerate(optimizers):
            state[_OPTIMIZERS + place] = _steps_of(optimizer)
        self._state.assign(state)
        for number, variable in enumerate(_weights(self.model)):
            self._tracked.hold(f"early_{number}", as_array(variable)).assign(variable)

    def bring_back(self):
        """Sets weights, optimizers and sums of movements to what they were."""
        weights = _weights(self.model)
        taken = [self._tracked.get(f"early_{n}") for n in range(len(weights))]
        _check(weights, taken)
        for variable, early in zip(weights, taken, strict=True):
            if variable.trainable:
                variable.assign(early)
        for entry in held_weights(self.model):
            entry.variable.assign(entry.held(entry.variable))
        for place, optimizer in enumerate(optimizers_of(self.model)):
            restart(optimizer, self._early_steps_of(place, optimizer))
        sums = [e.tracked_as("movement") for e in masked_weights(self.model)]
        begin_anew(self.model, [total for total in sums if total is not None])

    def _early_steps_of(self, place, optimizer):
        """Returns the step at which an optimizer was when the weights were taken.

        One that was not compiled in is known only from its first step on.
        """
        state = as_array(self._state)
        if state[_OPTIMIZERS + place] == NOT_YET:
            since = clock_of(self.model) - int(state[_TAKEN])
            since *= optimizer.gradient_accumulation_steps or 1
            self._note(_OPTIMIZERS + place, max(_steps_of(optimizer) - since, 0))
        return int(as_array(self._state)[_OPTIMIZERS + place])

    def _note(self, place, value):
        state = as_array(self._state).copy()
        state[place] = value
        self._state.assign(state)


def _steps_of(optimizer):
    return int(as_array(optimizer._iterations))


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
