"""What a model is: of Keras 3, pruned, pruned in place."""

import keras
import numpy as np

from kprune.delegation import check_backend
from kprune.pruned_model import PrunedModel
from kprune.whole_model import stores


def is_pruned(model):
    """Tells whether a model holds masks.

    Args:
        model: A layer or model.

    Returns:
        Bool.

    Example:
    >>> import kprune
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> is_pruned(model), is_pruned(kprune.prune(model))
    (False, True)
    """
    return bool(stores(model))


def is_pruned_in_place(model):
    """Tells whether `prune` had to change the model that it was given.

    Args:
        model: A layer or model.

    Returns:
        Bool, `True` if `strip` will change the model in its turn.
    """
    return isinstance(model, PrunedModel) and model.kprune_origin.config is None


def check_keras_model(model):
    """Raises a `TypeError` unless this is a Keras 3 model.

    Args:
        model: Anything.

    Raises:
        TypeError: With what it is, and what to do about it.
        ValueError: If Keras runs on another backend than TensorFlow.
    """
    if isinstance(model, keras.Model):
        check_backend()
        return
    module = type(model).__module__
    if module.split(".")[0] == "tf_keras" or "tf_keras" in module:
        raise TypeError(
            "The model is a tf_keras (Keras 2) model; kprune works on Keras 3. Bring "
            "it over: `model = kprune.tfmot.from_tf_keras(model)`."
        )
    raise TypeError(
        f"Expected a keras.Model, got {type(model).__name__}: {model!r:.80}. Wrap a "
        "single layer in a model: keras.Sequential([layer])."
    )


def check_built(model):
    """Raises a `ValueError` unless a model has its weights.

    Args:
        model: A Keras 3 model.
    """
    if not model.built:
        raise ValueError(
            f"{type(model).__name__} {model.name!r} has no weights yet. Call it once "
            "on a batch of data, as in `model(x[:1])`, or build it, as in "
            "`model.build(input_shape)`."
        )


def check_numbers(model, error=ValueError):
    """Raises an error if a weight holds what is no number.

    Args:
        model: A built Keras model.
        error: Class of the exception to raise. Defaults to `ValueError`.
    """
    spoiled = [
        weight.path
        for weight in own_weights(model)
        if "float" in weight.dtype and np.isnan(np.asarray(weight, "float64")).any()
    ]
    if spoiled:
        raise error(
            f"Model {model.name!r} has NaN in its weights {', '.join(spoiled)}. Go "
            "back to a checkpoint from before the training diverged."
        )


def own_weights(model):
    """Lists the weights that a model has without its masks and clock.

    Args:
        model: A model, pruned or not.

    Returns:
        List of Keras variables.
    """
    of_masks = {id(v) for store in stores(model) for v in store.variables}
    return [v for v in model.weights if id(v) not in of_masks]
