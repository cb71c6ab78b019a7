"""Small models of every kind that an export has to carry."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers


def cnn():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.DepthwiseConv2D(3),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(5, name="logits"),
        ],
        name="cnn",
    )


def resnet():
    inputs = keras.Input((8, 8, 3))
    x = stem = layers.Conv2D(4, 3, padding="same")(inputs)
    for _ in range(2):
        x = layers.BatchNormalization()(x)
        x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, stem]))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign([0.1, -0.2, 0.3, 0.4])
            layer.moving_variance.assign([0.5, 2.0, 1.5, 0.1])
    return model


def mobilenet():
    return keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=5
    )


def lstm():
    return keras.Sequential([keras.Input((6, 3)), layers.LSTM(4), layers.Dense(2)])


def recurrent_stack():
    return keras.Sequential(
        [
            keras.Input((6, 3)),
            layers.Bidirectional(layers.GRU(4, return_sequences=True)),
            layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(4)]),
            layers.Dense(2),
        ]
    )


def open_sequence():
    return keras.Sequential([keras.Input((None, 3)), layers.LSTM(4), layers.Dense(2)])


def open_image():
    return keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3), layers.GlobalMaxPool2D()]
    )


def masked_text():
    return keras.Sequential(
        [
            keras.Input((6,), dtype="int32", name="ids"),
            layers.Embedding(11, 4, mask_zero=True),
            layers.LSTM(4),
            layers.Dense(2),
        ]
    )


def attention():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs, use_causal_mask=True)
    return keras.Model(inputs, layers.LayerNormalization()(x + inputs))


def recommender():
    user = keras.Input((), dtype="int32", name="user")
    film = keras.Input((), dtype="int64", name="film")
    age = keras.Input((1,), name="age")
    x = [layers.Embedding(50, 4)(user), layers.Embedding(7, 4)(film), age]
    x = layers.Concatenate()(x)
    outputs = {"score": layers.Dense(1)(x), "genre": layers.Dense(3)(x)}
    return keras.Model({"user": user, "film": film, "age": age}, outputs)


def two_in_two_out():
    left, right = keras.Input((3,), name="left"), keras.Input((4,), name="right")
    first = layers.Dense(2, name="first")(left)
    second = layers.Dense(2, name="second")(right)
    return keras.Model([left, right], [first, second])


def nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="relu")])
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(inner(inner(inputs))))


def normalized():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 3)))
    return keras.Sequential([keras.Input((3,)), layer, layers.Dense(2)])


def deferred():
    model = keras.Sequential([layers.Embedding(9, 4), layers.Flatten()])
    model(np.ones((2, 5), "int32"))
    return model


class TwoHeads(keras.Model):
    """A subclassed model with a dict of inputs."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)
        self.table = layers.Embedding(10, 4)

    def call(self, inputs):
        return {"u": self.dense(inputs["x"]), "v": self.table(inputs["ids"])}


def subclassed():
    model = TwoHeads()
    model({"x": np.ones((2, 4), "float32"), "ids": np.ones((2,), "int32")})
    return model


class OneHot(keras.Model):
    """A subclassed model whose `call` needs whole numbers."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, ids):
        return self.dense(tf.one_hot(ids, 7))


def whole_number_subclass():
    model = OneHot()
    model(np.ones((2, 4), "int32"))
    return model


def half_precision(policy):
    inputs = keras.Input((6, 8))
    x = layers.LSTM(4, return_sequences=True, dtype=policy)(inputs)
    x = layers.MultiHeadAttention(2, 4, dtype=policy)(x, x)
    x = layers.Dense(5, dtype=policy)(layers.BatchNormalization(dtype=policy)(x))
    return keras.Model(inputs, layers.Softmax(dtype="float32")(x))


def mixed_float16():
    return half_precision("mixed_float16")


def mixed_bfloat16():
    return half_precision("mixed_bfloat16")


def word_lookup():
    words = keras.Input((1,), dtype="string", name="word")
    ids = layers.StringLookup(vocabulary=["salt", "pepper"], name="lookup")(words)
    return keras.Model(words, layers.Embedding(3, 4)(ids))


def text():
    vectorize = layers.TextVectorization(output_sequence_length=4)
    vectorize.adapt(["to be or not to be", "that is the question"])
    return keras.Sequential(
        [
            keras.Input((1,), dtype="string"),
            vectorize,
            layers.Embedding(vectorize.vocabulary_size(), 3),
            layers.GlobalAveragePooling1D(),
        ]
    )


def number_lookup():
    numbers = keras.Input((1,), dtype="int64")
    ids = layers.IntegerLookup(vocabulary=[0, 1, 5])(numbers)
    return keras.Model(numbers, layers.Embedding(4, 2)(ids))


FOR_EVERY_FORMAT = [
    cnn,
    resnet,
    lstm,
    recurrent_stack,
    open_sequence,
    open_image,
    masked_text,
    attention,
    recommender,
    two_in_two_out,
    nested,
    normalized,
    deferred,
    subclassed,
    whole_number_subclass,
    mixed_float16,
    mixed_bfloat16,
    mobilenet,
]
BATCH_OF_ONE = [
    lstm,
    recurrent_stack,
    open_sequence,
    masked_text,
    mixed_float16,
    mixed_bfloat16,
]
WITH_TABLES = [word_lookup, text, number_lookup]
