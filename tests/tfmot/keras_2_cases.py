"""Models of tf_keras around one layer, or of one architecture.

Each is made by a function of the module tf_keras, so that collecting tests imports
nothing.
"""

import numpy as np
import pytest
import tensorflow as tf

VOCABULARY = 11


def randomised(model):
    """Gives all weights of a tf_keras model values that no initializer would."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        if "float" in variable.dtype.name:
            positive = "variance" in variable.name
            values = random.uniform(0.3 if positive else -0.6, 0.9, variable.shape)
            variable.assign(values.astype(variable.dtype.as_numpy_dtype))
    return model


def data_for(model, size=4):
    """Draws inputs of a Keras 2 model; whole numbers below `VOCABULARY`."""
    random = np.random.default_rng(1)

    def draw(tensor):
        shape = (tensor.shape[0] or size, *(n or 5 for n in tensor.shape[1:]))
        if tensor.dtype.is_integer:
            return random.integers(0, VOCABULARY, shape).astype("int32")
        return random.normal(size=shape).astype("float32")

    return [draw(tensor) for tensor in model.inputs]


def assert_same_outputs(old, new):
    """Compares the two on inputs that were not used to compare them before."""
    half = any("float16" in layer.compute_dtype for layer in old.layers)
    inputs = tf.nest.pack_sequence_as(old.input, data_for(old))
    answers = [tf.nest.flatten(model(inputs, training=False)) for model in (new, old)]
    for found, expected in zip(*answers, strict=True):
        expected = np.asarray(expected, "float64")
        allowed = (1e-2 if half else 1e-6) * (np.abs(expected).max() or 1.0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=allowed)


def around(k, layers, shape, dtype="float32"):
    """Makes a model of one input and of a layer, or of several side by side."""
    inputs = k.Input(shape, dtype=dtype, name="inputs")
    outputs = tf.nest.map_structure(lambda layer: layer(inputs), layers)
    return randomised(k.Model(inputs, outputs))


IMAGE, SERIES, TOKENS = (6, 6, 4), (6, 4), (6,)

LAYERS = {
    "Dense": (lambda layers: layers.Dense(3, "relu"), (4,)),
    "Dense without bias": (lambda layers: layers.Dense(3, use_bias=False), (4,)),
    "Dense with everything": (
        lambda layers: layers.Dense(
            3,
            activation="gelu",
            kernel_initializer="he_normal",
            kernel_regularizer="l2",
            bias_regularizer="l1",
            activity_regularizer="l1_l2",
            kernel_constraint="max_norm",
        ),
        (4,),
    ),
    "EinsumDense": (
        lambda layers: layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"),
        SERIES,
    ),
    "Conv1D": (lambda layers: layers.Conv1D(3, 2, padding="causal"), SERIES),
    "Conv2D": (lambda layers: layers.Conv2D(3, 3, strides=2, padding="same"), IMAGE),
    "Conv2D in groups": (lambda layers: layers.Conv2D(4, 3, groups=2), IMAGE),
    "Conv2D, dilated": (lambda layers: layers.Conv2D(3, 2, dilation_rate=2), IMAGE),
    "Conv3D": (lambda layers: layers.Conv3D(3, 2), (3, 3, 3, 2)),
    "Conv1DTranspose": (lambda layers: layers.Conv1DTranspose(3, 2), SERIES),
    "Conv2DTranspose": (lambda layers: layers.Conv2DTranspose(3, 3, strides=2), IMAGE),
    "Conv3DTranspose": (lambda layers: layers.Conv3DTranspose(2, 2), (3, 3, 3, 2)),
    "SeparableConv1D": (lambda layers: layers.SeparableConv1D(3, 2), SERIES),
    "SeparableConv2D": (
        lambda layers: layers.SeparableConv2D(3, 3, depth_multiplier=2),
        IMAGE,
    ),
    "DepthwiseConv1D": (lambda layers: layers.DepthwiseConv1D(2), SERIES),
    "DepthwiseConv2D": (
        lambda layers: layers.DepthwiseConv2D(3, depth_multiplier=2),
        IMAGE,
    ),
    "BatchNormalization": (lambda layers: layers.BatchNormalization(), IMAGE),
    "BatchNormalization of an axis": (
        lambda layers: layers.BatchNormalization(axis=1),
        IMAGE,
    ),
    "BatchNormalization of a list": (
        lambda layers: layers.BatchNormalization(axis=[2]),
        IMAGE,
    ),
    "LayerNormalization": (lambda layers: layers.LayerNormalization(), SERIES),
    "LayerNormalization of axes": (
        lambda layers: layers.LayerNormalization(axis=[1, 2]),
        SERIES,
    ),
    "GroupNormalization": (lambda layers: layers.GroupNormalization(2), IMAGE),
    "SpectralNormalization": (
        lambda layers: layers.SpectralNormalization(layers.Dense(3)),
        (4,),
    ),
    "Normalization": (
        lambda layers: layers.Normalization(
            mean=[1.0, 2, 3, 4], variance=[1.0, 4, 9, 16]
        ),
        (4,),
    ),
    "Embedding": (
        lambda layers: layers.Embedding(VOCABULARY, 3, input_length=6),
        TOKENS,
        "int32",
    ),
    "SimpleRNN": (lambda layers: layers.SimpleRNN(3), SERIES),
    "LSTM": (lambda layers: layers.LSTM(3, return_sequences=True), SERIES),
    "LSTM of old": (
        lambda layers: layers.LSTM(
            3,
            recurrent_activation="hard_sigmoid",
            unit_forget_bias=False,
            implementation=1,
        ),
        SERIES,
    ),
    "LSTM that returns its state": (
        lambda layers: layers.LSTM(3, return_state=True),
        SERIES,
    ),
    "LSTM, backwards and unrolled": (
        lambda layers: layers.LSTM(3, go_backwards=True, unroll=True),
        SERIES,
    ),
    "GRU": (lambda layers: layers.GRU(3), SERIES),
    "GRU of old": (lambda layers: layers.GRU(3, reset_after=False), SERIES),
    "GRU without bias": (lambda layers: layers.GRU(3, use_bias=False), SERIES),
    "RNN of a cell": (lambda layers: layers.RNN(layers.GRUCell(3)), SERIES),
    "RNN of stacked cells": (
        lambda layers: layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(2)]),
        SERIES,
    ),
    "ConvLSTM1D": (lambda layers: layers.ConvLSTM1D(2, 2), (3, 4, 2)),
    "ConvLSTM2D": (lambda layers: layers.ConvLSTM2D(2, 2), (3, 4, 4, 2)),
    "Bidirectional": (lambda layers: layers.Bidirectional(layers.LSTM(3)), SERIES),
    "Bidirectional of two kinds": (
        lambda layers: layers.Bidirectional(
            layers.LSTM(3),
            backward_layer=layers.GRU(3, go_backwards=True),
            merge_mode="sum",
        ),
        SERIES,
    ),
    "TimeDistributed": (lambda layers: layers.TimeDistributed(layers.Dense(3)), SERIES),
    "PReLU": (lambda layers: layers.PReLU(shared_axes=[1]), SERIES),
    "CategoryEncoding": (
        lambda layers: layers.CategoryEncoding(VOCABULARY),
        TOKENS,
        "int32",
    ),
    "a name with a slash": (lambda layers: layers.Dense(3, name="conv1/bn"), (4,)),
}


# Layers without weights, side by side in one model.
WEIGHTLESS = {
    (4,): lambda layers: [
        layers.UnitNormalization(),
        layers.LeakyReLU(0.15),
        layers.ThresholdedReLU(0.4),
        layers.ELU(0.7),
        layers.ReLU(0.8, negative_slope=0.1, threshold=0.2),
        layers.Activation("hard_sigmoid"),
        layers.Activation("swish"),
        layers.Rescaling(0.5, offset=1.0),
        layers.RepeatVector(2),
        layers.Dropout(0.5, seed=1),
        layers.GaussianNoise(0.5),
        layers.ActivityRegularization(l1=0.1),
    ],
    SERIES: lambda layers: [
        layers.Softmax(axis=1),
        layers.AveragePooling1D(3, padding="same"),
        layers.GlobalMaxPooling1D(),
        layers.Reshape((4, -1)),
        layers.Permute((2, 1)),
        layers.SpatialDropout1D(0.5),
    ],
    IMAGE: lambda layers: [
        layers.Resizing(3, 5),
        layers.UpSampling2D(2, interpolation="bilinear"),
        layers.ZeroPadding2D(((1, 0), (2, 1))),
        layers.Cropping2D(1),
        layers.MaxPooling2D(),
        layers.GlobalAveragePooling2D(keepdims=True),
        layers.Flatten(),
        layers.RandomFlip(),
    ],
}

# Those whose loops take long to trace, and which others prove as well.
SLOW = (
    "Bidirectional",
    "ConvLSTM2D",
    "GRU",
    "ConvLSTM1D",
    "GRU without bias",
    "LSTM that returns its state",
    "LSTM, backwards and unrolled",
    "RNN of a cell",
)

LAYER_CASES = [
    pytest.param(
        layer,
        shape,
        *(dtype or ["float32"]),
        id=name,
        marks=[pytest.mark.slow] if name in SLOW else [],
    )
    for name, (layer, shape, *dtype) in LAYERS.items()
]
