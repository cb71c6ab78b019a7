"""The names of TensorFlow Model Optimization, on Keras 3 models.

A script changes one import, `import kprune.tfmot as tfmot`, and goes on with
`tfmot.sparsity.keras.prune_low_magnitude` and the others; they are here without the
name spaces, too. Each is a thin alias of what kprune does; its docstring says where
that differs on purpose.
"""

from kprune.tfmot import clustering, sparsity
from kprune.tfmot.callbacks import UpdatePruningStep
from kprune.tfmot.clusters import (
    CentroidInitialization,
    ClusterableLayer,
    cluster_scope,
    cluster_weights,
    strip_clustering,
)
from kprune.tfmot.from_keras_2 import from_tf_keras
from kprune.tfmot.policies import PruneForLatencyOnXNNPack, PruningPolicy
from kprune.tfmot.schedules import ConstantSparsity, PolynomialDecay, PruningSchedule
from kprune.tfmot.summaries import PruningSummaries
from kprune.tfmot.to_keras_2 import to_tf_keras
from kprune.tfmot.wrapper import PruneLowMagnitude
from kprune.tfmot.wrapping import (
    PrunableLayer,
    collect_prunable_layers,
    prune_low_magnitude,
    prune_scope,
    strip_pruning,
)

__all__ = [
    "CentroidInitialization",
    "ClusterableLayer",
    "ConstantSparsity",
    "PolynomialDecay",
    "PrunableLayer",
    "PruneForLatencyOnXNNPack",
    "PruneLowMagnitude",
    "PruningPolicy",
    "PruningSchedule",
    "PruningSummaries",
    "UpdatePruningStep",
    "cluster_scope",
    "cluster_weights",
    "clustering",
    "collect_prunable_layers",
    "from_tf_keras",
    "prune_low_magnitude",
    "prune_scope",
    "sparsity",
    "strip_clustering",
    "strip_pruning",
    "to_tf_keras",
]
