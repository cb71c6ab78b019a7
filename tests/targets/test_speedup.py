import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.layer_graph import read_graph
from kprune.targets import predict_speedup
from kprune.targets.kernel_properties import block_sparsity, kernel_properties
from tests.targets import models


def mlp(units=64, inputs=64):
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(units, name="a"),
            layers.Dense(2, name="b"),
        ]
    )


def by_target(prediction, words):
    (found,) = [s for s in prediction.statements if words in s.target]
    return found


def zero_blocks(layer, length, sparsity):
    kernel = np.array(layer.kernel)
    blocks = kernel.reshape(-1, length, kernel.shape[1])
    order = np.random.default_rng(0).permutation(blocks[:, 0].size)
    rows, columns = np.unravel_index(
        order[: round(sparsity * order.size)], blocks[:, 0].shape
    )
    blocks[rows, :, columns] = 0
    layer.kernel.assign(kernel)


def test_blocks_run_along_the_inputs_and_are_aligned():
    kernel = np.ones((8, 2))
    kernel[0:4, 0] = 0  # one block
    kernel[2:6, 1] = 0  # four zeros that fill none

    assert block_sparsity(kernel, 4) == 0.25
    assert block_sparsity(kernel.T, 2) == 0.25


def test_inputs_that_fill_no_block_count_as_one():
    kernel = np.ones((6, 1))
    kernel[4:] = 0

    assert block_sparsity(kernel, 4) == 0.5


def test_kernels_are_measured_as_by_hand():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Conv2D(10, 1, strides=2, name="point")(x)
    x = layers.SeparableConv2D(5, 3, padding="same", name="separable")(x)
    model = keras.Model(inputs, layers.Dense(7, name="dense")(layers.Flatten()(x)))
    kernel = np.array(model.get_layer("conv").kernel)
    kernel[..., 1] = kernel[..., 3] = 0
    model.get_layer("conv").kernel.assign(kernel)

    found = kernel_properties(model, read_graph(model))

    assert [(k.layer, k.kind, k.channels, k.multiply_adds) for k in found] == [
        ("conv", "convolution", 4, 3 * 3 * 3 * 4 * 36),
        ("depthwise", "depthwise", 4, 3 * 3 * 4 * 36),
        ("point", "pointwise", 10, 4 * 10 * 9),
        ("separable", "depthwise", 10, 3 * 3 * 10 * 9),
        ("separable", "pointwise", 5, 10 * 5 * 9),
        ("dense", "dense", 7, 45 * 7),
    ]
    assert found[0].zero_channels == 2
    assert found[0].sparsity == 0.5
    assert found[0].block_sparsity is None


def test_shares_are_of_multiply_adds():
    prediction = predict_speedup(mlp(64, 64))

    assert prediction.share("dense") == 1
    assert prediction.share("pointwise") == 0


def with_lstm(x):
    return layers.LSTM(4, name="loop")(x)


def with_attention(x):
    return layers.MultiHeadAttention(2, 3, name="loop")(x, x)


def with_wrapper(x):
    return layers.TimeDistributed(layers.Dense(8), name="loop")(x)


def with_product(x):
    return layers.Dot(axes=1, name="loop")([x, x])


def with_own_code(x):
    return layers.Lambda(lambda t: t @ t, name="loop")(x)


@pytest.mark.parametrize(
    "middle", [with_lstm, with_attention, with_wrapper, with_product, with_own_code]
)
def test_shares_are_not_known_beside_a_layer_that_is_not_counted(middle):
    inputs = keras.Input((6, 6))
    x = layers.Flatten()(middle(inputs))
    model = keras.Model(inputs, layers.Dense(16, name="head")(x))
    model.get_layer("head").kernel.assign(np.zeros((x.shape[1], 16)))

    prediction = predict_speedup(model)

    assert prediction.share("dense") is None
    assert prediction.unknown_costs == ("loop",)
    assert "is not known, nor the whole" in by_target(prediction, "(4, 1)").words
    assert "multiply-adds: not known" in str(prediction)
    assert "note: the multiply-adds of 'loop' are not known" in str(prediction)


def test_shares_of_a_model_with_open_sizes_are_not_known():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(x)))

    assert predict_speedup(model).unknown_costs == ("conv",)


def test_layers_without_kernels_cost_nothing():
    inputs = keras.Input((5,))
    x = layers.Flatten()(layers.Embedding(7, 4)(inputs))
    x = layers.PReLU()(layers.BatchNormalization()(x))
    model = keras.Model(inputs, keras.ops.relu(layers.Dense(2)(x)))

    assert predict_speedup(model).share("dense") == 1


