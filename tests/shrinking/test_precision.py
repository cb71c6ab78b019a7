import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from kprune import registry
from kprune.layer_graph import read_graph
from kprune.shrinking import ChannelRule, ShrinkError, shrink
from kprune.shrinking.precision import Precise
from tests.channels.exactness import randomised

POLICIES = ["bfloat16", "mixed_bfloat16", "float16", "mixed_float16"]


@pytest.fixture(params=POLICIES)
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


class Rolled(layers.Layer):
    """Moves each channel to the place of the next one."""

    def call(self, inputs):
        return ops.roll(inputs, 1, axis=-1)


class RolledRule(ChannelRule):
    """Takes it for a layer that leaves channels where they are."""

    def trace(self, layer, inputs, tracer):
        return inputs


@pytest.mark.parametrize("end", ["float32", None])
@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_rule_is_noticed_in_half_precision(monkeypatch, policy, end, seed):
    monkeypatch.setitem(registry._families["channel_rules"], Rolled, RolledRule)
    keras.utils.set_random_seed(seed)
    body = [keras.Input((6,)), layers.Dense(16), Rolled(), layers.Dense(2, dtype=end)]
    model = keras.Sequential(body)

    with pytest.raises(ShrinkError, match="and 1e-04 is what may be. A rule for one"):
        shrink(model, 0.5)
    _, report = shrink(model, 0.5, exact=False, return_report=True)
    assert report.change > 0.05


def words(x):
    x = layers.Embedding(9, 8, mask_zero=True)(x)
    x = layers.LSTM(8, recurrent_initializer="uniform", return_sequences=True)(x)
    return layers.GRU(6, recurrent_initializer="uniform")(x)


def image(x):
    x = layers.BatchNormalization()(layers.Conv2D(8, 3)(x))
    x = layers.ReLU()(layers.SeparableConv2D(6, 3)(x))
    return layers.Flatten()(x)


def casts(x):
    x = ops.cast(layers.Dense(8)(x), "bfloat16")
    return layers.Dense(6, "softmax", dtype="float64")(ops.cast(x * 2, "float16"))


def spectral(x):
    return layers.SpectralNormalization(layers.Dense(8))(x)


BODIES = {
    "words": (words, (5,), "int32"),
    "image": (image, (8, 8, 3), None),
    "casts": (casts, (6,), None),
    "spectral": (spectral, (6,), None),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_right_removal_passes_in_half_precision(policy, body):
    make, shape, dtype = BODIES[body]
    inputs = keras.Input(shape, dtype=dtype)
    model = randomised(keras.Model(inputs, layers.Dense(2)(make(inputs))))
    types = [part.dtype_policy for part in model._flatten_layers()]

    small, report = shrink(model, 0.5, return_report=True)

    assert report.change < 1e-5
    for one in (model, small):
        assert [part.dtype_policy for part in one._flatten_layers()] == types


@pytest.mark.parametrize("layer", [layers.RMSNormalization, None])
def test_weights_that_are_rescaled_may_be_rounded_by_that(policy, layer):
    inputs = keras.Input((5, 4))
    x = layers.Dense(12)(inputs)
    x = layer()(x) if layer else layers.MultiHeadAttention(2, 6)(x, x)
    model = randomised(keras.Model(inputs, layers.Dense(2)(x)))

    _, report = shrink(model, 0.5, scope="global", return_report=True)

    # Rounding a weight changes it by 2 ** -8 at most in bfloat16.
    assert report.change < (1e-6 if policy.startswith("mixed") else 0.02)


def test_the_report_tells_of_the_roundings_of_weights():
    inputs = keras.Input((5, 4), dtype="bfloat16")
    x = layers.Dense(12, dtype="bfloat16")(inputs)
    x = layers.RMSNormalization(dtype="bfloat16")(x)
    model = randomised(keras.Model(inputs, layers.Dense(2, dtype="bfloat16")(x)))

    # The scales are divided by the root of 1 / 2.
    _, report = shrink(model, 0.5, return_report=True)

    assert 1e-4 < report.change < 0.02


class Insisting(layers.Layer):
    """Hands to TensorFlow what it has cast itself."""

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1], 4), name="table")

    def call(self, inputs):
        inputs = tf.cast(inputs, "bfloat16")
        return tf.raw_ops.MatMul(a=inputs, b=tf.convert_to_tensor(self.table.value))


def insisting_model():
    body = [layers.Dense(units, dtype="bfloat16") for units in (8, 6)]
    body += [Insisting(dtype="bfloat16"), layers.Dense(2)]
    return keras.Sequential([keras.Input((6,)), *body])


def test_what_insists_on_its_type_is_called_in_it():
    model = insisting_model()
    first, second, insisting = read_graph(model).calls[:3]
    precise = Precise()

    (x,) = precise(first, first.operation, [ops.ones((1, 6))])
    (x,) = precise(second, second.operation, [x])
    assert (x.dtype, precise.roundoff) == ("float32", 0)
    (y,) = precise(insisting, insisting.operation, [x])

    assert (y.dtype, precise.roundoff) == ("bfloat16", 2**-8)
    expected = np.asarray(x) @ np.asarray(insisting.operation.table, "float32")
    np.testing.assert_allclose(np.asarray(y, "float32"), expected, rtol=0.05, atol=0.01)


def test_a_model_with_a_layer_that_insists_on_its_type_is_shrunk():
    small, report = shrink(insisting_model(), 0.5, return_report=True)

    assert [layer.units for layer in small.layers[:2]] == [4, 6]
    assert report.change < 0.05


def test_an_error_of_the_layer_itself_is_passed_on():
    model = insisting_model()
    call = read_graph(model).calls[0]

    with pytest.raises(ValueError, match="incompatible with the layer"):
        Precise()(call, call.operation, [ops.ones((1, 5))])
    assert call.operation.compute_dtype == "bfloat16"


class Keeping(layers.Layer):
    """Keeps a table from its first call."""

    def call(self, inputs):
        if tf.inside_function() or isinstance(inputs, keras.KerasTensor):
            return inputs * 1
        if not hasattr(self, "table"):
            self.table = tf.ones(inputs.shape[-1:], inputs.dtype)
        return inputs * self.table


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_nothing_of_the_comparison_stays_in_a_layer(dtype):
    layer = Keeping(dtype=dtype)
    model = keras.Sequential([keras.Input((4,)), layer, layers.Dense(8), layers.ReLU()])
    model.add(layers.Dense(2, dtype="float32"))
    before = dict(vars(layer))

    shrink(model, 0.5)

    assert vars(layer) == before
    assert model(np.ones((1, 4), "float32")).shape == (1, 2)
