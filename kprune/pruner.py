"""`Pruner`: carries out the mask updates that a schedule asks for."""

from kprune import memory, registry, whole_model
from kprune.arguments import check_whole
from kprune.preflight import (
    as_criterion,
    by_stage,
    check_clocks,
    check_forgetting,
    check_parts,
    check_pruned,
    check_return,
)
from kprune.tracking import follow, forget
from kprune.updates import sparsity_of, updaters


class Pruner:
    """Raises the sparsity of a model as its clock moves on.

    `PruningCallback` does this for `model.fit`. In a training loop of your own,
    call `step` before each optimizer step (and once after the loop, if the
    schedule ends with it).

    Which update is due is decided by the clock alone, which counts optimizer
    steps and is saved with the model's weights. An update is repeatable: carried
    out twice it changes nothing, and a weight once removed stays removed. Where a
    regrowth, or a schedule that lowers sparsity, brings weights back, the model
    remembers which update was the last. So a resumed run goes on where it stood.

    Args:
        model: A model that `kprune.prune` has made.
        schedule: A `Schedule`.
        criterion: Name, object or function of a weight, how weights are scored; a
            pair of them, one for each stage, with a `TwoStageSchedule`. Defaults to
            `"magnitude"`.
        scope: Name or object, which weights compete (see `kprune.scopes`), such as
            `"global"`. Defaults to `"layer_wise"`.
        origin: Int of 0 or more, the clock from which the schedule's steps count.
            Defaults to 0, when the model was first pruned; `pruner.clock` is the
            present.
        calibration_data: What `kprune.calibration.CalibrationData` takes: examples
            for a criterion that looks at gradients or activations. Defaults to none.
        regrowth: Name or object, how removed weights come back, such as
            `kprune.RigL(end_step=1000)`. Defaults to none: they don't.
        among: Collection of the mask stores that it looks at, where parts of a model
            have schedules of their own. Defaults to all.

    Attributes:
        held: Bool. Set it to `True` to have no more updates carried out.
        sparsity: Float, the fraction of zeros after the latest update.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the model holds no masks, if an argument is unknown, if
            criterion, granularity, scope and regrowth have no meaning together, if
            the sparsity can't be reached, or if calibration data is missing.

    Example:
    >>> import keras, kprune
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    >>> model = kprune.prune(model)
    >>> pruner = kprune.Pruner(model, kprune.ConstantSchedule(0.75))
    >>> pruner.step()
    0
    >>> pruner.sparsity
    0.75
    """

    def __init__(
        self,
        model,
        schedule,
        *,
        criterion="magnitude",
        scope="layer_wise",
        origin=0,
        calibration_data=None,
        regrowth=None,
        among=None,
    ):
        check_pruned(model)
        self.model = model
        self.schedule = registry.get("schedules", schedule)
        self.criterion = as_criterion(criterion)
        self._criteria = by_stage(self.criterion, self.schedule)
        self.scope = registry.get("scopes", scope)
        self.regrowth = regrowth and registry.get("regrowths", regrowth)
        if self.regrowth is not None and self.regrowth.end_step is None:
            raise ValueError(
                f"{self.regrowth!r} does not say when it ends, and only a "
                "PruningCallback knows how long training lasts. Give it an `end_step`."
            )
        self.origin = check_whole("origin", origin, 0)
        self.held = False
        self.sparsity = 0.0
        self._among = among
        self._check_parts()
        self._updaters = updaters(
            model, self._criteria, self.scope, self.regrowth, calibration_data, among
        )
        self._stores = whole_model.stores(model) if among is None else list(among)
        self._clocks = {store.clock for store in self._stores}
        self._brings_back = self.schedule.lowers or self.regrowth is not None
        self._prepare_training()
        self._done = _NOTHING_YET

    @property
    def clock(self):
        """Int, the optimizer steps that the model has seen since it was wrapped."""
        return max(clock.steps for clock in self._clocks)

    @property
    def is_due(self):
        """Bool, whether there is an update that `step` would carry out."""
        return not self.held and self._latest(self.clock - self.origin) != self._done

    @property
    def finished(self):
        """Bool, whether the sparsity has come to its end, by schedule or `held`."""
        if self._done is _NOTHING_YET or self._done is None:
            return self.held
        return self.held or self._done >= self.schedule.end_step

    def step(self):
        """Carries out the mask update that is due, if there is one.

        Returns:
            Int, the clock.

        Raises:
            ValueError: If the clocks of the layers disagree, if all pruned
                layers are frozen, if a weight is NaN or infinite, or if what the
                criterion wants of it can't be had.
        """
        if _compiled(self.model) != self._compiled:
            self._compile_anew()
        clock = self.clock
        if self.held or not any(store.entries for store in self._stores):
            return clock  # a Sequential that its first batch is about to build
        first = self._done is _NOTHING_YET
        if first:
            check_clocks(self.model)
            self._check_parts()
            for updater in self._updaters[1:]:
                updater.rehearse()  # says now what would be wrong later
        due = self._latest(clock - self.origin)
        if first or due != self._done:
            if self._brings_back:
                self._update_once(due)
            else:
                sparsity = 0.0 if due is None else self.schedule(due)
                self.sparsity = self._updater(due).update(sparsity)
            self._done = due
            self.synchronize()
        return clock

    def next_due(self, clock):
        """Returns the clock at which the next update is due.

        Args:
            clock: Int, the present clock.

        Returns:
            Int, or `None` if all are done.
        """
        if self.held:
            return None
        if self._done is _NOTHING_YET:
            return clock + 1
        dues = [part.next_due(clock - self.origin) for part in self._parts()]
        dues = [due for due in dues if due is not None]
        return min(dues) + self.origin if dues else None

    def synchronize(self):
        """Brings clocks that stood still, of frozen layers, up to the model's."""
        if len(self._clocks) > 1:
            whole_model.set_clock(self.model, self.clock)

    def measure(self):
        """Reads the sparsity off the masks, where others may have set weights.

        Returns:
            Float, the fraction of zeros in the weights that are being pruned.
        """
        self.sparsity = sparsity_of(self.model, self._among)
        return self.sparsity

    def start_over(self):
        """Looks at the model anew, after others have set its masks and its clock."""
        self._done = _NOTHING_YET

    def _prepare_training(self):
        kinds = kinds_to_follow(self._criteria, self.regrowth)
        follow(self.model, kinds)
        if self._brings_back:
            memory.prepare(self.model, self._among)
            if "shadow" not in kinds:
                check_forgetting(self.model)
        if self.regrowth:
            self.regrowth.prepare(self.model)
        self._compiled = _compiled(self.model)

    def _compile_anew(self):
        """Lets go of what the model was compiled with before."""
        forget(self.model, [part for part in self._compiled[:1] if part is not None])
        self._updaters = updaters(
            self.model,
            self._criteria,
            self.scope,
            self.regrowth,
            self._updaters[-1].calibration_data,
            self._among,
        )
        self._prepare_training()

    def _check_parts(self):
        parts = (self._criteria, self.scope, self.regrowth)
        check_parts(self.model, *parts, self.schedule.highest, self._among)
        check_return(self.model, self.schedule, self.regrowth)

    def _updater(self, due):
        """Returns the `Updater` of the stage that an update belongs to."""
        begun = [s for s in self.schedule.stage_steps if due is not None and due >= s]
        return self._updaters[min(len(begun), len(self._updaters) - 1)]

    def _parts(self):
        return [self.schedule] + ([self.regrowth] if self.regrowth else [])

    def _latest(self, step):
        """Returns the latest step by which anything was due, or `None`."""
        dues = [part.last_due(step) for part in self._parts()]
        return max((due for due in dues if due is not None), default=None)

    def _update_once(self, due):
        """Carries out an update that can't be repeated, unless it has been."""
        last = memory.last_update(self.model, self.origin, self._among)
        before = self.measure()
        if due is None:
            self._updater(due).rehearse()
            return
        asked = self._asked(due, last)
        if last is not None and due <= last.step and asked == last.asked:
            return
        self.sparsity = self._updater(due).update(
            asked,
            self.clock - self.origin,
            regrows=self._regrows(due, last, asked),
            reopens=last is not None and asked < last.asked,
        )
        noted = (self.origin, asked, self.sparsity, self._among)
        memory.note_update(self.model, *noted)
        if self.regrowth:
            self.regrowth.carried_out(self.model, due, self.sparsity > before)

    def _asked(self, due, last):
        """Returns the sparsity that is due; a schedule that only rises never falls.

        That of a later `fit` begins at zero, perhaps.
        """
        asked = self.schedule.last_due(due)
        sparsity = 0.0 if asked is None else float(self.schedule(asked))
        if last is None or self.schedule.lowers:
            return sparsity
        return max(sparsity, last.asked)

    def _regrows(self, due, last, asked):
        """Tells whether the regrowth takes part in what has come due since `last`."""
        if self.regrowth is None:
            return False
        dues = [self.regrowth.last_due(due)]
        if self.regrowth.follows_schedule:
            if last is not None and asked != last.asked:
                return True
            dues.append(self.schedule.last_due(due))
        return any(d is not None and (last is None or d > last.step) for d in dues)


_NOTHING_YET = object()


def _compiled(model):
    """Returns the optimizer and the loss that a model is compiled with."""
    return [getattr(model, name, None) for name in ("optimizer", "_compile_loss")]


def kinds_to_follow(criteria, regrowth):
    """Returns the kinds of what criteria and a regrowth want to have followed."""
    kinds = [kind for part in criteria for kind in getattr(part, "requires", ())]
    return kinds if regrowth is None else [*kinds, *regrowth.tracks]
