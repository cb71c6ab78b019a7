"""Models put together at random, of all that channels may pass through."""

import keras
import numpy as np
from keras import layers, ops

FORMS = {"image": 4, "steps": 3, "row": 2}
QUICK = {"kernel_initializer": "zeros"}  # the tests put random numbers in its place


class Builder:
    """Builds a model step by step.

    Args:
        draw: Function of a list that returns one of its items.
        is_plain: Bool, whether only such parts are used as let every channel go that
            the outputs let go.
    """

    def __init__(self, draw, is_plain=False):
        self.draw = draw
        self.is_plain = is_plain
        self.inputs = []
        self.tensors = []
        self.shared = {}

    def model(self, number):
        """Returns a model of some steps."""
        for form in self.draw([["image"], ["steps"], ["row"], ["image", "row"]]):
            shape = {"image": (6, 6, 3), "steps": (6, 3), "row": (5,)}[form]
            tensor = keras.Input(shape)
            self.inputs.append(tensor)
            self.tensors.append(self.made(tensor))
        for _ in range(number):
            tensor = self.draw(self.tensors[-3:])
            steps = [step for form, step, is_plain in STEPS if self.fits(form, tensor)]
            plain = [s for f, s, is_plain in STEPS if is_plain and self.fits(f, tensor)]
            result = self.draw(plain if self.is_plain else steps)(self, tensor)
            if result is not None and 1 < np.prod(result.shape[1:]) < 3000:
                self.tensors.append(result)
        return keras.Model(self.inputs, self.outputs())

    def fits(self, form, tensor):
        """Tells whether a step can take a tensor."""
        return form is None or FORMS[form] == len(tensor.shape)

    def outputs(self):
        """Returns what the model puts out: all that nothing takes."""
        last = [
            x for x in self.tensors if not x._keras_history.operation._outbound_nodes
        ]
        return [layers.Dense(2, **QUICK)(self.row(x)) for x in last or self.tensors]

    def row(self, tensor):
        """Returns one row for each example."""
        if len(tensor.shape) == 2:
            return tensor
        means = layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D
        return self.draw([layers.Flatten(), means[len(tensor.shape) - 3]()])(tensor)

    def made(self, tensor, width=None):
        """Returns new channels along the last axis."""
        width = width or self.draw([4, 6, 8])
        activation = self.draw([None, "relu", "tanh", "sigmoid"])
        if len(tensor.shape) == 4:
            size = self.draw([1, 3])
            groups = self.draw(
                [g for g in (1, 2, 4) if tensor.shape[-1] % g == width % g == 0]
            )
            return layers.Conv2D(
                width,
                size,
                padding="same",
                activation=activation,
                groups=groups,
                **QUICK,
            )(tensor)
        return layers.Dense(width, activation, **QUICK)(tensor)

    def alike(self, tensor):
        """Returns a tensor of the same shape that is another one if there is one."""
        others = [
            x for x in self.tensors if x is not tensor and x.shape == tensor.shape
        ]
        return self.draw(others) if others else self.made(tensor, tensor.shape[-1])


STEPS = []


def step(form=None, plain=False):
    """Returns a decorator that adds a step for tensors of a form."""

    def decorator(function):
        STEPS.append((form, function, plain))
        return function

    return decorator


@step(plain=True)
def new(builder, x):
    return builder.made(x)


@step(plain=True)
def normalized(builder, x):
    x = layers.BatchNormalization(scale=builder.draw([True, False]))(x)
    return layers.Activation(builder.draw(["relu", "gelu", "sigmoid"]))(x)


@step(plain=True)
def residual(builder, x):
    y = builder.alike(x)
    merge = builder.draw([layers.Add, layers.Multiply, layers.Maximum, layers.Average])
    return merge()([x, y])


@step(plain=True)
def joined(builder, x):
    others = [y for y in builder.tensors if y.shape[:-1] == x.shape[:-1]]
    return layers.Concatenate()([x, builder.draw(others)])


@step(plain=True)
def excited(builder, x):
    axes = tuple(range(1, len(x.shape) - 1))
    gate = ops.mean(x, axis=axes, keepdims=True) if axes else x
    gate = layers.Dense(4, "relu", **QUICK)(gate)
    return x * layers.Dense(x.shape[-1], "sigmoid", **QUICK)(gate)


@step(plain=True)
def nested(builder, x):
    """Puts a model in, perhaps one that is there already."""
    known = builder.shared.get(x.shape)
    if known is None or builder.draw([False, True]):
        width = x.shape[-1]
        if builder.draw([False, True]):
            parts = [layers.Dense(4, "relu", **QUICK), layers.BatchNormalization()]
            last = layers.Dense(width, **QUICK)
            known = keras.Sequential([keras.Input(x.shape[1:]), *parts, last])
        else:
            inputs = keras.Input(x.shape[1:])
            inner = layers.Dense(width, "tanh", **QUICK)(inputs)
            known = keras.Model(inputs, inputs + 2 * inner)
        builder.shared[x.shape] = known
    return known(x)


@step(plain=True)
def shared(builder, x):
    """Uses one layer for two tensors."""
    layer = layers.Dense(6, "relu", **QUICK)
    return layer(x) - layer(builder.alike(x))


