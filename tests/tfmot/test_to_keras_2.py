"""Models of Keras 3 as models of tf_keras."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune.tfmot.from_keras_2 import from_tf_keras
from kprune.tfmot.to_keras_2 import to_tf_keras
from tests.checks import pruned_at_once, values
from tests.tfmot import keras_2_models, keras_3_models
from tests.tfmot.keras_2_cases import (
    LAYER_CASES,
    WEIGHTLESS,
    around,
    assert_same_outputs,
)


@pytest.mark.parametrize(
    "build",
    [
        *keras_3_models.ARCHITECTURES,
        pytest.param(keras_3_models.recurrent, marks=pytest.mark.slow),
    ],
)
def test_an_architecture_computes_the_same(tf_keras, build):
    model = build()
    before = values(model)

    old = to_tf_keras(model)

    assert isinstance(old, tf_keras.Model)
    assert_same_outputs(old, model)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, variable)


@pytest.mark.parametrize("build", [keras_2_models.several, keras_2_models.frozen])
def test_there_and_back_gives_the_same_model(tf_keras, build):
    first = build(tf_keras)

    second = to_tf_keras(from_tf_keras(first))

    assert [x.name for x in second.layers] == [x.name for x in first.layers]
    assert [x.trainable for x in second.layers] == [x.trainable for x in first.layers]
    for ours, theirs in zip(second.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "shape", "dtype"), LAYER_CASES)
def test_every_layer_goes_there_and_back(tf_keras, layer, shape, dtype):
    first = around(tf_keras, layer(tf_keras.layers), shape, dtype)

    second = to_tf_keras(from_tf_keras(first))

    assert_same_outputs(first, second)


@pytest.mark.parametrize("shape", WEIGHTLESS)
def test_layers_without_weights_go_there_and_back(tf_keras, shape):
    first = around(tf_keras, WEIGHTLESS[shape](tf_keras.layers), shape)

    second = to_tf_keras(from_tf_keras(first))

    assert_same_outputs(first, second)


def test_a_pruned_model_is_stripped(tf_keras):
    pruned = pruned_at_once(keras_3_models.chain(), 0.75)

    old = to_tf_keras(pruned)

    expected = kprune.strip(pruned).get_layer("conv").kernel.numpy()
    assert (expected == 0).mean() == 0.75
    np.testing.assert_array_equal(old.get_layer("conv").kernel, expected)


def with_operations():
    inputs = keras.Input((4, 4))
    return keras.Model(inputs, ops.sin(ops.flip(inputs[:, 0]) @ np.ones((4, 2))))


def test_operations_without_a_layer_are_all_named(tf_keras):
    with pytest.raises(ValueError, match=r"Flip \(.*GetItem \(.*Matmul \(.*Sin \("):
        to_tf_keras(with_operations())


def test_a_quantized_model_is_refused(tf_keras):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    model.layers[0].quantize("int8")

    with pytest.raises(ValueError, match=r"is quantized \(int8.*before `quantize`"):
        to_tf_keras(model)


REFUSED = {
    r"Add with a constant of shape \(4,\)": lambda x: x + np.ones(4, "float32"),
    r"Multiply with a constant of shape \(2, 4\)": lambda x: ops.multiply(
        np.ones((2, 4)), x
    ),
    "Maximum with the number 3.0": lambda x: ops.maximum(x, 3.0),
    "Transpose of the batch": lambda x: ops.transpose(x, (1, 0)),
    "Max along .-1. of rank 2": lambda x: ops.max(x, axis=-1),
    "by an approximation": ops.gelu,
    "TrueDivide of two tensors|Divide of two tensors": lambda x: x / x,
    "has no counterpart|no counterpart of the layer": layers.RMSNormalization(),
    "is another function in Keras 2": layers.Activation("hard_sigmoid"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_tf_keras_lacks_is_refused(tf_keras, message):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, REFUSED[message](inputs))

    with pytest.raises(ValueError, match=message):
        to_tf_keras(model)


@pytest.mark.parametrize("name", ["\u00f6 x", "_x", "a+b"])
def test_names_that_tf_keras_does_not_take_are_listed(tf_keras, name):
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name=name)])
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2, name="a b")])

    with pytest.raises(ValueError, match=f"named '{re.escape(name)}', 'a b'. tf_keras"):
        to_tf_keras(model)
