"""Small models around each operation that channels may pass through.

The channels come from dense layers of eight units, `a` and perhaps `b`, or
convolutions of eight filters, of which half are to go. How many are left is written
out by hand.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops
from keras.src.ops import core, nn
from keras.src.ops import numpy as operations

ROW, STEPS, IMAGE = (5,), (6, 3), (6, 6, 3)
QUICK = {"kernel_initializer": "zeros"}  # the tests put random numbers in its place


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, and how many channels are left of its layers at half the channels.

    Attributes:
        name: String, for the test.
        kind: Type of the layer or operation that it proves.
        shape: Tuple of ints, of the input; with the batch if it starts with 4.
        body: Function of the input tensor that returns the output tensor.
        widths: Dict from the name of a layer to the channels that it is left with.
        reasons: Set of strings, the kinds of reasons why channels stay, beside
            `"output"`.
    """

    name: str
    kind: type
    shape: tuple
    body: Callable
    widths: dict
    reasons: set = dataclasses.field(default_factory=set)


def dense(x, name="a", units=8, activation=None):
    """Makes channels along the last axis."""
    return layers.Dense(units, activation, name=name, **QUICK)(x)


def conv(x, name="a", filters=8):
    """Makes channels of an image."""
    return layers.Conv2D(filters, 3, padding="same", name=name, **QUICK)(x)


def end(x):
    """Takes all channels of the last axis in."""
    return layers.Dense(3, name="end", **QUICK)(x)


CASES = []


def case(name, kind, shape, widths, *reasons):
    """Returns a decorator that adds a case with the decorated body."""

    def decorator(body):
        CASES.append(Case(name, kind, shape, body, widths, set(reasons)))
        return body

    return decorator


HALF = {"a": 4}
BOTH = {"a": 4, "b": 4}
NONE = {"a": 8}
NEITHER = {"a": 8, "b": 8}


def one(name, kind, move, shape=ROW, widths=HALF, reasons=(), make=dense):
    """Adds a case of one tensor with channels along its last axis."""
    case(name, kind, shape, widths, *reasons)(lambda x: end(move(make(x))))


def two(name, kind, combine, shape=ROW, widths=BOTH, reasons=()):
    """Adds a case of two tensors with channels along their last axis."""

    def body(x):
        return end(combine(dense(x), dense(x, "b")))

    case(name, kind, shape, widths, *reasons)(body)


# Elementwise, of several tensors.

two("Multiply", operations.Multiply, lambda x, y: x * y)
for _kind in (operations.Divide, operations.TrueDivide, operations.DivideNoNan):
    two(_kind.__name__, _kind, lambda x, y, kind=_kind: kind()(x, ops.exp(y)))
for _kind in (operations.BitwiseAnd, operations.BitwiseOr, operations.BitwiseXor):

    def _bits(x, y, kind=_kind):
        x, y = (ops.cast(4 * one, "int32") for one in (x, y))
        return ops.cast(kind()(x, y), "float32")

    two(_kind.__name__, _kind, _bits)
two("choice", operations.Where, lambda x, y: ops.where(x > y, x, 0.1 * y))
two(
    "choice, summed up",
    operations.Where,
    lambda x, y: ops.sum(ops.where(x > y, x, 0.1 * y), -1, keepdims=True),
)
two(
    "choice of what is not zero, summed up",
    operations.Where,
    lambda x, y: ops.sum(ops.where(x > y, x, 1.0), -1, keepdims=True),
    widths=NEITHER,
    reasons=["statistics"],
)
one("number added", operations.Add, lambda x: 1 - x / 255 + x * 2.0)
two("ranks differ", layers.Add, lambda x, y: layers.Add()([x, y[:, 0]]), STEPS)
for _kind in (layers.Average, layers.Maximum, layers.Minimum, layers.Subtract):
    two(_kind.__name__, _kind, lambda x, y, kind=_kind: kind()([x, y]))
two("merged by product", layers.Multiply, lambda x, y: layers.Multiply()([x, y]))
two("merged by sum", layers.Add, lambda x, y: layers.Add()([x, y]))
one(
    "constant of the channels' axis",
    operations.Multiply,
    lambda x: x * np.arange(8, dtype="float32") - np.ones((1, 8), "float32"),
)
one(
    "constant of other axes",
    operations.Add,
    lambda x: x + np.arange(6, dtype="float32")[:, None],
    STEPS,
)
one(
    "one channel added to all",
    operations.Add,
    lambda x: x + x[:, :1] * np.ones((1, 8), "float32"),
    widths=NONE,
    reasons=["last", "partner"],
)


