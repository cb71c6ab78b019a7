import keras
import numpy as np
import pytest
from keras import layers

from kprune.quantize import dequantize, quantize_aware, wrappers
from kprune.quantize.separable import split_separable
from tests.quantize.int8_file import Int8File

X = np.random.default_rng(0).random((8, 8, 8, 3), dtype="float32")
ROWS = X[:, 0]


def take_all(layer, parents):
    return False


def sequential(*parts, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *parts])


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (layers.SeparableConv2D(4, 3, bias_initializer="normal"), X),
        (layers.SeparableConv2D(4, 3, padding="same", depth_multiplier=2), X),
        (layers.SeparableConv2D(4, 3, strides=2, activation="tanh"), X),
        (layers.SeparableConv2D(4, 3, use_bias=False), X),
        (layers.SeparableConv1D(4, 3, strides=2, activation="relu"), ROWS),
    ],
)
@pytest.mark.parametrize("functional", [False, True])
def test_two_convolutions_compute_what_the_separable_one_does(layer, x, functional):
    layer = type(layer).from_config({**layer.get_config(), "name": "sep"})
    model = sequential(layer, shape=x.shape[1:])
    if functional:
        model = keras.Model(model.inputs[0], model.outputs[0])

    split = split_separable(model, take_all)

    assert [x.name for x in split.layers][-2:] == ["sep_depthwise", "sep"]
    np.testing.assert_allclose(split(x), model(x), atol=1e-5)


def test_regularizers_and_constraints_go_to_the_half_that_they_are_for():
    model = sequential(
        layers.SeparableConv2D(
            4,
            3,
            depthwise_regularizer=keras.regularizers.L1(0.1),
            pointwise_regularizer=keras.regularizers.L2(0.2),
            pointwise_constraint="non_neg",
            activity_regularizer=keras.regularizers.L2(0.3),
        )
    )
    model(X)

    split = split_separable(model, take_all)

    split(X)
    np.testing.assert_allclose(sum(split.losses), sum(model.losses), rtol=1e-5)
    assert isinstance(split.layers[1].kernel.constraint, keras.constraints.NonNeg)
    assert split.layers[0].kernel.constraint is None


def test_model_without_separable_convolutions_is_returned_as_it_is():
    model = sequential(layers.Conv2D(2, 3))

    assert split_separable(model, take_all) is model


def block():
    return sequential(
        layers.SeparableConv2D(8, 3, padding="same", use_bias=False, name="first"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Reshape((64, 8)),
        layers.SeparableConv1D(4, 3, activation="relu", name="second"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(3),
    )


def test_zeros_of_both_kernels_reach_an_int8_file_that_computes_the_same():
    model = block()
    model.layers[1].set_weights([np.linspace(0.5, 2, 8)] * 3 + [np.ones(8)])
    first = model.get_layer("first")
    for kernel in (first.depthwise_kernel, first.pointwise_kernel):
        kernel.assign(kernel * (np.abs(kernel) > np.median(np.abs(kernel))))
    aware = quantize_aware(model)
    aware.compile("adam", "mse", run_eagerly=True)  # one step: tracing takes longer
    aware.fit(X, np.zeros((8, 3)), verbose=0)

    file = Int8File(aware)

    assert file.float_ops() == []
    depthwise, pointwise = file.kernels()[:2]
    assert (depthwise == 0).sum() >= 13
    assert (pointwise == 0).sum() >= 12
    between = aware.get_layer("first_depthwise").output_range
    assert float(between.high) > float(between.low)
    outputs = np.asarray(aware(X))
    np.testing.assert_allclose(file(X), outputs, atol=np.ptp(outputs) / 255 * 2)
    assert [type(x) for x in dequantize(aware).layers[:2]] == [
        layers.DepthwiseConv2D,
        layers.Conv2D,
    ]


@pytest.mark.parametrize("entry", ["first", layers.SeparableConv2D])
def test_separable_convolution_that_is_skipped_stays_in_one_piece(entry):
    aware = quantize_aware(block(), skip=entry)

    assert type(aware.layers[0]) is layers.SeparableConv2D
    assert aware.get_layer("second_depthwise") in wrappers(aware)


def test_only_selects_both_halves():
    aware = quantize_aware(block(), only="first")

    assert [x.name for x in wrappers(aware)] == ["first_depthwise", "first"]
