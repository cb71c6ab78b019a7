"""What layers see and answer, against NumPy, SciPy-free patches and Keras models."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kprune
from kprune.calibration import Calibration
from tests.checks import entries

RNG = np.random.default_rng(0)


def evidence_of(model, kind, x):
    """Gathers over batches of uneven sizes."""
    data = tf.data.Dataset.from_tensor_slices(x).batch(7)
    gathered = Calibration(model, [kind], data).gather(entries(model))
    return [evidence[kind] for evidence in gathered]


def single(layer, shape, dtype="float32"):
    return kprune.prune(keras.Sequential([keras.Input(shape, dtype=dtype), layer]))


def norms_of_patches(x, size, strides, padding):
    patches = tf.image.extract_patches(
        x, [1, *size, 1], [1, *strides, 1], [1, 1, 1, 1], padding.upper()
    )
    shape = *size, x.shape[-1]
    return np.sqrt(np.square(patches.numpy().reshape(-1, *shape)).sum(axis=0))


def test_norm_of_the_inputs_of_a_dense_layer_is_that_of_its_columns():
    model = single(layers.Dense(4, activation="sigmoid"), (3, 5))
    x = RNG.normal(size=(20, 3, 5)).astype("float32")

    (norm,) = evidence_of(model, "input_norm", x)

    expected = np.sqrt(np.square(x).sum(axis=(0, 1)))
    np.testing.assert_allclose(norm, np.tile(expected[:, None], 4), rtol=1e-5)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
def test_each_weight_of_a_convolution_has_the_norm_of_what_it_meets(padding, strides):
    layer = layers.Conv2D(4, (3, 2), strides=strides, padding=padding)
    model = single(layer, (9, 8, 2))
    x = RNG.normal(size=(10, 9, 8, 2)).astype("float32")

    (norm,) = evidence_of(model, "input_norm", x)

    expected = norms_of_patches(x, (3, 2), strides, padding)
    np.testing.assert_allclose(norm, np.repeat(expected[..., None], 4, -1), rtol=1e-5)


def test_grouped_channels_meet_their_own_inputs_only():
    model = single(layers.Conv2D(4, 1, groups=2, use_bias=False), (5, 5, 6))
    x = RNG.normal(size=(10, 5, 5, 6)).astype("float32")

    (norm,) = evidence_of(model, "input_norm", x)

    channels = np.sqrt(np.square(x).sum(axis=(0, 1, 2))).reshape(2, 3)
    expected = np.repeat(channels.T, 2, axis=1)  # two outputs a group
    np.testing.assert_allclose(norm[0, 0], expected, rtol=1e-5)


def test_rows_of_an_embedding_are_met_as_often_as_their_words():
    model = single(layers.Embedding(6, 3), (4,), "int32")
    words = RNG.integers(0, 5, (30, 4)).astype("int32")  # the last word never

    (norm,) = evidence_of(model, "input_norm", words)

    expected = np.sqrt(np.bincount(words.ravel(), minlength=6))
    np.testing.assert_allclose(norm, np.tile(expected[:, None], 3), rtol=1e-5)


def test_indices_of_an_embedding_may_come_as_floats():
    model = single(layers.Embedding(6, 3), (4,))
    words = RNG.integers(0, 6, (30, 4)).astype("float32")

    (norm,) = evidence_of(model, "input_norm", words)

    expected = np.sqrt(np.bincount(words.astype(int).ravel(), minlength=6))
    np.testing.assert_allclose(norm, np.tile(expected[:, None], 3), rtol=1e-5)


def test_an_equation_says_which_inputs_a_weight_meets():
    layer = layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3))
    model = single(layer, (4, 5))
    x = RNG.normal(size=(9, 4, 5)).astype("float32")

    (norm,) = evidence_of(model, "input_norm", x)

    expected = np.sqrt(np.square(x).sum(axis=(0, 1)))[:, None, None]
    np.testing.assert_allclose(norm, np.broadcast_to(expected, (5, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_large_inputs_in_half_precision_do_not_overflow(policy):
    model = single(layers.Dense(2, dtype=policy), (3,))
    x = 300 * RNG.normal(size=(500, 3)).astype("float32")

    (norm,) = evidence_of(model, "input_norm", x)

    expected = np.sqrt(np.square(x).sum(axis=0))
    np.testing.assert_allclose(norm[:, 0], expected, rtol=0.02)


def network():
    """A model in which the answers of layers are found in different places."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="plain")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="rectified")(x)
    x = layers.Conv2D(5, 3, activation="tanh", name="own")(x)
    fork = layers.Conv2D(5, 1, name="fork")(x)
    x = layers.Add()([fork, x])
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(6, name="operator")(x)
    outputs = layers.Dense(2, name="head")(keras.ops.relu(x))
    model = keras.Model(inputs, outputs)
    model.get_layer("norm").set_weights(
        [RNG.normal(size=4) for _ in range(3)] + [RNG.uniform(1, 2, 4)]
    )
    return model


