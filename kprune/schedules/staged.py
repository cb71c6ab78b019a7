"""Schedules that move in steps of their own, with training in between."""

import numpy as np

from kprune.arguments import check_sparsity, check_whole
from kprune.registry import register
from kprune.schedules.base import Schedule
from kprune.schedules.smooth import check_rise, equal_shares


@register("schedules")
class IterativeSchedule(Schedule):
    """Prunes in rounds, with retraining after each.

    Every round removes the same fraction of what is left. After round `k` of `n` the
    density `1 - sparsity` is `(1 - final) ** (k / n)`; it stays so for
    `steps_per_round` optimizer steps. Train on after the last round for as long.

    Args:
        final_sparsity: Float in [0, 1), reached in the last round.
        rounds: Int of 1 or more. Defaults to 5.
        steps_per_round: Int of 1 or more, optimizer steps from one round to the
            next. Has to be given.
        begin_step: Int of 0 or more, the step of the first round. Defaults to 0.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
    >>> schedule = IterativeSchedule(0.75, rounds=2, steps_per_round=100)
    >>> schedule([0, 99, 100, 1000])
    array([0.5 , 0.5 , 0.75, 0.75])

    Reference:
        Han et al., "Learning both Weights and Connections for Efficient Neural
        Networks", NeurIPS 2015; Frankle and Carbin, "The Lottery Ticket
        Hypothesis", ICLR 2019, for the fraction of each round.
    """

    def __init__(self, final_sparsity, rounds=5, steps_per_round=None, begin_step=0):
        self.final_sparsity = check_sparsity("final_sparsity", final_sparsity)
        self.rounds = check_whole("rounds", rounds, at_least=1, unit="prunings")
        self.steps_per_round = check_whole("steps_per_round", steps_per_round, 1)
        begin_step = check_whole("begin_step", begin_step, at_least=0)
        end_step = begin_step + (self.rounds - 1) * self.steps_per_round
        super().__init__(begin_step, end_step, self.steps_per_round)

    def _after(self, elapsed):
        done = 1 + elapsed // self.steps_per_round
        return equal_shares(1 - done / self.rounds, 0.0, self.final_sparsity)

    def get_config(self):
        return {
            "final_sparsity": self.final_sparsity,
            "rounds": self.rounds,
            "steps_per_round": self.steps_per_round,
            "begin_step": self.begin_step,
        }


