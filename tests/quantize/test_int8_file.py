import keras
import numpy as np
import pytest
from keras import layers

from kprune.quantize import fold_batch_normalization, quantize_aware, wrappers
from tests.quantize.int8_file import Int8File
from tests.training_helpers import with_slow


def residual():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    y = layers.MaxPooling2D()(layers.Dropout(0.1)(x))
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(y)
    y = layers.Conv2D(8, 3, padding="same")(layers.UpSampling2D(2)(y))
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def depthwise():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.ZeroPadding2D()(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Concatenate()([layers.Conv2D(8, 1)(x), layers.AveragePooling2D(1)(x)])
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def nested():
    inputs = keras.Input((8, 8, 1))
    inner = keras.Model(inputs, layers.Conv2D(4, 3, activation="relu")(inputs))
    outer = keras.Input((8, 8, 1))
    x = layers.Flatten()(inner(outer))
    return keras.Model(outer, layers.Dense(10, activation="sigmoid")(x))


def sequence():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Reshape((8, 8)),
            layers.Conv1D(16, 3, activation="tanh"),
            layers.Dense(16, activation="gelu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(10),
        ]
    )


def upwards():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(2, 3, strides=2, padding="same"),
            layers.LeakyReLU(),
        ]
    )


MODELS = [residual, depthwise, nested, sequence, upwards]


def small():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3),
            layers.Conv2D(8, 1, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def prune_and_cluster(model, values):
    """Zeroes half of each kernel, rounds the rest to a few values; sets biases."""
    for layer in model._flatten_layers():
        if hasattr(layer, "kernel"):
            kernel = np.asarray(layer.kernel)
            widest = np.abs(kernel).max()
            rounded = np.round(kernel / widest * values) / values * widest
            small = np.abs(kernel) < np.median(np.abs(kernel))
            layer.kernel.assign(np.where(small, 0, rounded))
            if layer.use_bias:
                layer.bias.assign(np.linspace(-0.1, 0.1, layer.bias.shape[0]))


# Layers of the slow ones are in the other models, and in the tests below.
@pytest.mark.parametrize("make", with_slow({depthwise, nested}, MODELS))
def test_file_is_int8_throughout_and_computes_what_the_model_does(make, digits):
    model = make()
    prune_and_cluster(model, values=1000)
    aware = quantize_aware(model)
    images = digits[0][0][:200]
    aware(images, training=True)

    file = Int8File(aware)

    assert file.float_ops() == []
    assert set(file.biases()) == {np.int32}
    low, high = last_bounds(aware)
    steps = np.abs(file(images) - np.asarray(aware(images))) / (high - low) * 255
    assert steps.max() < 2.01
    assert steps.mean() < 0.1
    for wrapper, kernel in zip(kernel_wrappers(aware), file.kernels(), strict=True):
        zeros = np.asarray(wrapper.kernel) == 0
        assert zeros.sum() >= zeros.size // 2 - 1
        assert (kernel == 0).sum() >= zeros.sum()


def last_bounds(model):
    """Returns the bounds of what the model's outputs are rounded to."""
    bounds = wrappers(model)[-1].output_range
    return bounds.fixed or (float(bounds.low), float(bounds.high))


def kernel_wrappers(model):
    return [w for w in wrappers(model) if w.rule.kernel]


def test_clusters_and_zeros_reach_the_file(digits):
    model = fold_batch_normalization(small())
    prune_and_cluster(model, values=7)
    before = [np.asarray(layer.kernel) for layer in kernel_layers(model)]
    aware = quantize_aware(model, preserve=["sparsity", "clusters"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    aware.compile("adam", loss, run_eagerly=True)  # tracing takes longer
    images, labels = digits[0]
    aware.fit(images[:512], labels[:512], batch_size=128, verbose=0)

    kernels = Int8File(aware).kernels()

    assert sum(bool(wrapper.clusters) for wrapper in kernel_wrappers(aware)) == 4
    for old, wrapper, kernel in zip(
        before, kernel_wrappers(aware), kernels, strict=True
    ):
        new = np.asarray(wrapper.kernel)
        assert not np.array_equal(new, old)
        np.testing.assert_array_equal(new == 0, old == 0)
        assert (kernel == 0).sum() >= (old == 0).sum()
        if wrapper.clusters:
            assert len(np.unique(new)) <= len(np.unique(old))
            assert len(np.unique(kernel)) <= len(np.unique(old))


def kernel_layers(model):
    return [layer for layer in model.layers if hasattr(layer, "kernel")]


def scale_and_zero_point(low, high):
    """Returns how LiteRT maps a range to int8: real = scale * (integer - zero)."""
    scale = (float(high) - float(low)) / 255
    return scale, round(-128 - float(low) / scale)


def test_forward_pass_is_that_of_integer_arithmetic():
    model = keras.Sequential(
        [
            keras.Input((20,)),
            layers.Dense(16, activation="relu", bias_initializer="random_normal"),
            layers.Dense(4, bias_initializer="random_normal"),
        ]
    )
    data = np.random.default_rng(0).normal(size=(256, 20)).astype("float32")
    aware = quantize_aware(model)
    aware(data, training=True)
    first, second = wrappers(aware)

    # Gemmlowp's scheme in NumPy: int8 kernels and activations, int32 sums.
    bounds = first.input_ranges[0]
    scale, zero = scale_and_zero_point(bounds.low, bounds.high)
    integers = np.clip(np.round(data / scale) + zero, -128, 127).astype("int32")
    for wrapper in (first, second):
        kernel = np.asarray(wrapper.kernel)
        kernel_scale = np.abs(kernel).max() / 127
        kernel = np.round(kernel / kernel_scale).astype("int32")
        bias = np.round(np.asarray(wrapper.bias) / (scale * kernel_scale))
        sums = (integers - zero) @ kernel + bias.astype("int32")
        bounds = wrapper.output_range
        sum_scale = scale * kernel_scale
        scale, zero = scale_and_zero_point(bounds.low, bounds.high)
        # ReLU needs no step of its own: the range begins at zero.
        integers = np.clip(np.round(sums * sum_scale / scale) + zero, -128, 127)
        integers = integers.astype("int32")
    simulated = scale * (integers - zero)

    steps = np.abs(np.asarray(aware(data)) - simulated) / scale
    assert steps.max() < 1.01
    assert steps.mean() < 0.05
    steps = np.abs(Int8File(aware)(data) - simulated) / scale
    assert steps.max() < 1.01
    assert steps.mean() < 0.05