ANSWERS = {"plain": "rectified", "own": "own", "fork": "fork", "head": "head"}


def test_a_layer_answers_behind_its_normalization_and_activation():
    model = network()
    x = RNG.normal(size=(20, 8, 8, 3)).astype("float32")
    pruned = kprune.prune(model)

    means = evidence_of(pruned, "output_mean", x)
    positive = evidence_of(pruned, "output_positive", x)

    for entry, mean, above in zip(entries(pruned), means, positive, strict=True):
        if entry.layer.name == "operator":
            tensor = model.get_layer("head").input  # behind the operation
        else:
            tensor = model.get_layer(ANSWERS[entry.layer.name]).output
        answers = keras.Model(model.input, tensor).predict(x, verbose=0)
        answers = answers.reshape(-1, answers.shape[-1])
        np.testing.assert_allclose(mean, abs(answers).mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(above, (answers > 0).mean(0), atol=1e-3)


def test_one_activation_behind_two_layers_answers_for_each_of_them():
    inputs, shared = keras.Input((6,)), layers.ReLU()
    first = layers.Dense(4, name="first")
    second = layers.Dense(5, name="second")
    outputs = layers.Dense(2, name="head")(shared(second(shared(first(inputs)))))
    model = kprune.prune(keras.Model(inputs, outputs), skip="head")
    x = RNG.normal(size=(20, 6)).astype("float32")

    means = evidence_of(model, "output_mean", x)

    for layer, mean in zip((first, second), means, strict=True):
        kernel, bias = (w.numpy() for w in layer.weights)
        x = np.maximum(x @ kernel + bias, 0)
        np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-4, atol=1e-6)


def mixer(*behind):
    """A model of one layer whose outputs are on the second of three axes."""
    layer = layers.EinsumDense("btc,ts->bsc", output_shape=(6, 6), name="mix")
    model = keras.Sequential([keras.Input((5, 6)), layer, *behind])
    return kprune.prune(model, only="mix")


def test_an_equation_says_on_which_axis_the_channels_are():
    model = mixer(layers.ReLU())
    x = RNG.normal(size=(20, 5, 6)).astype("float32")

    (mean,) = evidence_of(model, "output_mean", x)

    kernel = entries(model)[0].variable.numpy()
    answers = np.maximum(np.einsum("btc,ts->bsc", x, kernel), 0)
    np.testing.assert_allclose(mean, answers.mean(axis=(0, 2)), rtol=1e-4)


def test_a_normalization_of_other_axes_has_no_scale_for_the_channels():
    model = mixer(layers.BatchNormalization())

    with pytest.raises(ValueError, match="No batch normalization .* 'mix' directly"):
        Calibration(model, ["batch_norm_scale"]).gather(entries(model))


@pytest.mark.parametrize("kind", ["input_norm", "output_mean"])
def test_looking_at_a_model_does_not_move_its_running_state(kind):
    memory = layers.GRU(3, stateful=True)
    inputs = keras.Input(batch_shape=(7, 4, 2))
    model = keras.Model(inputs, layers.Dense(1, name="head")(memory(inputs)))
    model = kprune.prune(model, only="head")
    model(RNG.normal(size=(7, 4, 2)).astype("float32"))
    (memory,) = (layer for layer in model.layers if isinstance(layer, layers.GRU))
    before = memory.states[0].numpy()
    assert before.any()

    evidence_of(model, kind, RNG.normal(size=(14, 4, 2)).astype("float32"))

    np.testing.assert_array_equal(memory.states[0].numpy(), before)


