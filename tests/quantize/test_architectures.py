"""Whole models: made aware, trained for three steps, converted, compared."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

from kprune.quantize import left_in_float, quantize_aware
from tests.quantize.int8_file import Int8File


def random():
    """Returns a generator that draws the same whatever test ran before."""
    return np.random.default_rng(0)


def image(size):
    return random().random((12, size, size, 3), dtype="float32")


def text_cnn():
    tokens = keras.Input((10,), dtype="int32")
    x = layers.Conv1D(8, 3, activation="relu")(layers.Embedding(30, 8)(tokens))
    x = layers.Conv1D(8, 3, activation="relu")(layers.MaxPooling1D()(x))
    x = layers.Dropout(0.1)(layers.GlobalMaxPooling1D()(x))
    outputs = layers.Dense(3, activation="softmax")(x)
    return keras.Model(tokens, outputs), random().integers(0, 30, (12, 10), "int32")


def two_inputs():
    left, right = keras.Input((6,), name="left"), keras.Input((4,), name="right")
    parts = [layers.Dense(8, activation="relu")(x) for x in (left, right)]
    outputs = layers.Dense(3)(layers.Concatenate()(parts))
    model = keras.Model({"left": left, "right": right}, outputs)
    sizes = {"left": 6, "right": 4}
    rng = random()
    return model, {
        name: rng.normal(size=(12, size)).astype("float32")
        for name, size in sizes.items()
    }


def twins():
    inputs = {name: keras.Input((6,), name=name) for name in ("left", "right")}
    tower = layers.Dense(8, activation="relu")
    outputs = layers.Dense(3)(layers.Subtract()([tower(x) for x in inputs.values()]))
    rng = random()
    rows = {name: rng.normal(size=(12, 6)).astype("float32") for name in inputs}
    return keras.Model(inputs, outputs), rows


def without_an_input():
    model = keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(3)])
    x = random().normal(size=(12, 6)).astype("float32")
    model(x)
    return model, x


def trained(model, x, **options):
    """Trains the aware model of a model for three steps."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some layers of")
        aware = quantize_aware(model)
    aware.compile(keras.optimizers.Adam(1e-3), "mse", **options)
    aware.fit(x, random().random((12, 3)), batch_size=4, verbose=0)
    return aware


def assert_file_computes_the_same(file, aware, x):
    expected = aware.predict(x, verbose=0)
    np.testing.assert_allclose(file(x), expected, atol=np.ptp(expected) * 0.02 + 1e-4)


@pytest.mark.parametrize("make", [text_cnn, two_inputs, twins, without_an_input])
def test_model_trains_and_its_file_is_int8_throughout(make):
    model, x = make()

    aware = trained(model, x, run_eagerly=True)  # tracing would take longer

    file = Int8File(aware)
    assert left_in_float(aware) == {}
    assert file.float_ops() == []
    assert_file_computes_the_same(file, aware, x)


def test_what_a_concatenation_joins_is_rounded_as_its_outputs_are():
    inputs = keras.Input((2,))
    parts = [layers.Dense(1, use_bias=False, name=name)(inputs) for name in "ab"]
    model = keras.Model(inputs, layers.Concatenate()(parts))
    model.set_weights([np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]])])
    aware = quantize_aware(model)
    aware(np.array([[4.0, 0.1], [-4.0, -0.1]], "float32"), training=True)
    beyond = np.array([[0.0, 3.0], [2.0, 0.1]], "float32")  # what b has not seen

    outputs = np.asarray(aware(beyond))

    np.testing.assert_allclose(outputs, beyond, atol=8 / 255)
    np.testing.assert_allclose(Int8File(aware)(beyond), outputs, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "in_float"),
    [
        ("MobileNetV2", 32, ()),
        ("MobileNetV3Small", 32, ("rescaling",)),
        ("EfficientNetB0", 32, ("normalization",)),
        ("ResNet50", 32, ()),
        ("Xception", 71, ()),
    ],
)
def test_published_architecture_trains_and_its_file_computes_the_same(
    name, size, in_float
):
    keras.utils.clear_session()  # so that automatic names begin anew
    build = getattr(keras.applications, name)
    model = build(input_shape=(size, size, 3), weights=None, classes=3)

    aware = trained(model, image(size))

    assert set(left_in_float(aware)) == set(in_float)
    assert_file_computes_the_same(Int8File(aware), aware, image(size))
