import keras
import numpy as np
import pytest
from keras import layers

from kprune import cloning
from kprune.copier import CannotCopyError, Copier
from tests.layer_cases import (
    assert_equal,
    assert_shares_nothing,
    normal,
    values,
)


def copied(model):
    """Copies a graph of layers, with its state."""
    copier = Copier(model)
    pairs = []

    def convert(layer, parents):
        pairs.append((layer, copier.copy(layer)))
        return pairs[-1][1]

    new = cloning.rebuild(model, convert)
    for old, copy in pairs:
        cloning.copy_state(old, copy)
    return new


class OwnConfig(keras.Model):
    def __init__(self, units, **kwargs):
        inputs = keras.Input((3,))
        super().__init__(inputs, layers.Dense(units)(inputs), **kwargs)

    def get_config(self):
        return {"units": 2}


class OwnStep(keras.Model):
    def train_step(self, data):
        return {"loss": 0.0}


def test_only_models_without_code_of_their_own_are_graphs():
    inputs = keras.Input((3,))
    outputs = layers.Dense(2)(inputs)

    assert cloning.is_graph(keras.Sequential([layers.Dense(2)]))
    assert cloning.is_graph(keras.Model(inputs, outputs))
    assert cloning.is_graph(OwnStep(inputs, outputs))
    assert not cloning.is_graph(OwnConfig(2))
    assert not cloning.is_graph(layers.Dense(2))


def test_copy_has_names_weights_and_inputs_and_shares_nothing():
    a = keras.Input((6,), name="a")
    b = keras.Input((6,), name="b", dtype="float64")
    x = layers.Add(name="add")([layers.Dense(4, name="d")(a), layers.Dense(4)(b)])
    model = keras.Model({"a": a, "b": b}, [x, keras.ops.sum(x, -1)], name="net")
    before = values(model)

    new = copied(model)

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

    new = copied(keras.Model(inputs, dense(dense(inputs))))

    assert len(new.trainable_variables) == 2


def test_layer_that_makes_other_weights_the_second_time_is_an_error():
    class Fickle(layers.Layer):
        made = 0

        def build(self, input_shape):
            type(self).made += 1
            self.kernel = self.add_weight(shape=(input_shape[-1], self.made))

        def call(self, inputs):
            return keras.ops.matmul(inputs, self.kernel)

    model = keras.Sequential([keras.Input((3,)), Fickle(name="fickle")])

    with pytest.raises(CannotCopyError, match=r"holds 1 variables of shapes"):
        copied(model)


def test_uncompiled_model_stays_uncompiled():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    new = copied(model)

    cloning.copy_compilation(model, new)

    assert not new.compiled


def test_compilation_is_copied_with_a_fresh_optimizer():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    metric = keras.metrics.MeanSquaredError(name="mine")
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9), "mae", metrics=[metric])
    new = copied(model)

    cloning.copy_compilation(model, new)

    assert new.optimizer is not model.optimizer
    assert new.optimizer.momentum == 0.9
    logs = new.train_on_batch(np.ones((2, 3)), np.ones((2, 2)), return_dict=True)
    assert logs.keys() == {"loss", "mine"}
    assert int(model.optimizer.iterations) == 0
