"""Models that only their own classes can make."""

import keras
import numpy as np
import tensorflow as tf
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


@keras.saving.register_keras_serializable("kprune_tests")
class TwoOptimizers(keras.Model):
    """A model whose head is trained by an optimizer that `compile` knows nothing of."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(16, "relu", name="hidden")
        self.head = layers.Dense(3, name="head")
        self.second = keras.optimizers.SGD(0.01, momentum=0.9)

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.head.build((None, 16))

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def train_step(self, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        weights = self.hidden.trainable_variables, self.head.trainable_variables
        gradients = tape.gradient(loss, weights)
        for optimizer, *update in zip(
            (self.optimizer, self.second), gradients, weights, strict=True
        ):
            optimizer.apply(*update)
        return {"mean_squared_error": loss}