@pytest.mark.parametrize("kind", ["input_norm", "output_mean"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_examples_that_are_no_numbers_are_blamed_and_not_the_weight(kind, bad):
    model = single(layers.Dense(2, name="head"), (3,))
    x = np.float32([[1, 2, 3], [4, bad, 6]])

    with pytest.raises(ValueError, match="calibration data.*'head/kernel'"):
        evidence_of(model, kind, x)


def test_scales_are_those_of_the_normalization_behind():
    model = network()
    pruned = kprune.prune(model, only="plain")

    (scale,) = Calibration(pruned, ["batch_norm_scale"]).gather(entries(pruned))

    expected = model.get_layer("norm").gamma
    np.testing.assert_array_equal(scale["batch_norm_scale"], expected)


def test_a_layer_without_normalization_behind_is_named():
    pruned = kprune.prune(network(), only="own")

    with pytest.raises(ValueError, match="No batch normalization .* 'own' directly"):
        Calibration(pruned, ["batch_norm_scale"]).gather(entries(pruned))


def test_a_layer_of_unknown_inputs_is_named():
    pruned = single(layers.LSTM(2, name="memory"), (3, 2))

    with pytest.raises(ValueError, match="'memory/.*' meets .*LSTMCell.*skip="):
        evidence_of(pruned, "input_norm", np.ones((2, 3, 2), "float32"))


def test_a_sample_is_bounded_and_spread_over_all_data():
    model = single(layers.Dense(1, use_bias=False), (1,))
    entries(model)[0].variable.assign([[1.0]])
    x = np.arange(20_000, dtype="float32")[:, None]

    (sample,) = evidence_of(model, "output_sample", x)

    assert 2048 < len(sample) <= 4096
    np.testing.assert_array_equal(sample[:, 0], np.arange(0, 20_000, 8)[: len(sample)])


@pytest.mark.parametrize(
    "criterion",
    ["activation_mean", "activation_percentile", "apoz", "geometric_median"],
)
def test_criteria_of_channels_prune_whole_channels_in_fit(criterion):
    x = RNG.normal(size=(32, 6)).astype("float32")
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(1)]
    )
    model = kprune.prune(model, granularity="channel", skip=model.layers[-1].name)
    model.compile("sgd", "mse")

    model.fit(
        x,
        x[:, :1],
        verbose=0,
        callbacks=[
            kprune.PruningCallback(0.5, criterion=criterion, calibration_data=x)
        ],
    )

    columns = model.layers[0].masks["kernel"].numpy()
    assert (columns == columns[0]).all()
    assert columns[0].sum() == 4


def test_wanda_keeps_weights_whose_inputs_are_large():
    x = np.float32([[3, 0.1, 1]] * 4)
    model = single(layers.Dense(2, use_bias=False), (3,))
    entries(model)[0].variable.assign([[1.0, 0.1], [9.0, -12.0], [1.0, 0.5]])

    pruner = kprune.Pruner(
        model, kprune.ConstantSchedule(0.5), criterion="wanda", calibration_data=x
    )
    pruner.step()

    # |w| * norm, in units of 2: 3, 0.3; 0.9, 1.2; 1, 0.5
    mask = model.layers[0].masks["kernel"].numpy()
    np.testing.assert_array_equal(mask, [[1, 0], [0, 1], [1, 0]])


class Counted(layers.Dense):
    """A layer that counts how often its Python runs, which is when it is traced."""

    calls = 0

    def call(self, inputs):
        self.calls += 1
        return super().call(inputs)


@pytest.mark.parametrize("kind", ["input_norm", "output_mean"])
def test_a_model_is_traced_for_the_first_update_only_and_seen_as_it_is(kind):
    layer = Counted(3, name="counted")
    model = kprune.prune(keras.Sequential([keras.Input((5,)), layers.Dense(5), layer]))
    x = RNG.normal(size=(20, 5)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices(x).batch(8)
    calibration = Calibration(model, [kind], data)
    first = calibration.gather(entries(model))
    counted = model.get_layer("counted").layer
    calls = counted.calls
    model.set_weights(
        [2 * w if w.dtype == "float32" else w for w in model.get_weights()]
    )

    second = calibration.gather(entries(model))

    assert counted.calls == calls
    fresh = Calibration(model, [kind], data).gather(entries(model))
    np.testing.assert_allclose(second[1][kind], fresh[1][kind], rtol=1e-5)
    assert (second[1][kind] > first[1][kind]).all()


@pytest.mark.parametrize("criterion", ["activation_mean", "apoz", "batch_norm_scale"])
def test_channels_that_end_within_a_layer_are_refused_before_training(criterion):
    inputs = keras.Input((6, 6, 4))
    layer = layers.SeparableConv2D(4, 3, use_bias=False, name="separable")
    wrapper = kprune.PruningWrapper(
        layer, granularity=kprune.Channel(), weights=["depthwise_kernel"]
    )
    outputs = layers.GlobalAveragePooling2D()(
        layers.BatchNormalization()(wrapper(inputs))
    )
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    pruning = kprune.PruningCallback(
        kprune.ConstantSchedule(0.5, begin_step=3),
        criterion=criterion,
        calibration_data=np.ones((4, 6, 6, 4), "float32"),
    )
    x = np.ones((4, 6, 6, 4), "float32")

    with pytest.raises(ValueError, match=r"'separable/depthwise_kernel' are mixed"):
        model.fit(x, x[:, 0, 0], batch_size=1, verbose=0, callbacks=[pruning])


def test_a_cell_within_a_loop_is_named():
    lstm = layers.LSTM(3, name="lstm")
    model = kprune.prune(keras.Sequential([keras.Input((2, 2)), lstm]), only="lstm")

    with pytest.raises(ValueError, match=r"The layer 'lstm_cell.*' runs inside a loop"):
        evidence_of(model, "output_mean", np.ones((4, 2, 2), "float32"))