@case("input of the same width", operations.Add, (8,), NONE, "partner")
def _(x):
    return end(dense(x) + x)


@case("places along two axes multiplied", operations.Multiply, STEPS, BOTH)
def _(x):
    # (batch, 8, 1) by (batch, 1, 8): both lots of channels stay apart.
    left, right = dense(x[:, 0]), dense(x[:, 1], "b")
    product = left[:, :, None] * right[:, None, :]
    return layers.Dense(3, name="end", **QUICK)(ops.sum(product, 1))


@case(
    "places along two axes multiplied, not all of them silent",
    operations.Multiply,
    STEPS,
    {"a": 4, "b": 8},
    "statistics",
)
def _(x):
    left, right = dense(x[:, 0]), ops.sigmoid(dense(x[:, 1], "b"))
    product = left[:, :, None] * right[:, None, :]
    return layers.Dense(3, name="end", **QUICK)(ops.sum(product, 2))


@case("squeeze and excite", operations.Multiply, IMAGE, {"a": 4, "b": 2, "c": 4})
def _(x):
    x = conv(x)
    gate = dense(ops.mean(x, axis=(1, 2)), "b", 4, "relu")
    gate = dense(gate, "c", 8, "sigmoid")
    return layers.Conv2D(3, 1, name="end", **QUICK)(x * layers.Reshape((1, 1, 8))(gate))


# Elementwise, of one tensor.

_INTEGERS = {"BitwiseInvert", "BitwiseNot"}
_POSITIVE = {"Erfinv", "Log", "Log10", "Log1p", "Log2", "Reciprocal", "Rsqrt", "Sqrt"}
_ARGUMENTS = {
    "Cast": ("float16",),
    "Clip": (-0.5, 0.5),
    "SaturateCast": ("float16",),
    "Threshold": (0.1, 0.0),
}


def unary_operation(kind):
    """Returns a function that applies an operation where it is finite."""
    name, operation = kind.__name__, kind(*_ARGUMENTS.get(kind.__name__, ()))

    def apply(x):
        if name in _INTEGERS:
            x = ops.cast(4 * x, "int32")
        elif name in _POSITIVE or name.startswith("Arc"):
            x = ops.sigmoid(x) + (1.0 if name == "Arccosh" else 0.0)
        return ops.cast(operation(x), "float32")

    return apply


one("softmax over places", nn.Softmax, lambda x: ops.softmax(x, axis=1), STEPS)
for _kind in (nn.Softmax, nn.LogSoftmax, nn.Sparsemax, nn.Normalize):
    one(
        f"{_kind.__name__} over channels",
        _kind,
        lambda x, kind=_kind: kind()(x),
        widths=NONE,
        reasons=["statistics"],
    )
for _kind in (
    operations.Argsort,
    operations.Cumprod,
    operations.Cumsum,
    operations.Sort,
):
    one(
        f"{_kind.__name__} of places",
        _kind,
        lambda x, kind=_kind: ops.cast(kind(axis=1)(x), "float32"),
        STEPS,
    )

# Movement.

