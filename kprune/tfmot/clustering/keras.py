"""What TFMOT has in `tfmot.clustering.keras`."""

from kprune.tfmot.clusters import (
    CentroidInitialization,
    ClusterableLayer,
    cluster_scope,
    cluster_weights,
    strip_clustering,
)

__all__ = [
    "CentroidInitialization",
    "ClusterableLayer",
    "cluster_scope",
    "cluster_weights",
    "strip_clustering",
]
