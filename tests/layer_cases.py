"""The layers that kprune is tested with; the README's table is made from them.

Each case is a small model around one kind of layer, with data to train it on. The
expected paths of masked weights are written out by hand.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import layers


@dataclasses.dataclass(frozen=True)
class LayerCase:
    """A layer, a model around it and what pruning shall do with it.

    Attributes:
        name: The layer's name in the README.
        build: Makes the model; the layer in question is called `subject`.
        paths: Paths of the weights of `subject` that get masks.
        inputs: Makes a batch of inputs of the given size.
        only: Passed to `prune`.
        note: A remark for the README.
        tflite: Whether the stripped model converts to TFLite.
    """

    name: str
    build: Callable
    paths: tuple
    inputs: Callable
    only: object = None
    note: str = ""
    tflite: bool = True


def normal(*shape):
    """Makes inputs of the given shape, drawn from a normal distribution."""

    def draw(size):
        return np.random.default_rng(1).normal(size=(size, *shape)).astype("float32")

    return draw


def tokens(length, vocabulary=11):
    """Makes inputs of token numbers; zeros among them mark padding."""

    def draw(size):
        return np.random.default_rng(1).integers(0, vocabulary, (size, length))

    return draw


def around(make, shape, head=True):
    """Makes a model of one input, the layer, and a dense head."""

    def build():
        inputs = keras.Input(shape, name="inputs")
        x = make()(inputs)
        if len(x.shape) > 2:
            x = layers.Flatten(name="flatten")(x)
        return keras.Model(inputs, layers.Dense(3, name="head")(x) if head else x)

    return build


def embedded(make, length=6, **kwargs):
    """Makes a model of tokens, an embedding with padding, and the layer."""

    def build():
        inputs = keras.Input((length,), dtype="int32", name="inputs")
        x = layers.Embedding(11, 6, name="embedding", **kwargs)(inputs)
        x = make()(x)
        if len(x.shape) > 2:
            x = layers.Flatten(name="flatten")(x)
        return keras.Model(inputs, layers.Dense(3, name="head")(x))

    return build


@keras.saving.register_keras_serializable("kprune_tests")
class Scale2D(layers.Layer):
    """A custom layer with weights of its own."""

    def build(self, input_shape):
        self.mixing = self.add_weight(shape=(input_shape[-1], 6), name="mixing")
        self.offset = self.add_weight(shape=(6,), initializer="zeros", name="offset")

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.mixing) + self.offset

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 6)


@keras.saving.register_keras_serializable("kprune_tests")
class ResidualBlock(layers.Layer):
    """A custom layer with sublayers, that builds them."""

    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.steps = [layers.Dense(units, "relu"), layers.Dense(units)]
        self.norm = layers.LayerNormalization()

    def build(self, input_shape):
        for step in self.steps:
            step.build(input_shape)
        self.norm.build(input_shape)

    def call(self, inputs, training=False):
        x = inputs
        for step in self.steps:
            x = step(x)
        return self.norm(x + inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("kprune_tests")
class LazyBlock(layers.Layer):
    """A custom layer with sublayers and no `build`."""

    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.project = layers.Dense(units)

    def call(self, inputs):
        return keras.ops.relu(self.project(inputs))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("kprune_tests")
class FeedForward(layers.Layer):
    """A custom layer that holds a Sequential, whose layers have automatic names."""

    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.mlp = keras.Sequential(
            [layers.Dense(2 * units, "relu"), layers.Dense(units)]
        )

    def build(self, input_shape):
        self.mlp.build(input_shape)

    def call(self, inputs):
        return self.mlp(inputs) + inputs

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("kprune_tests")
class Chooses(layers.Layer):
    """A custom layer that says itself what may be pruned."""

    def build(self, input_shape):
        self.first = self.add_weight(shape=(input_shape[-1], 5), name="first")
        self.second = self.add_weight(shape=(5, 5), name="second")

    def call(self, inputs):
        return keras.ops.matmul(keras.ops.matmul(inputs, self.first), self.second)

    def get_prunable_weights(self):
        return [self.second]


def _shared():
    inputs = keras.Input((4, 6), name="inputs")
    dense = layers.Dense(6, name="subject")
    x = layers.Flatten(name="flatten")(dense(keras.ops.relu(dense(inputs))))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def _attention(layer, **call):
    def build():
        inputs = keras.Input((5, 8), name="inputs")
        x = layer()(inputs, inputs, **call)
        x = x[0] if isinstance(x, (tuple, list)) else x
        x = layers.Flatten(name="flatten")(x)
        return keras.Model(inputs, layers.Dense(3, name="head")(x))

    return build


def _masked_attention(layer):
    """Makes a model that passes query, value, key and mask by their names."""

    def build():
        inputs = keras.Input((5, 8), name="inputs")
        mask = keras.ops.mean(inputs, axis=-1, keepdims=True) < 0.5
        x = layer()(
            query=inputs[:, :3],
            value=inputs,
            key=2 * inputs,
            attention_mask=keras.ops.swapaxes(mask, 1, 2),
        )
        x = layers.Flatten(name="flatten")(x)
        return keras.Model(inputs, layers.Dense(3, name="head")(x))

    return build


def _tied():
    tokens_in = keras.Input((6,), dtype="int32", name="inputs")
    embedding = layers.Embedding(11, 6, name="subject")
    x = layers.Dense(6, name="mix")(embedding(tokens_in))
    # The embedding's own matrix, transposed, maps back to the vocabulary.
    x = TiedHead(embedding, name="tied")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(tokens_in, layers.Dense(3, name="head")(x))


@keras.saving.register_keras_serializable("kprune_tests")
class TiedHead(layers.Layer):
    """A layer that uses the matrix of another, its constructor's argument."""

    def __init__(self, source, **kwargs):
        super().__init__(**kwargs)
        self.source = source

    def call(self, inputs):
        return keras.ops.matmul(inputs, keras.ops.transpose(self.source.embeddings))

    def get_config(self):
        source = keras.saving.serialize_keras_object(self.source)
        return {**super().get_config(), "source": source}

    @classmethod
    def from_config(cls, config):
        config["source"] = keras.saving.deserialize_keras_object(config["source"])
        return cls(**config)


