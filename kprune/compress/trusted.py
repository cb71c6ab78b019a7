"""What the config in an untrusted archive may ask Keras for."""

import functools
import re
import sys

import keras
from keras import saving

from kprune.compress.packing import ArchiveError

_PLAIN = ("__keras_tensor__", "__numpy__", "__tensor__", "__ellipsis__", "__slice__")
_NUMBERS = re.compile(r"(bool|u?int\d+|b?float\d+)")
_KERAS = re.compile(r"keras(\.[a-z][a-z0-9_]*)*")
_KINDS = (
    keras.Operation,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.dtype_policies.DTypePolicy,
    keras.dtype_policies.DTypePolicyMap,
    keras.quantizers.Quantizer,
    keras.random.SeedGenerator,
)
# They run code or read files that the archive could choose.
_REFUSED = ("Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper")
_PATHS = ("vocabulary", "idf_weights", "filepath")
_LARGEST_NUMBER = 1 << 40
# Arguments that say how often something is repeated while the model is made.
_LARGEST = {
    "power_iterations": 100,
    "ngrams": 100,
    "num_bins": 1 << 20,
    "num_oov_indices": 1 << 16,
}
_SHAPES = ("batch_shape", "shape", "build_input_shape", "input_shape", "n")
_LONGEST_UNROLLED = 4096


def resolve(part):
    """Finds the class or function that a serialised object names.

    Nothing is imported for it.

    Args:
        part: Dict with `"class_name"`, `"module"`, `"registered_name"`, `"config"`.

    Returns:
        A class or function of Keras or registered with it, or `None`.

    Example:
    >>> resolve({"module": "keras.layers", "class_name": "Dense"}).__name__
    'Dense'
    >>> resolve({"module": "os", "class_name": "system"}) is None
    True
    """
    module, name = part.get("module"), part["class_name"]
    registered = part.get("registered_name", name)
    if name == "function":
        name = registered = part.get("config")
    if isinstance(registered, str):
        found = saving.get_registered_object(registered)
        if found is not None:
            return found
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    if part["class_name"] == "function":
        return getattr(keras.activations, name, None)
    if not _KERAS.fullmatch(module) or module not in sys.modules:
        return _public(module, name)
    return vars(sys.modules[module]).get(name)


def _public(module, name):
    if not _KERAS.fullmatch(module):
        return None
    steps = [*module.split(".")[1:], name]
    return functools.reduce(lambda x, step: getattr(x, step, None), steps, keras)


def check_config(part, unrolled=None):
    """Checks each object in a config.

    Args:
        part: Nested dicts and lists.
        unrolled: Bool, whether loops are unrolled somewhere in the config.

    Raises:
        ArchiveError: If something is neither a modelling class of Keras nor
            registered with it, or would run code, read a file, or never end.

    Example:
    >>> check_config({"module": "os", "class_name": "system", "config": "ls"})
    Traceback (most recent call last):
    kprune.compress.packing.ArchiveError: The archive asks for 'system' ...
    """
    if unrolled is None:
        unrolled = _mentions_unroll(part)
    if isinstance(part, dict):
        if "class_name" in part:
            _check_object(part)
        for key, value in part.items():
            _check_argument(key, value, unrolled)
            check_config(value, unrolled)
    elif isinstance(part, list):
        for value in part:
            check_config(value, unrolled)
    elif isinstance(part, int) and abs(part) > _LARGEST_NUMBER:
        raise ArchiveError(f"The archive's architecture has the number {part:.3g}.")


def _mentions_unroll(part):
    if isinstance(part, dict):
        return bool(part.get("unroll")) or any(map(_mentions_unroll, part.values()))
    return isinstance(part, list) and any(map(_mentions_unroll, part))


def _check_object(part):
    name = part["class_name"]
    if name in ("__numpy__", "__tensor__"):
        _check_numbers(part)
    if isinstance(name, str) and name in _PLAIN:
        return
    found = resolve(part) if isinstance(name, str) else None
    if isinstance(part.get("config"), str) and name == "function" and found:
        return
    if found is None:
        raise ArchiveError(
            f"The archive asks for {name!r} of module {part.get('module')!r}, which is "
            "neither a layer of Keras nor registered with it. If it is a class of "
            "yours, import it first, with @keras.saving.register_keras_serializable() "
            "above it. No module is imported because an archive says so."
        )
    ours = saving.get_registered_name(found) != found.__name__
    is_known = isinstance(found, type) and issubclass(found, _KINDS)
    if found.__name__ in _REFUSED or not (ours or is_known):
        raise ArchiveError(
            f"The archive asks for {name!r} of module {part.get('module')!r}. Archives "
            "hold models of layers, without code (no Lambda) and without what reads "
            "other files. Write such a step as a registered layer of your own."
        )


def _check_numbers(part):
    config = part.get("config")
    dtype = config.get("dtype") if isinstance(config, dict) else None
    if not isinstance(dtype, str) or not _NUMBERS.fullmatch(dtype):
        raise ArchiveError(f"The archive holds a constant of the type {dtype!r}.")


def _mentions_tensor(part):
    if isinstance(part, dict):
        if part.get("class_name") == "__keras_tensor__":
            return True
        return any(map(_mentions_tensor, part.values()))
    return isinstance(part, list) and any(map(_mentions_tensor, part))


def _check_argument(key, value, unrolled):
    if key == "inbound_nodes" and not all(map(_mentions_tensor, value or ())):
        # Keras would run it at once, before any size is known.
        raise ArchiveError("The archive calls a layer on constants alone.")
    if key in _PATHS and isinstance(value, str):
        raise ArchiveError(
            f"The archive asks to read the file {value!r} as {key}. Save the model "
            "with a list in its place."
        )
    limit = _LARGEST.get(key)
    if unrolled and key in _SHAPES:
        limit = _LONGEST_UNROLLED
    numbers = value if isinstance(value, list) else [value]
    if limit and any(isinstance(x, (int, float)) and x > limit for x in numbers):
        raise ArchiveError(
            f"The archive has {key}={value!r}, at most {limit} is taken."
        )
