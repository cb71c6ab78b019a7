"""Schedules: which sparsity is wanted after how many optimizer steps."""

from kprune.arguments import check_sparsity
from kprune.schedules.base import Schedule
from kprune.schedules.smooth import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    PolynomialSchedule,
)
from kprune.schedules.staged import (
    CyclicSchedule,
    IterativeSchedule,
    TwoStageSchedule,
)

__all__ = [
    "ConstantSchedule",
    "CosineSchedule",
    "CyclicSchedule",
    "ExponentialSchedule",
    "IterativeSchedule",
    "LinearSchedule",
    "PolynomialSchedule",
    "Schedule",
    "TwoStageSchedule",
    "check_sparsity",
]
