"""Channels removed between the phases of one training run."""

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.shrinking.shrink import shrink
from kprune.weight_access import as_array

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype("float32")
Y = (X[:, :1] * X[:, 1:2] > 0).astype("float32")


def network():
    body = [layers.Dense(n, "relu", name=f"dense_{n}") for n in (32, 24)]
    model = keras.Sequential([keras.Input((8,)), *body, layers.Dense(1, name="head")])
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(0.01, decay_steps=60)
    )
    model.compile(optimizer, "mse")
    return model


def fit(model, begin, end):
    history = model.fit(X, Y, 16, end, initial_epoch=begin, verbose=0)
    return history.history["loss"]


def test_training_goes_on_between_phases():
    model = network()
    losses, widths = [], []

    for phase in range(3):
        if phase:
            model = shrink(model, sparsity=0.25, keep_optimizer=True)
        losses += fit(model, 5 * phase, 5 * phase + 5)
        widths.append([layer.units for layer in model.layers])

    # 64 examples in batches of 16, 15 epochs; the schedule's end is step 60.
    assert widths == [[32, 24, 1], [24, 18, 1], [18, 13, 1]]
    assert int(model.optimizer.iterations) == 60
    rate = model.optimizer._get_current_learning_rate()
    assert float(rate) == pytest.approx(0, abs=1e-6)
    assert losses[-1] < losses[0] / 2


def test_the_optimizer_begins_anew_unless_it_is_kept():
    model = network()
    fit(model, 0, 1)

    assert not shrink(model, sparsity=0.25).optimizer.built
    assert int(shrink(model, 0.25, keep_optimizer=True).optimizer.iterations) == 4


def test_momentum_of_a_pruned_model_goes_on_in_the_small_one():
    model = kprune.prune(network(), granularity="channel")
    fit(model, 0, 1)

    small = shrink(model, sparsity=0.25, keep_optimizer=True)

    ours = as_array(model.optimizer._momentums[0])
    theirs = as_array(small.optimizer._momentums[0])
    kernel, left = as_array(model.layers[0].kernel), as_array(small.layers[0].kernel)
    kept = [(kernel == left[:, [unit]]).all(0).argmax() for unit in range(24)]
    assert theirs.any()
    np.testing.assert_array_equal(ours[:, kept], theirs)
