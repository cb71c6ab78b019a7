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

    assert statement.words.startswith("32 of 66 output channels are zero.")
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


def test_a_subclassed_model_is_judged_by_its_weights():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.a, self.b = layers.Dense(30), layers.LSTM(2)

        def call(self, x):
            return self.b(self.a(x))

    model = Own()
    model(np.ones((1, 5, 10), "float32"))

    prediction = predict_speedup(model)

    # 300 weights of Dense, 30 x 8 of the LSTM's kernel.
    assert prediction.share("dense") == pytest.approx(300 / 540)
    assert prediction.xnnpack is None
    assert by_target(prediction, "XNNPACK").faster == "no"


def test_printed_it_says_where_whether_and_why():
    text = str(predict_speedup(mlp()))

    assert text.startswith("sequential")
    assert "0.0% zeros in 2 kernels; multiply-adds: 100% Dense" in text
    assert "Keras, SavedModel" in text


def test_an_unbuilt_model_is_refused():
    with pytest.raises(ValueError, match="not built"):
        predict_speedup(keras.Sequential([layers.Dense(2)]))
