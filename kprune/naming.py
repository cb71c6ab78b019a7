"""What the parts of a layer or model are called, in every copy and every process."""

import re

import keras
from keras import layers
from keras.src.utils.naming import to_snake_case


def named_children(layer):
    """Lists the sublayers of a layer with names that every copy gives them.

    A sublayer is called by the attribute that holds it, since automatic layer
    names change from one process to the next. Layers of a Functional or
    Sequential model need no attribute: they go by the names that the user gave
    them, or by their places.

    Args:
        layer: A layer or model.

    Returns:
        List of pairs (name, sublayer), in the order in which Keras tracks them.

    Example:
    >>> bidirectional = keras.layers.Bidirectional(keras.layers.LSTM(2))
    >>> [name for name, _ in named_children(bidirectional)]
    ['forward_layer', 'backward_layer']
    """
    attributes = {}
    if not hasattr(layer, "_operations") and not isinstance(layer, keras.Sequential):
        for name, value in vars(layer).items():
            if not name.startswith(_BOOKKEEPING):
                _name_layers(name.lstrip("_"), value, attributes)
    children = [c for c in layer._layers if not isinstance(c, layers.InputLayer)]
    taken, named = set(), []
    for place, child in enumerate(children):
        name = f"layers.{place}" if _has_automatic_name(child) else child.name
        named.append((unique(attributes.get(id(child), name), taken), child))
    return named


def _has_automatic_name(layer):
    name = re.escape(to_snake_case(type(layer).__name__))
    return re.fullmatch(rf"{name}(_\d+)?", layer.name) is not None


# Attributes in which Keras and TensorFlow keep lists of what others hold.
_BOOKKEEPING = ("_layers", "_functional", "_self_", "_tracker")


def _name_layers(name, value, attributes):
    if isinstance(value, keras.Layer):
        attributes.setdefault(id(value), name)
    elif isinstance(value, dict):
        for key, item in value.items():
            _name_layers(f"{name}.{key}", item, attributes)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _name_layers(f"{name}.{i}", item, attributes)


def unique(name, taken):
    """Returns a name that is not taken, with a number behind it where it was.

    Args:
        name: String.
        taken: Set of the names that are; the new one is added.

    Returns:
        String.

    Example:
    >>> taken = set()
    >>> unique("kernel", taken), unique("kernel", taken)
    ('kernel', 'kernel_2')
    """
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate


def layer_path(root, path):
    """Returns the start of a path that leads out of models, to a layer.

    Args:
        root: A layer or model.
        path: String, the path of a weight, as `prunable.find_weights` gives it.

    Returns:
        String, the path of that layer; empty where it is `root`.

    Example:
    >>> dense = keras.layers.Dense(2, name="head")
    >>> model = keras.Sequential([keras.Input((3,)), dense])
    >>> layer_path(model, "head/kernel"), layer_path(dense, "kernel")
    ('head', '')
    """
    first, _, rest = path.partition("/")
    if not isinstance(root, keras.Model) or not rest:
        return ""
    deeper = layer_path(dict(named_children(root))[first], rest)
    return f"{first}/{deeper}" if deeper else first
