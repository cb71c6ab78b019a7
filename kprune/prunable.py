"""Which variables of which layers may be pruned, and why the others may not.

A rule for a layer type says which of the layer's own variables are prunable.
Sublayers are looked at one by one, each with the rule of its own type, whatever
holds them.
"""

import dataclasses

import keras
from keras import layers

from kprune.layer_choice import Selection
from kprune.naming import named_children, unique
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
        name = unique(variable.name, names)
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
    if not selection.selects(chain):
        return _NOT_SELECTED
    return selection.dense.get(id(variable), "")


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