one("expand", operations.ExpandDims, lambda x: ops.expand_dims(x, 1))
one("squeeze", operations.Squeeze, lambda x: ops.squeeze(x[:, None, :, None], (1, 3)))
one("squeeze all", operations.Squeeze, lambda x: ops.squeeze(x[:, None, :, None]))
one("flip channels", operations.Flip, lambda x: ops.flip(x, -1))
one("flip places", operations.Flip, lambda x: ops.flip(x, 1), STEPS)
one("turned image", operations.Rot90, lambda x: ops.rot90(x, axes=(1, 2)), STEPS + (3,))
one(
    "transposed twice",
    operations.Transpose,
    lambda x: ops.transpose(ops.transpose(x, (2, 0, 1)), (1, 2, 0)),
    STEPS,
)
one(
    "moved",
    operations.Moveaxis,
    lambda x: ops.moveaxis(ops.moveaxis(x, -1, 0), 0, -1),
    STEPS,
)
one(
    "swapped",
    operations.Swapaxes,
    lambda x: ops.swapaxes(ops.swapaxes(x, 1, 2), 1, 2),
    STEPS,
)
one("tiled channels", operations.Tile, lambda x: ops.tile(x, (1, 3)))
one("tiled places", operations.Tile, lambda x: ops.tile(x, (1, 2, 1)), STEPS)
one("repeated", operations.Repeat, lambda x: ops.repeat(x, 2, -1))
one(
    "repeated by numbers",
    operations.Repeat,
    lambda x: ops.repeat(x, [1, 2, 3, 1, 2, 3, 1, 1], -1),
    widths=HALF,
)
two("stacked", operations.Stack, lambda x, y: ops.stack([x, y], 1))
two(
    "stacked behind",
    operations.Stack,
    lambda x, y: layers.Flatten()(ops.stack([x, y], -1)),
)
two("joined", operations.Concatenate, lambda x, y: ops.concatenate([x, y], -1))
two(
    "joined, of steps",
    layers.Concatenate,
    lambda x, y: layers.Concatenate(axis=1)([x, y]),
    STEPS,
)
two(
    "joined along the batch",
    operations.Concatenate,
    lambda x, y: ops.split(ops.concatenate([x, y], 0), 2)[1],
    (4, 3, 5),
)
one(
    "joined to a constant",
    operations.Concatenate,
    lambda x: ops.concatenate([x, np.full((4, 2), 7, "float32")], -1),
    (4, 5),
)
one(
    "constant steps joined to it",
    operations.Concatenate,
    lambda x: ops.concatenate([x, np.full((4, 2, 8), 7, "float32")], 1),
    (4, 3, 5),
    NONE,
    ["partner"],
)
one(
    "broadcast",
    operations.BroadcastTo,
    lambda x: ops.broadcast_to(x, (2, 4, 8)),
    (4, 5),
)
one("reshaped", operations.Reshape, lambda x: ops.reshape(x, (-1, 2, 4)))
one("reshaped, open", operations.Reshape, lambda x: ops.reshape(x, (-1, 3, 8)), STEPS)
one("reshaped for all", operations.Reshape, lambda x: ops.reshape(x, (-1, 4)), (4, 6))
one("reshaped batch", operations.Reshape, lambda x: ops.reshape(x, (-1, 8)), (4, 3, 5))
one(
    "channel shuffle",
    operations.Reshape,
    lambda x: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 3, 2, 4)), (0, 1, 3, 2)), (-1, 3, 8)
    ),
    (3, 5),
)
one(
    "attention heads by hand",
    operations.Reshape,
    lambda x: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 6, 2, 4)), (0, 2, 1, 3)), (-1, 48)
    ),
    STEPS,
)

# Places.

