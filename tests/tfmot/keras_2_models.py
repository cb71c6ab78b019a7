"""Models of tf_keras of every architecture, and pruned ones.

Each is made by a function of the module tf_keras, so that collecting tests imports
nothing.
"""

import numpy as np

from tests.tfmot.keras_2_cases import VOCABULARY, randomised


def sequential(k):
    layers = [k.layers.Dense(8, "relu", name="hidden"), k.layers.Dense(3, name="head")]
    model = k.Sequential([k.Input((6,)), *layers], name="chain")
    return randomised(model)


def convolutional(k):
    layers = k.layers
    return randomised(
        k.Sequential(
            [
                k.Input((6, 6, 2), name="inputs"),
                layers.Conv2D(4, 3, name="conv"),
                layers.BatchNormalization(name="norm"),
                layers.ReLU(name="relu"),
                layers.DepthwiseConv2D(3, name="depthwise"),
                layers.Flatten(name="flatten"),
                layers.Dense(3, name="head"),
            ]
        )
    )


def nested(k):
    body = sequential(k)
    inputs = k.Input((6,), name="inputs")
    inner_input = k.Input((3,), name="inner_input")
    inner = k.Model(
        inner_input, k.layers.Dense(3, name="deep")(inner_input), name="inner"
    )
    x = inner(body(inputs))
    return randomised(k.Model(inputs, k.layers.Dense(2, name="last")(inner(x))))


def shared(k):
    inputs = k.Input((6,), name="inputs")
    dense = k.layers.Dense(6, "tanh", name="shared")
    return randomised(
        k.Model(inputs, k.layers.Dense(2, name="head")(dense(dense(inputs))))
    )


def several(k):
    """Two inputs, two outputs, by name."""
    inputs = {"a": k.Input((4,), name="a"), "b": k.Input((5,), name="b")}
    left = k.layers.Dense(3, name="left")(inputs["a"])
    right = k.layers.Dense(3, name="right")(inputs["b"])
    outputs = {"sum": k.layers.Add(name="sum")([left, right]), "left": left}
    return randomised(k.Model(inputs, outputs, name="several"))


def residual(k):
    """Operators, functions of TensorFlow and slices in the graph."""
    import tensorflow as tf

    inputs = k.Input((6, 4), name="inputs")
    x = k.layers.Dense(4, name="dense")(inputs)
    x = tf.nn.relu(x + inputs) * 2.0 - 1.0
    x = tf.concat([x[:, :2], -x[:, 2:]], axis=1) / (tf.abs(x) + 0.5)
    x = tf.reduce_mean(tf.transpose(x, (0, 2, 1)), axis=-1, keepdims=True)
    x = tf.reshape(x, (-1, 4)) @ tf.ones((4, 3))
    return randomised(k.Model(inputs, k.layers.Dense(2, name="head")(1 - x)))


def recurrent(k):
    """Padding is masked; one layer's state starts the next."""
    layers = k.layers
    inputs = k.Input((6,), dtype="int32", name="inputs")
    x = layers.Embedding(VOCABULARY, 4, mask_zero=True, name="embedding")(inputs)
    x, *state = layers.LSTM(
        3, return_sequences=True, return_state=True, name="encoder"
    )(x)
    x = layers.LSTM(3, name="decoder")(x, initial_state=state)
    return randomised(k.Model(inputs, layers.Dense(2, name="head")(x)))


def sequence(k):
    layers = k.layers
    inputs = k.Input((6,), dtype="int32", name="inputs")
    x = layers.Embedding(VOCABULARY, 4, name="embedding")(inputs)
    x = layers.LSTM(3, name="lstm")(x)
    return randomised(k.Model(inputs, layers.Dense(2, name="head")(x)))


def attention(k):
    layers = k.layers
    inputs = k.Input((6, 8), name="inputs")
    x = layers.MultiHeadAttention(2, 4, name="attention")(
        inputs, inputs, use_causal_mask=True
    )
    x = layers.LayerNormalization(name="norm")(layers.Add(name="sum")([x, inputs]))
    x = layers.Attention(use_scale=True, name="dot")([x, inputs])
    return randomised(k.Model(inputs, layers.Dense(2, name="head")(x)))


def repeated(k):
    """A model that is called at every step of a series."""
    each = k.layers.TimeDistributed(sequential(k), name="each")
    return k.Sequential([k.Input((4, 6)), each])


def half_precision(k):
    policy = k.mixed_precision.Policy("mixed_float16")
    layers = [
        k.layers.Dense(8, "relu", dtype=policy),
        k.layers.Dense(3, dtype="float32"),
    ]
    return randomised(k.Sequential([k.Input((6,)), *layers]))


def frozen(k):
    model = convolutional(k)
    model.get_layer("conv").trainable = False
    return model


ARCHITECTURES = (
    sequential,
    convolutional,
    nested,
    shared,
    several,
    residual,
    recurrent,
    attention,
    repeated,
    half_precision,
    frozen,
)


def train(k, tfmot, model, batches=5):
    """Trains a model wrapped by TFMOT for some steps of batches of eight."""
    random = np.random.default_rng(2)
    size = 8 * batches
    shapes = [(size, *tensor.shape[1:]) for tensor in model.inputs]
    x = [
        random.integers(0, VOCABULARY, shape)
        if tensor.dtype.is_integer
        else random.normal(size=shape).astype("float32")
        for shape, tensor in zip(shapes, model.inputs, strict=True)
    ]
    y = [random.normal(size=(size, *out.shape[1:])) for out in model.outputs]
    # Tracing a step takes longer than running a few.
    model.compile(k.optimizers.Adam(0.01), "mse", run_eagerly=True)
    callback = tfmot.sparsity.keras.UpdatePruningStep()
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[callback])
    return model
