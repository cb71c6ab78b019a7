"""What every criterion is."""

from kprune.registry import Configurable


class Criterion(Configurable):
    """Base of all criteria: a rule that scores weights, larger means keep.

    A subclass defines `__call__(weight, **evidence)`, which takes a float32
    array and returns a float array of its shape, without changing its input.

    Attributes:
        elementwise: Bool, whether the score of a weight depends on that weight
            alone. Such scores are computed piece by piece, so that no copy of a
            whole kernel's scores is ever held. Defaults to `False`.

    Example:
    >>> import numpy as np
    >>> class SignedSize(Criterion):
    ...     elementwise = True
    ...     def __call__(self, weight):
    ...         return weight
    >>> SignedSize()(np.array([1.0, -3.0], "float32"))
    array([ 1., -3.], dtype=float32)
    """

    elementwise = False

    def __call__(self, weight):
        """Returns the scores of a weight; see the class."""
        raise NotImplementedError(f"{type(self).__name__} defines no `__call__`.")
