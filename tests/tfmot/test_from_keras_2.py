"""Models of tf_keras that were never pruned, as Keras 3 models."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kprune.tfmot.from_keras_2 import from_tf_keras
from tests.checks import assert_plain, values
from tests.tfmot import keras_2_models as models
from tests.tfmot.keras_2_cases import (
    LAYER_CASES,
    WEIGHTLESS,
    around,
    assert_same_outputs,
    randomised,
)


@pytest.mark.parametrize(("layer", "shape", "dtype"), LAYER_CASES)
def test_a_layer_computes_the_same(tf_keras, layer, shape, dtype):
    old = around(tf_keras, layer(tf_keras.layers), shape, dtype)

    new = from_tf_keras(old)

    assert isinstance(new, keras.Model)
    assert_same_outputs(old, new)


@pytest.mark.parametrize("shape", WEIGHTLESS)
def test_layers_without_weights_compute_the_same(tf_keras, shape):
    old = around(tf_keras, WEIGHTLESS[shape](tf_keras.layers), shape)

    new = from_tf_keras(old)

    assert_same_outputs(old, new)


@pytest.mark.parametrize("build", models.ARCHITECTURES)
def test_an_architecture_computes_the_same(tf_keras, build):
    old = build(tf_keras)
    before = values(old)

    new = from_tf_keras(old)

    assert_plain(new)
    assert_same_outputs(old, new)
    for value, variable in zip(before, old.variables, strict=True):
        np.testing.assert_array_equal(value, variable)


def test_frozen_layers_stay_frozen(tf_keras):
    new = from_tf_keras(models.frozen(tf_keras))

    assert [layer.name for layer in new.layers if not layer.trainable] == ["conv"]


def test_names_of_layers_and_inputs_stay(tf_keras):
    old = models.several(tf_keras)

    new = from_tf_keras(old)

    assert new.name == "several"
    assert set(new.input) == {"a", "b"}
    assert set(new.output) == {"sum", "left"}
    assert {x.name for x in new.layers} == {x.name for x in old.layers}


def test_a_graph_of_operations_is_saved_and_loaded(tf_keras, tmp_path):
    old = models.residual(tf_keras)
    from_tf_keras(old).save(tmp_path / "model.keras")

    assert_same_outputs(old, keras.saving.load_model(tmp_path / "model.keras"))


def test_states_of_recurrent_layers_stay_as_they_are(tf_keras):
    layer = tf_keras.layers.LSTM(2, stateful=True)
    old = tf_keras.Sequential([tf_keras.Input((3, 4), batch_size=2), layer])
    x = np.ones((2, 3, 4), "float32")
    first = old(x).numpy()

    new = from_tf_keras(old)

    np.testing.assert_allclose(new(x), first, rtol=1e-6)
    np.testing.assert_array_equal(layer.states[0], first)


def test_an_adapted_normalization_keeps_its_statistics(tf_keras):
    layer = tf_keras.layers.Normalization()
    layer.adapt(np.array([[1.0, 20.0], [3.0, 60.0]]))

    new = from_tf_keras(tf_keras.Sequential([tf_keras.Input((2,)), layer]))

    np.testing.assert_allclose(new(np.array([[3.0, 20.0]])), [[1.0, -1.0]], rtol=1e-6)


def test_an_adapted_vocabulary_comes_over(tf_keras):
    layer = tf_keras.layers.StringLookup()
    layer.adapt(np.array(["leaf", "leaf", "root"]))
    inputs = tf_keras.Input((2,), dtype="string")

    new = from_tf_keras(tf_keras.Model(inputs, layer(inputs)))

    assert new(tf.constant([["root", "twig"]])).numpy().tolist() == [[2, 0]]


def test_a_compiled_model_is_compiled_alike(tf_keras):
    old = models.sequential(tf_keras)
    rate = tf_keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    old.compile(
        tf_keras.optimizers.SGD(rate, momentum=0.9, clipnorm=1.0),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", tf_keras.metrics.SparseTopKCategoricalAccuracy(2)],
    )

    new = from_tf_keras(old)

    assert type(new.optimizer) is keras.optimizers.SGD
    assert (new.optimizer.momentum, new.optimizer.clipnorm) == (0.9, 1.0)
    assert float(new.optimizer._learning_rate(10)) == pytest.approx(0.05)
    x, y = np.ones((4, 6), "float32"), np.array([0, 1, 2, 0])
    expected = old.evaluate(x, y, verbose=0)
    assert new.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


OPTIMIZERS = {
    "Adam": {"amsgrad": True},
    "AdamW": {"clipnorm": 1.0},
    "SGD": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Adagrad": {},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_goes_on_where_it_was(tf_keras, name):
    old = models.sequential(tf_keras)
    optimizer = getattr(tf_keras.optimizers, name)(0.05, **OPTIMIZERS[name])
    old.compile(optimizer, "mse", run_eagerly=True)
    random = np.random.default_rng(3)
    x, y = random.normal(size=(8, 6)), random.normal(size=(8, 3))
    for _ in range(3):
        old.train_on_batch(x, y)

    new = from_tf_keras(old)
    new.run_eagerly = True
    for model in (old, new):
        model.train_on_batch(x, y)

    assert int(new.optimizer.iterations) == 4
    for ours, theirs in zip(new.get_weights(), old.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_moments_that_are_kept_in_another_way_are_said_to_be_lost(tf_keras):
    old = models.sequential(tf_keras)
    old.compile(tf_keras.optimizers.legacy.Adam(), "mse", run_eagerly=True)
    old.train_on_batch(np.ones((8, 6)), np.ones((8, 3)))

    with pytest.warns(UserWarning, match="optimizer Adam are kept in another way"):
        new = from_tf_keras(old)

    assert new.compiled


def test_a_loss_of_the_user_leaves_the_model_uncompiled(tf_keras):
    old = models.sequential(tf_keras)
    old.compile("sgd", lambda truth, found: tf.reduce_mean(truth - found))

    with pytest.warns(UserWarning, match="therefore not compiled"):
        new = from_tf_keras(old)

    assert not new.compiled


def own_layer(module, scale=2.0):
    """Returns a class of the user's, for tf_keras or for Keras 3."""

    class Scale(module.layers.Layer):
        def build(self, input_shape):
            self.factor = self.add_weight(name="factor", shape=(input_shape[-1],))

        def call(self, inputs):
            return scale * self.factor * inputs

    return Scale


