"""What a model is: of Keras 3, pruned, pruned in place."""

import keras

from kprune.mask_store import stores
from kprune.pruned_model import PrunedModel
from kprune.wrapper import check_backend


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
            "The model is a tf_keras (Keras 2) model; kprune works on Keras 3. Build "
            "the same layers from `keras` instead of `tf_keras`, and carry the weights "
            "over with `new.set_weights(old.get_weights())`."
        )
    raise TypeError(
        f"Expected a keras.Model, got {type(model).__name__}: {model!r:.80}. Wrap a "
        "single layer in a model: keras.Sequential([layer])."
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
