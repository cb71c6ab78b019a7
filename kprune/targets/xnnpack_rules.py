"""Which of XNNPACK's roles a layer can play in a sparse cluster, and why not.

A cluster is what XNNPACK runs channels first, with sparse kernels: an entry (the
stem) that turns channels-last images around, inner nodes, and pools that end it.
The conditions are those of `xnn_subgraph_rewrite_for_nchw` and
`xnn_check_nchw_compatibility` in XNNPACK's `src/subgraph.c`.
"""

from keras import layers

# What TFLite fuses into the layer before, or writes as one unary operator; silu is a
# multiplication of two 4-D values. Each was seen to run with LiteRT 2.3.
_UNARY = (
    "linear relu relu6 elu leaky_relu sigmoid tanh hard_silu silu gelu exponential abs "
    "square negative floor ceil round"
)
UNARY = frozenset(_UNARY.split())
_SYNONYMS = {
    "hard_swish": "hard_silu",
    "swish": "silu",
    "identity": "linear",
    "absolute": "abs",
    "exp": "exponential",
}
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
BINARY = frozenset(("add", "multiply"))
_TO_SYMMETRIC = (
    "kprune.rewrite_padding(model) before training: an explicit ZeroPadding2D({p}), "
    "then padding='valid'"
)


def is_convolution(operation):
    """Tells whether a layer is a convolution that a cluster may hold."""
    return isinstance(operation, CONVOLUTIONS)


def is_pointwise(operation):
    """Tells whether a layer is an undivided convolution with 1x1 kernels."""
    return (
        is_convolution(operation)
        and not is_depthwise(operation)
        and tuple(operation.kernel_size) == (1, 1)
    )


def is_depthwise(operation):
    """Tells whether a layer filters each channel on its own, first or only."""
    return isinstance(operation, (layers.DepthwiseConv2D, layers.SeparableConv2D))


def activation_name(operation):
    """Returns the name of a layer's activation in the terms of `UNARY`.

    Args:
        operation: A layer or operation.

    Returns:
        String, such as `"relu"`; `"linear"` for a layer without one; `None` for
        what is no activation at all.

    Example:
    >>> activation_name(layers.ReLU(max_value=6)), activation_name(layers.Flatten())
    ('relu', None)
    """
    if isinstance(operation, layers.ReLU):
        return _relu_name(operation)
    if isinstance(operation, layers.LeakyReLU):
        return "leaky_relu"
    if isinstance(operation, layers.ELU):
        return "elu"
    if isinstance(operation, layers.Activation) or is_convolution(operation):
        name = getattr(operation.activation, "__name__", str(operation.activation))
        return _SYNONYMS.get(name, name)
    name = operation_name(operation)
    return name if name in UNARY else None


def operation_name(operation):
    """Returns the snake-case name of a `keras.ops` operation, `None` for a layer."""
    if not type(operation).__module__.startswith("keras.src.ops"):
        return None
    letters = type(operation).__name__
    name = "".join(f"_{c.lower()}" if c.isupper() else c for c in letters).strip("_")
    return _SYNONYMS.get(name, name)


def _relu_name(layer):
    if layer.threshold:
        return f"relu(threshold={layer.threshold})"
    if layer.negative_slope and layer.max_value is not None:
        return f"relu(negative_slope={layer.negative_slope}, max_value=...)"
    return "leaky_relu" if layer.negative_slope else "relu"


def stem_problem(layer, shape, padding):
    """Says why a convolution cannot be the entry of a cluster.

    Args:
        layer: A convolution layer.
        shape: Tuple of int, the shape of the images before padding.
        padding: Pairs of zeros per side, as `effective_padding` gives them.

    Returns:
        Pair of strings, the problem and its remedy, or `None`.
    """
    expected = "the first convolution has to be 3x3, stride 2, of 3 channels"
    if is_depthwise(layer):
        return f"{expected}; this one is depthwise", "put such a Conv2D first"
    if (problem := _common_problem(layer)) is not None:
        return problem
    if tuple(layer.kernel_size) != (3, 3):
        return (
            f"{expected}; its kernel is {_by(layer.kernel_size)}",
            "use kernel_size=3",
        )
    if tuple(layer.strides) != (2, 2):
        return f"{expected}; its stride is {_by(layer.strides)}", "strides=2"
    if shape[-1] != 3:
        return (
            f"{expected}; it takes {shape[-1]}",
            "feed 3 channels: repeat a grey channel, or drop the others",
        )
    return _padding_problem(layer, shape, padding)


