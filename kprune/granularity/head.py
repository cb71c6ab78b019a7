"""Whole heads of an attention layer."""

from kprune.granularity.base import Granularity
from kprune.granularity.tiles import tiled
from kprune.registry import register


@register("granularities")
class AttentionHead(Granularity):
    """The heads of `MultiHeadAttention` and `GroupQueryAttention`.

    A head is its part of the query, key, value and output kernels, which are chosen
    together: its score is the mean over its weights in all of them. Where several
    query heads share a key and a value, a unit is these with all their queries.
    Masks leave biases alone; without its output kernel a head adds nothing, so that
    `kprune.shrink(model)` takes it out, biases and all, and changes no output by it.

    Layers without heads are refused: prune attention layers by themselves with
    `kprune.prune(model, only=keras.layers.MultiHeadAttention, ...)`. A layer of your
    own takes part by a rule in `kprune.register("attention_heads", YourLayer)`.

    Example:
    >>> import numpy as np
    >>> from kprune.granularity import Tie
    >>> kernel = np.array([[1.0, 2.0, 5.0, 6.0], [1.0, 2.0, 5.0, 6.0]])
    >>> units = AttentionHead().units(kernel, tie=Tie("query", axis=-1, number=2))
    >>> units.scores
    array([1.5, 5.5])

    Reference:
        Michel, Levy and Neubig, "Are sixteen heads really better than one?",
        NeurIPS 2019.
    """

    tied_by = "attention_heads"

    def units(self, scores, mask=None, tie=None):
        """Returns the heads in their order."""
        if tie is None:
            raise ValueError(
                f"A weight of shape {scores.shape} is no part of an attention layer's "
                "heads. Give `compute_masks` its `Tie`, or take another granularity."
            )
        tile = list(scores.shape)
        tile[tie.axis] //= tie.number
        return tiled(scores, tile)