one("slice", operations.GetItem, lambda x: x[..., 2:7])
one("slices that meet", operations.GetItem, lambda x: x[:, :4] * x[:, 4:])
one("slice in steps", operations.GetItem, lambda x: x[:, ::-2])
one(
    "slice in steps of other axes", operations.GetItem, lambda x: x[:, None, ::2], STEPS
)
one("step", operations.GetItem, lambda x: x[:, -1], STEPS)
one(
    "slice with new axes",
    operations.GetItem,
    lambda x: x[:, 1:-1, None, 3:],
    STEPS,
)
one(
    "one channel",
    operations.GetItem,
    lambda x: ops.concatenate([x[:, 3:4], x], -1),
    reasons=["last"],
)
one(
    "one channel alone",
    operations.GetItem,
    lambda x: x * x[:, 3, None],
    reasons=["last"],
)
one("taken", operations.Take, lambda x: ops.take(x, [7, 1, -2, 1, 0], -1))
one("taken steps", operations.Take, lambda x: ops.take(x, [[0, 1], [2, 3]], 1), STEPS)
one(
    "taken in rows",
    operations.Take,
    lambda x: layers.Flatten()(ops.take(x, [[0, 1, 2], [5, 4, 3]], -1)),
)
one(
    "steps taken by number",
    operations.Take,
    lambda x: ops.take(x, ops.cast(x[0, :2, 0] * 0, "int32"), 1),
    (4, 6, 3),
    widths=HALF,
    reasons=["last", "unknown"],
)
one(
    "block",
    core.Slice,
    lambda x: ops.slice(x, [0, 1, 2], [4, 2, 5]),
    (4, 3, 5),
)
one("split", operations.Split, lambda x: ops.concatenate(ops.split(x, 2, -1)[::-1], -1))
one(
    "split at",
    operations.Split,
    lambda x: ops.split(x, [3, 5], -1)[2],
    widths={"a": 5},  # one of each part goes: at most half of it
)
one("split steps", operations.Split, lambda x: ops.split(x, 3, 1)[1], STEPS)
one(
    "split unevenly",
    operations.ArraySplit,
    lambda x: ops.array_split(x, 3, -1)[0],
    widths={"a": 5},
)
one("unstacked", core.Unstack, lambda x: ops.add(*ops.unstack(x, 6, 1)[:2]), STEPS)
one(
    "channels unstacked",
    core.Unstack,
    lambda x: ops.stack(ops.unstack(x, 8, 1), -1),
    widths=NONE,
    reasons=["last"],
)
one(
    "softmax within rows",
    nn.Softmax,
    lambda x: layers.Flatten()(ops.softmax(ops.reshape(x, (-1, 4, 2)), -1)),
)
one("rolled", operations.Roll, lambda x: ops.roll(x, 3, -1)[:, 2:])
one(
    "rolled back",
    operations.Roll,
    lambda x: ops.roll(x, (-3, 1), (2, 1))[..., 2:],
    STEPS,
)
one(
    "padded steps",
    operations.Pad,
    lambda x: ops.pad(x, ((0, 0), (2, 1), (0, 0))),
    STEPS,
)
one("padded channels", operations.Pad, lambda x: ops.pad(x, ((0, 0), (2, 1))))
one(
    "padded by ones, summed up",
    operations.Pad,
    lambda x: ops.sum(
        ops.pad(x, ((0, 0), (2, 1), (0, 0)), constant_values=1), -1, keepdims=True
    ),
    STEPS,
    NONE,
    ["statistics"],
)
one(
    "mirrored channels",
    operations.Pad,
    lambda x: ops.pad(x, ((0, 0), (2, 1)), "reflect"),
    widths=NONE,
    reasons=["mixed"],
)
one(
    "depth to space",
    nn.DepthToSpace,
    lambda x: ops.nn.depth_to_space(x, 2),
    IMAGE,
)
one("space to depth", nn.SpaceToDepth, lambda x: ops.nn.space_to_depth(x, 2), IMAGE)

# Reductions.

one(
    "sum of channels that are not zero",
    operations.Sum,
    lambda x: ops.sum(ops.sigmoid(x), -1, keepdims=True),
    widths=NONE,
    reasons=["statistics"],
)
one("sum of rows", operations.Sum, lambda x: ops.sum(ops.reshape(x, (-1, 2, 4)), 1))
one(
    "sum within rows",
    operations.Sum,
    lambda x: ops.sum(ops.reshape(x, (-1, 2, 4)), 2),
)
one(
    "largest within rows",
    operations.Max,
    lambda x: ops.max(ops.reshape(x, (-1, 4, 2)), 2),
)
one("mean, kept", operations.Mean, lambda x: ops.mean(x, 1, keepdims=True), STEPS)

# Products.


def _attention(x, y):
    """Multiplies queries by keys, and what they say by values: `x` and `y`."""
    weights = ops.softmax(ops.matmul(x, ops.transpose(y, (0, 2, 1))))
    return ops.matmul(weights, y)


