"""What every criterion is."""

from kprune.registry import Configurable


class Criterion(Configurable):
    """Base of all criteria: a rule that scores weights, larger means keep.

    A subclass defines `__call__(weight, **evidence)`. It takes a float32 array in
    the layout `(..., inputs, outputs)`, and by keyword each piece of evidence that
    it has named in `requires`; it returns a float array of the weight's shape, and
    changes none of its inputs.

    Evidence that `kprune.calibration` gathers over the calibration data, each an
    array of the weight's shape unless said otherwise, all of the loss:

    | kind | what it is |
    | --- | --- |
    | `"gradient"` | mean gradient `g` |
    | `"absolute_gradient"` | mean of `abs(g)` over batches |
    | `"squared_gradient"` | mean of `g ** 2` over batches |
    | `"example_squared_gradient"` | mean of `g ** 2` over single examples |
    | `"hessian_gradient"` | Hessian times mean gradient, in a second pass |
    | `"total_saliency"` | float, the sum of `abs(w * g)` over all pruned weights |

    Without data there are `"name"`, what a weight is called, and `"place"`, which
    of the weights it is, an int from 0 on; `"synaptic_flow"`, the derivative of
    `SynFlow`; `"movement"`, the sum of `-w * g` over the training steps so far.

    Attributes:
        requires: Tuple of strings, the evidence that it needs beside the weight:
            these kinds, those of activations, and what a function under
            `kprune.calibration.gathers` adds. Defaults to none.
        elementwise: Bool, whether the score of a weight depends on that weight and
            on the evidence at its place alone. Such scores are computed piece by
            piece, so that no copy of a whole kernel's scores is ever held. Defaults
            to `False`.
        axis: Int or `None`. A criterion that scores whole units of a layer gives
            the same score to all that lies at one place of this axis, so that it
            has a meaning with granularities of that axis only. Defaults to `None`.

    Example:
    >>> import numpy as np
    >>> from kprune import register
    >>> @register("criteria")
    ... class AwayFromZero(Criterion):
    ...     requires = ("gradient",)
    ...     elementwise = True
    ...     def __call__(self, weight, *, gradient):
    ...         return -weight * gradient
    >>> AwayFromZero()(np.array([1.0, -3.0]), gradient=np.array([0.5, 0.5]))
    array([-0.5,  1.5])
    """

    requires = ()
    elementwise = False
    axis = None

    def __call__(self, weight):
        """Returns the scores of a weight; see the class."""
        raise NotImplementedError(f"{type(self).__name__} defines no `__call__`.")
