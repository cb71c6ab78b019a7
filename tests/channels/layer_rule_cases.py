"""Small models around each type of layer that channels may pass through.

The channels come from a dense layer of eight units, `before`, of which half are to go,
and the layer in question is called `subject`. What is expected of it is written out
by hand: the shape of what it puts out, and those of its weights.
"""

import dataclasses
from collections.abc import Callable

import keras
from keras import layers
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

B = None  # the batch
STEPS, IMAGE, VIDEO = (6, 3), (6, 6, 3), (4, 4, 4, 2)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, and what is left of its subject at half the channels.

    Attributes:
        name: String, for the test.
        kind: Type of `subject`.
        build: Makes the model.
        output: Shape of what `subject` puts out.
        weights: Dict from the path of a weight in `subject` to its shape.
    """

    name: str
    kind: type
    build: Callable
    output: tuple
    weights: dict = dataclasses.field(default_factory=dict)


def find(model, name="subject"):
    """Returns the layer of that name, also within others."""
    return next(x for x in model._flatten_layers() if x.name == name)


def finished(inputs, x):
    """Makes a model that takes all of a tensor into three numbers."""
    x = layers.Dense(4, "tanh", name="after")(x)
    x = layers.Flatten(name="flatten")(x) if len(x.shape) > 2 else x
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def chain(make, shape):
    """Makes a model of one input, a dense layer, the subject and two dense layers."""

    def build():
        inputs = keras.Input(shape, name="inputs")
        x = layers.Dense(8, name="before")(inputs)
        return finished(inputs, make()(x))

    return build


def case(kind, shape, output, weights=None, note="", **kwargs):
    """Makes the case of a layer of one input.

    Args:
        kind: The layer type.
        shape: Shape of the model's input without the batch.
        output: Shape of what `subject` puts out.
        weights: Dict from path to shape.
        note: String, for the name.
        **kwargs: For the layer.
    """

    def make():  # from a config, so that no two models share a layer or cell
        return kind.from_config(kind(name="subject", **kwargs).get_config())

    build = chain(make, shape)
    return Case(f"{kind.__name__}{note}", kind, build, (B, *output), weights or {})


def pair(kind, output, **kwargs):
    """Makes the case of a layer of two inputs with eight channels each."""

    def build():
        inputs = keras.Input(STEPS, name="inputs")
        x = layers.Dense(8, "relu", name="before")(inputs)
        y = layers.Dense(8, "tanh", name="beside")(inputs)
        return finished(inputs, kind(name="subject", **kwargs)([x, y]))

    return Case(kind.__name__, kind, build, (B, *output))


def of_rank(name, rank):
    """Returns the layer type of a name with its number of dimensions."""
    return getattr(layers, f"{name}{rank}D")


def _embedding():
    inputs = keras.Input((6,), dtype="int32", name="inputs")
    return finished(inputs, layers.Embedding(5, 8, name="subject")(inputs))


def _dense_over_places():
    inputs = keras.Input(STEPS, name="inputs")
    x = layers.Permute((2, 1))(layers.Dense(8, name="before")(inputs))
    x = layers.Dense(10, name="subject")(x)
    return finished(inputs, layers.Permute((2, 1))(x))


def _masking():
    inputs = keras.Input(STEPS, name="inputs")
    x = layers.Permute((2, 1))(layers.Dense(8, "relu", name="before")(inputs))
    x = layers.Masking(name="subject")(x)
    return finished(inputs, keras.ops.transpose(x, (0, 2, 1)))


def _convolutions():
    shapes = {1: (6, 3), 2: (6, 6, 3), 3: (4, 4, 4, 2)}
    for rank, shape in shapes.items():
        places = tuple(size - 1 for size in shape[:-1])
        kernel = (2,) * rank
        yield case(
            of_rank("Conv", rank),
            shape,
            (*places, 5),
            {"kernel": (*kernel, 4, 5), "bias": (5,)},
            filters=10,
            kernel_size=2,
            activation="sigmoid",
        )
        places = tuple(size + 1 for size in shape[:-1])
        yield case(
            getattr(layers, f"Conv{rank}DTranspose"),
            shape,
            (*places, 5),
            {"kernel": (*kernel, 5, 4), "bias": (5,)},
            filters=10,
            kernel_size=2,
            activation="relu",
        )
    for rank in (1, 2):
        shape, kernel = shapes[rank], (2,) * rank
        places = tuple(size - 1 for size in shape[:-1])
        yield case(
            of_rank("DepthwiseConv", rank),
            shape,
            (*places, 4),
            {"kernel": (*kernel, 4, 1), "bias": (4,)},
            kernel_size=2,
            activation="tanh",
        )
        # Of the 8 * 4 channels within, a half go with inputs, a half with multipliers.
        yield case(
            of_rank("SeparableConv", rank),
            shape,
            (*places, 5),
            {
                "depthwise_kernel": (*kernel, 4, 2),
                "pointwise_kernel": (*(1,) * rank, 8, 5),
                "bias": (5,),
            },
            filters=10,
            kernel_size=2,
            depth_multiplier=4,
        )
    yield case(
        layers.Conv2D,
        IMAGE,
        (5, 5, 8),
        {"kernel": (2, 2, 2, 8)},
        note=" of two groups",
        filters=16,
        kernel_size=2,
        groups=2,
    )
    yield case(
        layers.Conv2D,
        IMAGE,
        (5, 5, 8),
        {"kernel": (2, 2, 1, 8)},
        note=" of one group a channel",
        filters=16,
        kernel_size=2,
        groups=8,
    )
    # Of the 4 filters of each of the 3 colours a half go.
    name = "Conv2D of one group a colour"
    weights = {"kernel": (2, 2, 1, 6), "bias": (6,)}
    yield Case(name, layers.Conv2D, _grouped_colours, (B, 5, 5, 6), weights)


def _grouped_colours():
    inputs = keras.Input(IMAGE, name="inputs")
    x = layers.Conv2D(12, 2, groups=3, activation="relu", name="subject")(inputs)
    return finished(inputs, x)


def _multipliers():
    inputs = keras.Input(IMAGE, name="inputs")
    x = layers.DepthwiseConv2D(2, depth_multiplier=4, name="subject")(inputs)
    return finished(inputs, x)


def _normalizations():
    scales = {"gamma": (4,), "beta": (4,)}
    moving = {"moving_mean": (4,), "moving_variance": (4,)}
    yield case(layers.BatchNormalization, IMAGE, (6, 6, 4), {**scales, **moving})
    unscaled = dict(scale=False, note=" without scale")
    yield case(layers.BatchNormalization, IMAGE, (6, 6, 4), moving, **unscaled)
    renormed = {f"renorm_{one}": (4,) for one in ("mean", "stddev")}
    renormed |= {"moving_stddev": (4,), **moving}
    renorm = dict(renorm=True, note=" with renorm")
    yield case(layers.BatchNormalization, IMAGE, (6, 6, 4), renormed, **renorm)
    scale = {"init_values": 0.5, "projection_dim": 8}
    yield case(LayerScale, IMAGE, (6, 6, 4), **scale)
    yield case(layers.Rescaling, STEPS, (6, 4), scale=2.0, offset=0.5)
    yield case(layers.Normalization, STEPS, (6, 4), axis=None)
    yield case(layers.RMSNormalization, STEPS, (6, 4), {"scale": (4,)}, epsilon=0.1)
    yield case(layers.UnitNormalization, STEPS, (6, 4))
    each = dict(groups=-1, note=" of one group a channel")
    yield case(layers.GroupNormalization, IMAGE, (6, 6, 4), scales, **each)
    groups = {"groups": 4, "epsilon": 0.1}
    yield case(layers.GroupNormalization, IMAGE, (6, 6, 4), scales, **groups)
    steps = dict(axis=1, note=" over steps")
    scales = {"gamma": (6,), "beta": (6,)}
    yield case(layers.LayerNormalization, STEPS, (6, 4), scales, **steps)


def _activations():
    yield case(layers.Activation, STEPS, (6, 4), activation="gelu")
    yield case(layers.ELU, STEPS, (6, 4))
    yield case(layers.LeakyReLU, STEPS, (6, 4))
    yield case(layers.ReLU, STEPS, (6, 4), threshold=0.5, negative_slope=0.1)
    yield case(layers.PReLU, STEPS, (6, 4), {"alpha": (6, 4)})
    yield case(
        layers.PReLU,
        IMAGE,
        (6, 6, 4),
        {"alpha": (1, 1, 4)},
        note=" shared by places",
        shared_axes=[1, 2],
    )
    shared = dict(shared_axes=[2], note=" shared by channels")
    yield case(layers.PReLU, STEPS, (6, 4), {"alpha": (6, 1)}, **shared)
    yield case(layers.Softmax, STEPS, (6, 4), axis=1)


def _passing():
    for kind, kwargs in (
        (layers.ActivityRegularization, {}),
        (layers.AlphaDropout, {"rate": 0.5}),
        (layers.Dropout, {"rate": 0.5}),
        (layers.GaussianDropout, {"rate": 0.5}),
        (layers.GaussianNoise, {"stddev": 1.0}),
        (layers.Identity, {}),
        (layers.SpatialDropout1D, {"rate": 0.5}),
        (StochasticDepth, {"drop_path_rate": 0.5}),
    ):
        yield case(kind, STEPS, (6, 4), **kwargs)
    yield case(layers.SpatialDropout2D, IMAGE, (6, 6, 4), rate=0.5)
    yield case(layers.SpatialDropout3D, VIDEO, (4, 4, 4, 4), rate=0.5)


def _places():
    for rank, shape in ((1, (6, 3)), (2, (6, 6, 3)), (3, (4, 4, 4, 2))):
        size = shape[0]
        for name in ("AveragePooling", "MaxPooling"):
            halved = (size // 2,) * rank + (4,)
            yield case(of_rank(name, rank), shape, halved, pool_size=2)
            adaptive = of_rank(f"Adaptive{name}", rank)
            yield case(adaptive, shape, (2,) * rank + (4,), output_size=2)
            yield case(of_rank(f"Global{name}", rank), shape, (4,))
        yield case(of_rank("UpSampling", rank), shape, (2 * size,) * rank + (4,))
        yield case(of_rank("ZeroPadding", rank), shape, (size + 2,) * rank + (4,))
        cropped = (size - 2,) * rank + (4,)
        yield case(of_rank("Cropping", rank), shape, cropped, cropping=1)

    yield case(layers.CenterCrop, IMAGE, (4, 5, 4), height=4, width=5)
    margins = dict(pad_to_aspect_ratio=True, fill_value=0.5)
    yield case(layers.Resizing, IMAGE, (3, 4, 4), height=3, width=4, **margins)


def _movements():
    yield case(layers.Flatten, STEPS, (24,))
    yield case(layers.Permute, STEPS, (4, 6), dims=(2, 1))
    yield case(layers.RepeatVector, (3,), (2, 4), n=2)
    yield case(layers.Reshape, STEPS, (2, 3, 4), target_shape=(2, 3, 8))
    for kind in (
        layers.Add,
        layers.Average,
        layers.Maximum,
        layers.Minimum,
        layers.Multiply,
        layers.Subtract,
    ):
        yield pair(kind, (6, 4))
    yield pair(CustomScaleLayer, (6, 4), scale=0.5)
    yield pair(layers.Concatenate, (6, 8))
    yield pair(layers.Dot, (6, 6), axes=2)


def _einsums():
    steps = dict(equation="...x,xy->...y", output_shape=10, bias_axes="y")
    yield case(
        layers.EinsumDense, STEPS, (6, 5), {"kernel": (4, 5), "bias": (5,)}, **steps
    )
    yield case(
        layers.EinsumDense,
        STEPS,
        (6, 2, 5),
        {"kernel": (4, 2, 5), "bias": (2, 1)},
        note=" of two letters",
        equation="abc,cde->abde",
        output_shape=(6, 4, 10),
        bias_axes="d",
        activation="tanh",
    )
    yield case(
        layers.EinsumDense,
        STEPS,
        (6, 4),
        {"kernel": (4,), "bias": (6, 4)},
        note=" that scales",
        equation="abc,c->abc",
        output_shape=(6, 8),
        bias_axes="bc",
    )
    yield case(
        layers.EinsumDense,
        STEPS,
        (5, 4),
        {"kernel": (6, 5), "bias": (5, 1)},
        note=" over steps",
        equation="abc,bd->adc",
        output_shape=(10, 8),
        bias_axes="d",
    )


def attention(kind, output, weights, note="", call=None, width=6, **kwargs):
    """Makes the case of attention of a sequence to two others.

    Args:
        kind, output, weights, note, **kwargs: As for `case`.
        call: Dict, what the call is told beside the tensors.
        width: Int, of the values.
    """
    call = call or {}

    def build():
        inputs = keras.Input((6, 3), name="inputs")
        query = layers.Dense(8, name="before")(inputs)
        value = layers.Dense(width, name="beside")(inputs[:, :5])
        key = layers.Dense(4, name="behind")(inputs[:, :5])
        subject = kind(name="subject", **kwargs)
        x = subject(query, value, key, **call)
        if not isinstance(x, (list, tuple)):
            return finished(inputs, x)
        model = finished(inputs, x[0])
        return keras.Model(inputs, [model.output, x[1][:, :1]])

    return Case(f"{kind.__name__}{note}", kind, build, output, weights)


def _masked_attention():
    inputs = keras.Input((6,), dtype="int32", name="inputs")
    mask = keras.Input((6, 6), dtype="bool", name="mask")
    x = layers.Embedding(5, 8, mask_zero=True, name="before")(inputs)
    subject = layers.MultiHeadAttention(4, 6, name="subject")
    x = layers.Add()([x, subject(x, x, attention_mask=mask)])
    return keras.Model([inputs, mask], layers.Dense(3, name="head")(x))


def _attentions():
    weights = {
        "query/kernel": (4, 2, 3),
        "query/bias": (2, 3),
        "key/kernel": (2, 2, 3),
        "value/kernel": (3, 2, 5),
        "value/bias": (2, 5),
        "attention_output/kernel": (2, 5, 4),
        "attention_output/bias": (4,),
    }
    kind, sizes = layers.MultiHeadAttention, dict(num_heads=4, key_dim=6, value_dim=10)
    yield attention(kind, (B, 6, 4), weights, **sizes)
    causal = dict(call={"use_causal_mask": True}, note=" with causal mask")
    yield attention(kind, (B, 6, 4), {}, **sizes, **causal, use_gate=True)
    yield attention(
        kind,
        (B, 6, 2, 3),
        {"attention_output/kernel": (2, 5, 2, 3), "attention_output/bias": (2, 3)},
        note=" of two axes",
        output_shape=(4, 6),
        dropout=0.5,
        use_bias=True,
        **sizes,
    )
    masked = {"query/kernel": (4, 2, 3), "attention_output/kernel": (2, 3, 4)}
    name = "MultiHeadAttention with masks"
    yield Case(name, kind, _masked_attention, (B, 6, 4), masked)
    kind, sizes = (
        layers.GroupQueryAttention,
        dict(num_query_heads=8, head_dim=6, width=8),
    )
    weights = {
        "query/kernel": (4, 2, 3),
        "key/kernel": (2, 1, 3),
        "value/kernel": (4, 1, 3),
        "attention_output/kernel": (2, 3, 4),
    }
    yield attention(kind, (B, 6, 4), weights, num_key_value_heads=2, **sizes)
    single = dict(num_key_value_heads=1, use_gate=True, note=" of one head of keys")
    weights = {"query/kernel": (4, 4, 3), "key/kernel": (2, 1, 3)}
    yield attention(kind, (B, 6, 4), weights, **single, **sizes)


def recurrent(kind, gates, note="", bias=(), **kwargs):
    """Makes the case of a recurrent layer of ten units.

    Args:
        kind, note, **kwargs: As for `case`.
        gates: Int, how often its kernel has each unit.
        bias: Tuple of int, the sizes of its bias before the units.
    """
    weights = {
        f"{kind.__name__.lower()}_cell/{name}": (*shape, 5 * gates)
        for name, shape in {
            "kernel": (4,),
            "recurrent_kernel": (5,),
            "bias": bias,
        }.items()
    }
    weights = {k.replace("simplernn", "simple_rnn"): v for k, v in weights.items()}
    output = (6, 5) if kwargs.get("return_sequences") else (5,)
    return case(kind, STEPS, output, weights, note=note, units=10, **kwargs)


def _with_states(kind, number):
    """Makes the case of a layer that takes and returns states."""

    def build():
        inputs = keras.Input(STEPS, name="inputs")
        x = layers.Dense(8, name="before")(inputs)
        states = [layers.Dense(10, "relu")(inputs[:, 0]) for _ in range(number)]
        subject = kind(10, return_state=True, return_sequences=True, name="subject")
        x, *states = subject(x, initial_state=states)
        x = layers.Add()([x, *(layers.RepeatVector(6)(one) for one in states)])
        return finished(inputs, x)

    return Case(f"{kind.__name__} with states", kind, build, (B, 6, 5))


def _both_ways():
    sizes = {"units": 10, "return_sequences": True}
    for mode, inner, output in (
        ("concat", layers.LSTM(**sizes), (6, 10)),
        ("sum", layers.GRU(**sizes), (6, 5)),
        ("ave", layers.SimpleRNN(**sizes), (6, 5)),
        ("mul", layers.LSTM(**sizes), (6, 5)),
    ):
        kwargs = dict(layer=inner, merge_mode=mode, note=f", {mode}")
        yield case(layers.Bidirectional, STEPS, output, **kwargs)


def _apart_both_ways():
    inputs = keras.Input((6,), dtype="int32", name="inputs")
    x = layers.Embedding(5, 8, mask_zero=True, name="before")(inputs)
    inner = layers.LSTM(10, return_state=True)
    states = [layers.Dense(10)(layers.Flatten()(x * 1.0)) for _ in range(4)]
    both = layers.Bidirectional(inner, merge_mode=None, name="subject")
    return finished(inputs, layers.Concatenate()(both(x, initial_state=states)))


def _plain_attention(kind, call=None, note="", **kwargs):
    def build():
        inputs = keras.Input(STEPS, name="inputs")
        names = ("before", "beside", "behind")
        x, y, z = (layers.Dense(8, name=name)(inputs) for name in names)
        subject = kind(name="subject", **kwargs)
        return finished(inputs, subject([x, y, z] if note else [x, y], **(call or {})))

    return Case(f"{kind.__name__}{note}", kind, build, (B, 6, 4))


def _reversed(tie_weights):
    def build():
        inputs = keras.Input((6,), dtype="int32", name="inputs")
        subject = layers.ReversibleEmbedding(5, 8, tie_weights, name="subject")
        x = layers.Dense(8, "tanh", name="before")(subject(inputs))
        return keras.Model(inputs, subject(x, reverse=True))

    kind, weights = layers.ReversibleEmbedding, {"embeddings": (5, 4)}
    if not tie_weights:
        weights["reverse_embeddings"] = (4, 5)
    return Case(f"{kind.__name__}, {tie_weights}", kind, build, (B, 6, 4), weights)


def _recurrents():
    yield recurrent(layers.LSTM, 4)
    yield recurrent(layers.LSTM, 4, note=", all steps", return_sequences=True)
    yield recurrent(layers.LSTM, 4, note=", sigmoid", activation="sigmoid")
    yield recurrent(layers.GRU, 3, bias=(2,))
    yield recurrent(layers.GRU, 3, note=", reset before", reset_after=False)
    yield recurrent(layers.SimpleRNN, 1, return_sequences=True, go_backwards=True)
    yield _with_states(layers.LSTM, 2)
    yield _with_states(layers.GRU, 1)
    cells = [layers.LSTMCell(10), layers.GRUCell(6)]
    yield case(layers.RNN, STEPS, (6, 3), cell=cells, return_sequences=True)
    yield case(layers.RNN, STEPS, (5,), cell=layers.SimpleRNNCell(10), note=" of one")
    yield from _both_ways()
    for rank, shape in ((1, (3, 5, 2)), (2, (3, 4, 4, 2)), (3, (2, 3, 3, 3, 2))):
        kind = getattr(layers, f"ConvLSTM{rank}D")
        output = (*(size - 1 for size in shape[1:-1]), 3)
        yield case(kind, shape, output, filters=6, kernel_size=2)


def _wrapped():
    kind = layers.TimeDistributed
    yield case(kind, STEPS, (6, 5), layer=layers.Dense(10, "relu"))
    convolution = layers.Conv2D(10, 2)
    yield case(kind, VIDEO, (4, 3, 3, 5), layer=convolution, note=" of images")
    pooling = layers.GlobalAveragePooling2D()
    yield case(kind, VIDEO, (4, 4), layer=pooling, note=" of a mean")
    kind = layers.SpectralNormalization
    weights = {"vector_u": (1, 5)}
    yield case(kind, STEPS, (6, 5), weights, layer=layers.Dense(10))


def _masked():
    inputs = keras.Input((6,), dtype="int32", name="inputs")
    x = layers.Embedding(5, 8, mask_zero=True, name="before")(inputs)
    x = layers.BatchNormalization(name="subject")(x)
    x = layers.TimeDistributed(layers.Dense(8))(x)
    x = layers.GRU(10, return_sequences=True)(x)
    x = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(x)
    return finished(inputs, layers.GlobalAveragePooling1D()(x))


CASES = [
    case(
        layers.Dense,
        STEPS,
        (6, 5),
        {"kernel": (4, 5), "bias": (5,)},
        units=10,
        activation="gelu",
    ),
    Case("Dense over places", layers.Dense, _dense_over_places, (B, 4, 5)),
    Case("Embedding", layers.Embedding, _embedding, (B, 6, 4), {"embeddings": (5, 4)}),
    *_einsums(),
    *_attentions(),
    _plain_attention(layers.Attention),
    _plain_attention(layers.Attention, {"use_causal_mask": True}, " of keys"),
    _plain_attention(layers.Attention, note=" of sums", score_mode="concat"),
    _plain_attention(layers.AdditiveAttention),
    _plain_attention(layers.AdditiveAttention, note=" unscaled", use_scale=False),
    _reversed(tie_weights=True),
    _reversed(tie_weights=False),
    *_recurrents(),
    Case("Bidirectional, apart", layers.Bidirectional, _apart_both_ways, (B, 5)),
    *_wrapped(),
    Case("masks of steps", layers.BatchNormalization, _masked, (B, 6, 4)),
    Case("Masking of steps", layers.Masking, _masking, (B, 4, 6)),
    *_convolutions(),
    Case(
        "multipliers of inputs",
        layers.DepthwiseConv2D,
        _multipliers,
        (B, 5, 5, 6),
        {"kernel": (2, 2, 3, 2)},
    ),
    *_normalizations(),
    *_activations(),
    *_passing(),
    *_places(),
    *_movements(),
]

# Layers that keep all that goes in, by the kind of the reason.
KEEPING = [
    ("statistics", layers.GroupNormalization, IMAGE, {"groups": 1}),
    ("statistics", layers.LayerNormalization, STEPS, {}),
    ("statistics", layers.Softmax, STEPS, {}),
    ("statistics", layers.Activation, STEPS, {"activation": "softmax"}),
    ("partner", layers.Normalization, STEPS, {}),
    ("partner", layers.Rescaling, STEPS, {"scale": 2.0, "offset": [0.5] * 8}),
]