def test_zeros_are_counted_over_all_weights_that_can_be_pruned():
    inputs = keras.Input((5,))
    x = layers.LSTM(3, name="lstm")(layers.Embedding(10, 4, name="rows")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.get_layer("lstm").cell.recurrent_kernel.assign(np.zeros((3, 12)))

    prediction = predict_speedup(model)

    # 10 x 4 of the embedding, 4 x 12 and 3 x 12 of the LSTM, 3 x 2 of Dense.
    assert [k.size for k in prediction.kernels] == [40, 48, 36, 6]
    assert prediction.sparsity == pytest.approx(36 / 130)


@pytest.mark.parametrize(
    ("layer", "inputs", "multiply_adds"),
    [
        (layers.Conv1DTranspose(10, 3), (8, 6), 3 * 10 * 6 * 8),
        (layers.Conv2DTranspose(10, 3, strides=2), (4, 4, 6), 9 * 10 * 6 * 16),
    ],
    ids=["1-D", "2-D"],
)
def test_transposed_kernels_have_their_outputs_before_their_inputs(
    layer, inputs, multiply_adds
):
    model = keras.Sequential([keras.Input(inputs), layer])
    kernel = np.array(layer.kernel)
    kernel[..., :5, :] = 0
    layer.kernel.assign(kernel)

    (found,) = kernel_properties(model, read_graph(model))

    assert (found.kind, found.channels, found.zero_channels) == ("transposed", 10, 5)
    assert found.multiply_adds == multiply_adds


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantized_kernels_are_said_to_be_unread(mode):
    model = mlp(8, 8)
    model.layers[0].quantize(mode)

    prediction = predict_speedup(model)

    assert [k.layer for k in prediction.kernels] == ["b"]
    assert prediction.unread == prediction.unknown_costs == ("a",)
    assert by_target(prediction, "channels removed").faster == "not known"
    assert "note: the zeros of 'a' are not counted" in str(prediction)


def test_scattered_zeros_are_promised_nothing():
    model = mlp()
    kernel = model.layers[0].kernel
    mask = np.random.default_rng(0).random(kernel.shape) < 0.1
    kernel.assign(kernel * mask)

    prediction = predict_speedup(model)

    assert {s.faster for s in prediction.statements} == {"no"}
    assert "0.99x to 1.03x" in by_target(prediction, "scattered").words
    assert "of the blocks of 4 inputs" in by_target(prediction, "(4, 1)").words


@pytest.mark.parametrize(
    ("sparsity", "figure"),
    [(0.7, None), (0.81, "1.4x to 2.0x"), (0.91, "2.5x to 3.4x"), (0.97, "4.4x to 6x")],
)
def test_blocks_are_given_the_figure_measured_for_them(sparsity, figure):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64)])
    zero_blocks(model.layers[0], 4, sparsity)

    statement = by_target(predict_speedup(model), "(4, 1)")

    if figure is None:
        assert statement.faster == "no"
    else:
        assert statement.faster == "if"
        assert figure in statement.words
        assert "batch 1" in statement.words


def test_the_gain_of_blocks_is_bounded_by_the_share_of_dense_layers():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 16)),
            layers.Conv2D(8, 4, name="conv"),  # 16 * 16 * 8 = 2048 multiply-adds
            layers.Flatten(),
            layers.Dense(256, name="dense"),  # 8 * 256 = 2048
        ]
    )
    zero_blocks(model.get_layer("dense"), 4, 0.9)

    statement = by_target(predict_speedup(model), "(4, 1)")

    assert "50% of the multiply-adds" in statement.words
    assert "at most 2.0x" in statement.words


def test_blocks_of_sixteen_are_for_int8():
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64)])

    zero_blocks(model.layers[0], 16, 0.9)

    statement = by_target(predict_speedup(model), "int8")
    assert statement.faster == "if"
    assert "1.6x" in statement.words


def test_zero_channels_are_counted_but_cost_time_until_removed():
    model = mlp(64)
    kernel = np.array(model.layers[0].kernel)
    kernel[:, :32] = 0
    model.layers[0].kernel.assign(kernel)

    statement = by_target(predict_speedup(model), "channels removed")

    assert statement.words.startswith("32 of 66 output channels of Dense")
    assert "until they are removed" in statement.words


@pytest.mark.parametrize(
    ("changes", "faster", "words"),
    [
        ({}, "if", "The model qualifies, with 75% zeros"),
        ({"sparsity": 0.5}, "if", "expected more than two thirds"),
        ({"middle": layers.MaxPooling2D(2, name="m")}, "no", "the first at 'm'"),
    ],
    ids=["qualifies", "too dense", "cut"],
)
def test_sparse_kernels_of_xnnpack_follow_its_check(changes, faster, words):
    prediction = predict_speedup(models.mobile(**changes))

    statement = by_target(prediction, "XNNPACK")
    assert statement.faster == faster
    assert words in statement.words


def test_a_pruned_model_is_judged_by_what_is_left():
    model = kprune.prune(mlp())
    model.compile("sgd", "mse")
    callback = kprune.PruningCallback(kprune.ConstantSchedule(0.5))
    model.fit(np.ones((2, 64)), np.ones((2, 2)), verbose=0, callbacks=[callback])

    prediction = predict_speedup(model)

    assert prediction.sparsity == 0.5
    assert kprune.is_pruned(model)


def test_a_model_whose_kernels_are_all_quantized_has_no_known_sparsity():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="a")])
    model.layers[0].quantize("int8")

    prediction = predict_speedup(model)

    assert prediction.sparsity is None
    assert "no kernels that can be read; multiply-adds: not known" in str(prediction)


def test_the_costs_of_a_subclassed_model_are_not_known():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.a, self.b = layers.Dense(30), layers.LSTM(2)

        def call(self, x):
            return self.b(self.a(x))

    model = Own()
    model(np.ones((1, 5, 10), "float32"))

    prediction = predict_speedup(model)

    assert prediction.share("dense") is None
    assert prediction.unknown_costs == ("own",)
    assert prediction.xnnpack is None
    assert by_target(prediction, "XNNPACK").faster == "not known"


def test_printed_it_says_where_whether_and_why():
    text = str(predict_speedup(mlp()))

    assert text.startswith("sequential")
    assert "0.0% zeros in 2 kernels; multiply-adds: 100% Dense" in text
    assert "Keras, SavedModel" in text


def test_an_unbuilt_model_is_refused():
    with pytest.raises(ValueError, match="not built"):
        predict_speedup(keras.Sequential([layers.Dense(2)]))
