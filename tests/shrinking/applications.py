"""The models of `keras.applications` with weights that let every channel be felt.

Random weights do not: signals die down over many layers, the answers are those of the
biases whatever the input, and a wrong removal is not seen. So each layer is set to what
really arrives at it, in running order.
"""

import keras
import numpy as np
from keras import applications, layers

from kprune.layer_graph import read_graph
from tests.channels.exactness import randomised

# By row of the README's table, smaller models first.
FAMILIES = {
    "MobileNet": ("MobileNet",),
    "MobileNetV2": ("MobileNetV2",),
    "MobileNetV3": ("MobileNetV3Small", "MobileNetV3Large"),
    "DenseNet": ("DenseNet121", "DenseNet169", "DenseNet201"),
    "InceptionV3": ("InceptionV3",),
    "Xception": ("Xception",),
    "ResNet": ("ResNet50", "ResNet101", "ResNet152"),
    "ResNetV2": ("ResNet50V2", "ResNet101V2", "ResNet152V2"),
    "VGG": ("VGG16", "VGG19"),
    "EfficientNet": tuple(f"EfficientNetB{n}" for n in range(8)),
    "EfficientNetV2": tuple(
        f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")
    ),
    "InceptionResNetV2": ("InceptionResNetV2",),
    "NASNet": ("NASNetMobile", "NASNetLarge"),
    "ConvNeXt": tuple(
        f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")
    ),
}
_SIZES = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}  # the least
_SIZES |= dict.fromkeys(FAMILIES["ConvNeXt"], 32)  # grouped convolutions take long


def build(name, size=None):
    """Makes a model that puts out logits, with random values in all its weights.

    Args:
        name: String, a function of `keras.applications`.
        size: Int, the height and width of images. Defaults to 64 for most.
    """
    size = size or _SIZES.get(name, 64)
    make = getattr(applications, name)
    model = make(weights=None, classifier_activation=None, input_shape=(size, size, 3))
    return randomised(model)


def images_for(model, number=8, seed=0):
    """Draws images that differ in more than noise, in the range that a model expects.

    Returns:
        Array of shape `(number, height, width, 3)`.
    """
    generator = np.random.default_rng(seed)
    height, width = model.input.shape[1:3]
    coarse = generator.normal(0, 0.7, (number, 4, 4, 3))
    colours = generator.normal(0, 0.5, (number, 1, 1, 3))
    noise = generator.normal(0, 0.1, (number, height, width, 3))
    smooth = keras.ops.image.resize(coarse, (height, width), "bicubic")
    images = np.clip(np.asarray(smooth) + colours + noise, -1, 1)
    kinds = (layers.Rescaling, layers.Normalization)
    takes_pixels = any(isinstance(x, kinds) for x in model._flatten_layers())
    return (127.5 * (images + 1) if takes_pixels else images).astype(model.input.dtype)


def zero(tracing, removed):
    """Zeroes all slices of weights that make or take some channels.

    Nothing is kept to go back to: the largest models would not find the memory.

    Args:
        tracing: `Tracing` of a model, which is changed.
        removed: Bool array, by channel.
    """
    for weight in tracing.weights.values():
        array = np.array(weight.variable)
        for axis, kept in weight.value.kept(removed).items():
            np.moveaxis(array, axis, 0)[~kept] = 0
        weight.variable.assign(array)


def calibrate(model, images):
    """Fits a model to some images, layer by layer in running order.

    Normalization gets the mean and variance of what it is given. A layer with a bias
    puts out numbers of deviation 1 before its activation, around means at random.
    Places of zeros among weights stay zeros.

    Args:
        model: A Functional model of one input. It is changed.
        images: Array.
    """
    graph, generator = read_graph(model), np.random.default_rng(0)
    tensors = {graph.inputs[0]: keras.ops.convert_to_tensor(images)}
    remaining = {number: len(calls) for number, calls in graph.consumers().items()}
    for call in graph.calls:
        given = [tensors[number] for number in call.inputs]
        args, kwargs = call.arguments(given)
        if isinstance(call.operation, layers.BatchNormalization):
            _normalize(call.operation, *given)
        elif getattr(call.operation, "bias", None) is not None:
            _centre(call.operation, *given, generator)
        made = keras.tree.flatten(call.operation(*args, **kwargs))
        tensors |= zip(call.outputs, made, strict=True)
        for number in call.inputs:
            remaining[number] -= 1
            if not remaining[number]:
                del tensors[number]


def _normalize(layer, x):
    mean, variance = keras.ops.moments(x, (0, 1, 2))
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)


def _centre(layer, x, generator):
    activation, layer.activation = layer.activation, keras.activations.linear
    made = layer(x)
    layer.activation = activation
    bias = np.array(layer.bias)
    axes = tuple(range(len(made.shape) - 1))
    mean, variance = map(np.asarray, keras.ops.moments(made, axes))
    scale = np.sqrt(variance[bias != 0].mean())
    layer.kernel.assign(layer.kernel / scale)
    centred = generator.normal(0.3, 0.5, bias.shape) + (bias - mean) / scale
    layer.bias.assign(np.where(bias == 0, 0, centred))
