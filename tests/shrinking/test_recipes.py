"""Published ways to a narrower network, put together of public parts."""

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.shrinking import shrink

CLASSES = 10


def train(model, data, epochs, rate=3e-3, batch_size=64):
    """Trains with a learning rate that falls to 0, so that penalties settle."""
    steps = epochs * -(-len(data[0]) // batch_size)
    rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(*data, batch_size, epochs, verbose=0)
    return model


def accuracy(model, data):
    return float(np.mean(model.predict(data[0], verbose=0).argmax(-1) == data[1]))


def convolved(x, filters, name, strides=1):
    arguments = {"strides": strides, "padding": "same", "use_bias": False}
    x = layers.Conv2D(filters, 3, name=name, **arguments)(x)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)


def plain_network():
    x = inputs = keras.Input((8, 8, 1))
    for number, filters in enumerate((16, 24), 1):
        x = layers.ReLU()(convolved(x, filters, f"conv_{number}"))
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="head")(x))


def scales(model):
    """Returns the scales of the normalizations by the names of their convolutions."""
    return {
        layer.name.removesuffix("_norm"): np.abs(layer.gamma)
        for layer in model.layers
        if isinstance(layer, layers.BatchNormalization)
    }


def test_network_slimming(digits):
    """Liu et al., 2017: penalized scales, one threshold for all, fine-tuning."""
    training, test = digits
    norms = layers.BatchNormalization

    penalty = keras.regularizers.L1(3e-3)
    model = kprune.penalize(plain_network(), penalty, weight="gamma", only=norms)
    train(model, training, epochs=8, rate=1e-2)
    small = shrink(
        model, 0.5, criterion="batch_norm_scale", scope="global", normalize=None
    )
    small = kprune.penalize(small, None, weight="gamma")
    before = accuracy(small, test)
    train(small, training, epochs=3)

    found = scales(model)
    largest = np.sort(np.concatenate(list(found.values())))[-20:]
    for name, own in found.items():
        kernel = model.get_layer(name).kernel
        assert small.get_layer(name).filters == (own >= largest[0]).sum()
        assert kernel.shape[-1] == len(own)
    assert largest[0] > 3 * np.median(np.concatenate(list(found.values()))[:0] or [0])
    assert before > 0.9
    assert accuracy(small, test) > 0.95
    assert small.losses == []
