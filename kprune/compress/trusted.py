"""What the config in an untrusted archive may ask Keras for."""

import functools
import math
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
_LARGEST_NUMBER = 1 << 64
_MOST_LAYERS = 10_000
_MOST_VISITS = 200_000
_MOST_ROUNDS = 4096
# Whole numbers under these names are no sizes.
_VALUES = ("seed", "value", "vocabulary", "mask_value", "mask_token", "mean")
_VALUES += ("variance", "bin_boundaries", "max_value", "scale", "offset", "value_range")
# Arguments that say how often something is repeated while the model is made.
_LARGEST = {
    "power_iterations": 100,
    "ngrams": 100,
    "num_bins": 1 << 20,
    "num_oov_indices": 1 << 16,
}
_SHAPES = ("batch_shape", "shape", "build_input_shape", "input_shape", "n")
_SHAPES += ("target_shape", "padding", "size")
# Arguments that say into how many parts a tensor is taken apart.
_PARTS = ("indices_or_sections", "num")


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


def is_layer(found):
    """Tells whether what `resolve` found is a class of layers or models."""
    return isinstance(found, type) and issubclass(found, keras.Layer)


def _public(module, name):
    if not _KERAS.fullmatch(module):
        return None
    steps = [*module.split(".")[1:], name]
    return functools.reduce(lambda x, step: getattr(x, step, None), steps, keras)


def check_config(config, largest=1 << 20, allowed=0):
    """Checks each object and each number in a config.

    Args:
        config: Nested dicts and lists.
        largest: Int, the largest whole number that may be a size: whatever is no
            seed, no value and no word of a vocabulary. Defaults to about a million.
        allowed: Int, up to where the caller trusts any number. Defaults to 0.

    Raises:
        ArchiveError: If something is neither a modelling class of Keras nor
            registered with it, or would run code, read a file, take memory out of
            proportion, or never end.

    Example:
    >>> check_config({"module": "os", "class_name": "system", "config": "ls"})
    Traceback (most recent call last):
    kprune.compress.packing.ArchiveError: The archive asks for 'system' ...
    """
    parts = list(_walk(config))
    layers = 0
    for key, part in parts:
        if isinstance(part, dict):
            layers += "class_name" in part and _check_object(part)
            _check_order(part)
        _check_argument(key, part, largest, allowed)
    if layers > _MOST_LAYERS:
        raise ArchiveError(
            f"The archive has {layers:,} layers, at most {_MOST_LAYERS:,} are taken."
        )
    _check_unrolled(parts)
    _check_parts(parts)


def _walk(part, key=""):
    """Yields each part of a config with the name of the argument that it is in."""
    yield key, part
    if isinstance(part, dict):
        for name, value in part.items():
            yield from _walk(value, name)
    elif isinstance(part, list):
        for value in part:
            if not isinstance(value, str):  # Words in lists name no files.
                yield from _walk(value, key)


def _check_unrolled(parts):
    """Loops that are unrolled while the model is made shall have few rounds in all."""
    loops = sum(key == "unroll" and bool(part) for key, part in parts)
    # `unstack` without a number goes through an axis, too.
    loops += sum(key == "num" and part is None for key, part in parts)
    if not loops:
        return
    limit = _MOST_ROUNDS // loops
    for key, part in parts:
        if key in _SHAPES and isinstance(part, (int, float)) and part > limit:
            raise ArchiveError(
                f"The archive has {key}={part!r} and loops to unroll ({loops}), so "
                f"that at most {limit} is taken."
            )


def _check_parts(parts):
    """Each part of a tensor is one of its own while the model is made."""
    asked = [
        part[key]
        for _, part in parts
        if isinstance(part, dict)
        for key in _PARTS
        if key in part
    ]
    total = sum(len(n) + 1 for n in asked if isinstance(n, list))
    total += sum(abs(n) for n in asked if isinstance(n, (int, float)))
    if total > _MOST_ROUNDS:
        raise ArchiveError(
            f"The archive takes tensors apart into {total:,} parts in all, at most "
            f"{_MOST_ROUNDS:,} are taken."
        )


def _check_order(part):
    """Keras goes through all layers again for each that calls one listed later."""
    config = part.get("config")
    layers = config.get("layers") if isinstance(config, dict) else None
    if not isinstance(layers, list):
        return
    names, later = set(), 0
    for layer in layers:
        if isinstance(layer, dict):
            names.add(str(layer.get("name")))
            later += any(
                str(history[:1][0]) not in names
                for key, history in _walk(layer.get("inbound_nodes"))
                if key == "keras_history" and isinstance(history, list) and history
            )
    if later * len(layers) > _MOST_VISITS:
        raise ArchiveError(
            f"{later} of the {len(layers)} layers in the archive call layers that are "
            "listed after them, which would take too long to sort out."
        )


def _check_object(part):
    """Returns whether the object, which may be trusted, is a layer."""
    name, module = part["class_name"], part.get("module")
    place = f" of module {module!r}" if module else ""
    asked = f"The archive asks for {name!r}{place}"
    if name in ("__numpy__", "__tensor__"):
        _check_numbers(part)
    if isinstance(name, str) and name in _PLAIN:
        return False
    found = resolve(part) if isinstance(name, str) else None
    if isinstance(part.get("config"), str) and name == "function" and found:
        return False
    if found is None:
        raise ArchiveError(
            f"{asked}, which is neither a layer of Keras nor registered with it. If it "
            "is a class of yours, put @keras.saving.register_keras_serializable() "
            "above it before you save, and import it before you load. No module is "
            "imported because an archive says so."
        )
    ours = saving.get_registered_name(found) != found.__name__
    is_known = isinstance(found, type) and issubclass(found, _KINDS)
    if found.__name__ in _REFUSED or not (ours or is_known):
        raise ArchiveError(
            f"{asked}. Archives hold models of layers, without code (no Lambda) and "
            "without what reads other files. Write such a step as a registered layer "
            "of your own."
        )
    return is_layer(found)


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


def _check_argument(key, part, largest, allowed):
    called = part if key == "inbound_nodes" and isinstance(part, list) else ()
    if not all(map(_mentions_tensor, called)):
        # Keras would run it at once, before any size is known.
        raise ArchiveError("The archive calls a layer on constants alone.")
    if key in _PATHS and isinstance(part, str):
        raise ArchiveError(
            f"The archive asks to read the file {part!r} as {key}. Save the model "
            "with a list in its place."
        )
    if isinstance(part, int) and key in _VALUES:
        largest = _LARGEST_NUMBER
    if isinstance(part, float):
        largest = math.inf  # No size, and Keras takes none for one.
    largest = max(allowed, min(largest, _LARGEST.get(key, largest)))
    if isinstance(part, (int, float)) and abs(part) > largest:
        raise ArchiveError(
            f"The archive has {key}={part!r:.40}, at most {largest:,} is taken. If you "
            "trust it, pass a larger max_bytes."
        )
