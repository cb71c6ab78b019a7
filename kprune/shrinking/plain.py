"""The models whose channels can be followed: plain ones, with a graph."""

import keras
from keras.src.models import Functional

from kprune.cloning import is_graph
from kprune.inspection import check_built, check_keras_model, is_pruned
from kprune.surgery import stripped


def check_model(model):
    """Raises an error unless the graph of a model can be read.

    Args:
        model: Anything.
    """
    check_keras_model(model)
    if not is_graph(model) and _has_graph(model):
        raise TypeError(
            f"The class {type(model).__name__} of the model {model.name!r} has a "
            "constructor or a config of its own, by which no smaller one can be made. "
            "Pass the same graph as a plain model, `keras.Model(model.inputs, "
            "model.outputs)`, which shares its layers, and make yours of the inputs "
            "and outputs of the small one."
        )
    if not is_graph(model):
        raise TypeError(
            f"The model {model.name!r} ({type(model).__name__}) is subclassed: what "
            "its code does with channels can't be read off a graph. Build the same "
            "layers as a Functional model, `keras.Model(inputs, outputs)`, and carry "
            "the weights over with `new.set_weights(old.get_weights())`."
        )
    check_built(model)


def _has_graph(model):
    """Tells whether a model computes what its graph says, whatever its class."""
    base = keras.Sequential if isinstance(model, keras.Sequential) else Functional
    return isinstance(model, base) and type(model).call is base.call


def without_masks(model, only, skip):
    """Returns a model without masks, and what selects the same layers in it.

    Args:
        model: A model for which `check_model` holds.
        only: As for `kprune.shrink`.
        skip: Likewise.

    Returns:
        Tuple of a model, the one that was given if it has no masks, and `only` and
        `skip`, with names in the place of layers if it has.
    """
    if not is_pruned(model):
        return model, only, skip
    return stripped(model), _as_names(only), _as_names(skip)


def _as_names(entries):
    if entries is None:
        return None
    entries = entries if isinstance(entries, (list, tuple, set)) else [entries]
    return [e.name if isinstance(e, keras.Layer) else e for e in entries]
