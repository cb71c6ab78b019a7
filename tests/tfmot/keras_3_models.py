"""Models of Keras 3 that go over to tf_keras."""

import keras
from keras import layers, ops


def chain():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(3, name="head"),
        ]
    )


def residual():
    """Operators and functions of `keras.ops`."""
    inputs = keras.Input((6, 6, 4), name="inputs")
    x = layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    x = ops.relu(x + inputs) * 2.0 - 1.0
    gate = ops.sigmoid(ops.mean(x, axis=(1, 2), keepdims=True))
    x = ops.concatenate([x * gate, ops.relu6(-x), ops.silu(x / 4.0)], axis=-1)
    x = ops.maximum(x, ops.leaky_relu(3.0 - x))
    x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, 36, 12))
    x = ops.softmax(ops.max(x, axis=[1]), axis=-1)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def nested():
    body = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, "relu", name="deep")], name="body"
    )
    inputs = [keras.Input((6,), name="a"), keras.Input((6,), name="b")]
    x = layers.Concatenate(name="both")([body(inputs[0]), body(inputs[1])])
    return keras.Model(inputs, [layers.Dense(2, name="one")(x), x])


def recurrent():
    inputs = keras.Input((6,), dtype="int32", name="inputs")
    x = layers.Embedding(11, 4, mask_zero=True, name="embedding")(inputs)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Bidirectional(layers.LSTM(3), name="both")(x)
    return keras.Model(inputs, layers.LeakyReLU(0.2, name="leaky")(x))


def attention():
    """Padding is masked."""
    inputs = keras.Input((6,), dtype="int32", name="inputs")
    x = layers.Embedding(11, 4, mask_zero=True, name="embedding")(inputs)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    return keras.Model(inputs, layers.LayerNormalization(name="norm")(x))


ARCHITECTURES = (chain, residual, nested, attention)