def _stacked_cells():
    return layers.RNN(
        [layers.LSTMCell(5), layers.GRUCell(4)], name="subject", return_sequences=True
    )


_LSTM = ("cell/kernel", "cell/recurrent_kernel")
_ATTENTION = (
    "query_dense/kernel",
    "key_dense/kernel",
    "value_dense/kernel",
    "output_dense/kernel",
)
IMAGE = (8, 8, 3)


def _attention_cases(name, layer):
    """Lists the ways to call an attention layer."""
    builds = {
        "": _attention(layer),
        ", causal": _attention(layer, use_causal_mask=True),
        " with scores": _attention(layer, return_attention_scores=True),
        " with a mask": _masked_attention(layer),
    }
    return [
        LayerCase(f"{name}{way}", build, _ATTENTION, normal(5, 8))
        for way, build in builds.items()
    ]


CASES = [
    LayerCase(
        "Dense",
        around(lambda: layers.Dense(8, name="subject"), (10,)),
        ("kernel",),
        normal(10),
    ),
    LayerCase(
        "EinsumDense",
        around(
            lambda: layers.EinsumDense("abc,cde->abde", (4, 2, 5), name="subject"),
            (4, 6),
        ),
        ("kernel",),
        normal(4, 6),
    ),
    LayerCase(
        "Conv1D",
        around(lambda: layers.Conv1D(4, 3, name="subject"), (8, 3)),
        ("kernel",),
        normal(8, 3),
    ),
    LayerCase(
        "Conv2D",
        around(lambda: layers.Conv2D(4, 3, name="subject"), IMAGE),
        ("kernel",),
        normal(*IMAGE),
    ),
    LayerCase(
        "Conv3D",
        around(lambda: layers.Conv3D(4, 2, name="subject"), (4, 4, 4, 2)),
        ("kernel",),
        normal(4, 4, 4, 2),
    ),
    LayerCase(
        "Conv1DTranspose",
        around(lambda: layers.Conv1DTranspose(4, 3, name="subject"), (6, 3)),
        ("kernel",),
        normal(6, 3),
    ),
    LayerCase(
        "Conv2DTranspose",
        around(lambda: layers.Conv2DTranspose(4, 3, name="subject"), (5, 5, 3)),
        ("kernel",),
        normal(5, 5, 3),
    ),
    LayerCase(
        "Conv3DTranspose",
        around(lambda: layers.Conv3DTranspose(3, 2, name="subject"), (3, 3, 3, 2)),
        ("kernel",),
        normal(3, 3, 3, 2),
    ),
    LayerCase(
        "SeparableConv1D",
        around(lambda: layers.SeparableConv1D(6, 3, name="subject"), (8, 4)),
        ("pointwise_kernel",),
        normal(8, 4),
        note="the depthwise kernel stays dense",
    ),
    LayerCase(
        "SeparableConv2D",
        around(lambda: layers.SeparableConv2D(6, 3, name="subject"), IMAGE),
        ("pointwise_kernel",),
        normal(*IMAGE),
        note="the depthwise kernel stays dense",
    ),
    LayerCase(
        "DepthwiseConv1D",
        around(lambda: layers.DepthwiseConv1D(3, name="subject"), (8, 4)),
        ("kernel",),
        normal(8, 4),
        only=[layers.DepthwiseConv1D, layers.Dense],
        note="only if `only` selects it",
    ),
    LayerCase(
        "DepthwiseConv2D",
        around(lambda: layers.DepthwiseConv2D(3, name="subject"), IMAGE),
        ("kernel",),
        normal(*IMAGE),
        only=["subject", "head"],
        note="only if `only` selects it",
    ),
    LayerCase(
        "Embedding",
        around(lambda: layers.Embedding(11, 6, name="subject"), (6,)),
        ("embeddings",),
        tokens(6),
    ),
    LayerCase(
        "ReversibleEmbedding",
        around(lambda: layers.ReversibleEmbedding(11, 6, name="subject"), (6,)),
        ("embeddings",),
        tokens(6),
    ),
    LayerCase(
        "Embedding with mask_zero",
        embedded(lambda: layers.LSTM(5, name="subject"), mask_zero=True),
        _LSTM,
        tokens(6),
        note="the mask of padding passes through",
    ),
    LayerCase(
        "SimpleRNN",
        around(lambda: layers.SimpleRNN(5, name="subject"), (6, 4)),
        _LSTM,
        normal(6, 4),
    ),
    LayerCase(
        "LSTM",
        around(lambda: layers.LSTM(5, name="subject"), (6, 4)),
        _LSTM,
        normal(6, 4),
    ),
    LayerCase(
        "GRU",
        around(lambda: layers.GRU(5, name="subject"), (6, 4)),
        _LSTM,
        normal(6, 4),
    ),
    LayerCase(
        "RNN of stacked cells",
        around(_stacked_cells, (6, 4)),
        (
            "cell/cells.0/kernel",
            "cell/cells.0/recurrent_kernel",
            "cell/cells.1/kernel",
            "cell/cells.1/recurrent_kernel",
        ),
        normal(6, 4),
    ),
    LayerCase(
        "ConvLSTM2D",
        around(lambda: layers.ConvLSTM2D(3, 2, name="subject"), (3, 5, 5, 2)),
        _LSTM,
        normal(3, 5, 5, 2),
    ),
    LayerCase(
        "ConvLSTM1D",
        around(lambda: layers.ConvLSTM1D(3, 2, name="subject"), (3, 5, 2)),
        _LSTM,
        normal(3, 5, 2),
    ),
    LayerCase(
        "ConvLSTM3D",
        around(lambda: layers.ConvLSTM3D(2, 2, name="subject"), (3, 3, 3, 3, 2)),
        _LSTM,
        normal(3, 3, 3, 3, 2),
    ),
    LayerCase(
        "Bidirectional",
        around(
            lambda: layers.Bidirectional(layers.LSTM(4), name="subject"),
            (6, 4),
        ),
        (
            "forward_layer/cell/kernel",
            "forward_layer/cell/recurrent_kernel",
            "backward_layer/cell/kernel",
            "backward_layer/cell/recurrent_kernel",
        ),
        normal(6, 4),
    ),
    LayerCase(
        "TimeDistributed",
        around(
            lambda: layers.TimeDistributed(layers.Dense(5), name="subject"),
            (6, 4),
        ),
        ("layer/kernel",),
        normal(6, 4),
    ),
    *_attention_cases(
        "MultiHeadAttention", lambda: layers.MultiHeadAttention(2, 4, name="subject")
    ),
    *_attention_cases(
        "GroupQueryAttention",
        lambda: layers.GroupQueryAttention(4, 4, 2, name="subject"),
    ),
    LayerCase(
        "SpectralNormalization",
        around(
            lambda: layers.SpectralNormalization(layers.Dense(8), name="subject"),
            (10,),
        ),
        ("kernel",),
        normal(10),
    ),
    LayerCase(
        "custom layer with weights",
        around(lambda: Scale2D(name="subject"), (10,)),
        ("mixing",),
        normal(10),
        note="kernels of rank 2 and more",
    ),
    LayerCase(
        "custom layer with sublayers",
        around(lambda: ResidualBlock(6, name="subject"), (6,)),
        ("steps.0/kernel", "steps.1/kernel"),
        normal(6),
    ),
    LayerCase(
        "custom layer with a Sequential",
        around(lambda: FeedForward(6, name="subject"), (6,)),
        ("mlp/layers.0/kernel", "mlp/layers.1/kernel"),
        normal(6),
    ),
    LayerCase(
        "custom layer without `build`",
        around(lambda: LazyBlock(6, name="subject"), (6,)),
        ("project/kernel",),
        normal(6),
    ),
    LayerCase(
        "custom layer with get_prunable_weights",
        around(lambda: Chooses(name="subject"), (6,)),
        ("second",),
        normal(6),
    ),
    LayerCase(
        "layer used twice",
        _shared,
        ("kernel",),
        normal(4, 6),
        note="one mask",
    ),
    LayerCase(
        "tied weights",
        _tied,
        ("embeddings",),
        tokens(6),
    ),
    LayerCase(
        "beside a Lambda",
        around(
            lambda: keras.Sequential(
                [
                    keras.Input((10,)),
                    layers.Dense(8, name="subject"),
                    layers.Lambda(lambda x: 2 * x, output_shape=(8,)),
                ],
                name="nested",
            ),
            (10,),
        ),
        ("kernel",),
        normal(10),
        note="loading a Lambda needs `safe_mode=False`, as ever",
    ),
]


def find(model, name="subject"):
    """Finds the outermost layer of that name, in nested models too."""
    return next(x for x in model._flatten_layers() if x.name == name)
