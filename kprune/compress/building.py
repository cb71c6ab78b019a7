"""Models made from configs that need not be trusted.

A model is built without allocating its weights, so that their sizes can be checked
first, and no time is spent on initial values that nobody sees.
"""

import contextlib
import math
import sys
import traceback

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


def _bounded_normalization(largest):
    """Returns how each `Normalization` is made from its config.

    Keras makes mean and variance, of all axes that are kept, while it builds one:
    together they shall have no more than `largest` values.
    """
    total = 0

    class Bounded(keras.layers.Normalization):
        @classmethod
        def from_config(cls, config, custom_objects=None):
            """Returns a plain `Normalization` whose `build` looks at the size first."""
            layer = keras.layers.Normalization.from_config(config)
            plain_build = layer.build

            def build(input_shape):
                nonlocal total
                total += math.prod(input_shape[axis] or 1 for axis in layer.axis)
                if total > largest:
                    raise ArchiveError(
                        f"The archive normalizes {total:,} values, at most {largest:,} "
                        "are taken. If you trust it, pass a larger max_bytes."
                    )
                layer.build = plain_build
                plain_build(input_shape)

            layer.build = build
            return layer

    return Bounded


_STAND_INS = {
    keras.Sequential: "kprune>CalledOnce",
    keras.layers.Normalization: "kprune>BoundedNormalization",
}
_MOST_NORMALIZED = 1 << 22


def _with_stand_ins(part):
    if isinstance(part, list):
        return [_with_stand_ins(value) for value in part]
    if not isinstance(part, dict):
        return part
    part = {key: _with_stand_ins(value) for key, value in part.items()}
    found = resolve(part) if "class_name" in part else None
    if isinstance(found, type) and found in _STAND_INS:
        part["registered_name"] = _STAND_INS[found]
    return part


def build(config, largest=0):
    """Makes a model from a config, without its weights.

    Args:
        config: From `unpack_config`.
        largest: Int, how many values may be normalized if these are more than four
            million. Defaults to 0.

    Returns:
        A model whose variables have a shape and a type, but no value and no memory
        yet: `give_values` has to follow.

    Raises:
        ArchiveError: If Keras cannot make it.
    """
    normalization = _bounded_normalization(max(_MOST_NORMALIZED, largest))
    stand_ins = {
        _STAND_INS[keras.Sequential]: _CalledOnce,
        _STAND_INS[keras.layers.Normalization]: normalization,
    }
    handled = sys.exc_info()[1]
    waiting = global_state.get_global_attribute("uninitialized_variables") or []
    global_state.set_global_attribute("uninitialized_variables", [])
    try:
        with (
            standard_defaults(),
            keras.StatelessScope(initialize_variables=False),
            saving.custom_object_scope(stand_ins),
            ObjectSharingScope(),
        ):
            config = _with_stand_ins(config)
            model = saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:
        raise _explained(error, handled) from error
    finally:
        # What an archive asks for is never allocated just because somebody else
        # leaves a scope; so the list is as it was.
        global_state.set_global_attribute("uninitialized_variables", waiting)
    if not isinstance(model, keras.Model):
        raise ArchiveError(f"The archive holds no model, but a {type(model).__name__}.")
    return model


def _explained(error, handled):
    """Returns the `ArchiveError` that says why Keras cannot make a model.

    Args:
        error: What Keras raised, because of another error maybe.
        handled: The error that the caller was handling before, or `None`.
    """
    first = error
    while (before := first.__cause__ or first.__context__) not in (None, handled):
        first = before
    if isinstance(first, ArchiveError):
        return first
    reason = str(error)[:500]
    if "create a variable while in a stateless scope" in str(first):
        frames = (frame for frame, _ in traceback.walk_tb(first.__traceback__))
        makers = [type(frame.f_locals.get("self")) for frame in frames]
        layers = [kind.__name__ for kind in makers if issubclass(kind, keras.Layer)]
        reason = (
            f"the class {layers[-1] if layers else 'of a layer'} makes a variable from "
            "a value, so that its size could not be checked first. Make it with "
            "`self.add_weight(shape, initializer)`."
        )
    return ArchiveError(
        f"Keras {keras.__version__} cannot make the model of this archive: {reason}"
    )


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
