"""Models made from configs that need not be trusted.

A model is built without allocating its weights, so that their sizes can be checked
first, and no time is spent on initial values that nobody sees.
"""

import contextlib

import keras
from keras import saving
from keras.src.backend.common import global_state
from keras.src.saving.serialization_lib import ObjectSharingScope

from kprune.compress.packing import ArchiveError
from kprune.compress.trusted import resolve


@contextlib.contextmanager
def standard_defaults():
    """Lets layers take the defaults of a fresh Keras, whatever the user has set.

    Example:
    >>> with standard_defaults():
    ...     keras.layers.Dense(2).dtype_policy.name
    'float32'
    """
    settings = (
        (keras.config.dtype_policy, keras.config.set_dtype_policy, "float32"),
        (keras.config.floatx, keras.config.set_floatx, "float32"),
        (
            keras.config.image_data_format,
            keras.config.set_image_data_format,
            "channels_last",
        ),
    )
    with contextlib.ExitStack() as stack:
        for get, put, value in settings:
            stack.callback(put, get())
            put(value)
        yield


class _CalledOnce(keras.Sequential):
    """How a Sequential is made from its config: its layers are called once.

    Keras calls all of them anew for each that is added, so that the time grows with
    the square of their number.
    """

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Returns a plain `keras.Sequential`."""
        layers = [
            saving.deserialize_keras_object(layer, custom_objects)
            for layer in config["layers"]
        ]
        model = keras.Sequential(layers, name=config["name"])
        if not model.built and config.get("build_input_shape"):
            model.build(config["build_input_shape"])
        return model


_SEQUENTIAL = "kprune>CalledOnce"


def _with_quick_sequentials(part):
    if isinstance(part, list):
        return [_with_quick_sequentials(value) for value in part]
    if not isinstance(part, dict):
        return part
    part = {key: _with_quick_sequentials(value) for key, value in part.items()}
    if "class_name" in part and resolve(part) is keras.Sequential:
        part["registered_name"] = _SEQUENTIAL
    return part


def build(config):
    """Makes a model from a config, without its weights.

    Args:
        config: From `unpack_config`.

    Returns:
        A model whose variables have a shape and a type, but no value and no memory
        yet: `give_values` has to follow.

    Raises:
        ArchiveError: If Keras cannot make it.
    """
    waiting = global_state.get_global_attribute("uninitialized_variables") or []
    global_state.set_global_attribute("uninitialized_variables", [])
    try:
        with (
            standard_defaults(),
            keras.StatelessScope(initialize_variables=False),
            saving.custom_object_scope({_SEQUENTIAL: _CalledOnce}),
            ObjectSharingScope(),
        ):
            config = _with_quick_sequentials(config)
            model = saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:
        raise ArchiveError(
            f"Keras {keras.__version__} cannot make the model of this archive: "
            f"{str(error)[:500]}"
        ) from error
    finally:
        # What an archive asks for is never allocated just because somebody else
        # leaves a scope; so the list is as it was.
        global_state.set_global_attribute("uninitialized_variables", waiting)
    if not isinstance(model, keras.Model):
        raise ArchiveError(f"The archive holds no model, but a {type(model).__name__}.")
    return model


def give_values(model, arrays):
    """Lets the variables of a model that `build` has made come into being.

    Args:
        model: The model. It is changed.
        arrays: List of NumPy arrays, the values of `model.weights`.
    """
    for variable, array in zip(model.weights, arrays, strict=True):
        variable._initializer = _constant(array)
    for variable in model.variables:
        if variable._value is None:
            variable._deferred_initialize()
    for layer in model._flatten_layers():
        if hasattr(layer, "finalize_state"):  # Some values are derived from weights.
            values = {}
            layer.save_own_variables(values)
            layer.load_own_variables(values)


def _constant(array):
    return lambda shape, dtype=None: keras.ops.convert_to_tensor(array, dtype)
