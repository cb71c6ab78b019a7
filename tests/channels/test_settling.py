"""What holds for the graph as a whole, once all calls have been followed."""

import keras
from keras import layers

from kprune.channels.tracing import trace


def reasons_of(model, layer):
    """Returns the reasons why the units of a dense layer stay, a set of strings."""
    tracing = trace(model)
    (ids,) = tracing.weights[id(layer.bias)].value.along(0)
    groups, reasons = tracing.channels.groups(), tracing.channels.reasons()
    return {str(r) for group in groups[ids] for r in reasons[int(group)]}


def test_reasons_of_shared_models_name_the_layer_whose_tensor_is_shared():
    body = [layers.Dense(10, name="first"), layers.Dense(8, name="last")]
    inner = keras.Sequential([keras.Input((8,)), *body], name="inner")
    inputs = keras.Input((8,))
    beside = layers.Dense(8, name="beside")
    x = layers.Add(name="sum")([inner(inputs), beside(inputs)])
    model = keras.Model(inputs, layers.Dense(2, name="head")(inner(x)))

    # The inner model takes the sum, and the model's input, which has no channels.
    text = "meets a tensor without such channels"
    assert reasons_of(model, beside) == {f"sum: {text}", f"inner/first: {text}"}
