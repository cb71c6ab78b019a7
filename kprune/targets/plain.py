"""The model that a device will see."""

from kprune import inspection, surgery
from kprune.cloning import is_graph


def plain_model(model, purpose):
    """Returns the model to look at: with a readable graph, without masks.

    Args:
        model: A Keras model, pruned or not.
        purpose: String, the function called, for errors.

    Returns:
        The model itself, or the stripped copy of a pruned one.

    Raises:
        TypeError: If it is no Keras 3 model.
        ValueError: If it is subclassed, or a Sequential without inputs.
    """
    inspection.check_keras_model(model)
    if not is_graph(model):
        raise ValueError(
            f"{purpose} got {model.name!r}, a {type(model).__name__} whose layers are "
            "called in code that can't be read. Expected a Functional or Sequential "
            "model: build it as keras.Model(inputs, outputs)."
        )
    if not model.built:
        raise ValueError(
            f"{purpose} got the Sequential {model.name!r} without input shape, so "
            "that nothing is known of its graph. Put a keras.Input first, or call "
            "model.build(input_shape)."
        )
    return surgery.stripped(model) if inspection.is_pruned(model) else model
