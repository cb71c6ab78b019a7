"""A small net that XNNPACK's sparse kernels would run, and nets that miss it by one."""

import keras
import numpy as np
from keras import layers


def mobile(
    width=8,
    size=16,
    channels=3,
    sparsity=0.75,
    stem=None,
    stem_padding=1,
    depthwise=None,
    strided=None,
    strided_padding=2,
    pointwise=None,
    activation="relu6",
    middle=None,
    normalize_first=False,
    head=None,
    extra_output=None,
    returned=None,
):
    """Builds the net; each argument replaces one thing that it gets right.

    `stem`, `depthwise`, `strided` and `pointwise` are arguments of those layers,
    `middle`, `head` and `extra_output` functions of a tensor, `returned` the layer
    whose output the model gives instead.
    """
    inputs = keras.Input((size, size, channels), name="image")
    x = layers.ZeroPadding2D(stem_padding, name="stem_pad")(inputs)
    stem = {"kernel_size": 3, "strides": 2, **(stem or {})}
    x = layers.Conv2D(width, use_bias=False, name="stem", **stem)(x)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = residual = layers.Activation("relu6", name="stem_relu")(x)
    depthwise = {"kernel_size": 3, "padding": "same", **(depthwise or {})}
    x = layers.DepthwiseConv2D(name="dw_1", **depthwise)(x)
    if normalize_first:
        x = layers.Activation("relu", name="early_relu")(x)
    x = layers.BatchNormalization(name="dw_1_bn")(x)
    x = layers.Activation(activation, name="dw_1_act")(x)
    pointwise = {"kernel_size": 1, "padding": "same", **(pointwise or {})}
    x = layers.Conv2D(width, name="pw_1", **pointwise)(x)
    if x.shape == residual.shape:
        x = layers.Add(name="add")([x, residual])
    middle_value = x
    x = middle(x) if middle else x
    x = layers.ZeroPadding2D(strided_padding, name="dw_2_pad")(x)
    strided = {"kernel_size": 5, "strides": 2, **(strided or {})}
    x = layers.DepthwiseConv2D(activation="relu", name="dw_2", **strided)(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    x = layers.Conv2D(2 * width, 1, activation="relu", name="pw_2")(x)
    x = (head or layers.GlobalAveragePooling2D(name="pool"))(x)
    outputs = layers.Dense(5, activation="softmax", name="logits")(x)
    if extra_output:
        outputs = [outputs, extra_output(middle_value)]
    model = keras.Model(inputs, outputs, name="mobile")
    if returned:
        model = keras.Model(inputs, model.get_layer(returned).output, name="mobile")
    return set_zeros(model, sparsity)


def set_zeros(model, sparsity, seed=0):
    """Sets a fraction of each 1x1 kernel of the model to zero, and returns it."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1):
            kernel = np.array(layer.kernel)
            kernel[kernel == 0] = 1e-3
            order = rng.permutation(kernel.size)[: round(sparsity * kernel.size)]
            kernel.reshape(-1)[order] = 0
            layer.kernel.assign(kernel)
    return model


def squeeze(x):
    """Squeeze and excitation on 4-D values."""
    width = x.shape[-1]
    scale = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    scale = layers.Conv2D(width, 1, activation="relu", name="squeeze_1")(scale)
    scale = layers.Conv2D(width, 1, activation="sigmoid", name="squeeze_2")(scale)
    return layers.Multiply(name="excite")([x, scale])


def squeeze_and_reshape(x):
    """The same through values of rank 2, as EfficientNet has it."""
    width = x.shape[-1]
    scale = layers.GlobalAveragePooling2D(name="squeeze")(x)
    scale = layers.Reshape((1, 1, width), name="reshape")(scale)
    scale = layers.Conv2D(width, 1, activation="sigmoid", name="squeeze_2")(scale)
    return layers.Multiply(name="excite")([x, scale])


def flat(x):
    return layers.Flatten(name="flatten")(x)


def convolutional_head(x):
    """A head as MobileNet has it: a 1x1 convolution behind the last pool."""
    return flat(layers.Conv2D(8, 1, name="behind")(kept(x)))


def kept(x):
    return layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)


# What is changed, which layer is named, and words that the finding holds.
BREAKAGES = {
    "stem padded one-sidedly": (
        {"stem_padding": ((0, 1), (0, 1))},
        "stem",
        "top 0, bottom 1",
    ),
    "stem with same padding": (
        {"stem_padding": 0, "stem": {"padding": "same"}},
        "stem",
        "padding='same'",
    ),
    "stem of 5x5": (
        {"stem_padding": 2, "stem": {"kernel_size": 5}},
        "stem",
        "its kernel is 5x5",
    ),
    "stem of stride 1": ({"stem": {"strides": 1}}, "stem", "its stride is 1x1"),
    "grey images": ({"channels": 1}, "stem", "it takes 1"),
    "stem with tanh_shrink": (
        {"stem": {"activation": "tanh_shrink"}},
        "stem",
        "'tanh_shrink'",
    ),
    "depthwise of 7x7": ({"depthwise": {"kernel_size": 7}}, "dw_1", "kernel of 7x7"),
    "dilated depthwise": ({"depthwise": {"dilation_rate": 2}}, "dw_1", "dilation 2x2"),
    "depthwise without padding": (
        {"depthwise": {"padding": "valid"}},
        "dw_1",
        "top 0, bottom 0",
    ),
    "depth multiplier": (
        {"depthwise": {"depth_multiplier": 2}},
        "dw_1",
        "multiplier 2",
    ),
    "strided depthwise padded one-sidedly": (
        {"strided_padding": ((1, 2), (1, 2))},
        "dw_2",
        "top 1, bottom 2, left 1, right 2; expected 2",
    ),
    "stride 3": ({"strided": {"strides": 3}}, "dw_2", "stride 3x3; expected 1 or 2"),
    "strided pointwise": ({"pointwise": {"strides": 2}}, "pw_1", "stride 2x2"),
    "full convolution": (
        {"pointwise": {"kernel_size": 3}},
        "pw_1",
        "a full 3x3 convolution",
    ),
    "groups": ({"pointwise": {"groups": 2}}, "pw_1", "2 groups; expected 1"),
    "mish": ({"activation": "mish"}, "dw_1_act", "'mish'"),
    "relu with a threshold": (
        {"middle": layers.ReLU(threshold=1, name="middle")},
        "middle",
        "relu(threshold=1",
    ),
    "slopes to learn": (
        {"middle": layers.PReLU(shared_axes=[1, 2], name="middle")},
        "middle",
        "PReLU has no place",
    ),
    "repeated pixels": (
        {"middle": layers.UpSampling2D(2, name="middle")},
        "middle",
        "UpSampling2D has no place",
    ),
    "softmax": ({"activation": "softmax"}, "dw_1_act", "'softmax'"),
    "normalization behind an activation": (
        {"normalize_first": True},
        "dw_1_bn",
        "does not fold away",
    ),
    "max pooling": (
        {"middle": layers.MaxPooling2D(2, name="middle")},
        "middle",
        "MaxPooling2D has no place",
    ),
    "constant": ({"middle": lambda x: x * 0.5}, "multiply", "no constant"),
    "concatenation": (
        {"middle": lambda x: layers.Concatenate(name="middle")([x, x])},
        "middle",
        "Concatenate has no place",
    ),
    "no pool": ({"head": flat}, "model", "no GlobalAveragePooling2D ends"),
    "convolution behind the pool": (
        {"head": convolutional_head},
        "behind",
        "takes the 4-D output of the last pool",
    ),
    "softmax over 4-D values": (
        {"head": lambda x: flat(layers.Softmax(name="behind")(kept(x)))},
        "behind",
        "takes the 4-D output of the last pool",
    ),
    "two pools": (
        {"head": lambda x: layers.GlobalAveragePooling2D(name="second")(kept(x))},
        "second",
        "takes what another pool gives",
    ),
    "output from the middle": (
        {"extra_output": lambda x: x},
        "add",
        "the model returns its output",
    ),
    "4-D values of the pool as an output": (
        {"head": lambda x: flat(kept(x)), "returned": "pool"},
        "pool",
        "the model returns its output",
    ),
    "branch from the middle": (
        {"extra_output": flat},
        "flatten",
        "Flatten reads 'add' in the middle of the cluster",
    ),
    "too few zeros": ({"sparsity": 2 / 3}, "model", "expected more than two thirds"),
}
