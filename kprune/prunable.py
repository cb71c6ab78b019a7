"""Which variables of which layers may be pruned, and why the others may not.

A rule for a layer type says which of the layer's own variables are prunable.
Sublayers are looked at one by one, each with the rule of its own type, whatever
holds them.
"""

import dataclasses
import fnmatch
import re

import keras
from keras import layers
from keras.src.utils.naming import to_snake_case

from kprune.registry import lookup, register


@dataclasses.dataclass(frozen=True)
class Weight:
    """One weight variable of a layer or model.

    Attributes:
        path: String, where it is found: attribute or layer names from the root,
            and the variable's name, such as `"query_dense/kernel"`.
        variable: The Keras variable.
        layer: The layer that owns it.
        reason: String, why it is not pruned; empty if it is prunable.
    """

    path: str
    variable: object
    layer: keras.Layer
    reason: str = ""


class Selection:
    """What the user's `only` and `skip` select.

    Args:
        only: A layer name, a glob pattern such as `"block_*"`, a layer, a layer
            class, a function of a layer that returns a bool, or a list of these.
            `None` selects every layer.
        skip: The same, layers to leave out. `None` leaves out none.
        spared: Sequence of layers whose channels are the model's outputs, to leave
            out unless `only` names them. Defaults to none.

    Raises:
        ValueError: If an entry is none of these.

    Example:
    >>> from keras import layers
    >>> selection = Selection(only="conv_*", skip=layers.Dense)
    >>> selection.selects([layers.Conv2D(4, 3, name="conv_1")])
    True
    """

    def __init__(self, only=None, skip=None, spared=()):
        self.only = _entries("only", only)
        self.skip = _entries("skip", skip)
        self.spared = list(spared)

    def selects(self, chain):
        """Tells whether a layer is selected.

        Args:
            chain: List of layers, the outermost first, the layer itself last. A
                match of any of them counts for the layer.

        Returns:
            Bool.
        """
        return (self.only is None or _any_match(self.only, chain)) and not (
            self.skip and _any_match(self.skip, chain)
        )

    def asks_for(self, chain):
        """Tells whether `only` names the layer, not merely fails to exclude it."""
        return self.only is not None and _any_match(self.only, chain)

    def spares(self, layer, chain):
        """Tells whether a layer is left out for the sake of the model's outputs."""
        return not self.asks_for(chain) and any(layer is s for s in self.spared)

    def check(self, model):
        """Raises a `ValueError` for a name or pattern that no layer has."""
        parts = model._flatten_layers(include_self=False)
        names = list(dict.fromkeys(part.name for part in parts))
        for argument in ("only", "skip"):
            for entry in getattr(self, argument) or ():
                if isinstance(entry, str) and not _are_any(names, entry):
                    raise ValueError(
                        f"{argument} got {entry!r}, which matches no layer. The "
                        f"model's layers are {', '.join(map(repr, names))}. Mend "
                        "the name, or use a pattern such as 'block_*'."
                    )


def _entries(argument, value):
    if value is None:
        return None
    entries = list(value) if isinstance(value, (list, tuple, set)) else [value]
    for entry in entries:
        if not isinstance(entry, str) and not callable(entry):
            raise ValueError(
                f"{argument} got {entry!r}. Expected layer names, glob patterns, "
                "layer classes, a function of a layer, or a list of these."
            )
    return entries


def _any_match(entries, chain):
    return any(_matches(entry, layer) for entry in entries for layer in chain)


def _are_any(names, pattern):
    """Tells whether a pattern, which may be a name with brackets, is in some names."""
    return pattern in names or bool(fnmatch.filter(names, pattern))


def _matches(entry, layer):
    if isinstance(entry, str):
        return _are_any([layer.name], entry)
    if isinstance(entry, keras.Layer):
        return entry is layer
    if isinstance(entry, type):
        return isinstance(layer, entry)
    return bool(entry(layer))


def find_weights(root, selection=None, parents=()):
    """Lists every weight of a layer or model with the reason not to prune it.

    Args:
        root: A built layer or model.
        selection: `Selection`. Defaults to one that selects every layer.
        parents: Sequence of the models around `root`; `selection` sees them, and
            the root. `None` where `root` is the whole model, whose name selects
            nothing.

    Returns:
        List of `Weight`, in the order of the layers.

    Example:
    >>> dense = keras.layers.Dense(2)
    >>> dense.build((None, 3))
    >>> [(w.path, w.reason) for w in find_weights(dense)]
    [('kernel', ''), ('bias', 'a bias')]
    """
    selection = selection or Selection()
    found, seen = [], set()
    chain = [] if parents is None else [*parents, root]
    _walk(root, "", chain, selection, found, seen)
    return found


