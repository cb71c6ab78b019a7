"""What TFMOT has in `tfmot.sparsity.keras`."""

from kprune.tfmot.callbacks import UpdatePruningStep
from kprune.tfmot.policies import PruneForLatencyOnXNNPack, PruningPolicy
from kprune.tfmot.schedules import ConstantSparsity, PolynomialDecay, PruningSchedule
from kprune.tfmot.summaries import PruningSummaries
from kprune.tfmot.wrapping import (
    PrunableLayer,
    prune_low_magnitude,
    prune_scope,
    strip_pruning,
)

__all__ = [
    "ConstantSparsity",
    "PolynomialDecay",
    "PrunableLayer",
    "PruneForLatencyOnXNNPack",
    "PruningPolicy",
    "PruningSchedule",
    "PruningSummaries",
    "UpdatePruningStep",
    "prune_low_magnitude",
    "prune_scope",
    "strip_pruning",
]
