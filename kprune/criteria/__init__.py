"""Criteria: how a weight is scored. Larger scores stay."""

from kprune.criteria.activations import (
    ActivationMean,
    ActivationPercentile,
    APoZ,
    Wanda,
)
from kprune.criteria.base import Criterion
from kprune.criteria.units import BatchNormScale, GeometricMedian, UnitCriterion
from kprune.criteria.weights import Magnitude

__all__ = [
    "APoZ",
    "ActivationMean",
    "ActivationPercentile",
    "BatchNormScale",
    "Criterion",
    "GeometricMedian",
    "Magnitude",
    "UnitCriterion",
    "Wanda",
]
