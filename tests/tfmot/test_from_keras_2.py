"""Models of tf_keras that were never pruned, as Keras 3 models."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kprune.tfmot.from_keras_2 import from_tf_keras
from kprune.tfmot.to_keras_2 import to_tf_keras
from tests.checks import assert_plain, values
from tests.tfmot import keras_2_models as models
from tests.tfmot.keras_2_cases import (
    LAYER_CASES,
    VOCABULARY,
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


LOOKUPS = {
    "Discretization": (lambda k: k.layers.Discretization([0.0, 1.0]), [[-1.0], [2.0]]),
    "Discretization, counted": (
        lambda k: k.layers.Discretization([0.0, 1.0], output_mode="one_hot"),
        [[-1.0], [2.0]],
    ),
    "Hashing": (lambda k: k.layers.Hashing(7), [["leaf"], ["root"]]),
    "StringLookup": (
        lambda k: k.layers.StringLookup(vocabulary=["leaf", "root"]),
        [["root"], ["twig"]],
    ),
    "IntegerLookup": (
        lambda k: k.layers.IntegerLookup(vocabulary=[3, 5], output_mode="one_hot"),
        [[5], [7]],
    ),
    "TextVectorization": (lambda k: k.layers.TextVectorization(), [["a leaf"], ["b"]]),
    "TextVectorization by frequency": (
        lambda k: k.layers.TextVectorization(output_mode="tf_idf"),
        [["a leaf"], ["b"]],
    ),
    "StringLookup by frequency": (
        lambda k: k.layers.StringLookup(output_mode="tf_idf", num_oov_indices=2),
        [["leaf"], ["b"]],
    ),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookups_go_there_and_back(tf_keras, name):
    make, values = LOOKUPS[name]
    layer, values = make(tf_keras), tf.constant(values)
    if "Text" in name or "frequency" in name:
        layer.adapt(tf.constant([["a leaf"], ["a root"], ["leaf"], ["leaf"]]))
    inputs = tf_keras.Input((1,), dtype=values.dtype)
    old = tf_keras.Model(inputs, layer(inputs))

    new = from_tf_keras(old)
    again = to_tf_keras(new)

    for model in (new, again):
        np.testing.assert_allclose(model(values), old(values), rtol=1e-6)


def test_an_adapted_vocabulary_comes_over(tf_keras):
    layer = tf_keras.layers.StringLookup()
    layer.adapt(np.array(["leaf", "leaf", "root"]))
    inputs = tf_keras.Input((2,), dtype="string")

    new = from_tf_keras(tf_keras.Model(inputs, layer(inputs)))

    assert new(tf.constant([["root", "twig"]])).numpy().tolist() == [[2, 0]]


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


FUNCTIONS = {
    "squeeze": lambda x: tf.squeeze(x[:, :1] + 0.0),
    "squeeze an axis": lambda x: tf.squeeze(x[:, :1], axis=1),
    "squeeze axes": lambda x: tf.squeeze(x[:, :1], axis=[-2]),
    "squeeze as of old": lambda x: tf.compat.v1.squeeze(x[:, :1], squeeze_dims=[1]),
    "matmul": lambda x: tf.matmul(x, x, transpose_b=True),
    "matmul by the adjoint": lambda x: tf.matmul(x, x, adjoint_b=True),
    "matmul of the adjoint": lambda x: tf.matmul(x, x, adjoint_a=True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_tensorflow_computes_the_same(tf_keras, name):
    inputs = tf_keras.Input((4, 6))
    old = tf_keras.Model(inputs, FUNCTIONS[name](inputs))

    assert_same_outputs(old, from_tf_keras(old))


def test_a_function_that_is_called_in_another_way_is_named(tf_keras):
    tf_keras.backend.clear_session()  # which numbers the layers of functions
    inputs = tf_keras.Input((4, 4))
    old = tf_keras.Model(inputs, inputs[inputs > 0])

    with pytest.raises(
        ValueError, match="'tf.__operators__.getitem' calls .* as it is "
    ):
        from_tf_keras(old)


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


def test_masks_that_are_joined_do_not_collide_with_the_layer(tf_keras):
    k = tf_keras
    inputs = k.Input((6,), dtype="int32")
    embeddings = [k.layers.Embedding(VOCABULARY, 2, mask_zero=True) for _ in "ab"]
    join = k.layers.Concatenate(name="concatenate")
    join_again = k.layers.Concatenate(name="concatenate_1")
    parts = [embedding(inputs) for embedding in embeddings]
    joined = join_again([join(parts), parts[0]])
    old = randomised(k.Model(inputs, k.layers.SimpleRNN(2)(joined)))
    keras.backend.clear_session()  # the next automatic name is `concatenate`

    new = from_tf_keras(old)

    assert {x.name for x in old.layers} <= {x.name for x in new.operations}
    padded = np.array([[1, 2, 0, 0, 0, 0], [0, 3, 4, 5, 0, 0]])
    np.testing.assert_allclose(new(padded), old(padded), atol=1e-6)


def test_names_that_would_become_one_are_named(tf_keras):
    k = tf_keras
    names = ("block/a", "block_a", "b")
    dense = [k.layers.Dense(4, name=name) for name in names]

    with pytest.raises(ValueError, match="'block/a' and 'block_a'"):
        from_tf_keras(k.Sequential([k.Input((4,)), *dense]))


def test_a_weight_that_is_not_a_number_is_the_reason_given(tf_keras):
    old = models.sequential(tf_keras)
    kernel = old.get_layer("hidden").kernel
    kernel.assign(np.full(kernel.shape, np.nan))

    with pytest.raises(ValueError, match="'chain' computes NaN.* weights of 'hidden'"):
        from_tf_keras(old)


def words_as_floats(k):
    """Makes the model of a text that tf_keras gives an input of float32."""
    layers = [k.layers.Embedding(VOCABULARY, 3, input_length=6), k.layers.Dense(1)]
    return randomised(k.Sequential(layers))


def one_word_beside_numbers(k):
    word, numbers = k.Input((1,)), k.Input((4,))
    outputs = [k.layers.Embedding(3, 2)(word), k.layers.Dense(2)(numbers)]
    return randomised(k.Model([word, numbers], outputs))


def categories_as_floats(k):
    inputs = k.Input((2,))
    encoded = k.layers.CategoryEncoding(VOCABULARY)(inputs)
    return randomised(k.Model(inputs, k.layers.Dense(2)(encoded)))


WORDS = [words_as_floats, one_word_beside_numbers, categories_as_floats]


@pytest.mark.parametrize("build", WORDS)
def test_words_may_come_as_floats(tf_keras, build):
    old = build(tf_keras)

    new = from_tf_keras(old)

    shapes = [(5, *tensor.shape[1:]) for tensor in old.inputs]
    words = [np.random.default_rng(0).integers(0, 3, shape) for shape in shapes]
    inputs = tf.nest.pack_sequence_as(old.input, [w.astype("float32") for w in words])
    for model in (new, to_tf_keras(new)):
        answers = [tf.nest.flatten(each(inputs)) for each in (model, old)]
        for found, expected in zip(*answers, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_an_original_that_does_not_run_is_said_to_be_the_reason(tf_keras):
    def refuse(inputs):
        with tf.control_dependencies([tf.debugging.assert_less(inputs, -1e9)]):
            return tf.identity(inputs)

    layers = [tf_keras.Input((4,)), tf_keras.layers.Lambda(refuse, name="refuse")]

    with pytest.raises(
        ValueError, match="the original runs on no random input: .*'ref"
    ):
        from_tf_keras(tf_keras.Sequential(layers), {"refuse": lambda inputs: inputs})


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


@pytest.mark.parametrize("kind", ["sparse", "ragged"])
def test_inputs_that_are_not_dense_are_refused(tf_keras, kind):
    for k, translate in ((tf_keras, from_tf_keras), (keras, to_tf_keras)):
        inputs = k.Input((None,) if k is tf_keras else (4,), name="x", **{kind: True})
        model = k.Model(inputs, k.layers.Identity()(inputs))

        with pytest.raises(ValueError, match="The input 'x' is sparse or ragged"):
            translate(model)


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
