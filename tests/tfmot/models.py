"""The models that the tests of kprune.tfmot prune, and how they are trained."""

import keras
import numpy as np
from keras import layers

from kprune import tfmot
from tests.checks import entries

EVERY_STEP = tfmot.ConstantSparsity(0.5, 0, -1, 1)


def simple_dense_model():
    """Makes a model of ten inputs and five classes, with kernels of 80 and 40."""
    return keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(8, "relu", name="hidden"),
            layers.Dense(5, "softmax", name="classes"),
        ]
    )


def nested_model():
    """Makes a model with a model in it, with kernels of 100 and 20."""
    inner = keras.Sequential([keras.Input((10,)), layers.Dense(10, name="deep")])
    return keras.Sequential(
        [inner, layers.Flatten(), layers.Dense(2, name="flat")], name="outer"
    )


def two_branches():
    """Makes a Functional model of two inputs, with kernels of 20 and 25."""
    inputs = [keras.Input((4,), name="a"), keras.Input((5,), name="b")]
    left = layers.Dense(5, name="left")(inputs[0])
    right = layers.Dense(5, name="right")(inputs[1])
    return keras.Model(inputs, layers.Add(name="sum")([left, right]))


def reused_layer():
    """Makes a model that calls its one layer twice."""
    inputs = keras.Input((10,))
    dense = layers.Dense(10, name="twice")
    return keras.Model(inputs, dense(dense(inputs)))


def unbuilt_model():
    """Makes a Sequential without an input."""
    return keras.Sequential([layers.Dense(8, name="a"), layers.Dense(4, name="b")])


def one_kernel(kernel):
    """Makes a model that is one matrix."""
    kernel = np.asarray(kernel, "float32")
    layer = layers.Dense(kernel.shape[1], use_bias=False, name="matrix")
    model = keras.Sequential([keras.Input(kernel.shape[:1]), layer])
    layer.set_weights([kernel])
    return model


def around(layer, shape):
    """Makes a model of one layer; attention looks at its own inputs."""
    inputs = keras.Input(shape)
    core = getattr(layer, "layer", layer)
    times = 2 if isinstance(core, layers.MultiHeadAttention) else 1
    return keras.Model(inputs, layer(*[inputs] * times))


def train(model, *callbacks, epochs=1, rate=0.01, timing="kprune"):
    """Trains a model for one batch an epoch, with TFMOT's callback in front.

    Keras 3.15 does not load the loss "mse" from HDF5 files, hence the object.

    Args:
        model: A built model. It is compiled if that has not been done; a step that
            is not traced is quicker for the few batches of a test.
        *callbacks: Further callbacks.
        epochs: Int, the number of optimizer steps.
        rate: Float, the learning rate of SGD.
        timing: Passed to `UpdatePruningStep`.
    """
    if not getattr(model, "optimizer", None):
        loss = keras.losses.MeanSquaredError()
        model.compile(keras.optimizers.SGD(rate), loss, run_eagerly=True)
    x, y = data(model)
    step = tfmot.UpdatePruningStep(timing=timing)
    return model.fit(
        x, y, batch_size=len(y), epochs=epochs, verbose=0, callbacks=[step, *callbacks]
    )


def update_masks(model):
    """Does what a loop of the user's does before its first batch."""
    step = tfmot.UpdatePruningStep()
    step.set_model(model)
    step.on_train_begin()
    step.on_train_batch_begin(batch=0)


def data(model, size=4):
    """Returns whole numbers below nine, which an embedding takes too, and targets."""
    random = np.random.default_rng(5)
    x = [random.integers(0, 9, (size, *i.shape[1:])) for i in model.inputs]
    y = random.normal(size=(size, *model.output_shape[1:]))
    x = [part.astype("float32") for part in x]
    return x if len(x) > 1 else x[0], y.astype("float32")


def sparsities(model):
    """Returns the fractions of zeros in the weights with masks."""
    return [float(np.mean(np.array(e.variable) == 0)) for e in entries(model)]
