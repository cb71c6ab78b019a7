"""`DelegatingWrapper`: what stands in a layer's place and looks like that layer."""

import inspect

import keras

from kprune.mask_store import serialize_shared


class DelegatingWrapper(keras.layers.Wrapper):
    """Stands where a layer stood, under its name, and asks it what it does not know.

    Attributes of the layer (`units`, `kernel`) are read and set through it. A
    subclass says in `call_layer` what is computed and in `call_signature` how it is
    called.

    Args:
        layer: The Keras layer to wrap, built or not. It is not copied.
        **kwargs: What every Keras layer takes; defaults are the layer's own.

    Attributes:
        layer: The wrapped layer.

    Raises:
        ValueError: If Keras runs on another backend than TensorFlow.

    Example:
    >>> class Doubled(DelegatingWrapper):
    ...     def call_layer(self, inputs):
    ...         return 2 * self.layer(inputs)
    >>> doubled = Doubled(keras.layers.Rescaling(3.0, name="scale"))
    >>> doubled.name, doubled.scale, float(doubled(keras.ops.ones(())))
    ('scale', 3.0, 6.0)
    """

    def __init__(self, layer, **kwargs):
        check_backend()

        # Keras reads argument names (`training`, `mask`, `query`) off the signature,
        # so the call of this instance carries one of its own.
        def call(*args, **kwargs):
            return self.call_layer(*args, **kwargs)

        call.__signature__ = self.call_signature(layer)
        self.call = call
        kwargs = {
            "name": layer.name,
            "trainable": layer.trainable,
            "dtype": layer.dtype_policy,
            **kwargs,
        }
        super().__init__(layer, **kwargs)

    def call_signature(self, layer):
        """Returns the `inspect.Signature` of `call`; the layer's own."""
        return inspect.signature(layer.call)

    @property
    def trainable(self):
        """Whether the wrapped layer is trained; setting it freezes that layer."""
        return self.layer.trainable

    @trainable.setter
    def trainable(self, value):
        keras.Layer.trainable.fset(self, value)

    @property
    def supports_masking(self):
        """Whether the layer passes Keras masks (of time steps) on."""
        return self.layer.supports_masking

    def __setattr__(self, name, value):
        # What can be read through the wrapper is set through it, too.
        own = name.startswith("_") or name in vars(self) or hasattr(type(self), name)
        if own or "layer" not in vars(self) or not hasattr(self.layer, name):
            super().__setattr__(name, value)
        else:
            setattr(self.layer, name, value)

    def __getattr__(self, name):
        if name.startswith("_") or name == "layer":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.layer, name)

    def _open_name_scope(self):
        # Keras enters a layer's scope once, so that the paths of the weights, which
        # optimizers and maps of dtype policies look at, are those of the layer.
        return self.layer._open_name_scope()

    def compute_mask(self, inputs, previous_mask):
        """Returns the Keras mask (of time steps) that the layer passes on."""
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self):
        """Returns the configs of the layer and of what every Keras layer has."""
        return {**super().get_config(), "layer": serialize_shared(self.layer)}


def check_backend():
    """Raises a `ValueError` if Keras runs on another backend than TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras runs on the {keras.backend.backend()!r} backend; kprune needs "
            "TensorFlow. Set KERAS_BACKEND=tensorflow before Keras is imported."
        )
