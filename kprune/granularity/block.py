"""Blocks of a kernel's inputs and outputs."""

from kprune.granularity.tiles import Tiled
from kprune.registry import register


@register("granularities")
class Block(Tiled):
    """Rectangles of neighbouring inputs (rows) and outputs (columns).

    Devices that run sparse kernels read several weights at a time. On `Dense`,
    `Block(4, 1)` is the shape that TensorFlow Lite stores and computes as sparse for
    float weights, and `Block(16, 1)` the one for int8: a run of inputs of one output.

    A convolution's kernel is tiled at each of its places by itself, as if it were the
    1x1 convolution of that place: a block holds neighbouring channels, which
    lie side by side in the memory of the device, never neighbouring pixels.
    Depthwise kernels have one input a channel, so that only `columns` counts there.

    Blocks begin at input 0 and output 0. Where a size does not divide, the blocks at
    the far edge are smaller, and count as the fewer zeros that they are.

    Args:
        rows: Int of 1 or more, how many inputs. Defaults to 4.
        columns: Int of 1 or more, how many outputs. Defaults to 1.
        pooling: `"mean"` or `"max"`, whether a block's score is the mean over its own
            weights or that of the best of them. Defaults to `"mean"`.

    Raises:
        ValueError: If an argument is none of these.

    Example:
    >>> import kprune, numpy as np
    >>> scores = np.array([[1.0, 5.0], [1.0, 1.0], [9.0, 2.0], [0.0, 0.0]])
    >>> kprune.compute_mask(scores, 0.5, granularity=Block(2, 1))
    array([[False,  True],
           [False,  True],
           [ True, False],
           [ True, False]])

    Reference:
        Narang, Undersander and Diamos, "Block-sparse recurrent neural networks",
        2017.
    """

    def __init__(self, rows=4, columns=1, *, pooling="mean"):
        for name, value in (("rows", rows), ("columns", columns)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name}={value!r} must be an int of 1 or more.")
        self.rows = rows
        self.columns = columns
        if pooling not in ("mean", "max"):
            raise ValueError(f"pooling={pooling!r} must be 'mean' or 'max'.")
        self.pooling = pooling

    def tile(self, shape):
        """Returns `(1, ..., 1, rows, columns)`."""
        return (*(1 for _ in shape[2:]), self.rows, self.columns)

    def get_config(self):
        return {"rows": self.rows, "columns": self.columns, "pooling": self.pooling}
