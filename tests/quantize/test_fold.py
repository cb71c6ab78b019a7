import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.quantize import fold_batch_normalization
from kprune.quantize.fold import foldable


def with_state(model):
    """Gives every weight, moving means and variances too, a value of its own."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if "float" in variable.dtype:
            value = rng.normal(size=variable.shape)
            variable.assign(abs(value) + 0.1 if "variance" in variable.name else value)
    return model


def sequential(shape, *parts):
    return with_state(keras.Sequential([keras.Input(shape), *parts]))


def same(model, other):
    shape = (4, *model.input_shape[1:])
    inputs = np.random.default_rng(1).normal(size=shape).astype("float32")
    expected = np.asarray(model(inputs, training=False))
    got = np.asarray(other(inputs, training=False))
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dense(4), (3,)),
        (layers.Dense(4, use_bias=False), (3,)),
        (layers.Conv1D(4, 2), (5, 3)),
        (layers.Conv2D(4, 3, use_bias=False), (6, 6, 3)),
        (layers.Conv2D(4, 3, groups=2), (6, 6, 4)),
        (layers.Conv2DTranspose(4, 3, strides=2), (4, 4, 3)),
        (layers.DepthwiseConv2D(3), (6, 6, 3)),
        (layers.SeparableConv1D(4, 2), (5, 3)),
        (layers.SeparableConv2D(4, 3, use_bias=False), (6, 6, 3)),
        (layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False), (6, 6, 3)),
    ],
)
@pytest.mark.parametrize("norm", [{}, {"scale": False}, {"center": False}])
def test_folded_model_predicts_the_same(layer, shape, norm):
    layer = type(layer).from_config(layer.get_config())
    model = sequential(shape, layer, layers.BatchNormalization(name="norm", **norm))
    before = [v.numpy() for v in model.variables]

    folded = fold_batch_normalization(model)

    same(model, folded)
    assert [type(x) for x in folded.layers] == [type(layer), layers.Identity]
    assert [x.name for x in folded.layers] == [x.name for x in model.layers]
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def residual():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization(momentum=0.9)(x, training=None)
    y = layers.DepthwiseConv2D(3, padding="same")(layers.ReLU()(x))
    y = layers.BatchNormalization()(y)
    return with_state(keras.Model(inputs, layers.Add()([x, y])))


def nested():
    inputs = keras.Input((6, 6, 3))
    return with_state(keras.Model(inputs, layers.ReLU()(residual()(inputs))))


@pytest.mark.parametrize("make", [residual, nested])
def test_graphs_are_folded(make):
    model = make()

    folded = fold_batch_normalization(model)

    same(model, folded)
    kinds = [type(x) for x in folded._flatten_layers()]
    assert layers.BatchNormalization not in kinds


def test_zeros_of_kernels_stay_zeros():
    model = sequential((3,), layers.Dense(4), layers.BatchNormalization())
    kernel = model.layers[0].kernel
    kernel.assign(kernel * (np.random.default_rng(1).random(kernel.shape) < 0.5))

    folded = fold_batch_normalization(model)

    ours = np.asarray(folded.layers[0].kernel) == 0
    np.testing.assert_array_equal(ours, np.asarray(kernel) == 0)


def shared_output():
    inputs = keras.Input((3,))
    x = layers.Dense(4)(inputs)
    return keras.Model(inputs, layers.Add()([x, layers.BatchNormalization()(x)]))


def shared_layer():
    inputs = keras.Input((3,))
    dense, norm = layers.Dense(3), layers.BatchNormalization()
    return keras.Model(inputs, dense(norm(dense(inputs))))


def other_axis():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3)(inputs)
    return keras.Model(inputs, layers.BatchNormalization(axis=1)(x))


def after_activation():
    inputs = keras.Input((3,))
    x = layers.Dense(4, activation="relu")(inputs)
    return keras.Model(inputs, layers.BatchNormalization()(x))


@pytest.mark.parametrize(
    "make", [shared_output, shared_layer, other_axis, after_activation]
)
def test_normalization_that_cannot_be_folded_stays(make):
    model = with_state(make())

    folded = fold_batch_normalization(model)

    assert foldable(model) == []
    same(model, folded)
    assert layers.BatchNormalization in [type(x) for x in folded._flatten_layers()]


def test_compile_arguments_and_frozen_layers_are_kept():
    model = sequential((3,), layers.Dense(4), layers.BatchNormalization())
    model.layers[0].trainable = False
    model.compile("sgd", "mse")

    folded = fold_batch_normalization(model)

    assert folded.compiled
    assert not folded.layers[0].trainable


@pytest.mark.parametrize("make", [kprune.prune, kprune.share_weights])
def test_model_with_masks_is_refused_with_the_remedy(make):
    held = make(sequential((3,), layers.Dense(4), layers.BatchNormalization()))

    with pytest.raises(ValueError, match=r"masks or shared weights.*kprune\.strip"):
        fold_batch_normalization(held)