@step("image", plain=True)
def depthwise(builder, x):
    multiplier = 1 if builder.is_plain else builder.draw([1, 2])
    return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=multiplier)(x)


@step("image", plain=True)
def pooled(builder, x):
    kinds = [layers.MaxPooling2D, layers.AveragePooling2D, layers.UpSampling2D]
    return builder.draw(kinds)(2, **{})(x) if min(x.shape[1:3]) > 1 else None


@step("image", plain=True)
def margins(builder, x):
    x = layers.ZeroPadding2D(((1, 0), (0, 1)))(x)
    return layers.Cropping2D(((0, 1), (1, 0)))(x)


@step("image")
def cropped(builder, x):
    return layers.Cropping2D(((1, 0), (0, 1)))(x) if x.shape[1] > 2 else None


@step("image")
def unshaped(builder, x):
    return layers.Reshape((x.shape[1] * x.shape[2], x.shape[3]))(x)


@step()
def flat(builder, x):
    return layers.Flatten()(x)


@step("image")
def deeper(builder, x):
    if x.shape[-1] % 4:
        return ops.nn.space_to_depth(x, 2) if x.shape[1] % 2 == 0 else None
    return ops.nn.depth_to_space(x, 2)


@step()
def shuffled(builder, x):
    """Mixes the channels of several groups, as ShuffleNet does."""
    *places, width = x.shape[1:]
    groups = builder.draw([g for g in (2, 3, 4, width) if width % g == 0])
    x = ops.reshape(x, (-1, *places, groups, width // groups))
    rank = len(x.shape)
    x = ops.transpose(x, (*range(rank - 2), rank - 1, rank - 2))
    return ops.reshape(x, (-1, *places, width))


@step()
def sliced(builder, x):
    if x.shape[-1] < 4:
        return None
    keys = [
        slice(1, None),
        slice(None, None, 2),
        slice(-3, None),
        slice(None, None, -1),
    ]
    return x[..., builder.draw(keys)]


@step()
def halves(builder, x):
    if x.shape[-1] % 2 or x.shape[-1] < 4:
        return None
    left, right = ops.split(x, 2, axis=-1)
    if builder.draw([False, True]):
        return left * ops.sigmoid(right)
    return ops.concatenate([builder.made(right), left], -1)


@step()
def turned(builder, x):
    turns = [
        lambda x: ops.flip(x, -1),
        lambda x: ops.roll(x, 2, -1),
        lambda x: ops.roll(x, 1, 1),
        lambda x: ops.take(x, [1, 0, 1], -1) if x.shape[-1] > 1 else x,
        lambda x: ops.repeat(x, 2, -1),
        lambda x: ops.tile(x, (1,) * (len(x.shape) - 1) + (2,)),
        lambda x: ops.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[1, 2]]),
    ]
    return builder.draw(turns)(x)


@step()
def with_numbers(builder, x):
    numbers = np.linspace(-1, 1, x.shape[-1])
    kinds = [
        lambda x: x * numbers,
        lambda x: 1 - x / 3,
        lambda x: ops.maximum(x, numbers[:1]),
        lambda x: ops.where(x > 0, x, 0.1 * x),
        lambda x: ops.square(x) + numbers,
    ]
    return builder.draw(kinds)(x)


@step()
def stretched(builder, x):
    """Lets an axis of places and the channels' change places."""
    if len(x.shape) == 2:
        return layers.RepeatVector(3)(x)
    x = ops.swapaxes(x, 1, -1)
    return builder.made(x) if builder.draw([False, True]) else x


@step()
def summed(builder, x):
    function = builder.draw([ops.sum, ops.mean, ops.max])
    axis = builder.draw(list(range(1, len(x.shape))))
    x = function(x, axis, keepdims=builder.draw([False, True]))
    return x if len(x.shape) > 1 else None


@step("row")
def outer(builder, x):
    y = builder.alike(x)
    return x[:, :, None] * y[:, None, :]


@step("row")
def piled(builder, x):
    return ops.stack([x, builder.alike(x)], axis=builder.draw([1, 2]))


@step("row")
def in_rows(builder, x):
    width = x.shape[-1]
    rows = builder.draw([n for n in range(1, width + 1) if width % n == 0])
    return layers.Reshape((rows, -1))(x)


@step("steps")
def attended(builder, x):
    y = builder.alike(x)
    weights = ops.matmul(x, ops.swapaxes(y, 1, 2)) / 3
    if x.shape[1] > 1 and builder.draw([False, True]):
        weights = ops.softmax(weights)
    return ops.matmul(weights, builder.alike(x))


@step("steps")
def heads(builder, x):
    width = x.shape[-1]
    if width % 2:
        return None
    query, key, value = (
        ops.reshape(builder.made(x, width), (-1, x.shape[1], 2, width // 2))
        for _ in range(3)
    )
    weights = ops.einsum("bthk,bshk->bhts", query, key)
    weights = ops.softmax(weights) if x.shape[1] > 1 else weights
    mixed = ops.einsum("bhts,bshk->bthk", weights, value)
    return ops.reshape(mixed, (-1, x.shape[1], width))


@step()
def softened(builder, x):
    axis = builder.draw(list(range(1, len(x.shape))))
    return ops.softmax(x, axis=axis) if x.shape[axis] > 1 else None