two("attention", operations.Matmul, _attention, STEPS)
two(
    "product of rows",
    operations.Einsum,
    lambda x, y: ops.einsum("...k,...k->...", x, y),
    STEPS,
)
two(
    "products of all",
    operations.Einsum,
    lambda x, y: layers.Flatten()(ops.einsum("bi,bj->bij", x, y)),
)
two(
    "products, unsaid",
    operations.Einsum,
    lambda x, y: ops.einsum("ij,kj", x, y),
    (4, 5),
)
two(
    "products of heads",
    operations.Einsum,
    lambda x, y: ops.einsum(
        "bthk,bshk->bths", *(ops.reshape(one, (-1, 6, 2, 4)) for one in (x, y))
    ),
    STEPS,
)
two(
    "product of what is not zero",
    operations.Matmul,
    lambda x, y: ops.matmul(ops.sigmoid(x), ops.transpose(ops.sigmoid(y), (0, 2, 1))),
    STEPS,
    NEITHER,
    ["statistics"],
)
two(
    "product of which one side is zero",
    operations.Matmul,
    lambda x, y: ops.matmul(x, ops.transpose(ops.sigmoid(y), (0, 2, 1))),
    STEPS,
)
one(
    "product with a constant",
    operations.Matmul,
    lambda x: ops.matmul(x, np.ones((8, 2), "float32")),
    widths=NONE,
    reasons=["partner"],
)
two("dot", operations.Dot, lambda x, y: ops.dot(x, ops.transpose(y)), (4, 5))
two(
    "tensordot",
    operations.Tensordot,
    lambda x, y: ops.tensordot(x, y, [[1], [1]]),
    (4, 5),
)
two("dot of vectors", layers.Dot, lambda x, y: layers.Dot(1)([x, y]))
two("dot of steps", layers.Dot, lambda x, y: layers.Dot((-1, 2))([x, y]), STEPS)
two(
    "dot over steps",
    layers.Dot,
    lambda x, y: layers.Flatten()(layers.Dot(1)([x, y])),
    STEPS,
)
two("cosine", layers.Dot, lambda x, y: layers.Dot(-1, normalize=True)([x, y]), STEPS)
two(
    "cosine of what is not zero",
    layers.Dot,
    lambda x, y: layers.Dot(1, normalize=True)([x, ops.sigmoid(y)]),
    widths=NEITHER,
    reasons=["statistics"],
)

# What is easily got wrong.

_OPEN, _OPEN_IMAGE = (None, 3), (None, None, 3)


def _behind_the_batch(x):
    """Lets the batch be the last axis for a while."""
    x = ops.transpose(x, (1, 2, 0)) * np.arange(8, dtype="float32")[:, None] + 1
    return ops.transpose(ops.reshape(x, (6, 8, -1)), (2, 0, 1))


one("batch last", operations.Transpose, _behind_the_batch, STEPS)
one("batch last, known", operations.Transpose, _behind_the_batch, (4, 6, 3))
one("open steps", operations.Reshape, lambda x: ops.reshape(x, (-1, 8)), _OPEN)
one("open steps in two", layers.Reshape, layers.Reshape((-1, 4)), _OPEN, {"a": 4})
one("open steps by two", layers.Reshape, layers.Reshape((-1, 16)), _OPEN)
one(
    "open places of blocks",
    nn.DepthToSpace,
    lambda x: ops.nn.depth_to_space(x, 2),
    _OPEN_IMAGE,
)
one(
    "all blocks of one channel",
    nn.DepthToSpace,
    lambda x: ops.nn.depth_to_space(x[..., :4], 2),
    IMAGE,
    reasons=["last"],
)
one(
    "blocks of rows that are channels",
    nn.SpaceToDepth,
    lambda x: ops.nn.space_to_depth(ops.swapaxes(x, 1, -1), 2),
    IMAGE,
    NONE,
    ["mixed"],
)
one(
    "margins of rows that are channels",
    layers.Cropping2D,
    lambda x: layers.Cropping2D(1)(ops.swapaxes(x, 1, -1)),
    IMAGE,
    NONE,
    ["mixed"],
)
one(
    "numbers looked up",
    layers.Embedding,
    lambda x: layers.Embedding(50, 2)(ops.cast(ops.abs(x), "int32")),
    widths=NONE,
    reasons=["mixed"],
)


@case("layer of sizes shared with what can't go", layers.Reshape, (8,), NONE, "partner")
def _(x):
    in_rows = layers.Reshape((4, 2))
    return end(layers.Flatten()(in_rows(dense(x)) + in_rows(x)))


@case("layer of sizes shared", layers.Reshape, ROW, BOTH)
def _(x):
    in_rows = layers.Reshape((4, 2))
    rows = in_rows(dense(x)), in_rows(dense(x, "b"))
    return end(layers.Concatenate()([layers.Flatten()(one) for one in rows]))


@case("operation with constants used twice", operations.Take, ROW, NONE, "unknown")
def _(x):
    x, take = dense(x), operations.Take(-1)
    return end(take(x, [1, 2, 5]) - take(x, [3, 4, 5]))


