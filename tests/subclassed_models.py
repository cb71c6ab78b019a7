"""Models that only their own classes can make."""

import keras
import numpy as np
from keras import layers


@keras.saving.register_keras_serializable("kprune_tests")
class Net(keras.Model):
    """A subclassed model with a config, of six inputs and three outputs."""

    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.body = layers.Dense(units, "tanh", name="body")
        self.heads = {"a": layers.Dense(3, name="head")}

    def build(self, input_shape):
        self.body.build(input_shape)
        self.heads["a"].build((None, self.units))

    def call(self, inputs):
        return self.heads["a"](self.body(inputs))

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    def twice(self, x):
        return 2 * self(x)


def net(model_class=Net):
    """Makes a `Net` that is built."""
    model = model_class(name="net")
    model(np.ones((1, 6), "float32"))
    return model


class Bare(keras.Model):
    """A subclassed model without a config, around a layer."""

    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def call(self, inputs):
        return self.dense(inputs)


def bare():
    """Makes a `Bare` of six inputs and three outputs that is built."""
    model = Bare(layers.Dense(3))
    model(np.ones((1, 6), "float32"))
    return model