def inner_problem(layer, shape, padding):
    """Says why a convolution cannot stand inside a cluster; see `stem_problem`."""
    if (problem := _common_problem(layer)) is not None:
        return problem
    if is_pointwise(layer):
        if tuple(layer.strides) != (1, 1):
            return (
                f"a 1x1 convolution of stride {_by(layer.strides)}; expected stride 1",
                "let a 3x3 depthwise convolution before it take the stride",
            )
        if padding is None or any(map(any, padding)):
            return "a 1x1 convolution of padded input", "take the padding away"
        return None
    if not is_depthwise(layer):
        return (
            f"a full {_by(layer.kernel_size)} convolution; past the stem only 1x1 and "
            "depthwise ones have sparse kernels",
            "SeparableConv2D, or DepthwiseConv2D and a 1x1 Conv2D",
        )
    return _depthwise_problem(layer, shape, padding)


def _common_problem(layer):
    if getattr(layer, "quantization_mode", None) is not None:
        return "its weights are quantized; expected floats", "keep it in float32"
    if layer.data_format != "channels_last":
        return "channels come first; TFLite wants them last", "data_format default"
    if tuple(layer.dilation_rate) != (1, 1):
        return f"dilation {_by(layer.dilation_rate)}; expected none", "dilation_rate=1"
    if not is_depthwise(layer) and layer.groups > 1:
        return f"{layer.groups} groups; expected 1", "groups=1, or DepthwiseConv2D"
    return None


def _depthwise_problem(layer, shape, padding):
    if layer.depth_multiplier != 1:
        return (
            f"depth multiplier {layer.depth_multiplier}; expected 1",
            "depth_multiplier=1",
        )
    if tuple(layer.kernel_size) not in ((3, 3), (5, 5)):
        return (
            f"a depthwise kernel of {_by(layer.kernel_size)}; expected 3x3 or 5x5",
            "kernel_size=3 or 5",
        )
    if tuple(layer.strides) not in ((1, 1), (2, 2)):
        return f"stride {_by(layer.strides)}; expected 1 or 2", "strides=1 or 2"
    return _padding_problem(layer, shape, padding)


def _padding_problem(layer, shape, padding):
    p = layer.kernel_size[0] // 2
    remedy = _TO_SYMMETRIC.format(p=p)
    if padding is None:
        return (
            f"padding='same' with stride 2, which TFLite keeps as it is; expected {p} "
            "on all sides, explicitly",
            remedy,
        )
    if padding != ((p, p), (p, p)):
        (top, bottom), (left, right) = padding
        if not all(pair in ((p - 1, p), (p, p)) for pair in padding):
            remedy = f"ZeroPadding2D({p}) in front of it, and padding='valid'"
        return (
            f"padding top {top}, bottom {bottom}, left {left}, right {right}; "
            f"expected {p} on all sides",
            remedy,
        )
    height, width = shape[1:3]
    if tuple(layer.strides) == (2, 2) and height and width and height % 2 and width % 2:
        # The converter finds that `same` pads alike, and writes that.
        return (
            f"stride 2 on images of {height}x{width}; at odd sizes TFLite writes "
            f"padding {p} on all sides as 'same'",
            "choose the input size so that every strided layer takes an even size",
        )
    return None


def effective_padding(layer, added):
    """Returns the zeros around the input of a convolution, as XNNPACK sees them.

    Args:
        layer: A convolution layer.
        added: Pairs of int, what a `ZeroPadding2D` right before it adds.

    Returns:
        ((top, bottom), (left, right)), or `None` for `padding="same"` with a stride,
        which XNNPACK resolves only when it runs.
    """
    if layer.padding != "same":
        return added
    if tuple(layer.strides) == (1, 1) or tuple(layer.kernel_size) == (1, 1):
        totals = [
            (k - 1) * d
            for k, d in zip(layer.kernel_size, layer.dilation_rate, strict=True)
        ]
        return tuple((total // 2, total - total // 2) for total in totals)
    return None


def _by(pair):
    return "x".join(map(str, pair))
