"""Criteria that look at the weights alone."""

import numpy as np

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
        size = weight.size
        magnitude = np.abs(weight.ravel()).astype("float32", copy=False)
        # Bits of positive floats are ordered as they are. With the place below them,
        # one fast sort does, in which of equal weights the first is the largest.
        keys = magnitude.view("uint32").astype("uint64") << np.uint64(32)
        keys |= np.arange(size, dtype="uint64")[::-1]
        keys.sort()
        order = size - 1 - keys.astype("uint32").astype("int64")
        energy = np.square(magnitude[order], dtype="float64")
        remaining = np.cumsum(energy[::-1])[::-1]
        scores = np.empty(size)
        scores[order] = energy / np.maximum(remaining, np.finfo(float).tiny)
        return scores.reshape(weight.shape)


@register("criteria")
class Random(Criterion):
    """Scores weights at random: what any other criterion must beat.

    The scores of a weight are the same at every update and in every process; they
    follow from the seed, the weight's name and its shape.

    Args:
        seed: Int of 0 or more. Defaults to 0.

    Raises:
        ValueError: If `seed` is negative or no int.

    Example:
    >>> weight = np.zeros((2, 2), "float32")
    >>> Random(seed=1)(weight, name="dense/kernel")
    array([[0.1345362 , 0.89474285],
           [0.3820967 , 0.65295315]], dtype=float32)

    Reference:
        Liu et al., "The unreasonable effectiveness of random pruning", ICLR 2022.
    """

    requires = ("name",)

    def __init__(self, seed=0):
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed={seed!r} must be an int of 0 or more.")
        self.seed = seed

    def __call__(self, weight, *, name):
        """Returns float32 numbers that are uniform in [0, 1)."""
        # Spelled out, since Python's own hash differs from process to process.
        entropy = [self.seed, *weight.shape, *name.encode()]
        return np.random.default_rng(entropy).random(weight.shape, "float32")

    def get_config(self):
        return {"seed": self.seed}