@register("schedules")
class TwoStageSchedule(Schedule):
    """Prunes coarsely first, then finely: most in a few large steps, then in small.

    The coarse stage is for a criterion that tells well what can go (gradients, say)
    and is too dear to ask often. The fine stage looks at the survivors anew before
    each of its small steps, with fine-tuning in between. Within a stage every round
    removes the same fraction of what is left. Each stage may have a criterion of its
    own, as in `PruningCallback(schedule, criterion=("taylor", "magnitude"), ...)`.

    With `rollback` the metric is looked at after every epoch. Let the coarse stage,
    `begin_step + coarse_rounds * coarse_steps`, end with an epoch, and it is so
    between the stages: what has cost too much is taken back, and the fine stage does
    not begin.

    Args:
        final_sparsity: Float in [0, 1), reached in the last round.
        coarse_sparsity: Float in [0, final_sparsity], reached in the last coarse
            round. Has to be given.
        coarse_rounds: Int of 1 or more. Defaults to 2.
        fine_rounds: Int of 1 or more. Defaults to 10.
        coarse_steps: Int of 1 or more, optimizer steps that follow a coarse round.
            Has to be given.
        fine_steps: Int of 1 or more, optimizer steps that follow a fine round.
            Defaults to `coarse_steps`.
        begin_step: Int of 0 or more, the step of the first round. Defaults to 0.

    Attributes:
        fine_step: Int, the step of the first fine round. What the coarse stage has
            cost shows just before.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
    >>> schedule = TwoStageSchedule(
    ...     0.9, coarse_sparsity=0.75, coarse_rounds=2, coarse_steps=100,
    ...     fine_rounds=2, fine_steps=20,
    ... )
    >>> print(schedule.table())
        step  sparsity
           0    0.5000
         100    0.7500
         200    0.8419
         220    0.9000

    Reference:
        Han et al., "Learning both Weights and Connections for Efficient Neural
        Networks", NeurIPS 2015, for pruning in rounds.
    """

    def __init__(
        self,
        final_sparsity,
        coarse_sparsity,
        *,
        coarse_rounds=2,
        fine_rounds=10,
        coarse_steps=None,
        fine_steps=None,
        begin_step=0,
    ):
        self.final_sparsity = check_sparsity("final_sparsity", final_sparsity)
        self.coarse_sparsity = check_sparsity("coarse_sparsity", coarse_sparsity)
        check_rise("coarse_sparsity", coarse_sparsity, final_sparsity)
        self.coarse_rounds = check_whole("coarse_rounds", coarse_rounds, 1, "prunings")
        self.fine_rounds = check_whole("fine_rounds", fine_rounds, 1, "prunings")
        self.coarse_steps = check_whole("coarse_steps", coarse_steps, 1)
        fine_steps = coarse_steps if fine_steps is None else fine_steps
        self.fine_steps = check_whole("fine_steps", fine_steps, 1)
        begin_step = check_whole("begin_step", begin_step, at_least=0)
        self.fine_step = begin_step + self.coarse_rounds * self.coarse_steps
        self.stage_steps = (self.fine_step,)
        end_step = self.fine_step + (self.fine_rounds - 1) * self.fine_steps
        super().__init__(begin_step, end_step)

    def _after(self, elapsed):
        coarse = np.minimum(1 + elapsed // self.coarse_steps, self.coarse_rounds)
        since = elapsed - (self.fine_step - self.begin_step)
        fine = np.maximum(1 + since // self.fine_steps, 0)
        middle = self.coarse_sparsity
        return np.where(
            since < 0,
            equal_shares(1 - coarse / self.coarse_rounds, 0.0, middle),
            equal_shares(1 - fine / self.fine_rounds, middle, self.final_sparsity),
        )

    def _grid(self):
        return (
            range(self.begin_step, self.fine_step, self.coarse_steps),
            range(self.fine_step, self.end_step + 1, self.fine_steps),
        )

    def get_config(self):
        return {
            "final_sparsity": self.final_sparsity,
            "coarse_sparsity": self.coarse_sparsity,
            "coarse_rounds": self.coarse_rounds,
            "fine_rounds": self.fine_rounds,
            "coarse_steps": self.coarse_steps,
            "fine_steps": self.fine_steps,
            "begin_step": self.begin_step,
        }


@register("schedules")
class CyclicSchedule(Schedule):
    """Alternates between sparse and dense training, and ends sparse.

    In a dense phase all weights learn again, so that a later sparse phase may choose
    others. Within a sparse phase the mask is fixed. The last phase is sparse and has
    no end. Let some dense training go ahead with `begin_step`.

    Args:
        final_sparsity: Float in [0, 1), the sparsity of the sparse phases.
        cycles: Int of 2 or more, the number of sparse phases. Defaults to 5.
        sparse_steps: Int of 1 or more, optimizer steps of a sparse phase. Has to be
            given.
        dense_steps: Int of 1 or more, optimizer steps of a dense phase. Defaults to
            `sparse_steps`.
        begin_step: Int of 0 or more, the first step of the first sparse phase.
            Defaults to 0.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
    >>> schedule = CyclicSchedule(0.9, cycles=2, sparse_steps=30, begin_step=10)
    >>> schedule([0, 10, 39, 40, 69, 70, 1000])
    array([0. , 0.9, 0.9, 0. , 0. , 0.9, 0.9])

    Reference:
        Peste et al., "AC/DC: Alternating Compressed/DeCompressed Training of Deep
        Neural Networks", NeurIPS 2021.
    """

    lowers = True

    def __init__(
        self,
        final_sparsity,
        cycles=5,
        *,
        sparse_steps=None,
        dense_steps=None,
        begin_step=0,
    ):
        self.final_sparsity = check_sparsity("final_sparsity", final_sparsity)
        self.cycles = check_whole("cycles", cycles, at_least=2, unit="sparse phases")
        self.sparse_steps = check_whole("sparse_steps", sparse_steps, 1)
        dense_steps = sparse_steps if dense_steps is None else dense_steps
        self.dense_steps = check_whole("dense_steps", dense_steps, 1)
        begin_step = check_whole("begin_step", begin_step, at_least=0)
        self._period = self.sparse_steps + self.dense_steps
        super().__init__(begin_step, begin_step + (self.cycles - 1) * self._period)

    def _after(self, elapsed):
        is_sparse = elapsed % self._period < self.sparse_steps
        return np.where(is_sparse, self.final_sparsity, 0.0)

    def _grid(self):
        first_dense = self.begin_step + self.sparse_steps
        return (
            range(self.begin_step, self.end_step + 1, self._period),
            range(first_dense, self.end_step, self._period),
        )

    def get_config(self):
        return {
            "final_sparsity": self.final_sparsity,
            "cycles": self.cycles,
            "sparse_steps": self.sparse_steps,
            "dense_steps": self.dense_steps,
            "begin_step": self.begin_step,
        }
