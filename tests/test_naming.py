import keras
from keras import layers

from kprune.naming import layer_path, named_children


def test_sublayers_are_named_by_what_holds_them():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.steps = [layers.Dense(2), layers.Dense(2)]
            self.by_name = {"left": layers.Dense(2)}
            self._hidden = layers.Dense(2)
            self.again = self.steps[0]

    names = [name for name, _ in named_children(Block())]

    assert names == ["steps.0", "steps.1", "by_name.left", "hidden"]


def test_layers_of_a_model_go_by_place_unless_the_user_named_them():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2), layers.Dense(2, name="mine")]
    )
    twin = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2), layers.Dense(2, name="mine")]
    )

    names = [name for name, _ in named_children(model)]

    assert names == ["layers.0", "mine"]
    assert names == [name for name, _ in named_children(twin)]


def test_path_of_a_layer_leads_through_models_and_no_further():
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    inputs = keras.Input((5, 4))
    body = keras.Model(inputs, attention(inputs, inputs), name="body")
    model = keras.Sequential([keras.Input((5, 4)), body])

    path = "body/attention/query_dense/kernel"

    assert layer_path(model, path) == "body/attention"
    assert layer_path(attention, "query_dense/kernel") == ""
