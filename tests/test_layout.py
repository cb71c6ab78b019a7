import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.layout import Layout, layout_of
from kprune.prunable import find_weights


class OutputsFirst(layers.Layer):
    """A dense layer whose kernel lies the other way round."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(4, input_shape[-1]), name="kernel")

    def call(self, inputs):
        return keras.ops.matmul(inputs, keras.ops.transpose(self.kernel))


@kprune.register("layouts", OutputsFirst)
def _outputs_first(layer, variable):
    return kprune.Layout(axes=(1, 0))


def einsum(equation, output_shape, **kwargs):
    return lambda: layers.EinsumDense(equation, output_shape, **kwargs)


# A layer, the shape of an example, and the canonical shape of its kernel.
CASES = {
    "Dense": (lambda: layers.Dense(4), (3,), (3, 4)),
    "Conv1D": (lambda: layers.Conv1D(4, 3), (6, 2), (3, 2, 4)),
    "Conv2D": (lambda: layers.Conv2D(4, (2, 3)), (5, 6, 3), (2, 3, 3, 4)),
    "Conv2D, groups": (lambda: layers.Conv2D(4, 2, groups=2), (4, 4, 6), (2, 2, 3, 4)),
    "Conv3D": (lambda: layers.Conv3D(4, 2), (3, 3, 3, 2), (2, 2, 2, 2, 4)),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(4, 3), (5, 2), (3, 2, 4)),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, 2), (3, 3, 5), (2, 2, 5, 4)),
    "Conv3DTranspose": (
        lambda: layers.Conv3DTranspose(4, 2),
        (2, 2, 2, 3),
        (2, 2, 2, 3, 4),
    ),
    "DepthwiseConv1D": (
        lambda: layers.DepthwiseConv1D(3, depth_multiplier=2),
        (6, 3),
        (3, 1, 6),
    ),
    "DepthwiseConv2D": (
        lambda: layers.DepthwiseConv2D(2, depth_multiplier=2),
        (4, 4, 3),
        (2, 2, 1, 6),
    ),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(4, 2), (4, 4, 3), (1, 1, 3, 4)),
    "SpectralNormalization": (
        lambda: layers.SpectralNormalization(layers.Conv1DTranspose(4, 3)),
        (5, 2),
        (3, 2, 4),
    ),
    "EinsumDense, dense": (einsum("ab,bc->ac", 4), (3,), (3, 4)),
    "EinsumDense, two outputs": (einsum("ab,bcd->acd", (2, 3)), (5,), (5, 6)),
    "EinsumDense, two inputs": (einsum("abc,cbd->ad", 4), (2, 3), (6, 4)),
    "EinsumDense, outputs first": (einsum("ab,cb->ac", 4), (3,), (3, 4)),
    "EinsumDense, outputs swapped": (einsum("ab,bcd->adc", (3, 2)), (5,), (5, 6)),
    "EinsumDense, per head": (einsum("ahi,hio->aho", (2, 4)), (2, 3), (3, 8)),
    "EinsumDense, ellipsis": (einsum("...x,xy->...y", 4), (6, 3), (3, 4)),
    "custom": (OutputsFirst, (3,), (3, 4)),
}


def built(name):
    make, shape, expected = CASES[name]
    inputs = keras.Input(shape)
    layer = make()
    model = keras.Model(inputs, layer(inputs))
    (weight,) = [w for w in find_weights(layer) if _is_kernel(w)]
    return model, layer, weight.variable, expected


def _is_kernel(weight):
    return weight.path in ("kernel", "pointwise_kernel")


@pytest.mark.parametrize("name", CASES)
def test_a_masked_channel_is_the_one_output_that_stands_still(name):
    model, layer, variable, expected = built(name)
    layout = layout_of(layer, variable)
    kernel = np.random.default_rng(0).normal(size=variable.shape).astype("float32")
    canonical = layout.canonical(kernel)
    x = np.random.default_rng(1).normal(size=(8, *model.input_shape[1:]))
    assert canonical.shape == expected

    for channel in (0, expected[-1] - 1):
        masked = canonical.copy()
        masked[..., channel] = 0
        variable.assign(layout.own(masked, kernel.shape))
        outputs = model.predict_on_batch(x)

        # With two axes of outputs, channels are counted through both.
        outputs = outputs.reshape(-1, expected[-1])
        still = (np.ptp(outputs, axis=0) == 0).nonzero()[0]
        np.testing.assert_array_equal(still, [channel])


@pytest.mark.parametrize("name", CASES)
def test_what_was_turned_comes_back(name):
    _, layer, variable, _ = built(name)
    weight = np.arange(np.prod(variable.shape)).reshape(variable.shape)
    layout = layout_of(layer, variable)

    again = layout.own(layout.canonical(weight), weight.shape)

    np.testing.assert_array_equal(again, weight)


@pytest.mark.parametrize("name", ["Dense", "EinsumDense, two inputs", "custom"])
def test_inputs_are_what_an_output_sums_over(name):
    model, layer, variable, expected = built(name)
    layout = layout_of(layer, variable)
    canonical = np.zeros(expected, "float32")
    canonical[1, 2] = 1  # output 2 is input 1 alone
    variable.assign(layout.own(canonical, variable.shape))
    x = np.random.default_rng(0).normal(size=(8, *model.input_shape[1:]))

    outputs = model.predict_on_batch(x)

    np.testing.assert_allclose(outputs[:, 2], x.reshape(8, -1)[:, 1], rtol=1e-5)
    assert not np.delete(outputs, 2, axis=1).any()


@pytest.mark.parametrize(
    ("make", "gates"),
    [
        (lambda: layers.LSTM(5, return_sequences=True), 4),
        (lambda: layers.GRU(5, return_sequences=True), 3),
        (lambda: layers.ConvLSTM1D(5, 2, return_sequences=True, padding="same"), 4),
    ],
    ids=["LSTM", "GRU", "ConvLSTM1D"],
)
def test_a_channel_of_a_recurrent_layer_is_a_unit_with_all_its_gates(make, gates):
    layer = make()
    convolves = isinstance(layer, layers.ConvLSTM1D)
    inputs = keras.Input((4, 6, 3) if convolves else (4, 3))
    model = keras.Model(inputs, layer(inputs))
    for variable in (layer.cell.kernel, layer.cell.recurrent_kernel):
        layout = layout_of(layer.cell, variable)
        kernel = np.random.default_rng(0).normal(size=variable.shape)
        canonical = layout.canonical(kernel).copy()
        assert canonical.shape == (gates, *variable.shape[:-1], 5)
        canonical[..., 2] = 0
        variable.assign(layout.own(canonical, kernel.shape))
        np.testing.assert_array_equal(
            np.flatnonzero(~variable.numpy().any(axis=tuple(range(variable.ndim - 1)))),
            2 + 5 * np.arange(gates),
        )

    outputs = model.predict_on_batch(
        np.random.default_rng(1).normal(size=(3, *inputs.shape[1:]))
    )

    still = np.ptp(outputs, axis=0).max(axis=tuple(range(outputs.ndim - 2))) == 0
    np.testing.assert_array_equal(still, np.arange(5) == 2)


def test_an_embedding_has_words_as_inputs():
    layer = layers.Embedding(7, 3)
    layer.build()

    assert layout_of(layer, layer.embeddings) == Layout()


def test_the_depthwise_kernel_of_a_separable_convolution_is_turned_as_such():
    layer = layers.SeparableConv1D(4, 3, depth_multiplier=2)
    layer.build((None, 8, 5))

    assert layout_of(layer, layer.depthwise_kernel) == Layout(shape=(3, 1, 10))
    assert layout_of(layer, layer.pointwise_kernel) == Layout()


@pytest.mark.parametrize(
    "granularity", ["element", kprune.Block(4, 1), kprune.NofM(2, 4)], ids=repr
)
def test_kernels_that_lie_otherwise_get_the_mask_of_those_that_do_not(granularity):
    names = ["Dense", "custom"]
    kernel = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    masks = []
    for name in names:
        layer = CASES[name][0]()
        model = keras.Sequential([keras.Input((8,)), layer])
        own = kernel if name == "Dense" else kernel.T
        layer.kernel.assign(own)
        model = kprune.prune(model, granularity=granularity)
        kprune.Pruner(model, kprune.ConstantSchedule(0.5)).step()
        masks.append(model.layers[0].masks["kernel"].numpy())

    np.testing.assert_array_equal(masks[0], masks[1].T)
    assert masks[0].sum() == 16