def with_own_layer(k):
    layers = [k.Input((4,)), own_layer(k)(name="mine")]
    return randomised(k.Sequential(layers))


def with_lambda(k):
    layers = [k.Input((4,)), k.layers.Lambda(lambda x: x**3, name="cubed")]
    return k.Sequential(layers)


def with_unknown_function(k):
    inputs = k.Input((4, 4))
    return k.Model(inputs, tf.linalg.trace(inputs))


def with_activation(k):
    layer = k.layers.Dense(2, tf.math.sinh, name="dense")
    return randomised(k.Sequential([k.Input((4,)), layer]))


@pytest.mark.parametrize(
    ("build", "name", "known"),
    [
        (with_own_layer, "Scale", own_layer(keras)),
        (with_lambda, "cubed", lambda x: x * x * x),
        (with_unknown_function, "tf.linalg.trace", keras.ops.trace),
        (with_activation, "sinh", keras.ops.sinh),
    ],
)
def test_what_keras_3_lacks_is_asked_for_by_name(tf_keras, build, name, known):
    tf_keras.backend.clear_session()  # which numbers the layers of functions
    old = build(tf_keras)

    with pytest.raises(ValueError, match=r"custom_objects"):
        from_tf_keras(old)
    trace = {name: lambda x: known(x, axis1=1, axis2=2)} if "trace" in name else {}
    new = from_tf_keras(old, {name: known, **trace})

    assert_same_outputs(old, new)


