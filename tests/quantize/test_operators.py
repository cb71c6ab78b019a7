import keras
import numpy as np
import pytest
from keras import layers, ops

from kprune.quantize import QuantizationWrapper, dequantize, quantize_aware
from kprune.quantize.operators import layers_for_operators
from tests.quantize.int8_file import Int8File

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


def model_with(operation):
    inputs = keras.Input((6,))
    x = layers.Dense(6, kernel_initializer="orthogonal")(inputs)
    y = layers.Dense(6, activation="relu", kernel_initializer="orthogonal")(inputs)
    return keras.Model(inputs, operation(x, y))


REPLACED = [
    (lambda x, y: x + y, layers.Add),
    (lambda x, y: x - y, layers.Subtract),
    (lambda x, y: x * y, layers.Multiply),
    (lambda x, y: x * x, layers.Multiply),
    (lambda x, y: x * 0.5, layers.Rescaling),
    (lambda x, y: 0.5 * x, layers.Rescaling),
    (lambda x, y: x / 4, layers.Rescaling),
    (lambda x, y: x + 3, layers.Rescaling),
    (lambda x, y: 3 + x, layers.Rescaling),
    (lambda x, y: x - 3.0, layers.Rescaling),
    (lambda x, y: ops.concatenate([x, y], -1), layers.Concatenate),
    (lambda x, y: ops.relu(x), layers.Activation),
    (lambda x, y: ops.relu6(x), layers.Activation),
    (lambda x, y: ops.sigmoid(x), layers.Activation),
    (lambda x, y: ops.silu(x), layers.Activation),
    (lambda x, y: ops.tanh(x), layers.Activation),
    (lambda x, y: ops.softmax(x), layers.Softmax),
]


@pytest.mark.parametrize(("operation", "layer_type"), REPLACED)
def test_operator_becomes_the_layer_that_computes_the_same(operation, layer_type):
    model = model_with(operation)

    replaced = layers_for_operators(model)

    last = replaced.operations[-1]
    assert type(last) is layer_type
    assert last.name == model.operations[-1].name
    np.testing.assert_allclose(replaced(X), model(X), atol=1e-6)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x, y: 1.0 / x,
        lambda x, y: 1.0 - x,
        lambda x, y: x + np.ones(6, "float32"),
        lambda x, y: x + ops.sum(y, axis=0),
        lambda x, y: ops.exp(x),
        lambda x, y: ops.clip(x, 0.0, 1.0),
        lambda x, y: x[:, 0],
        lambda x, y: ops.concatenate([x, np.ones((8, 1), "float32")], -1),
        lambda x, y: ops.cast(x, "int32") + ops.cast(y, "int32"),
    ],
)
def test_operator_without_a_layer_is_copied(operation):
    model = model_with(operation)

    replaced = layers_for_operators(model)

    assert type(replaced.operations[-1]) is type(model.operations[-1])
    np.testing.assert_allclose(replaced(X), model(X), rtol=1e-6)


def test_model_without_operators_is_returned_as_it_is():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2)])

    assert layers_for_operators(model) is model


def test_operators_in_nested_models_and_on_shared_tensors_are_replaced():
    inner_input = keras.Input((6,))
    inner = keras.Model(inner_input, inner_input + inner_input, name="inner")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, inner(inputs) * inputs)

    replaced = layers_for_operators(model)

    kinds = [type(x) for x in replaced._flatten_layers()]
    assert layers.Add in kinds
    assert layers.Multiply in kinds
    np.testing.assert_allclose(replaced(X), 2 * X * X, rtol=1e-6)


def residual():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(4, 3, padding="same")(x)
    x = ops.relu(x + y)
    x = x * ops.relu6(x + 3) * (1 / 6)
    x = x - 0.5
    x = ops.concatenate([x * 0.5, y], axis=-1)
    x = ops.transpose(x, (0, 2, 1, 3))[:, 1:]
    return keras.Model(inputs, layers.Dense(4)(ops.reshape(x, (-1, 7 * 8 * 8))))


def test_residual_block_of_operators_is_int8_throughout():
    x = np.random.default_rng(1).random((16, 8, 8, 1), dtype="float32")
    aware = quantize_aware(residual())
    aware(x, training=True)

    file = Int8File(aware)

    assert file.float_ops() == []
    outputs = np.asarray(aware(x))
    np.testing.assert_allclose(file(x), outputs, atol=np.ptp(outputs) / 255 * 2)


def test_relu_operator_becomes_part_of_the_sum_before_it():
    model = model_with(lambda x, y: ops.relu(x + y))

    *_, addition, relu = quantize_aware(model).layers

    assert isinstance(addition, QuantizationWrapper)
    assert addition.output_range is None
    assert relu.output_range is not None


def test_operators_are_layers_in_the_dequantized_model():
    aware = quantize_aware(model_with(lambda x, y: x + y))
    aware(X, training=True)

    assert type(dequantize(aware).layers[-1]) is layers.Add


def test_operator_is_left_out_by_its_name():
    model = model_with(lambda x, y: x + y)

    aware = quantize_aware(model, skip=model.operations[-1].name)

    assert type(aware.layers[-1]) is layers.Add
