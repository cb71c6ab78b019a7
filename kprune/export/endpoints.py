"""Signatures of a SavedModel beside the model's own: what else it serves."""

import keyword

import keras
import tensorflow as tf
from keras import tree

from kprune import inspection
from kprune.cloning import is_graph
from kprune.export.forward import Forward
from kprune.export.interface import declared_inputs
from kprune.layer_graph import nodes_of

DEFAULT = "serving_default"
_TAKEN = {
    *(DEFAULT, "serve", "state", "tables", "signatures"),
    *("decoder", "streams", "weights", "is_decoded"),
}


def check_signatures(signatures):
    """Raises unless an argument names signatures and says what each gives.

    Args:
        signatures: Dict, see `kprune.SavedModel`.

    Raises:
        ValueError: If it is no dict, or has a name that cannot be served.
        TypeError: If a value is of a kind that stands for no model.

    Example:
    >>> check_signatures({"features": "pool"})
    """
    if not isinstance(signatures, dict):
        raise ValueError(
            f"signatures is {signatures!r}, expected a dict from the name of a "
            "signature to the name of a layer, as in {'features': 'pool'}."
        )
    for name, given in signatures.items():
        if not isinstance(name, str) or not _is_free(name):
            raise ValueError(
                f"signatures has the name {name!r}, expected letters, digits and "
                "underscores, a letter first, and none of the names that a SavedModel "
                f"uses itself, such as {DEFAULT!r}, which is always the model's own."
            )
        is_list = isinstance(given, (list, tuple)) and given
        names = given if is_list else [given]
        if not callable(given) and not all(isinstance(n, str) for n in names):
            raise TypeError(
                f"signatures[{name!r}] is {given!r}, expected the name of a layer, a "
                "list of names, or a function that takes the model and returns a "
                "keras.Model of its layers."
            )


def _is_free(name):
    is_word = name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
    is_ours = name in _TAKEN or hasattr(tf.Module(), name)
    return is_word and name[0] != "_" and not is_ours


def find_endpoints(forward, signatures):
    """Builds the models that signatures stand for.

    Args:
        forward: The model's `Forward`.
        signatures: Dict that passed `check_signatures`.

    Returns:
        Dict from the name of each signature to a `Forward`: the model's own as
        `serving_default`, then the others.

    Raises:
        ValueError: If a layer is not there or is called more than once, or a
            function returns no model that can be exported with this one.

    Example:
    >>> layers = [keras.layers.ReLU(name="positive"), keras.layers.Dense(2)]
    >>> model = keras.Sequential([keras.Input((3,)), *layers])
    >>> found = find_endpoints(Forward(model), {"features": "positive"})
    >>> found["features"].output_names
    ['positive']
    """
    endpoints = {DEFAULT: forward}
    for name, given in signatures.items():
        if isinstance(given, keras.Model) or not callable(given):
            part = given
        else:
            part = given(forward.model)
        if not isinstance(part, keras.Model):
            part = _part(forward.model, part, name)
        endpoints[name] = Forward(_checked(part, name))
    return endpoints


def _checked(part, name):
    if inspection.is_pruned(part):
        raise ValueError(
            f"signatures[{name!r}] is a model that still holds masks, and what is "
            "exported is the model without them. Pass a function of the model instead, "
            "lambda model: keras.Model(model.input, ...), or the name of a layer."
        )
    inspection.check_built(part)
    return part


def _part(model, layers, name):
    """Returns the model from the inputs to what some layers give."""
    layers = [layers] if isinstance(layers, str) else layers
    if not isinstance(layers, (list, tuple)):
        raise ValueError(
            f"signatures[{name!r}] is a function that returned {layers!r:.80}, "
            "expected a keras.Model, as in lambda model: keras.Model(model.input, ...)."
        )
    if not is_graph(model):
        raise ValueError(
            f"signatures[{name!r}] names layers, and {type(model).__name__} "
            f"{model.name!r} is no graph of layers (Sequential or Functional) to be "
            "cut. Pass a function that takes the model and returns a keras.Model."
        )
    nodes = nodes_of(model)
    outputs = [_output_of(layer, nodes, model, name) for layer in layers]
    outputs = outputs[0] if len(outputs) == 1 else outputs
    return keras.Model(_inputs_of(outputs, nodes, model), outputs)


def _output_of(layer, nodes, model, name):
    calls = [node for node in nodes if node.operation.name == layer]
    if len(calls) == 1:
        outputs = calls[0].output_tensors
        return outputs[0] if len(outputs) == 1 else list(outputs)
    present = ", ".join(dict.fromkeys(repr(node.operation.name) for node in nodes))
    raise ValueError(
        f"signatures[{name!r}] names the layer {layer!r}, which model {model.name!r} "
        f"calls {len(calls)} times, expected once. Its layers are {present}. For "
        "layers of a model inside, or called more often, pass a function that takes "
        "the model and returns a keras.Model."
    )


def _inputs_of(outputs, nodes, model):
    """Returns those of the model's inputs that outputs depend on, nested as there."""
    needed = {id(tensor) for tensor in tree.flatten(outputs)}
    for node in reversed(nodes):
        if not needed.isdisjoint(map(id, node.output_tensors)):
            needed.update(map(id, node.input_tensors))
    declared = declared_inputs(model)
    used = [tensor for tensor in tree.flatten(declared) if id(tensor) in needed]
    if len(used) == len(tree.flatten(declared)):
        return declared
    if isinstance(declared, dict):
        return {key: x for key, x in declared.items() if id(x) in needed}
    return used[0] if len(used) == 1 else used


def serving_module(endpoints, handles=None):
    """Traces all endpoints into one module, with each weight once.

    Args:
        endpoints: Dict, see `find_endpoints`.
        handles: See `Forward.module`.

    Returns:
        The module of the first endpoint, which has the variables and tables of all
        and the others as methods of their names; and a dict of the signatures.
    """
    parts = {name: f.module(handles=handles) for name, f in endpoints.items()}
    module = parts[DEFAULT][0]
    for kind in ("state", "tables"):
        every = (x for part, _ in parts.values() for x in getattr(part, kind))
        setattr(module, kind, list({id(x): x for x in every}.values()))
    for name, (part, _) in parts.items():
        if name != DEFAULT:
            setattr(module, name, part.serve)
    return module, {name: signature for name, (_, signature) in parts.items()}
