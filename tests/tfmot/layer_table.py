"""Layers of Keras and of users, and which of their weights get masks."""

import keras
from keras import layers, ops

from kprune import tfmot

registered = keras.saving.register_keras_serializable("kprune_tests_tfmot")


@registered
class Prunable(layers.Dense, tfmot.PrunableLayer):
    """A layer of the user's that says by TFMOT's base class what is prunable."""

    def get_prunable_weights(self):
        return [self.kernel, self.bias]


@registered
class Mixing(layers.Layer):
    """A layer of the user's that says nothing."""

    def build(self, input_shape):
        self.mixing = self.add_weight(shape=(input_shape[-1], 6), name="mixing")
        self.offset = self.add_weight(shape=(6,), name="offset")

    def call(self, inputs):
        return ops.matmul(inputs, self.mixing) + self.offset


@registered
class SaysSo(Mixing):
    """The same layer with the method alone, without the base class."""

    def get_prunable_weights(self):
        return [self.offset]


@registered
class Cell(layers.Layer):
    """A minimal recurrent cell of the user's."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, input_shape):
        self.wide = self.add_weight(shape=(input_shape[-1], self.units), name="wide")
        self.square = self.add_weight(shape=(self.units, self.units), name="square")

    def call(self, inputs, states):
        h = ops.matmul(inputs, self.wide) + ops.matmul(states[0], self.square)
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@registered
class PrunableCell(Cell, tfmot.PrunableLayer):
    """The same cell, of which one weight is prunable."""

    def get_prunable_weights(self):
        return [self.wide]


@registered
class OwnDense(layers.Dense):
    """A layer that is derived from one of Keras."""


def mixed_cells():
    """Makes a layer of four kinds of cells, one upon the other."""
    cells = [layers.LSTMCell(4), layers.GRUCell(5), layers.SimpleRNNCell(3)]
    return layers.RNN([*cells, PrunableCell(2)])


RECURRENT = ["kernel", "recurrent_kernel"]

# Name: how to make the layer, the shape of its inputs, and the weights with masks.
PRUNABLE = {
    "Dense": (lambda: layers.Dense(4), (6,), ["kernel"]),
    "Conv1D": (lambda: layers.Conv1D(4, 2), (3, 6), ["kernel"]),
    "Conv2D": (lambda: layers.Conv2D(4, 2), (4, 6, 1), ["kernel"]),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(2, 3), (4, 4, 3), ["kernel"]),
    "Conv3D": (lambda: layers.Conv3D(2, 2), (3, 4, 3, 3), ["kernel"]),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(2, 2), (3,) * 4, ["kernel"]),
    "SeparableConv1D": (
        lambda: layers.SeparableConv1D(4, 3),
        (3, 6),
        ["pointwise_kernel"],
    ),
    "SeparableConv2D": (
        lambda: layers.SeparableConv2D(4, 2),
        (4, 6, 2),
        ["pointwise_kernel"],
    ),
    "Embedding": (lambda: layers.Embedding(10, 4), (5,), ["embeddings"]),
    "SimpleRNN": (lambda: layers.SimpleRNN(4), (3, 4), RECURRENT),
    "LSTM": (lambda: layers.LSTM(4), (3, 4), RECURRENT),
    "GRU": (lambda: layers.GRU(4), (3, 4), RECURRENT),
    "RNN of a cell": (lambda: layers.RNN(layers.LSTMCell(4)), (3, 4), RECURRENT),
    "RNN of cells": (mixed_cells, (3, 4), [*RECURRENT * 3, "wide"]),
    "MultiHeadAttention": (
        lambda: layers.MultiHeadAttention(2, 3),
        (5, 6),
        ["kernel"] * 4,
    ),
    "prunable custom layer": (lambda: Prunable(4), (6,), ["kernel", "bias"]),
    "custom layer with the method": (SaysSo, (5,), ["offset"]),
}

# TFMOT refuses these, and with them any model around them.
PRUNABLE_HERE = {
    "custom layer": (Mixing, (5,), ["mixing"]),
    "derived layer": (lambda: OwnDense(4), (6,), ["kernel"]),
    "RNN of an unknown cell": (
        lambda: layers.RNN(Cell(5)),
        (3, 4),
        ["wide", "square"],
    ),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(2, 2), (2, 3, 3, 2), RECURRENT),
    "Bidirectional": (
        lambda: layers.Bidirectional(layers.GRU(4)),
        (3, 4),
        RECURRENT * 2,
    ),
    "TimeDistributed": (
        lambda: layers.TimeDistributed(layers.Dense(4)),
        (3, 6),
        ["kernel"],
    ),
    "EinsumDense": (lambda: layers.EinsumDense("ab,bc->ac", 4), (6,), ["kernel"]),
}

# TFMOT wraps some of these all the same, without masks, and refuses others.
UNPRUNABLE = {
    "Dropout": (lambda: layers.Dropout(0.4), (6,)),
    "Flatten": (layers.Flatten, (2, 3)),
    "MaxPooling2D": (layers.MaxPooling2D, (4, 4, 2)),
    "Activation": (lambda: layers.Activation("relu"), (6,)),
    "BatchNormalization": (layers.BatchNormalization, (6,)),
    "LayerNormalization": (layers.LayerNormalization, (6,)),
    "Rescaling": (lambda: layers.Rescaling(0.5), (6,)),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(2), (4, 4, 2)),
}

# Others stand for these in the default run.
ALIKE = {
    "Conv1D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "SeparableConv1D",
    "SimpleRNN",
    "GRU",
    "RNN of a cell",
    "RNN of an unknown cell",
    "ConvLSTM2D",
    "Bidirectional",
    "TimeDistributed",
    "EinsumDense",
    "derived layer",
}
