"""Networks that several benchmarks train, for Keras 3 and for tf_keras alike.

The first argument of each is the module: `keras` or `tf_keras`. Outputs are logits
unless an activation is given.
"""

CLASSES = 10


def perceptron(k, *widths, shape=(784,), activation=None):
    inputs = k.Input(shape)
    x = k.layers.Flatten()(inputs) if len(shape) > 1 else inputs
    return _classifier(k, inputs, x, widths, activation)


def small_cnn(k, *widths, activation=None):
    """Returns two convolutions for images of 28 x 28, with Dense layers of `widths`."""
    inputs = k.Input((28, 28, 1))
    x = inputs
    for filters in (16, 32):
        x = k.layers.Conv2D(filters, 3, activation="relu")(x)
        x = k.layers.MaxPooling2D()(x)
    return _classifier(k, inputs, k.layers.Flatten()(x), widths, activation)


def lenet_5_caffe(k):
    """Returns Caffe's LeNet-5 for images of 28 x 28, 431,080 parameters."""
    layers = k.layers
    return k.Sequential(
        [
            k.Input((28, 28, 1)),
            layers.Conv2D(20, 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(50, 5, activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Flatten(name="features"),
            layers.Dense(500, activation="relu", name="fc1"),
            layers.Dense(CLASSES, name="fc2"),
        ],
        name="lenet_5_caffe",
    )


def resnet_8(k):
    """Returns a narrow network that trains in minutes: the first step halves sides."""
    return _resnet(k, (8, 16, 32), 1, 2, "resnet_8")


def resnet_20(k, shape=(32, 32, 3), activation=None):
    return _resnet(k, (16, 32, 64), 3, 1, "resnet_20", shape, activation)


def resnet_8_d(k, width):
    """Returns a ResNet-8 whose shortcuts are halved by pooling, `width` filters first.

    He et al., 2019, "Bag of tricks for image classification with convolutional neural
    networks" (arXiv:1812.01187). TensorFlow 2.21's gradient of a strided 1x1 kernel
    writes past its memory at some widths where oneDNN computes it.
    """
    widths = width, 2 * width, 4 * width
    return _resnet(k, widths, 1, 2, "resnet_8_d", pooled=True)


def _resnet(
    k,
    widths,
    blocks,
    strides,
    name,
    shape=(32, 32, 3),
    activation=None,
    pooled=False,
):
    def convolved(x, filters, strides=1, size=3):
        arguments = {"strides": strides, "padding": "same", "use_bias": False}
        x = k.layers.Conv2D(filters, size, **arguments)(x)
        return k.layers.BatchNormalization()(x)

    inputs = k.Input(shape)
    x = k.layers.ReLU()(convolved(inputs, widths[0], strides))
    for filters in widths:
        for block in range(blocks):
            strides = 2 if filters > widths[0] and block == 0 else 1
            y = k.layers.ReLU()(convolved(x, filters, strides))
            y = convolved(y, filters)
            if strides == 2 and pooled:
                x = convolved(k.layers.AveragePooling2D(2)(x), filters, size=1)
            elif strides == 2:
                x = convolved(x, filters, strides, size=1)
            x = k.layers.ReLU()(k.layers.Add()([x, y]))
    x = k.layers.GlobalAveragePooling2D()(x)
    return _classifier(k, inputs, x, (), activation, name)


def _classifier(k, inputs, x, widths, activation, name=None):
    for width in widths:
        x = k.layers.Dense(width, activation="relu")(x)
    outputs = k.layers.Dense(CLASSES, activation=activation)(x)
    return k.Model(inputs, outputs, name=name)
