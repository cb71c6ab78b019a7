"""Published ways to a narrower network, put together of public parts."""

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.shrinking import shrink
from tests.training_helpers import build_optimizer

CLASSES = 10
NORMS = layers.BatchNormalization


def train(model, data, epochs, rate=0.1):
    """Trains with a learning rate that falls to 0, so that penalties settle."""
    steps = epochs * -(-len(data[0]) // 64)
    rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    build_optimizer(model)
    model.fit(*data, 64, epochs, verbose=0)


def accuracy(model, data):
    logits = np.asarray(model(data[0], training=False))
    return float(np.mean(logits.argmax(-1) == data[1]))


def normalized(x, filters, name, strides=1):
    arguments = {"strides": strides, "padding": "same", "use_bias": False}
    x = layers.Conv2D(filters, 3, name=name, **arguments)(x)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)


def plain_network():
    x = inputs = keras.Input((8, 8, 1))
    for number, filters in enumerate((16, 24), 1):
        x = layers.ReLU()(normalized(x, filters, f"conv_{number}"))
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="head")(x))


def kernel(model, layer):
    return np.asarray(model.get_layer(layer).kernel)


def test_network_slimming(digits):
    """Liu et al., 2017: penalized scales, one threshold for all, fine-tuning."""
    training, test = digits

    model = kprune.penalize(
        plain_network(), keras.regularizers.L1(0.02), weight="gamma", only=NORMS
    )
    train(model, training, epochs=10)
    small = shrink(
        model, 0.4, criterion="batch_norm_scale", scope="global", normalize=None
    )
    narrowed = accuracy(small, test)
    small = kprune.penalize(small, None, weight="gamma")
    train(small, training, epochs=2, rate=0.02)

    names = "conv_1", "conv_2"
    scales = [np.abs(model.get_layer(f"{name}_norm").gamma) for name in names]
    threshold = np.sort(np.concatenate(scales))[16]  # 0.4 of 40
    kept = [np.flatnonzero(own >= threshold) for own in scales]
    assert [small.get_layer(name).filters for name in names] == [*map(len, kept)]
    assert threshold < 0.02
    assert narrowed > accuracy(model, test) - 0.01
    assert accuracy(small, test) > 0.96
    assert small.losses == []


def residual_network():
    """Two blocks, each a stage, with twice as many filters within."""
    x = layers.ReLU()(normalized(inputs := keras.Input((8, 8, 1)), 8, "stem"))
    for stage in ("stage_1", "stage_2"):
        y = layers.ReLU()(normalized(x, 16, f"{stage}_inner"))
        y = normalized(y, 8, f"{stage}_outer")
        x = layers.AveragePooling2D(2)(layers.ReLU()(layers.Add()([x, y])))
    outputs = layers.Dense(CLASSES, name="head")(layers.Flatten()(x))
    return keras.Model(inputs, outputs)


def most_that_hurts_little(model, stage, data):
    """Returns how much a stage can lose by itself, from a scan of its sensitivity."""
    least = accuracy(model, data) - 0.05
    for sparsity in (0.75, 0.5):
        if accuracy(shrink(model, {stage: sparsity}), data) >= least:
            return sparsity
    return 0.25


@pytest.mark.slow  # it goes through the same steps as network slimming
def test_pruning_filters(digits):
    """Li et al., 2017: filters of the least L1 norm, how many by stages."""
    training, test = digits
    model = residual_network()
    train(model, training, epochs=4)

    stages = [f"stage_{number}_inner" for number in (1, 2)]
    sparsities = {s: most_that_hurts_little(model, s, training) for s in stages}
    small = shrink(model, sparsities, criterion="l1")

    for stage, sparsity in sparsities.items():
        own = kernel(model, stage)
        norms = np.abs(own).sum((0, 1, 2))
        kept = np.sort(np.argsort(-norms)[: round((1 - sparsity) * 16)])
        np.testing.assert_array_equal(kernel(small, stage), own[..., kept])
        outer = stage.replace("inner", "outer")
        read = kernel(model, outer)[:, :, kept]
        np.testing.assert_array_equal(kernel(small, outer), read)
    train(small, training, epochs=2, rate=0.05)
    assert accuracy(small, test) > 0.95


WRITERS = ["stem", "outer_*"]
READERS = ["inner_*", "head"]


def stream_network():
    """A residual stream of 32 units, written and read by two blocks."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Dense(32, name="stem")(layers.Flatten()(inputs))
    for block in (1, 2):
        y = layers.Dense(24, "relu", name=f"inner_{block}")(x)
        x = layers.Add()([x, layers.Dense(32, name=f"outer_{block}")(y)])
    return keras.Model(inputs, layers.Dense(CLASSES, name="head")(x))


@pytest.mark.slow  # it goes through the same steps as network slimming
def test_residual_width_by_group_lasso(digits):
    """Wen et al., 2016: what writes a channel of the stream, and what reads it."""
    training, test = digits

    model = stream_network()
    model = kprune.penalize(model, kprune.GroupLasso(3e-3), only=WRITERS)
    model = kprune.penalize(model, kprune.GroupLasso(3e-3, axis=-2), only=READERS)
    train(model, training, epochs=15)
    small = shrink(
        model,
        criterion="l2",
        reduce="max",
        normalize=None,
        scope=kprune.Threshold(1e-4),
        only=WRITERS,
    )

    writers = "stem", "outer_1", "outer_2"
    squares = [np.square(kernel(model, name)).mean(0) for name in writers]
    width = np.count_nonzero(np.max(squares, axis=0) >= 1e-4)
    assert [small.get_layer(name).units for name in writers] == [width] * 3
    assert width < 20
    assert small.get_layer("inner_1").units == 24
    assert accuracy(model, test) > 0.92
    assert accuracy(small, test) > accuracy(model, test) - 0.02
