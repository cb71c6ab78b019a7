"""Criteria: how a weight is scored. Larger scores stay."""

from kprune.criteria.activations import (
    ActivationMean,
    ActivationPercentile,
    APoZ,
    Wanda,
)
from kprune.criteria.base import Criterion
from kprune.criteria.gradients import (
    SNIP,
    Fisher,
    GradientMagnitude,
    GraSP,
    Movement,
    SquaredTaylor,
    SynFlow,
    Taylor,
)
from kprune.criteria.units import BatchNormScale, GeometricMedian, UnitCriterion
from kprune.criteria.weights import (
    LayerAdaptive,
    Magnitude,
    Random,
    SquaredMagnitude,
)

__all__ = [
    "APoZ",
    "ActivationMean",
    "ActivationPercentile",
    "BatchNormScale",
    "Criterion",
    "Fisher",
    "GeometricMedian",
    "GraSP",
    "GradientMagnitude",
    "LayerAdaptive",
    "Magnitude",
    "Movement",
    "Random",
    "SNIP",
    "SquaredMagnitude",
    "SquaredTaylor",
    "SynFlow",
    "Taylor",
    "UnitCriterion",
    "Wanda",
]
