"""Criteria that look at what goes into a layer, and what comes out of it."""

import numpy as np

from kprune.criteria.base import Criterion
from kprune.criteria.units import UnitCriterion
from kprune.registry import register


@register("criteria")
class Wanda(Criterion):
    """Scores a weight by its size times the norm of the inputs that it meets.

    The score is `|w| * ||x||`, the Euclidean norm taken over all calibration
    examples, time steps and positions. Made for pruning without any retraining. The
    paper lets the weights of one output compete with each other: use it with
    `scope="output_wise"`, or with `NofM`, whose groups are of one output anyway.

    Example:
    >>> weight = np.array([[1.0], [-3.0]], "float32")
    >>> Wanda()(weight, input_norm=np.array([[6.0], [1.0]], "float32"))
    array([[6.],
           [3.]], dtype=float32)

    Reference:
        Sun et al., "A simple and effective pruning approach for large language
        models", ICLR 2024.
    """

    requires = ("input_norm",)
    elementwise = True

    def __call__(self, weight, *, input_norm):
        """Returns `|weight| * input_norm`."""
        return np.abs(weight) * input_norm


@register("criteria")
class ActivationMean(UnitCriterion):
    """Scores a channel by the mean of `|activation|` over the calibration data.

    What counts is the output after batch normalization and activation function,
    where these follow the layer and nothing else does.

    Example:
    >>> ActivationMean()(np.ones((1, 2), "float32"), output_mean=np.array([0.5, 2.0]))
    array([[0.5, 2. ]], dtype=float32)

    Reference:
        Molchanov et al., "Pruning convolutional neural networks for resource
        efficient inference", ICLR 2017 (section 2.2, "Activation").
    """

    requires = ("output_mean",)

    def unit_scores(self, weight, *, output_mean):
        return output_mean


@register("criteria")
class ActivationPercentile(UnitCriterion):
    """Scores a channel by a percentile of `|activation|` over the calibration data.

    Unlike the mean, it is not moved by a few large activations, and at a high
    percentile it keeps channels that answer seldom but strongly. Up to 4096
    activations a channel, spread evenly over the data, are looked at.

    Args:
        percentile: Float in [0, 100]. Defaults to 90.

    Raises:
        ValueError: If `percentile` lies outside its range.

    Example:
    >>> sample = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    >>> ActivationPercentile(50)(np.ones((1, 2), "float32"), output_sample=sample)
    array([[2., 1.]], dtype=float32)

    Reference:
        The mean's variant in robust statistics; see `ActivationMean`.
    """

    requires = ("output_sample",)

    def __init__(self, percentile=90.0):
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentile={percentile} must be from 0 to 100.")
        self.percentile = percentile

    def unit_scores(self, weight, *, output_sample):
        return np.percentile(output_sample, self.percentile, axis=0)

    def get_config(self):
        return {"percentile": self.percentile}


@register("criteria", "apoz")
class APoZ(UnitCriterion):
    """Scores a channel by how often it is above zero behind its ReLU.

    The paper removes the channels with the highest average percentage of zeros;
    the score is 1 minus that, the fraction of activations above zero.

    Example:
    >>> APoZ()(np.ones((1, 2), "float32"), output_positive=np.array([0.25, 1.0]))
    array([[0.25, 1.  ]], dtype=float32)

    Reference:
        Hu et al., "Network trimming: a data-driven neuron pruning approach towards
        efficient deep architectures", 2016.
    """

    requires = ("output_positive",)

    def unit_scores(self, weight, *, output_positive):
        return output_positive