def test_a_class_that_computes_something_else_is_found_out(tf_keras):
    old = with_own_layer(tf_keras)

    with pytest.raises(ValueError, match="first layer to differ is 'mine'"):
        from_tf_keras(old, {"Scale": own_layer(keras, scale=2.01)})


def test_a_layer_within_a_nested_model_is_named(tf_keras):
    k = tf_keras
    inner = with_own_layer(k)
    inner._name = "inner"
    old = k.Sequential([k.Input((4,)), inner], name="outer")

    with pytest.raises(ValueError, match="first layer to differ is 'inner/mine'"):
        from_tf_keras(old, {"Scale": own_layer(keras, scale=0.5)})


def test_what_is_never_in_training_has_to_be_frozen(tf_keras):
    k = tf_keras
    inputs = k.Input((4,))
    norm = k.layers.BatchNormalization(name="norm")

    with pytest.warns(UserWarning, match="'norm' are called with training=False"):
        from_tf_keras(k.Model(inputs, norm(inputs, training=False)))


def test_what_is_always_in_training_is_refused(tf_keras):
    inputs = tf_keras.Input((4,))
    dropout = tf_keras.layers.Dropout(0.5, name="dropout")

    with pytest.raises(ValueError, match="'dropout' are called with training=True"):
        from_tf_keras(tf_keras.Model(inputs, dropout(inputs, training=True)))


def test_a_class_with_methods_of_its_own_is_said_to_be_lost(tf_keras):
    class Mine(tf_keras.Model):
        def train_step(self, data):
            return {}

    inputs = tf_keras.Input((4,))
    old = Mine(inputs, tf_keras.layers.Dense(2)(inputs))

    with pytest.warns(UserWarning, match="of the class Mine, whose own methods"):
        new = from_tf_keras(old)

    assert_same_outputs(old, new)


def test_names_of_operations_do_not_collide_with_those_of_layers(tf_keras):
    inputs = tf_keras.Input((4,))
    x = tf_keras.layers.Dense(4, name="multiply")(inputs)
    old = tf_keras.Model(inputs, tf_keras.layers.Dense(2, name="add")(x * 2.0 + 1.0))

    assert_same_outputs(old, from_tf_keras(old))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "ConvNeXtTiny"]
)
def test_an_application_computes_the_same(tf_keras, name):
    make = getattr(tf_keras.applications, name)
    old = make(weights=None, input_shape=(64, 64, 3), classes=5)

    new = from_tf_keras(old)

    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(new(x), old(x, training=False), atol=1e-5)


REFUSED = {
    "no counterpart of the layer 'local'": lambda layers: layers.LocallyConnected1D(
        2, 2, name="local"
    ),
    "has time_major=True": lambda layers: layers.LSTM(2, time_major=True),
    "has groups=2": lambda layers: layers.Conv1DTranspose(2, 2, groups=2),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_counterpart_is_refused(tf_keras, message):
    layer = REFUSED[message](tf_keras.layers)
    inputs = tf_keras.Input((4, 4), batch_size=4)

    with pytest.raises(ValueError, match=message):
        from_tf_keras(tf_keras.Model(inputs, layer(inputs)))


def test_a_model_that_is_no_graph_is_refused(tf_keras):
    class Subclassed(tf_keras.Model):
        def call(self, inputs):
            return inputs

    for old in (Subclassed(), tf_keras.Sequential([tf_keras.layers.Dense(2)])):
        with pytest.raises(ValueError, match="is no Sequential or Functional model"):
            from_tf_keras(old)


@pytest.mark.parametrize("given", [keras.Sequential(), 3])
def test_what_is_no_model_of_keras_2_is_refused(tf_keras, given):
    with pytest.raises(TypeError, match="Expected a tf_keras model or the path"):
        from_tf_keras(given)
