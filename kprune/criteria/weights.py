"""Criteria that look at the weights alone."""

import numpy as np

from kprune.arguments import check_whole
from kprune.criteria.base import Criterion
from kprune.registry import register


@register("criteria")
class Magnitude(Criterion):
    """Scores a weight by its absolute value: the strong baseline, and the default.

    Example:
    >>> Magnitude()(np.array([[0.5, -2.0]], "float32"))
    array([[0.5, 2. ]], dtype=float32)

    Reference:
        Han et al., "Learning both weights and connections for efficient neural
        networks", NeurIPS 2015.
    """

    elementwise = True

    def __call__(self, weight):
        """Returns `|weight|`."""
        return np.abs(weight)


@register("criteria")
class SquaredMagnitude(Criterion):
    """Scores a weight by its square, so that units are ranked by their L2 norm.

    The score of a unit is the mean of its weights' scores. So a few large weights
    speak louder for a filter than with `Magnitude`, which ranks by the L1 norm.
    Single weights are ranked alike by both.

    Example:
    >>> SquaredMagnitude()(np.array([[0.5, -2.0]], "float32"))
    array([[0.25, 4.  ]])

    Reference:
        Li et al., "Pruning filters for efficient ConvNets", ICLR 2017.
    """

    elementwise = True

    def __call__(self, weight):
        """Returns `weight ** 2`, in float64, where no square overflows."""
        return np.square(weight, dtype="float64")


@register("criteria")
class LayerAdaptive(Criterion):
    """Scores a weight by its share in the energy of those that are not smaller.

    The largest weight of each layer scores 1. Ranked together (`scope="global"`),
    layers are then pruned by how much of each of them is lost, not by how large
    their weights happen to be. Within a layer the order is that of `Magnitude`.

    Example:
    >>> LayerAdaptive()(np.array([[3.0, -1.0], [0.0, 2.0]], "float32"))
    array([[1.        , 0.07142857],
           [0.        , 0.30769231]])

    Reference:
        Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", ICLR
        2021.
    """

    def __call__(self, weight):
        """Returns `w ** 2` divided by the sum of all squares from it upwards."""
        magnitude = np.abs(weight.ravel()).astype("float32", copy=False)
        left = np.flatnonzero(magnitude != 0)  # zeros score 0, wherever they rank
        magnitude = magnitude[left]
        order = _falling(magnitude)
        energy = np.square(magnitude[order], dtype="float64")
        scores = np.zeros(weight.size)
        scores[left[order]] = energy / np.cumsum(energy)
        return scores.reshape(weight.shape)


def _falling(magnitude):
    """Returns the order of some float32 from the largest, of equal ones the first.

    Bits of positive floats are ordered as they are. NumPy has a radix sort for 16 of
    them, and two of those are faster than one sort of all.
    """
    bits = ~magnitude.view("uint32")
    order = np.argsort(bits.astype("uint16"), kind="stable")
    high = (bits >> np.uint32(16)).astype("uint16")
    return order[np.argsort(high[order], kind="stable")]


@register("criteria")
class Random(Criterion):
    """Scores weights at random: what any other criterion must beat.

    The scores of a weight are the same at every update and in every process; they
    follow from the seed, the weight's shape and which of the pruned weights it is.

    Args:
        seed: Int of 0 or more. Defaults to 0.

    Raises:
        ValueError: If `seed` is negative or no whole number.

    Example:
    >>> weight = np.zeros((2, 2), "float32")
    >>> Random(seed=1)(weight, place=0)
    array([[0.75428927, 0.868958  ],
           [0.9001696 , 0.43243307]], dtype=float32)

    Reference:
        Liu et al., "The unreasonable effectiveness of random pruning", ICLR 2022.
    """

    requires = ("place",)

    def __init__(self, seed=0):
        self.seed = check_whole("seed", seed, 0, "a seed")

    def __call__(self, weight, *, place):
        """Returns float32 numbers that are uniform in [0, 1)."""
        entropy = [self.seed, *weight.shape, place]
        return np.random.default_rng(entropy).random(weight.shape, "float32")

    def get_config(self):
        return {"seed": self.seed}
