import keras
import numpy as np
import pytest
from keras import layers

from kprune import cloning
from kprune.copier import CannotCopyError
from kprune.rebuilding import rebuilt


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
        rebuilt(model)


def test_uncompiled_model_stays_uncompiled():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])

    new = rebuilt(model)

    assert not new.compiled


def test_compilation_is_copied_with_a_fresh_optimizer():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    metric = keras.metrics.MeanSquaredError(name="mine")
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9), "mae", metrics=[metric])

    new = rebuilt(model)

    assert new.optimizer is not model.optimizer
    assert new.optimizer.momentum == 0.9
    logs = new.train_on_batch(np.ones((2, 3)), np.ones((2, 2)), return_dict=True)
    assert logs.keys() == {"loss", "mine"}
    assert int(model.optimizer.iterations) == 0