def _walk(layer, prefix, chain, selection, found, seen):
    claimed = _claimed_by_layer(layer)
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    names = set()
    for variable in own:
        if id(variable) in seen:
            continue
        seen.add(id(variable))
        name = _unique(variable.name, names)
        reason = _reason(layer, variable, chain, selection, claimed)
        found.append(Weight(prefix + name, variable, layer, reason))
    for name, child in named_children(layer):
        start = len(found)
        _walk(child, f"{prefix}{name}/", [*chain, child], selection, found, seen)
        if claimed is not None:
            for i in range(start, len(found)):
                found[i] = _overrule(found[i], chain, selection, claimed)


def _claimed_by_layer(layer):
    """Returns the ids that a custom layer's `get_prunable_weights` lists."""
    if not hasattr(type(layer), "get_prunable_weights"):
        return None
    weights = layer.get_prunable_weights()
    return {id(w) for w in weights}


def _overrule(weight, chain, selection, claimed):
    reason = "its layer's get_prunable_weights() leaves it out"
    if id(weight.variable) in claimed:
        reason = "" if selection.selects(chain) else _NOT_SELECTED
    return dataclasses.replace(weight, reason=reason)


_NOT_SELECTED = "left out by `only` or `skip`"
_OF_OUTPUTS = (
    "its channels are the model's outputs; name its layer in `only` to prune them"
)


def _reason(layer, variable, chain, selection, claimed):
    if "float" not in str(variable.dtype):
        return f"holds {variable.dtype}, no floating-point numbers"
    if getattr(layer, "quantization_mode", None) is not None:
        return "its layer is quantized"
    if getattr(layer, "lora_enabled", False):
        return "its layer is adapted by LoRA; merge the adapter first"
    if claimed is not None:
        if id(variable) not in claimed:
            return "its layer's get_prunable_weights() leaves it out"
    else:
        reason = _reason_of_rule(layer, variable, selection.asks_for(chain))
        if reason:
            return reason
    if selection.spares(layer, chain):
        return _OF_OUTPUTS
    return "" if selection.selects(chain) else _NOT_SELECTED


def _reason_of_rule(layer, variable, asked_for):
    """Returns what the layer type's rule says, or the rule for all others."""
    if asked_for:
        on_request = lookup("prunable_on_request", type(layer))
        if on_request and any(variable is w for w in on_request(layer)):
            return ""
    rule = lookup("prunable", type(layer))
    if rule is not None and any(variable is w for w in rule(layer)):
        return ""
    if not any(variable is w for w in layer._trainable_variables):
        return "not a trainable weight"
    if "bias" in variable.name:
        return "a bias"
    if lookup("prunable_on_request", type(layer)):
        return "a depthwise kernel; name its layer in `only` to prune it"
    if rule is not None:
        return f"the rule for {type(layer).__name__} leaves it out"
    if len(variable.shape) < 2:
        return "a vector, no kernel"
    return ""


def _nothing(layer):
    return []


for _layer_type in (
    layers.BatchNormalization,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.RMSNormalization,
    layers.PReLU,
):
    register("prunable", _layer_type)(_nothing)

for _layer_type in (layers.DepthwiseConv1D, layers.DepthwiseConv2D):
    register("prunable", _layer_type)(_nothing)
    register("prunable_on_request", _layer_type)(lambda layer: [layer.kernel])

for _layer_type in (layers.SeparableConv1D, layers.SeparableConv2D):
    register("prunable", _layer_type)(lambda layer: [layer.pointwise_kernel])


def has_no_prunable_weights(layer):
    """Tells whether the rule for a layer's type excludes all it may ever have.

    Args:
        layer: A layer, built or not.

    Returns:
        Bool.

    Example:
    >>> has_no_prunable_weights(keras.layers.BatchNormalization())
    True
    """
    return lookup("prunable", type(layer)) is _nothing


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
        named.append((_unique(attributes.get(id(child), name), taken), child))
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


def _unique(name, taken):
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate
