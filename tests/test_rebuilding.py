import keras
from keras import layers

from kprune.rebuilding import rebuilt
from tests.checks import assert_equal, assert_shares_nothing, values
from tests.layer_cases import normal


def test_copy_has_names_weights_and_inputs_and_shares_nothing():
    a = keras.Input((6,), name="a")
    b = keras.Input((6,), name="b", dtype="float64")
    x = layers.Add(name="add")([layers.Dense(4, name="d")(a), layers.Dense(4)(b)])
    model = keras.Model({"a": a, "b": b}, [x, keras.ops.sum(x, -1)], name="net")
    before = values(model)

    new = rebuilt(model)

    assert new.name == "net"
    assert [layer.name for layer in new.layers] == [x.name for x in model.layers]
    assert {k: (t.name, t.dtype) for k, t in new.input.items()} == {
        "a": ("a", "float32"),
        "b": ("b", "float64"),
    }
    assert_shares_nothing(new, model)
    x = {"a": normal(6)(4), "b": normal(6)(4)}
    assert_equal(new(x), model(x))
    assert_equal(values(model), before)


def test_copy_of_a_graph_keeps_sharing():
    dense = layers.Dense(4)
    inputs = keras.Input((4,))

    new = rebuilt(keras.Model(inputs, dense(dense(inputs))))

    assert len(new.trainable_variables) == 2
