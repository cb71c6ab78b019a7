"""Copies of a model in which other layers stand where some of its layers stood."""

import keras

from kprune import cloning
from kprune.copier import Copier


def rebuilt(model, convert, convert_operation=cloning.copy_operation):
    """Rebuilds a model from stand-ins, with state and compile arguments.

    Args:
        model: A built Sequential or Functional model. It is not changed.
        convert: Function `(layer, parents, copier)` that returns the stand-in of a
            layer and a function without arguments that, once all is built, carries
            the layer's state over. `parents` are the models around it, `copier` is
            the `Copier` of the model.
        convert_operation: Function `(operation)`, see `kprune.cloning.rebuild`.

    Returns:
        A model of the same graph, layer names and inputs.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    >>> twin = rebuilt(model, lambda layer, parents, copier: plain_copy(layer, copier))
    >>> [layer.name for layer in twin.layers]
    ['d']
    """
    copier = Copier(model)
    finishing = []

    def stand_in(layer, parents):
        new, carry_over = convert(layer, parents, copier)
        finishing.append(carry_over)
        return new

    with model.distribute_strategy.scope():
        result = cloning.rebuild(model, stand_in, convert_operation)
        for carry_over in finishing:
            carry_over()
        cloning.copy_compilation(model, result)
    return result


def plain_copy(layer, copier):
    """Makes the copy of a layer and what carries its state over, for `rebuilt`.

    Args:
        layer: A Keras layer.
        copier: The `Copier` of its model.

    Returns:
        Tuple of the new layer and a function without arguments.
    """
    new = copier.copy(layer)
    return new, lambda: cloning.copy_state(layer, new)


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
