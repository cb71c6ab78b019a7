"""Streams, arrays and models that the tests of this folder share."""

import keras
import numpy as np


def skewed(count=5000, alphabet=16, seed=0):
    """Symbols of a geometric distribution, cut off at the alphabet."""
    draws = np.random.default_rng(seed).geometric(0.3, count) - 1
    return np.minimum(draws, alphabet - 1)


def shared_weights(shape, density=0.1, levels=31, seed=0):
    """A float32 array with few nonzeros and few distinct values."""
    random = np.random.default_rng(seed)
    half = levels // 2
    steps = np.clip(np.round(random.normal(0, half / 3, shape)), -half, half)
    kept = random.random(shape) < density
    return np.where(kept & (steps != 0), steps * 0.0625, 0.0).astype("float32")


def share_all(model, density=0.1, levels=31):
    """Gives every kernel of a model a few distinct values, most of them zero."""
    for seed, weight in enumerate(model.weights):
        if len(weight.shape) > 1:
            weight.assign(shared_weights(weight.shape, density, levels, seed))
    return model


def lenet_300_100():
    sizes = ((300, "relu"), (100, "relu"), (10, "softmax"))
    dense = [keras.layers.Dense(n, activation=a) for n, a in sizes]
    inputs = keras.Input((784,), name="image")
    return share_all(keras.Sequential([inputs, *dense], name="lenet"))
