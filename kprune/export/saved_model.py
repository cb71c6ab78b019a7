"""The SavedModel format: a folder that TensorFlow and TensorFlow Serving load."""

import tensorflow as tf
from tensorflow import saved_model

from kprune.export.base import ExportError, Format, quiet
from kprune.registry import register


@register("formats")
class SavedModel(Format):
    """A SavedModel that holds each weight once and nothing of training.

    For TensorFlow Serving, or a Python process that has TensorFlow and neither
    Keras code of yours nor kprune. The signature `serving_default` has named
    inputs and outputs and takes any batch size; `loaded.serve(x)` takes and
    returns what the Keras model does. Lookup tables of preprocessing layers
    are part of the file.

    Args:
        tolerance: Float above 0 or `None`, see `kprune.export.Format`.

    Example:
    >>> import keras, kprune, tempfile
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = kprune.export(model, folder, [kprune.SavedModel()])
    ...     loaded = tf.saved_model.load(folder + "/saved_model")
    ...     loaded.serve(tf.ones((4, 3))).shape
    TensorShape([4, 2])
    """

    file = "saved_model"

    def write(self, forward, path):
        """Writes the folder; see `Format.write`."""
        module, signature = forward.module()
        options = saved_model.SaveOptions(experimental_custom_gradients=False)
        with quiet():
            try:
                saved_model.save(module, path, signature, options)
            except AssertionError as error:
                raise ExportError(
                    f"Model {forward.model.name!r} reads a TensorFlow resource that is "
                    "no variable and no lookup table held as an attribute of a layer, "
                    "so a SavedModel would not contain it. Make it an attribute of "
                    f"its layer. TensorFlow says: {error}"
                ) from error
        return []

    def load(self, path):
        """Loads the folder with `tf.saved_model.load`; see `Format.load`."""
        with quiet():
            loaded = saved_model.load(path)
        signature = loaded.signatures["serving_default"]

        def run(inputs):
            tensors = {name: tf.constant(x) for name, x in inputs.items()}
            # `loaded` owns the variables and has to live as long as `run`.
            outputs = loaded.signatures["serving_default"](**tensors)
            return {name: x.numpy() for name, x in outputs.items()}

        specs = signature.structured_input_signature[1].values()
        return run, next(iter(specs)).shape[0]
