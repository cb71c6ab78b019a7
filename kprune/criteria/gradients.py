"""Criteria that look at gradients of the loss.

`kprune.calibration.gradients` gathers them over the calibration data, and
`kprune.calibration.flow` those of `SynFlow`, which needs no data.
"""

import numpy as np

from kprune.criteria.base import Criterion
from kprune.registry import register


@register("criteria")
class GradientMagnitude(Criterion):
    """Scores a weight by how steeply the loss depends on it, whatever its value.

    Example:
    >>> weight = np.array([2.0, -1.0], "float32")
    >>> GradientMagnitude()(weight, gradient=np.array([-0.5, 3.0], "float32"))
    array([0.5, 3. ], dtype=float32)

    Reference:
        Blalock et al., "What is the state of neural network pruning?", MLSys 2020.
    """

    requires = ("gradient",)
    elementwise = True

    def __call__(self, weight, *, gradient):
        """Returns `|g|` of the mean gradient over the calibration data."""
        return np.abs(gradient)


@register("criteria")
class Taylor(Criterion):
    """Scores a weight by the change of the loss to first order if it were removed.

    The absolute value is taken batch by batch: near a minimum the mean gradient
    vanishes, while those of single batches still tell which weights matter.

    Example:
    >>> weight = np.array([2.0, -1.0], "float32")
    >>> Taylor()(weight, absolute_gradient=np.array([0.5, 3.0], "float32"))
    array([1., 3.], dtype=float32)

    Reference:
        Molchanov et al., "Pruning convolutional neural networks for resource
        efficient inference", ICLR 2017.
    """

    requires = ("absolute_gradient",)
    elementwise = True

    def __call__(self, weight, *, absolute_gradient):
        """Returns the mean of `|w * g|` over the calibration batches."""
        return np.abs(weight) * absolute_gradient


@register("criteria")
class SquaredTaylor(Criterion):
    """Scores a weight by the squared change of the loss if it were removed.

    Like `Taylor`, but single batches in which the weight matters much count more.

    Example:
    >>> weight = np.array([2.0, -1.0], "float32")
    >>> SquaredTaylor()(weight, squared_gradient=np.array([0.25, 9.0], "float32"))
    array([1., 9.], dtype=float32)

    Reference:
        Molchanov et al., "Importance estimation for neural network pruning", CVPR
        2019.
    """

    requires = ("squared_gradient",)
    elementwise = True

    def __call__(self, weight, *, squared_gradient):
        """Returns the mean of `(w * g) ** 2` over the calibration batches."""
        return np.square(weight) * squared_gradient


@register("criteria")
class SNIP(Criterion):
    """Scores a weight by its share in how sensitive the loss is to all weights.

    Made for pruning once, before training: with a schedule whose only update comes
    at step 0. The shares of all weights that are being pruned sum to 1.

    Example:
    >>> weight = np.array([2.0, -1.0], "float32")
    >>> gradient = np.array([-0.5, 3.0], "float32")
    >>> SNIP()(weight, gradient=gradient, total_saliency=4.0)
    array([0.25, 0.75], dtype=float32)

    Reference:
        Lee et al., "SNIP: single-shot network pruning based on connection
        sensitivity", ICLR 2019.
    """

    requires = ("gradient", "total_saliency")
    elementwise = True

    def __call__(self, weight, *, gradient, total_saliency):
        """Returns `|w * g|` divided by its sum over all weights."""
        return np.abs(weight * gradient) / total_saliency


@register("criteria", "grasp")
class GraSP(Criterion):
    """Scores a weight by how much of the gradient's norm would be lost without it.

    Made for pruning once, before training, like `SNIP`. Weights whose removal lets
    the gradient grow have negative scores and go first. (In the paper a score says
    what removal gains, so that its sign is the other one.)

    Example:
    >>> weight = np.array([2.0, -1.0], "float32")
    >>> GraSP()(weight, hessian_gradient=np.array([0.5, 3.0], "float32"))
    array([ 1., -3.], dtype=float32)

    Reference:
        Wang, Zhang and Grosse, "Picking winning tickets before training by
        preserving gradient flow", ICLR 2020.
    """

    requires = ("hessian_gradient",)
    elementwise = True

    def __call__(self, weight, *, hessian_gradient):
        """Returns `w * (H g)`, with the Hessian of the loss and its gradient."""
        return weight * hessian_gradient


@register("criteria", "synflow")
class SynFlow(Criterion):
    """Scores a weight by what flows through it from the inputs to the outputs.

    Needs no data. What flows into a unit flows out of it, so that no layer is lost
    as a whole as long as sparsity rises in many steps: a hundred of them, rising
    exponentially, in the paper.

    Example:
    >>> weight = np.array([2.0, -1.0], "float32")
    >>> SynFlow()(weight, synaptic_flow=np.array([0.5, 3.0], "float32"))
    array([1., 3.], dtype=float32)

    Reference:
        Tanaka et al., "Pruning neural networks without any data by iteratively
        conserving synaptic flow", NeurIPS 2020.
    """

    requires = ("synaptic_flow",)
    elementwise = True

    def __call__(self, weight, *, synaptic_flow):
        """Returns `|w * dR/dw|`; R sums the outputs of ones and absolute weights."""
        return np.abs(weight * synaptic_flow)


@register("criteria")
class Fisher(Criterion):
    """Scores a weight by the change of the loss to second order if it were removed.

    This is optimal brain damage with the diagonal of the empirical Fisher
    information in place of the Hessian's. It counts gradients of single examples,
    each by a pass of its own, and so takes longer than `Taylor`.

    Example:
    >>> weight = np.array([2.0, -1.0], "float32")
    >>> curvature = np.array([0.25, 9.0], "float32")
    >>> Fisher()(weight, example_squared_gradient=curvature)
    array([0.5, 4.5], dtype=float32)

    Reference:
        LeCun, Denker and Solla, "Optimal brain damage", NeurIPS 1989; Theis et al.,
        "Faster gaze prediction with dense networks and Fisher pruning", 2018.
    """

    requires = ("example_squared_gradient",)
    elementwise = True

    def __call__(self, weight, *, example_squared_gradient):
        """Returns `w ** 2 / 2` times the mean of `g ** 2` over the examples."""
        return np.square(weight) / 2 * example_squared_gradient


@register("criteria")
class Movement(Criterion):
    """Scores a weight by how far training has moved it away from zero.

    Made for fine-tuning a pretrained model, where large weights need not be those
    that the new task uses. Movements are summed up while an optimizer trains, and are
    saved with the model. Loading a file without them, such as earlier weights, leaves
    those there are: prune a fresh model to begin anew.

    Example:
    >>> weight = np.array([2.0, -1.0], "float32")
    >>> Movement()(weight, movement=np.array([-0.5, 3.0], "float32"))
    array([-0.5,  3. ], dtype=float32)

    Reference:
        Sanh, Wolf and Rush, "Movement pruning: adaptive sparsity by fine-tuning",
        NeurIPS 2020.
    """

    requires = ("movement",)
    elementwise = True

    def __call__(self, weight, *, movement):
        """Returns the sum of `-w * g` over the training steps so far."""
        return movement
