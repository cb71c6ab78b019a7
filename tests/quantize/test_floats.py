import keras
import numpy as np
import pytest
from keras import layers, ops

from kprune.quantize import left_in_float, quantize_aware, wrappers
from tests.quantize.int8_file import Int8File


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    def build(self, shape):
        self.inner = layers.Dense(shape[-1])
        self.inner.build(shape)

    def call(self, inputs):
        return inputs + self.inner(inputs)


def between(*parts, shape=(6,)):
    head = layers.Dense(8, activation="relu", name="head")
    return keras.Sequential([keras.Input(shape), head, *parts, layers.Dense(3)])


def attention():
    inputs = keras.Input((4, 6))
    x = layers.Dense(8, name="head")(inputs)
    y = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LayerNormalization(name="norm")(x + y)
    return keras.Model(inputs, layers.Dense(3)(x))


# The slow ones are layers of Keras without a rule, as ELU is.
CASES = [
    (lambda: between(layers.ELU(name="elu")), {"elu": "type ELU"}),
    (lambda: between(Block(name="block")), {"block": "type Block"}),
    pytest.param(
        lambda: between(layers.LSTM(4, name="lstm", unroll=True), shape=(4, 6)),
        {"lstm": "type LSTM"},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        lambda: between(
            layers.EinsumDense("abc,cd->abd", (None, 5), name="einsum"), shape=(4, 6)
        ),
        {"einsum": "type EinsumDense"},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        lambda: between(
            layers.TimeDistributed(layers.Dense(2), name="times"), shape=(4, 6)
        ),
        {"times": "type TimeDistributed"},
        marks=pytest.mark.slow,
    ),
    (attention, {"attention": "MultiHeadAttention", "norm": "LayerNormalization"}),
    (
        lambda: between(layers.BatchNormalization(name="norm")),
        {"norm": "no convolution or dense layer without activation is right before"},
    ),
]


@pytest.mark.parametrize(("make", "expected"), CASES)
def test_layer_without_int8_form_stays_in_float_and_is_named(make, expected):
    model = make()
    shape = (8, *model.input_shape[1:])
    x = np.random.default_rng(0).normal(size=shape).astype("float32")

    with pytest.warns(UserWarning, match=f"'{next(iter(expected))}'.*Name them in `sk"):
        aware = quantize_aware(model)

    found = left_in_float(aware)
    assert found.keys() == expected.keys()
    assert all(expected[name] in found[name] for name in expected)
    aware(x, training=True)
    file, outputs = Int8File(aware), np.asarray(aware(x))
    assert len([w for w in wrappers(aware) if w.rule.kernel]) == 2
    assert len(file.kernels()) >= 2
    np.testing.assert_allclose(file(x), outputs, atol=np.ptp(outputs) * 0.02)


def test_layer_that_skip_names_gives_no_warning():
    aware = quantize_aware(between(layers.ELU(name="elu")), skip="elu")

    assert left_in_float(aware) == {"elu": "there is no rule for layers of type ELU"}


def test_only_does_not_warn_of_what_it_leaves_out():
    aware = quantize_aware(between(layers.ELU(name="elu")), only="head")

    assert [w.name for w in wrappers(aware)] == ["head"]
    assert len(left_in_float(aware)) == 2
    assert "left out by `only` or `skip`" in left_in_float(aware).values()


def test_many_layers_of_one_reason_are_counted():
    model = between(*(layers.ELU(name=f"elu_{i}") for i in range(8)))

    with pytest.warns(UserWarning, match=r"'elu_4' and 3 more: there is no rule"):
        aware = quantize_aware(model)

    assert len(left_in_float(aware)) == 8


def test_whole_numbers_are_not_rounded():
    ids = keras.Input((4,), dtype="int32")
    shifted = layers.Add(name="shift")([ids, ids])
    x = layers.Flatten()(layers.Embedding(20, 8)(shifted))
    model = keras.Model(ids, layers.Dense(3)(x))

    aware = quantize_aware(model)

    assert type(aware.get_layer("shift")) is layers.Add
    assert left_in_float(aware) == {}
    np.testing.assert_allclose(
        aware(np.full((2, 4), 3)), model(np.full((2, 4), 3)), atol=0.01
    )


def test_masks_that_keras_computes_are_no_layers_in_float():
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(20, 8, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ]
    )
    ids = np.array([[1, 2, 0, 0], [3, 4, 5, 6]])

    aware = quantize_aware(model)

    assert left_in_float(aware) == {}
    np.testing.assert_allclose(aware(ids), model(ids), atol=0.01)


def test_operation_without_a_layer_is_named():
    inputs = keras.Input((6,))
    x = ops.exp(layers.Dense(4)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))

    with pytest.warns(UserWarning, match=r"'exp\w*': there is no rule for the op"):
        aware = quantize_aware(model)

    assert list(left_in_float(aware).values()) == [
        "there is no rule for the operation Exp"
    ]