@case("constants in a shared model", operations.GetItem, ROW, BOTH)
def _(x):
    inputs = keras.Input((8,))
    numbers = np.arange(8, dtype="float32")
    inner = keras.Model(inputs, (inputs * numbers)[:, 2:])
    return end(ops.concatenate([inner(dense(x)), inner(dense(x, "b"))], -1))


@case("one unit for all", operations.Add, ROW, {"a": 8, "b": 1}, "statistics")
def _(x):
    return end(ops.sum(dense(x) + dense(x, "b", 1), -1, keepdims=True))


@case("mean of all numbers", operations.Mean, ROW, NONE, "statistics")
def _(x):
    x = dense(x)
    return end(x * ops.mean(ops.square(x)))


@case("sum of all numbers", operations.Sum, ROW, HALF)
def _(x):
    x = dense(x)
    return end(x / ops.sqrt(ops.sum(ops.square(x)) + 1))


# Numbers that are the same for all channels, as Keras' masks of steps are.


def filled(name, combine, widths, *reasons, kind=operations.OnesLike):
    """Adds a case of a factor made of the channels of `a` and `b` but not of values."""

    def body(x):
        a, b = dense(x), dense(x, "b")
        factor = ops.cast(combine(x > 0, a, b), "float32")
        return end(ops.concatenate([a, b], -1) * (1 + ops.expand_dims(factor, -1)))

    case(name, kind, ROW, widths, *reasons)(body)


def _mask_of_two(mask, a, b):
    mask = ops.logical_or(mask[:, :1], ops.zeros_like(a, dtype="bool"))
    return ops.concatenate([mask, ops.ones_like(b, dtype="bool")], -1)


filled("any of a mask", lambda *xs: ops.any(_mask_of_two(*xs), -1), BOTH)
filled("all of a mask", lambda *xs: ops.all(_mask_of_two(*xs), -1), BOTH)
filled(
    "slice of a mask",
    lambda *xs: ops.all(_mask_of_two(*xs)[:, 2:14], -1),
    {"a": 6, "b": 6},
    "statistics",
)
filled(
    "mean of ones and zeros",
    lambda x, a, b: ops.mean(ops.concatenate([ops.ones_like(a), 0 * b], -1), -1),
    NEITHER,
    "statistics",
)
filled(
    "largest of ones by a constant",
    lambda x, a, b: ops.max(ops.ones_like(a) * np.arange(8, dtype="float32"), -1),
    {"a": 8, "b": 4},
    "statistics",
)


# Weights that go straight into an operation.


def tied(name, widths, *reasons, kind=operations.Multiply):
    """Adds a case of the channels of a layer `a` and of a function of it and them."""

    def decorator(combine):
        def body(x):
            layer = layers.Dense(8, name="a", bias_initializer="ones", **QUICK)
            layer.build(x.shape)
            return end(combine(layer, x))

        case(name, kind, ROW, widths, *reasons)(body)

    return decorator


@tied("kernel that is used backwards", HALF, kind=operations.Einsum)
def _(a, x):
    return ops.einsum("bh,ih->bi", a(x), a.kernel)


@tied("bias as a factor", HALF)
def _(a, x):
    return ops.sum(a(x) * a.bias, -1, keepdims=True)


@tied("bias added once more", HALF, kind=operations.Add)
def _(a, x):
    return a(x) + a.bias


@tied("bias as a divisor", NONE, "mixed", kind=operations.Divide)
def _(a, x):
    return a(x) / a.bias


@tied("kernel that is read before its layer", NONE, "unknown")
def _(a, x):
    first = ops.matmul(x, a.kernel)
    return ops.concatenate([first, a(ops.tanh(ops.exp(-ops.abs(x))))], -1)


def _stacked(x):
    layer = layers.Dense(8, name="a", **QUICK)
    layer.build(x.shape)
    return end(ops.concatenate([layer(x), layer.kernel], axis=0))


case("kernel behind a tensor", operations.Concatenate, (4, 5), HALF)(_stacked)


@tied("rows of a kernel", NONE, "partner", "unknown", kind=operations.Take)
def _(a, x):
    return a(x) * ops.take(a.kernel, ops.cast(x[:, 0] > 0, "int32"), axis=0)


@tied("variable that belongs to no layer", NONE, "partner")
def _(a, x):
    return a(x) * keras.Variable(np.arange(8, dtype="float32"))
