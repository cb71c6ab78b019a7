"""Networks as they are built of layers with rules of their own, narrowed as a whole."""

import keras
import pytest
from keras import layers, ops

from kprune.channels.tracing import trace
from kprune.shrinking.removal import without
from tests.channels.exactness import assert_exact, choose, randomised
from tests.training_helpers import with_slow


def normalized_transformer():
    """A decoder with RMS normalization, grouped heads and gates; no biases."""
    tokens = keras.Input((7,), dtype="int32")
    x = layers.Embedding(5, 16)(tokens)
    for _ in range(2):
        y = layers.RMSNormalization()(x)
        attention = layers.GroupQueryAttention(8, 4, 2, use_bias=False)
        x = layers.Add()([x, attention(y, y, use_causal_mask=True)])
        y = layers.RMSNormalization()(x)
        gate = layers.Dense(24, "silu", use_bias=False)(y)
        y = gate * layers.Dense(24, use_bias=False)(y)
        x = x + layers.Dense(16, use_bias=False)(y)
    return keras.Model(tokens, layers.Dense(5)(layers.RMSNormalization()(x)))


def encoder():
    """An encoder that leaves padding out."""
    tokens = keras.Input((7,), dtype="int32")
    x = layers.Embedding(5, 16, mask_zero=True)(tokens)
    for _ in range(2):
        y = layers.MultiHeadAttention(4, 8)(x, x)
        x = layers.LayerNormalization()(layers.Add()([x, y]))
        y = layers.Dropout(0.1)(layers.Dense(32, "gelu")(x))
        x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(16)(y)]))
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def vision_transformer():
    """Patches, attention among them, and their mean."""
    image = keras.Input((16, 16, 3))
    x = layers.Reshape((16, 12))(layers.Conv2D(12, 4, strides=4)(image))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(3, 4)(y, y)])
        y = layers.Dense(24, "gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(12)(y)])
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def attention_by_hand():
    """Heads from dense layers, put together by operations."""
    inputs = keras.Input((5, 8))
    query, key, value = (
        layers.EinsumDense("abc,cde->abde", (None, 4, 6), bias_axes="de")(inputs)
        for _ in range(3)
    )
    scores = ops.softmax(ops.einsum("atne,asne->anst", query, key), axis=2)
    x = ops.einsum("anst,asne->atne", scores, value)
    x = layers.EinsumDense("abde,dec->abc", (None, 8), bias_axes="c")(x)
    x = layers.Add()([x, layers.Dense(8)(inputs)])
    return keras.Model(inputs, layers.Dense(3)(x))


def recurrent_stack():
    """Recurrent layers of all kinds, of sequences of any length."""
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(5, 16, mask_zero=True)(tokens)
    x = layers.LSTM(12, return_sequences=True)(x)
    x = layers.Bidirectional(layers.GRU(8, return_sequences=True))(x)
    cells = [layers.LSTMCell(6), layers.SimpleRNNCell(4)]
    cells = layers.RNN(cells, return_sequences=True)
    x = layers.Bidirectional(cells, merge_mode="sum")(x)
    x, state = layers.GRU(10, return_state=True)(x)
    return keras.Model(tokens, [layers.Dense(2)(x), layers.Dense(3)(state)])


def recommender():
    """Embeddings of two kinds, compared and put through dense layers."""
    user, item = (keras.Input((), dtype="int32") for _ in range(2))
    left, right = (layers.Embedding(5, 16)(x) for x in (user, item))
    x = layers.Dense(16, "relu")(layers.Concatenate()([left, right]))
    x = layers.Dense(1)(x)
    return keras.Model([user, item], x + layers.Dot(axes=1)([left, right]))


def frames():
    """A convolutional network for each image of a film, then a recurrent layer."""
    film = keras.Input((4, 8, 8, 3))
    x = layers.TimeDistributed(layers.Conv2D(8, 3))(film)
    x = layers.TimeDistributed(layers.BatchNormalization())(x)
    x = layers.TimeDistributed(layers.DepthwiseConv2D(3))(x)
    x = layers.TimeDistributed(layers.Activation("relu"))(x)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    return keras.Model(film, layers.Dense(2)(layers.LSTM(6)(x)))


def separable_network():
    """Convolutions of all kinds, with a residual between them."""
    image = keras.Input((12, 12, 3))
    x = layers.SeparableConv2D(8, 3, padding="same", depth_multiplier=2)(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.SeparableConv2D(8, 3, padding="same")(x)
    x = layers.Add()([x, layers.BatchNormalization(scale=False)(y)])
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="sigmoid")(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.Conv2DTranspose(6, 3, strides=2)(x)
    x = layers.Flatten()(layers.GroupNormalization(3)(x))
    return keras.Model(image, layers.Dense(2)(x))


def shared_layers():
    """Attention and a recurrent layer that are used twice."""
    inputs = keras.Input((5, 8))
    attention = layers.MultiHeadAttention(2, 4)
    recurrent = layers.LSTM(8, return_sequences=True)
    x = layers.Dense(8)(inputs)
    x = attention(x, x)
    x = recurrent(recurrent(attention(x, x)))
    return keras.Model(inputs, layers.Dense(3)(x))


ALL = [
    attention_by_hand,
    encoder,
    frames,
    normalized_transformer,
    recommender,
    recurrent_stack,
    separable_network,
    shared_layers,
    vision_transformer,
]


# `shared_layers` are recurrent, and of transformers one stays.
IN_THE_SLOW_RUN = {recurrent_stack, encoder, normalized_transformer}


@pytest.mark.parametrize(
    "build", with_slow(IN_THE_SLOW_RUN, ALL), ids=lambda build: build.__name__
)
def test_a_narrowed_network_answers_as_one_with_zeros(build):
    model = randomised(build())
    tracing = trace(model)

    removed = choose(tracing, 0.5, seed=3)
    small = without(model, tracing, removed)

    assert small.count_params() < model.count_params()
    assert_exact(model, small, tracing, removed)


@pytest.mark.parametrize("build, width", [(normalized_transformer, 8), (encoder, 16)])
def test_a_residual_stream_is_narrowed_if_its_normalization_allows_it(build, width):
    model = build()
    tracing = trace(model)

    small = without(model, tracing, choose(tracing, 0.5))

    embedding = next(x for x in small.layers if isinstance(x, layers.Embedding))
    assert embedding.output_dim == width
