"""What every regrowth is, and what it sees of an update."""

import dataclasses

from kprune.arguments import check_whole
from kprune.masks import compute_masks
from kprune.registry import Configurable


@dataclasses.dataclass
class Update:
    """One update of all masks, as a regrowth sees it.

    Attributes:
        weights: List of float arrays in the layout `(..., inputs, outputs)`.
        masks: List of bool arrays of their shapes, what is kept so far.
        sparsity: Float in [0, 1), what the schedule asks for.
        step: Int, the step of the schedule at which it is carried out.
        names: List of strings, what the weights are called.
        evidence: List of dicts, one a weight, from kind to array.
        criterion: `Criterion` of the weights.
        granularity: List of `Granularity`, one a weight.
        scope: `Scope`.
        ties: List with a `Tie` or `None` for each weight, or `None`.
        reopens: Bool, whether the schedule lowers the sparsity, so that all that was
            removed competes again. Defaults to `False`.
    """

    weights: list
    masks: list
    sparsity: float
    step: int
    names: list
    evidence: list
    criterion: object
    granularity: list
    scope: object
    ties: list | None = None
    reopens: bool = False

    def prune(self, **changes):
        """Yields the masks that `compute_masks` finds, with some arguments changed."""
        arguments = {**vars(self), "evidence": self.evidence_for(self.criterion)}
        del arguments["step"]
        if arguments.pop("reopens"):
            arguments["masks"] = None
        return compute_masks(**{**arguments, **changes})

    def evidence_for(self, criterion):
        """Returns the evidence that a criterion names, and none besides."""
        requires = getattr(criterion, "requires", ())
        return [{k: e[k] for k in requires if k in e} for e in self.evidence]


class Regrowth(Configurable):
    """Base of all regrowths: rules by which removed weights may come back.

    A subclass defines `__call__(update)`, which takes an `Update` and returns an
    iterable of masks; `update.prune()` gives those that the schedule asks for. Updates
    are due every `frequency` steps before `end_step`, and whenever the schedule has
    one if `follows_schedule`. One may be carried out behind the end, by the schedule
    or where a batch is many steps: `is_over(update.step)` tells.

    Args:
        frequency: Int of 1 or more, steps between updates.
        end_step: Int of 1 or more, from which on no update is due. `None` leaves it
            to the `PruningCallback`: three quarters of the steps that are planned.

    Attributes:
        requires: Tuple of strings, evidence as criteria name theirs.
        tracks: Tuple of strings, what has to be followed through training steps.
        follows_schedule: Bool, whether it takes part in updates of the schedule.
        fixed_count: Bool, whether the number of zeros follows from the sparsity.
        exchanges: Bool, whether single units are exchanged, which has no meaning
            where units stay or go together with others.
    """

    requires = ()
    tracks = ()
    follows_schedule = False
    fixed_count = True
    exchanges = False

    def __init__(self, frequency, end_step):
        self.frequency = check_whole("frequency", frequency, 1)
        is_known = end_step is not None
        self.end_step = check_whole("end_step", end_step, 1) if is_known else None

    def __call__(self, update):
        """Returns the masks after an update; see the class."""
        raise NotImplementedError(f"{type(self).__name__} defines no `__call__`.")

    def last_due(self, step):
        """Returns the step of the latest update that is due by `step`, or `None`."""
        last = (min(step, self.end_step - 1) // self.frequency) * self.frequency
        return last if last > 0 else None

    def next_due(self, step):
        """Returns the step of the first update after `step`, or `None`."""
        following = (max(step, 0) // self.frequency + 1) * self.frequency
        return following if following < self.end_step else None

    def is_over(self, step):
        """Tells whether `end_step` has come, from which on it brings nothing back."""
        return self.end_step is not None and step >= self.end_step

    def planned(self, begin_step, end_step):
        """Returns a regrowth like this one that knows when it ends.

        Args:
            begin_step: Int of 0 or more, the step at which a run begins, for one that
                takes such an argument and was given neither.
            end_step: Int, the step at which to end, unless it has one of its own.
        """
        if self.end_step is not None:
            return self
        config = self.get_config()
        plan = {"begin_step": begin_step, "end_step": max(begin_step + 1, end_step)}
        left_open = [name for name in plan if config.get(name, 0) is None]
        return self.from_config({**config, **{name: plan[name] for name in left_open}})

    def prepare(self, model):
        """Is told of the model before it is trained, or read from a checkpoint."""

    def carried_out(self, model, step, changed):
        """Is told that masks were written; `changed` if weights were removed."""

    def check(self, granularities, scope):
        """Raises a `ValueError` if it has no meaning with what it is to work with.

        Args:
            granularities: List of `Granularity`, one a weight.
            scope: `Scope`.
        """
        if self.exchanges and not scope.fixed_count:
            raise ValueError(
                f"{self!r} exchanges weights at a sparsity that is given, and with "
                f"{scope!r} the scores decide how many go: what has grown starts at "
                "zero and goes again, so that sparsity rises with each exchange. Take "
                "a scope with a fixed count, such as 'layer_wise' or 'global', or "
                "`kprune.DynamicNetworkSurgery()`, by which weights come back once "
                "they are large."
            )
        for granularity in granularities:
            is_bound = granularity.within_layer or granularity.tied_by is not None
            if self.exchanges and is_bound:
                raise ValueError(
                    f"{self!r} exchanges units of a weight one by one, and those of "
                    f"{granularity!r} depend on each other. Prune with single "
                    "weights, blocks or channels."
                )

    def get_config(self):
        """Returns all constructor arguments, by name."""
        return {"frequency": self.frequency, "end_step": self.end_step}
