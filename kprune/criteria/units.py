"""Criteria that score whole output channels, by their filters or what they answer.

They go with granularities that remove output channels as a whole.
"""

import numpy as np

from kprune.criteria.base import Criterion
from kprune.registry import register


class UnitCriterion(Criterion):
    """Base of criteria that score the output channels of a layer.

    A subclass defines `unit_scores(weight, **evidence)`, which returns one score an
    output channel; all weights of a channel have it.
    """

    axis = -1

    def __call__(self, weight, **evidence):
        """Returns the score of its channel for each weight."""
        scores = np.asarray(self.unit_scores(weight, **evidence), "float32")
        return np.broadcast_to(scores, weight.shape)

    def unit_scores(self, weight):
        """Returns the scores of the output channels; see the class."""
        raise NotImplementedError(f"{type(self).__name__} defines no `unit_scores`.")


@register("criteria")
class GeometricMedian(UnitCriterion):
    """FPGM: scores a filter by its distances to all filters of its layer.

    The filter nearest to the geometric median of all can be replaced best by the
    others, however large it is. The score is the sum of the Euclidean distances.

    Example:
    >>> kernel = np.array([[0.0, 1.0, 5.0]], "float32")
    >>> GeometricMedian()(kernel)
    array([[6., 5., 9.]], dtype=float32)

    Reference:
        He et al., "Filter pruning via geometric median for deep convolutional
        neural networks acceleration", CVPR 2019.
    """

    def unit_scores(self, weight):
        filters = weight.reshape(-1, weight.shape[-1]).astype("float64")
        squares = np.square(filters).sum(axis=0)
        products = filters.T @ filters
        distances = squares[:, None] + squares - 2 * products
        return np.sqrt(np.maximum(distances, 0)).sum(axis=0)


@register("criteria")
class BatchNormScale(UnitCriterion):
    """Network slimming: scores a channel by `|gamma|` of the normalization behind it.

    Train with an L1 penalty on `gamma` beforehand
    (`BatchNormalization(gamma_regularizer="l1")`), so that the scales of channels
    that are not needed become small.

    Example:
    >>> BatchNormScale()(np.ones((1, 2), "float32"), batch_norm_scale=np.array([3, -1]))
    array([[3., 1.]], dtype=float32)

    Reference:
        Liu et al., "Learning efficient convolutional networks through network
        slimming", ICCV 2017.
    """

    requires = ("batch_norm_scale",)

    def unit_scores(self, weight, *, batch_norm_scale):
        return np.abs(batch_norm_scale)
