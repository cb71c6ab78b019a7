"""Whole channels of a kernel, and the lines and slices that they are made of."""

import dataclasses

import numpy as np

from kprune.granularity.base import check_axis
from kprune.granularity.tiles import Tiled
from kprune.registry import register


@register("granularities")
class Channel(Tiled):
    """All weights of an output channel: a filter of a convolution, a unit of `Dense`.

    In an `LSTM` or a `GRU`, a channel is a unit with all its gates. In attention it is
    a place within the heads, in all of them at once: of queries and keys, or of values,
    and of all three in `GroupQueryAttention`. Where heads have one place each, it is a
    head; elsewhere the granularity `"attention_head"` masks these.

    Output channels are coupled where the model is a graph, Functional or Sequential:
    those that are added to each other, or hang together in other ways, stay or go
    together, in all kernels that make them. With a channel goes all that makes it
    felt: biases, scales and offsets of normalizations, depthwise filters, and the
    weights by which later layers take it up, also of layers that are left dense as to
    their own channels. So `kprune.shrink(model)` can take out what the masks have
    hidden, and changes no output by it. Channels that can't be taken out stay; so does
    at least one of every layer, as long as others can go. A channel that is gone does
    not come back: nothing of it would learn again.

    Sparsity is that of the kernels' own channels. What goes with them elsewhere is not
    counted, and not ranked.

    A unit's score is the mean over its weights, in all kernels where it is coupled, so
    that units of different sizes can be ranked together.

    Args:
        axis: Int, -1 for output channels, -2 for input channels. Defaults to -1.
        coupled: Bool, whether channels go together with all that hangs on them. With
            `False`, each kernel loses channels of its own, of the kernel alone, as it
            always does in subclassed models, for input channels, in layers wrapped by
            hand and in layers without a channel rule. Defaults to `True`.

    Raises:
        ValueError: If `axis` is another number.

    Example:
    >>> import numpy as np
    >>> units = Channel().units(np.array([[1.0, 5.0], [3.0, 7.0]]))
    >>> units.scores
    array([2., 6.])
    >>> units.expand(np.array([False, True]))
    array([[False,  True],
           [False,  True]])

    Reference:
        Li et al., "Pruning filters for efficient ConvNets", ICLR 2017.
    """

    def __init__(self, axis=-1, coupled=True):
        self.axis = self.channel_axis = check_axis(axis)
        self.coupled = bool(coupled) and axis == -1

    def tile(self, shape):
        """Returns all of the shape, but one place of the axis."""
        tile = list(shape)
        tile[self.axis] = 1
        return tile

    def units(self, scores, mask=None, tie=None):
        """Returns the channels in their order, or those that a `Tie` makes of them."""
        places = super().units(scores, mask)
        if tie is None or tie.units is None:
            return places
        return _gathered(places, tie)

    def get_config(self):
        return {"axis": self.axis, "coupled": self.coupled}


def _gathered(places, tie):
    """Returns units made of several places each, of some of them of none."""
    is_part = tie.units >= 0
    owner = tie.units[is_part]
    counts = np.bincount(owner, minlength=tie.number)
    sums = np.bincount(owner, places.scores[is_part], tie.number)

    def expand(keep):
        return places.expand(~is_part | (keep | tie.stays)[tie.units])

    def collapse(mask):
        kept = places.collapse(mask)
        return np.bincount(tie.units[is_part & kept], minlength=tie.number) > 0

    return dataclasses.replace(
        places,
        scores=sums / np.maximum(counts, 1),
        expand=expand,
        sizes=counts * places.sizes,
        collapse=collapse,
    )


@register("granularities")
class Vector(Tiled):
    """A line of weights: all inputs of one output, or all outputs of one input.

    Between blocks and channels: in a convolution each place of the kernel has
    lines of its own. In `Dense` they are the channels.

    Args:
        axis: Int, the axis that the line runs along: -2 for all inputs of one output
            (a column of the matrix), -1 for all outputs of one input (a row).
            Defaults to -2.

    Raises:
        ValueError: If `axis` is another number.

    Example:
    >>> import kprune, numpy as np
    >>> scores = np.array([[1.0, 5.0], [3.0, 7.0]])
    >>> kprune.compute_mask(scores, 0.5, granularity=Vector(axis=-1))
    array([[False, False],
           [ True,  True]])

    Reference:
        Mao et al., "Exploring the granularity of sparsity in convolutional neural
        networks", CVPR workshops 2017.
    """

    def __init__(self, axis=-2):
        self.axis = check_axis(axis)

    def tile(self, shape):
        """Returns the whole length of the line, and 1 elsewhere."""
        tile = [1] * len(shape)
        tile[self.axis] = shape[self.axis]
        return tile

    def get_config(self):
        return {"axis": self.axis}


@register("granularities")
class Kernel(Tiled):
    """The filter of one input and one output: a 2-D slice of a convolution's kernel.

    Connects fewer pairs of channels. Where there is one weight a pair, as in `Dense`
    and 1x1 convolutions, this removes single weights.

    Example:
    >>> import kprune, numpy as np
    >>> scores = np.array([[3.0, 1.0], [3.0, 2.0]]).reshape(2, 1, 1, 2)
    >>> mask = kprune.compute_mask(scores, 0.5, granularity=Kernel())
    >>> mask.reshape(2, 2)
    array([[ True, False],
           [ True, False]])

    Reference:
        Mao et al., "Exploring the granularity of sparsity in convolutional neural
        networks", CVPR workshops 2017.
    """

    def tile(self, shape):
        """Returns all places of the kernel, for one input and one output."""
        return (*shape[:-2], 1, 1)
