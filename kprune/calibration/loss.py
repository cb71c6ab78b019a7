"""The loss of a model as a function of its weights."""

import keras
import tensorflow as tf


def loss_of(model, batch, weights=()):
    """Returns the loss of a model on a batch, and leaves no trace in the model.

    The model runs in inference mode: no dropout, batch normalization by its moving
    statistics. So this is the loss of the function that will be kept, the same at
    each pass. Losses that layers add while they run count. Penalties on weights have
    no gradient here: what they say about a weight, its value says as well.

    Args:
        model: A compiled model.
        batch: Triple of inputs, targets and sample weights, as `CalibrationData`
            yields it.
        weights: Sequence of pairs of a Keras variable of the model and the tensor to
            be taken in its place. Defaults to none.

    Returns:
        Scalar tensor.

    Example:
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> kernel, bias = model.weights
    >>> batch = tf.constant([[2.0]]), tf.constant([[5.0]]), None
    >>> float(loss_of(model, batch, [(kernel, tf.constant([[3.0]]))]))
    1.0
    """
    x, y, sample_weight = batch
    # All that Keras assigns within (running states, metrics) stays in the scope.
    with keras.StatelessScope(weights, collect_losses=True):
        predicted = model(x, training=False)
        for variable in model.trainable_variables:
            if variable.regularizer is not None:
                variable.assign(tf.stop_gradient(variable.value))
        return model._compute_loss(x, y, predicted, sample_weight, training=False)
