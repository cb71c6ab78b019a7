"""New layers from the configs of a model's layers."""

import contextlib
import copy
import inspect

import keras
from keras import saving
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.saving.serialization_lib import ObjectSharingScope


class CannotCopyError(ValueError):
    """A layer or model whose config does not suffice to make it again."""


class Copier:
    """Makes new layers from the configs of a model's layers.

    A layer that others refer to, as a head does that uses the matrix of an
    embedding, is made once, so that what was shared stays shared.

    Args:
        model: The layer or model that holds all layers to copy. It is not
            changed.

    Example:
    >>> head = keras.layers.Dense(3, name="head")
    >>> Copier(head).copy(head).name
    'head'
    """

    def __init__(self, model):
        self._ids = {id(part) for part in model._flatten_layers()}
        self._known = objects_within(model)
        self._copies = {}

    def copy(self, layer, changes=None):
        """Makes the copy of a layer, or returns it if it was made before.

        Args:
            layer: A layer or subclassed model within the model.
            changes: Dict, what is to be other in its config. Defaults to nothing.

        Returns:
            A layer of the same class, config and name, with fresh weights (see
            `copy_state`), not built unless its constructor builds it.

        Raises:
            CannotCopyError: If the config is missing or does not suffice.
        """
        if id(layer) not in self._copies:
            try:
                with self._sharing(), saving.custom_object_scope(self._known):
                    self._copies[id(layer)] = _from_config(layer, changes or {})
            except Exception as error:
                raise CannotCopyError(
                    f"The layer {layer.name!r} ({type(layer).__name__}) can't be made "
                    f"again from its config: {in_short(error)}"
                ) from error
        new = self._copies[id(layer)]
        # A class whose constructor takes no `name` was given an automatic one.
        new.name = layer.name
        return new

    @contextlib.contextmanager
    def _sharing(self):
        """Lets Keras mark references to the model's layers, and resolve them."""
        with ObjectSharingScope():
            # An object that is on record is marked as shared when it is serialised;
            # nothing but these layers is, since other ids may be those of objects
            # that are gone.
            configs = get_global_attribute("shared_objects/id_to_config_map")
            configs.update(dict.fromkeys(self._ids, {}))
            objects = get_global_attribute("shared_objects/id_to_obj_map")
            objects.update(self._copies)
            yield
            made = self._ids & (objects.keys() - self._copies.keys())
            self._copies.update((i, objects[i]) for i in made)


def in_short(error):
    """Returns the point of one of Keras' long messages.

    Args:
        error: An exception.

    Returns:
        String of one line, cut off where it gets long.
    """
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _from_config(layer, changes):
    if isinstance(layer, keras.Model):
        # `strip` makes it again from its stored config, which holds no functions.
        naming = contextlib.nullcontext()
    else:
        naming = _naming_functions(layer)
    with naming:
        config = {**_plain(layer.get_config()), **changes}
        return type(layer).from_config(without_unknown_arguments(type(layer), config))


def _plain(value):
    """Copies what is in a config, without the layer that Keras' own lists refer to.

    A list, dict or set that is a layer's attribute leads to all of its variables.
    """
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, set):
        return set(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, tuple):
        made = map(_plain, value)
        return type(value)(*made) if hasattr(value, "_fields") else tuple(made)
    return copy.deepcopy(value)


def without_unknown_arguments(cls, config):
    """Leaves out what Keras adds to every config and the constructor rejects.

    Args:
        cls: The class to be made from the config.
        config: Dict, as `get_config` returned it.

    Returns:
        Dict that the constructor of `cls` takes.
    """
    if "from_config" in vars(cls):
        return config
    parameters = inspect.signature(cls.__init__).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return config
    common = {"name", "trainable", "dtype"} - parameters.keys()
    return {name: value for name, value in config.items() if name not in common}


def objects_within(layer):
    """Names the user's classes and functions, so that configs find them unregistered.

    Args:
        layer: A layer or model.

    Returns:
        Dict from name to class or function.
    """
    known = {}
    for part in layer._flatten_layers():
        layer_types = (c for c in type(part).__mro__ if issubclass(c, keras.Layer))
        for found in (*layer_types, *_own_functions(part)):
            if _is_of_user(found):
                known.setdefault(saving.get_registered_name(found), found)
    return known


def _own_functions(layer):
    """Lists the user's functions among a layer's constructor arguments."""
    arguments = inspect.signature(type(layer).__init__).parameters
    values = [vars(layer).get(name, vars(layer).get(f"_{name}")) for name in arguments]
    return [v for v in values if inspect.isfunction(v) and _is_of_user(v)]


def _is_of_user(part):
    return not part.__module__.startswith("keras.")


@contextlib.contextmanager
def _naming_functions(layer):
    """Gives unregistered functions names of their own, by which configs find them.

    Two functions may have one name, and a lambda has none: Keras would store its
    code, and lose the global variables that it refers to.
    """
    functions = [f for part in layer._flatten_layers() for f in _own_functions(part)]
    named = {f: f.__name__ for f in functions if _is_unregistered(f)}
    try:
        for i, function in enumerate(named):
            function.__name__ = f"{named[function].strip('<>')}_of_layer_{i}"
        with saving.custom_object_scope({f.__name__: f for f in named}):
            yield
    finally:
        for function, name in named.items():
            function.__name__ = name


def _is_unregistered(function):
    return saving.get_registered_name(function) == function.__name__


def with_activation(layer, activation):
    """Makes a layer like another but for its activation.

    Args:
        layer: A Keras layer that has one.
        activation: Name, function, or `None` for none.

    Returns:
        A layer of the same class and name, not built.

    Example:
    >>> layer = keras.layers.Dense(2, activation="softmax")
    >>> with_activation(layer, None).activation.__name__
    'linear'
    """
    config = {**layer.get_config(), "activation": keras.activations.get(activation)}
    return type(layer).from_config(config)
