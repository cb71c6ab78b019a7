"""Which layers of a model are pruned: TFMOT's policies."""

import abc

import keras

from kprune.targets import check_xnnpack


class PruningPolicy(abc.ABC):
    """Base of the policies, to be derived from.

    Example:
    >>> class OnlyDense(PruningPolicy):
    ...     def allow_pruning(self, layer):
    ...         return isinstance(layer, keras.layers.Dense)
    ...     def ensure_model_supports_pruning(self, model):
    ...         pass
    >>> OnlyDense().allow_pruning(keras.layers.Conv2D(4, 3))
    False
    """

    @abc.abstractmethod
    def allow_pruning(self, layer):
        """Tells whether a layer, which is no model, is pruned; a bool."""

    @abc.abstractmethod
    def ensure_model_supports_pruning(self, model):
        """Raises a `ValueError` if the model is not of the kind that is meant."""


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prunes the 1x1 convolutions of models that XNNPACK runs with sparse kernels.

    The conditions are those of `kprune.check_xnnpack`, which lists what stands in the
    way and how to change it. They are stricter than TFMOT's, which looks no further
    than from the padded stem to the first `GlobalAveragePooling2D`: no layer may take
    the 4-D output of that pool (such as a `Conv2D` behind `keepdims=True`), and none
    outside may read what lies in between, nor may the model return it.

    Example:
    >>> policy = PruneForLatencyOnXNNPack()
    >>> layers = keras.layers.Conv2D(4, 1), keras.layers.Conv2D(4, 3)
    >>> [policy.allow_pruning(layer) for layer in layers]
    [True, False]
    """

    def allow_pruning(self, layer):
        """Tells whether a layer is a 1x1 `Conv2D`."""
        is_conv = isinstance(layer, keras.layers.Conv2D)
        return is_conv and tuple(layer.kernel_size) == (1, 1)

    def ensure_model_supports_pruning(self, model):
        """Raises a `ValueError` with all that keeps XNNPACK from its sparse kernels.

        Args:
            model: A built Functional or Sequential model.
        """
        check = check_xnnpack(model)
        if check.obstacles:
            raise ValueError(
                "PruneForLatencyOnXNNPack prunes models that XNNPACK runs with sparse "
                f"kernels.\n{check}"
            )
