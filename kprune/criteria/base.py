"""What every criterion is."""

from kprune.registry import Configurable


class Criterion(Configurable):
    """Base of all criteria: a rule that scores weights, larger means keep.

    A subclass defines `__call__(weight, **evidence)`. It takes a float32 array in
    the layout `(..., inputs, outputs)`, and by keyword each piece of evidence that
    it has named in `requires`; it returns a float array of the weight's shape, and
    changes none of its inputs.

    Attributes:
        requires: Tuple of strings, the evidence that it needs beside the weight:
            `"name"` (a string that tells weights apart), and what
            `kprune.calibration` gathers. Defaults to none.
        elementwise: Bool, whether the score of a weight depends on that weight and
            on the evidence at its place alone. Such scores are computed piece by
            piece, so that no copy of a whole kernel's scores is ever held. Defaults
            to `False`.
        axis: Int or `None`. A criterion that scores whole units of a layer gives
            the same score to all that lies at one place of this axis, so that it
            has a meaning with granularities of that axis only. Defaults to `None`.

    Example:
    >>> import numpy as np
    >>> class SignedSize(Criterion):
    ...     elementwise = True
    ...     def __call__(self, weight):
    ...         return weight
    >>> SignedSize()(np.array([1.0, -3.0], "float32"))
    array([ 1., -3.], dtype=float32)
    """

    requires = ()
    elementwise = False
    axis = None

    def __call__(self, weight):
        """Returns the scores of a weight; see the class."""
        raise NotImplementedError(f"{type(self).__name__} defines no `__call__`.")
