"""What either library does with layers and models that are not plain; a case each."""

import numpy as np
from _versus_sides import dense, fitted, keras, stripped_zeros, tf_keras


def rescaling(side):
    """A `Rescaling` layer in front of a Dense layer."""
    layers = side.keras.layers
    return _pruned(side, (8,), layers.Rescaling(0.1), layers.Dense(8))


def einsum(side):
    """`EinsumDense`."""
    layer = side.keras.layers.EinsumDense("abc,cd->abd", output_shape=(4, 8))
    return _pruned(side, (4, 8), layer)


def bidirectional(side):
    """`Bidirectional(LSTM)`."""
    layers = side.keras.layers
    return _pruned(side, (4, 8), layers.Bidirectional(layers.LSTM(8)))


def time_distributed(side):
    """`TimeDistributed(Dense)`."""
    layers = side.keras.layers
    return _pruned(side, (4, 8), layers.TimeDistributed(layers.Dense(8)))


def attention(side):
    """`MultiHeadAttention`."""
    inputs = side.keras.Input((4, 8))
    outputs = side.keras.layers.MultiHeadAttention(2, 4, use_bias=False)(inputs, inputs)
    model = side.keras.Model(inputs, outputs)
    return stripped_zeros(side, fitted(side, model, side.constant(0.5)))


def transposed(side):
    """`Conv1DTranspose`."""
    return _pruned(side, (8, 4), side.keras.layers.Conv1DTranspose(4, 3))


class _Mixing:
    """What a custom layer does, for either Keras."""

    def build(self, input_shape):
        self.mixing = self.add_weight(shape=(8, 8), name="mixing")
        super().build(input_shape)

    def call(self, inputs):
        return inputs @ self.mixing


class Mixing3(_Mixing, keras.layers.Layer):
    """A custom layer of Keras 3."""


class Mixing2(_Mixing, tf_keras.layers.Layer):
    """The same of tf_keras."""


def custom(side):
    """A custom layer that says nothing of pruning, before a Dense layer."""
    layer = Mixing3 if side.keras is keras else Mixing2
    return _pruned(side, (8,), layer(), side.keras.layers.Dense(8))


def nested(side):
    """A model within a model."""
    return _pruned(side, (8,), dense(side), side.keras.layers.Dense(8))


class _Subclassed:
    """What a subclassed model does, for either Keras."""

    def __init__(self, **options):
        super().__init__(**options)
        self.head = self.framework.layers.Dense(8, use_bias=False)

    def call(self, inputs):
        return self.head(inputs)


class Subclassed3(_Subclassed, keras.Model):
    """A subclassed model of Keras 3."""

    framework = keras


class Subclassed2(_Subclassed, tf_keras.Model):
    """The same of tf_keras."""

    framework = tf_keras


def subclassed(side):
    """A subclassed model, pruned and stripped."""
    model = (Subclassed3 if side.keras is keras else Subclassed2)()
    model(np.ones((1, 8), "float32"))
    pruned = side.prune(model, side.constant(0.5))
    pruned.compile("sgd", "mse")
    callbacks = [side.callback(side.constant(0.5))]
    x = np.ones((20, 8), "float32")
    pruned.fit(x, x, batch_size=1, verbose=0, callbacks=callbacks)
    return stripped_zeros(side, pruned)


def keras_3(side):
    """A Keras 3 model."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    return f"{side.masks(side.prune(model))} kernel with a mask"


def efficientnet(side):
    """EfficientNetB0 of `keras.applications`."""
    return _masked(side, side.keras.applications.EfficientNetB0)


def mobilenet_v3(side):
    """MobileNetV3Small of `keras.applications`."""
    return _masked(side, side.keras.applications.MobileNetV3Small)


def depthwise(side):
    """`DepthwiseConv2D`, asked for by itself, 50 %."""
    layer = side.keras.layers.DepthwiseConv2D(3)
    model = side.keras.Sequential([side.keras.Input((8, 8, 4)), layer])
    options = {"only": side.keras.layers.DepthwiseConv2D}
    return stripped_zeros(side, fitted(side, model, side.constant(0.5), **options))


def narrow_block(side):
    """Blocks of 4 x 4 in a kernel of 16 x 2, 50 % asked for."""
    return _pruned(side, (16,), side.keras.layers.Dense(2), block=(4, 4))


def block_of_convolution(side):
    """Blocks of 4 x 1 in a 3 x 3 convolution, 50 % asked for."""
    return _pruned(side, (8, 8, 4), side.keras.layers.Conv2D(8, 3), block=(4, 1))


def _pruned(side, shape, *layers, **options):
    model = side.keras.Sequential([side.keras.Input(shape), *layers])
    return stripped_zeros(side, fitted(side, model, side.constant(0.5), **options))


def _masked(side, application):
    model = application(weights=None, input_shape=(32, 32, 3), classes=10)
    return f"{side.masks(side.prune(model))} kernels with masks"


CASES = (
    rescaling,
    einsum,
    bidirectional,
    time_distributed,
    attention,
    transposed,
    custom,
    nested,
    subclassed,
    keras_3,
    efficientnet,
    mobilenet_v3,
    depthwise,
    narrow_block,
    block_of_convolution,
)
