"""What the tests of training share: data, a model, and a spy in every hook."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.checks import entries, zeros_of

BATCH = 8
BATCHES = 12


def data(batches=BATCHES):
    """Returns inputs and targets of a regression, `batches` batches of eight."""
    random = np.random.default_rng(7)
    x = random.normal(size=(BATCH * batches, 6)).astype("float32")
    return x, np.tanh(x[:, :3] + x[:, 3:])


def network(model_class=keras.Sequential, **hidden):
    """Makes a model with kernels of 96 and 48 weights."""
    inputs = keras.Input((6,))
    x = layers.Dense(16, "relu", name="hidden", **hidden)(inputs)
    outputs = layers.Dense(3, name="head")(x)
    if model_class is keras.Sequential:
        model = keras.Model(inputs, outputs)
        return keras.Sequential([inputs, *model.layers[1:]])
    return model_class(inputs, outputs)


def with_slow(slow, rows):
    """Gives a test all rows, or the names of them, some of them in the slow run."""
    return [
        pytest.param(row, marks=pytest.mark.slow if row in slow else ()) for row in rows
    ]


class OwnStep(keras.Model):
    """A Functional model with a training step of its own."""

    def train_step(self, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.metrics[0].update_state(loss)
        return {"loss": self.metrics[0].result(), "own": 1.0}


def build_optimizer(model):
    """Makes the optimizer's variables of a model that is compiled and built.

    Keras would make them while it traces the first step, and trace it once more.
    """
    if model.built and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def fit(model, *callbacks, epochs=2, verbose=0, **options):
    """Trains a compiled model on `data()`, without a word."""
    x, y = data()
    build_optimizer(model)
    return model.fit(
        x,
        y,
        batch_size=BATCH,
        epochs=epochs,
        verbose=verbose,
        callbacks=list(callbacks),
        **options,
    )


def polynomial(step, final=0.75, begin=0, end=17):
    """The sparsity at a step: Zhu and Gupta's formula, power 3, from zero."""
    if step < begin:
        return 0.0
    return final - final * (1 - min((step - begin) / (end - begin), 1)) ** 3


def counts(model):
    """Returns the number of zeros of each masked weight, by its layer's name."""
    return {
        entry.layer.name: int(np.count_nonzero(entry.variable.numpy() == 0))
        for entry in entries(model)
    }


def state(model):
    """Returns the values of all variables of a model: weights, masks, clock."""
    return [variable.numpy() for variable in model.variables]


def assert_equal_states(one, other):
    for a, b in zip(state(one), state(other), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_masked(model):
    """Every removed weight is exactly zero, and so is its moving average."""
    averages = averages_of(model)
    for entry in entries(model):
        removed = ~entry.mask.numpy()
        np.testing.assert_array_equal(entry.variable.numpy()[removed], 0)
        if id(entry.variable) in averages:
            average = averages[id(entry.variable)].numpy()
            np.testing.assert_array_equal(average[removed], 0)


def averages_of(model):
    """Maps the ids of a model's variables to the averages its optimizer keeps."""
    optimizer = plain_optimizer(model)
    if not getattr(optimizer, "use_ema", False) or not optimizer.built:
        return {}
    variables = map(id, optimizer._trainable_variables)
    return dict(zip(variables, optimizer._model_variables_moving_average, strict=True))


def plain_optimizer(model):
    """Returns the optimizer without the one that scales the loss around it."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)


def _looking_in(hook):
    return lambda self, *arguments, **named: self.look(hook)


class Spy(keras.callbacks.Callback):
    """Checks in every hook that zeros are zero, and in batches that they suffice.

    Args:
        expected: Function from the optimizer steps before a batch to the sparsity
            after it, or `None` to look at the zeros alone.
    """

    def __init__(self, expected=None):
        super().__init__()
        self.expected = expected
        self.seen = []
        self.batches = 0

    def look(self, hook):
        self.seen.append(hook)
        assert_masked(self.model)

    def count(self):
        if self.expected is None:
            return
        sparsity = self.expected(self.steps)
        for entry in entries(self.model):
            removed = np.count_nonzero(~entry.mask.numpy())
            assert removed == zeros_of(entry.mask.numpy().size, sparsity), self.steps

    def steps_before(self):
        """Counts steps a second time; the optimizer does that too."""
        optimizer = plain_optimizer(self.model)
        accumulated = optimizer.gradient_accumulation_steps or 1
        return int(optimizer._iterations.numpy()) // accumulated

    def on_train_batch_begin(self, batch, logs=None):
        self.steps = self.steps_before()
        self.look("batch_begin")
        self.count()

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        self.look("batch_end")
        self.count()

    on_train_begin = _looking_in("train_begin")
    on_train_end = _looking_in("train_end")
    on_epoch_begin = _looking_in("epoch_begin")
    on_epoch_end = _looking_in("epoch_end")
    on_test_begin = _looking_in("test_begin")
    on_test_end = _looking_in("test_end")
    on_test_batch_begin = _looking_in("test_batch_begin")
    on_test_batch_end = _looking_in("test_batch_end")
