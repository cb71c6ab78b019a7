"""Models made from configs that need not be trusted.

A model is built without allocating its weights, so that their sizes can be checked
first, and no time is spent on initial values that nobody sees.
"""

import contextlib

import keras
from keras import saving
from keras.src.backend.common import global_state

from kprune.compress.packing import ArchiveError


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
        ):
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
