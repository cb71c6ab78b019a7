"""Separable convolutions taken apart.

TFLite has no separable convolution: it computes a depthwise one, then a pointwise
one, and the tensor between the two needs a range of its own.
"""

from keras import layers

from kprune.rebuilding import Chain, rebuilt, unchanged

_PARTS = {
    layers.SeparableConv1D: (layers.DepthwiseConv1D, layers.Conv1D),
    layers.SeparableConv2D: (layers.DepthwiseConv2D, layers.Conv2D),
}
_OF_DEPTHWISE = (
    "kernel_size",
    "strides",
    "padding",
    "dilation_rate",
    "data_format",
    "depth_multiplier",
    "depthwise_initializer",
    "depthwise_regularizer",
    "depthwise_constraint",
)
_OF_BOTH = ("dtype", "trainable", "data_format")
_OF_POINTWISE = (
    "filters",
    "use_bias",
    "activation",
    "bias_initializer",
    "bias_regularizer",
    "bias_constraint",
    "activity_regularizer",
)


def split_separable(model, stays_float):
    """Makes a copy of a model with two layers for each separable convolution.

    The pointwise convolution, which has the bias and the activation, takes the name;
    the depthwise one gets `_depthwise` behind it.

    Args:
        model: A built Sequential or Functional model, nested or not. It is not
            changed.
        stays_float: Function `(layer, parents)` that returns a bool; such layers stay
            in one piece.

    Returns:
        A model with the same predictions and compile arguments; `model` itself if
        there is nothing to take apart.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 2)), layers.SeparableConv2D(4, 3)])
    >>> split = split_separable(model, lambda layer, parents: False)
    >>> [type(layer).__name__ for layer in split.layers]
    ['DepthwiseConv2D', 'Conv2D']
    """
    if not any(type(layer) in _PARTS for layer in model._flatten_layers()):
        return model

    def stand_in(layer, parents, copier):
        if type(layer) not in _PARTS or stays_float(layer, parents):
            return unchanged(layer, parents, copier)
        parts = _parts(layer)
        return Chain(parts), lambda: _carry_over(layer, *parts)

    return rebuilt(model, stand_in)


def _parts(layer):
    """Returns the depthwise and the pointwise convolution, not built."""
    depthwise, pointwise = _PARTS[type(layer)]
    config = layer.get_config()
    both = {name: config[name] for name in _OF_BOTH}
    of_pointwise = {
        f"kernel_{part}": config[f"pointwise_{part}"]
        for part in ("initializer", "regularizer", "constraint")
    }
    return (
        depthwise.from_config(
            {name: config[name] for name in _OF_DEPTHWISE}
            | both
            | {"use_bias": False, "name": f"{layer.name}_depthwise"}
        ),
        pointwise.from_config(
            {name: config[name] for name in _OF_POINTWISE}
            | both
            | of_pointwise
            | {"kernel_size": 1, "name": layer.name}
        ),
    )


def _carry_over(layer, depthwise, pointwise):
    depthwise.kernel.assign(layer.depthwise_kernel)
    pointwise.kernel.assign(layer.pointwise_kernel)
    if layer.use_bias:
        pointwise.bias.assign(layer.bias)
