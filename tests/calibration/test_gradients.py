import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kprune
from kprune.calibration import Calibration
from tests.checks import entries

ROWS = 40  # A batch of 32 and one of 8.
KINDS = (
    "gradient",
    "absolute_gradient",
    "squared_gradient",
    "example_squared_gradient",
    "hessian_gradient",
    "total_saliency",
)


def evidence_of(model, data, *kinds):
    """Returns a list of dicts, one a pruned weight."""
    return Calibration(model, kinds, data).gather(entries(model))


def examples(inputs=3, outputs=2, rows=ROWS):
    random = np.random.default_rng(5)
    return random.normal(size=(rows, inputs)), random.normal(size=(rows, outputs))


def pruned(inputs, outputs, loss="mse", **compiling):
    model = kprune.prune(keras.Model(inputs, outputs))
    model.compile("sgd", loss, **compiling)
    return model


def linear(dtype="float32", **dense):
    """A linear regression: kernel of shape (3, 2), no bias."""
    inputs = keras.Input((3,))
    dense = layers.Dense(2, use_bias=False, dtype=dtype, **dense)
    return pruned(inputs, dense(inputs))


def by_hand(x, y, kernel, rows=None):
    """Gradients of the mean squared error, one for each part of so many rows."""
    rows = rows or len(x)
    return [
        2
        * x[i : i + rows].T
        @ (x[i : i + rows] @ kernel - y[i : i + rows])
        / y[i : i + rows].size
        for i in range(0, len(x), rows)
    ]


def derivative(function, variable, step=1e-4):
    """Returns the derivative of a function by each weight, by central differences."""
    value = variable.numpy()
    found = np.zeros(value.shape)
    for place in np.ndindex(value.shape):
        sides = []
        for sign in (1, -1):
            moved = value.copy()
            moved[place] += sign * step
            variable.assign(moved)
            sides.append(function())
        found[place] = (sides[0] - sides[1]) / (2 * step)
    variable.assign(value)
    return found


def test_every_kind_is_what_the_formula_of_linear_regression_gives():
    x, y = examples()
    model = linear()
    kernel = entries(model)[0].variable.numpy().astype("float64")

    (found,) = evidence_of(model, (x, y), *KINDS)

    (mean,) = by_hand(x, y, kernel)
    share = np.array([32, 8])[:, None, None] / ROWS
    of_batches = np.array(by_hand(x, y, kernel, 32))
    of_examples = np.array(by_hand(x, y, kernel, 1))
    expected = {
        "gradient": mean,
        "absolute_gradient": (share * np.abs(of_batches)).sum(0),
        "squared_gradient": (share * of_batches**2).sum(0),
        "example_squared_gradient": (of_examples**2).mean(0),
        "hessian_gradient": 2 * x.T @ x @ mean / y.size,
        "total_saliency": np.abs(kernel * mean).sum(),
    }
    assert found.keys() == expected.keys()
    for kind, value in expected.items():
        np.testing.assert_allclose(found[kind], value, rtol=2e-5, err_msg=kind)
        assert kind == "total_saliency" or found[kind].dtype == "float32"


def convolutional(inputs):
    x = layers.Conv2D(3, 2, activation="tanh", dtype="float64")(inputs)
    x = layers.BatchNormalization(dtype="float64")(x)
    x = layers.Dropout(0.5, dtype="float64")(x)
    return layers.Dense(2, dtype="float64")(layers.Flatten(dtype="float64")(x))


def nested_and_called_twice(inputs):
    inner = keras.Input((4,), dtype="float64")
    block = keras.Model(inner, layers.Dense(4, "tanh", dtype="float64")(inner))
    return layers.Dense(2, dtype="float64")(block(block(inputs)))


def recurrent(inputs):
    return layers.GRU(2, dtype="float64")(inputs)


def embedded(inputs):
    x = layers.Embedding(6, 3, dtype="float64")(inputs)
    return layers.Dense(2, "tanh", dtype="float64")(layers.Flatten(dtype="float64")(x))


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        # Plain layers, one after another, as in the nested model.
        pytest.param(convolutional, (3, 3, 1), marks=pytest.mark.slow),
        (nested_and_called_twice, (4,)),
        (recurrent, (3, 2)),
        (embedded, (3,)),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_gradient_is_the_slope_of_the_loss(build, shape):
    random = np.random.default_rng(1)
    integers = build is embedded
    inputs = keras.Input(shape, dtype="int32" if integers else "float64")
    model = pruned(inputs, build(inputs))
    x = (
        random.integers(0, 5, (ROWS, *shape))
        if integers
        else random.normal(size=(ROWS, *shape))
    )
    y, sample_weight = random.normal(size=(ROWS, 2)), random.random(ROWS)
    data = tf.data.Dataset.from_tensor_slices((x, y, sample_weight)).batch(32)

    found = evidence_of(model, data, "gradient")

    predict = tf.function(model)

    def loss():
        return (sample_weight[:, None] * (predict(x) - y) ** 2).numpy().mean()

    for entry, evidence in zip(entries(model), found, strict=True):
        expected = derivative(loss, entry.variable)
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(
            evidence["gradient"], expected, rtol=1e-3, atol=1e-5, err_msg=entry.name
        )


def test_hessian_times_gradient_is_the_change_of_the_gradient_along_itself():
    inputs = keras.Input((3,), dtype="float64")
    hidden = layers.Dense(4, "tanh", dtype="float64")(inputs)
    model = pruned(inputs, layers.Dense(2, dtype="float64")(hidden))
    data = tf.data.Dataset.from_tensor_slices(examples()).batch(16)
    found = evidence_of(model, data, "gradient", "hessian_gradient")
    start = [entry.variable.numpy() for entry in entries(model)]

    sides = []
    for step in (1e-2, -1e-2):
        for entry, value, evidence in zip(entries(model), start, found, strict=True):
            entry.variable.assign(value + step * evidence["gradient"])
        sides.append(evidence_of(model, data, "gradient"))

    for evidence, high, low in zip(found, *sides, strict=True):
        expected = (high["gradient"] - low["gradient"]) / 2e-2
        np.testing.assert_allclose(
            evidence["hessian_gradient"], expected, rtol=2e-3, atol=1e-5
        )


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16", "float16"])
def test_low_precision_changes_gradients_little(policy):
    x, y = examples()
    model = linear(dtype=keras.DTypePolicy(policy))
    kernel = entries(model)[0].variable.numpy().astype("float64")

    (found,) = evidence_of(model, (x, y), "gradient", "hessian_gradient")

    (mean,) = by_hand(x, y, kernel)
    assert found["gradient"].dtype == "float32"
    np.testing.assert_allclose(found["gradient"], mean, rtol=0.05, atol=0.05)
    product = 2 * x.T @ x @ mean / y.size
    np.testing.assert_allclose(found["hessian_gradient"], product, rtol=0.05, atol=0.1)


@pytest.mark.parametrize(
    ("factor", "built"), [(1e-7, False), (1e3, True)], ids=["tiny", "huge"]
)
def test_gradients_are_neither_lost_nor_too_large_in_half_precision(factor, built):
    x, y = examples()
    model = linear(dtype=keras.DTypePolicy("mixed_float16"))
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    model.compile(optimizer, "mse", loss_weights=factor)
    if built:
        optimizer.build(model.trainable_variables)
    kernel = entries(model)[0].variable.numpy()

    (found,) = evidence_of(model, (x, y), "gradient")

    (expected,) = by_hand(x, y, kernel)
    np.testing.assert_allclose(
        found["gradient"] / factor, expected, rtol=0.05, atol=0.02
    )


class Added(keras.layers.Layer):
    """Adds the mean of what it sees to the loss."""

    def call(self, x):
        self.add_loss(keras.ops.mean(x))
        return x


def test_losses_of_layers_count_and_penalties_on_weights_do_not():
    x, y = examples()
    inputs = keras.Input((3,))
    dense = layers.Dense(2, use_bias=False, kernel_regularizer="l2")
    model = pruned(inputs, Added()(dense(inputs)))
    kernel = entries(model)[0].variable.numpy()

    (found,) = evidence_of(model, (x, y), "gradient")

    of_layer = np.repeat(x.mean(0)[:, None] / 2, 2, axis=1)
    np.testing.assert_allclose(
        found["gradient"], by_hand(x, y, kernel)[0] + of_layer, rtol=1e-4
    )


def test_a_loss_may_come_from_layers_alone():
    x, _ = examples()
    inputs = keras.Input((3,))
    model = pruned(inputs, Added()(layers.Dense(2)(inputs)), loss=None)

    (found,) = evidence_of(model, x, "gradient")

    expected = np.repeat(x.mean(0)[:, None] / 2, 2, axis=1)
    np.testing.assert_allclose(found["gradient"], expected, rtol=1e-4)


def test_weight_that_the_loss_does_not_depend_on_has_a_gradient_of_zero():
    inputs = keras.Input((3,))
    used, unused = layers.Dense(2, name="used"), layers.Dense(4, name="unused")
    model = pruned(inputs, [used(inputs), unused(inputs)], loss=["mse", None])
    x, y = examples()

    found = evidence_of(model, (x, [y, y]), *KINDS)

    by_name = dict(zip([e.name for e in entries(model)], found, strict=True))
    assert by_name["used/kernel"]["gradient"].all()
    for kind in set(KINDS) - {"total_saliency"}:
        assert not by_name["unused/kernel"][kind].any()


def test_weights_that_the_loss_knows_nothing_of_are_an_error():
    inputs = keras.Input((3,))
    outputs = keras.ops.stop_gradient(layers.Dense(2)(inputs))
    model = pruned(inputs, outputs)

    with pytest.raises(ValueError, match="depends on none of the weights"):
        evidence_of(model, examples(), "gradient")


def test_nan_in_the_data_is_refused_with_the_name_of_the_weight():
    x, y = examples()
    x[7] = np.nan
    model = linear(name="head")

    with pytest.raises(ValueError, match=r"'head/kernel' of shape \(3, 2\) holds 6 v"):
        evidence_of(model, (x, y), "absolute_gradient")


@keras.saving.register_keras_serializable("tests")
class Counting(keras.layers.Layer):
    """Counts how often its Python runs, and has a state that each call changes."""

    traces = 0

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        Counting.traces += 1
        self.calls.assign_add(1.0)
        return x


def stateful_model():
    inputs = keras.Input((3,))
    x = layers.Dropout(0.5)(Counting()(layers.Dense(4, name="first")(inputs)))
    x = layers.BatchNormalization()(x)
    outputs = [layers.Dense(2, name="a")(x), layers.Dense(2, name="b")(x)]
    return pruned(inputs, outputs, ["mse", "mae"], metrics=[["mae"], ["mae"]])


def test_python_runs_for_the_first_update_alone():
    x, y = examples()
    model = stateful_model()
    kinds = ["absolute_gradient", "example_squared_gradient"]
    calibration = Calibration(model, kinds, (x, [y, y]))
    calibration.gather(entries(model))
    Counting.traces = 0

    for _ in range(3):
        calibration.gather(entries(model))

    assert Counting.traces == 0


def test_nothing_in_the_model_changes():
    x, y = examples()
    model = stateful_model()
    model.fit(x, [y, y], verbose=0)
    watched = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = [variable.numpy() for variable in watched]
    calibration = Calibration(model, ["gradient"], (x, [y, y]))

    first, second = (calibration.gather(entries(model)) for _ in range(2))

    for variable, value in zip(watched, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    np.testing.assert_array_equal(first[0]["gradient"], second[0]["gradient"])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(4, "relu", name="hidden")
        self.head = layers.Dense(2, name="head")

    def call(self, x):
        return self.head(self.hidden(x["features"]))

    def get_config(self):
        return {}


def test_subclassed_model_with_inputs_by_name_is_calibrated():
    x, y = examples()
    model = Subclassed()
    model({"features": x[:1]})
    model = kprune.prune(model)
    model.compile("sgd", "mse")

    found = evidence_of(model, ({"features": x}, y), "gradient")

    hidden = np.maximum(x @ model.hidden.kernel.numpy(), 0)
    (expected,) = by_hand(hidden, y, model.head.kernel.numpy())
    names = [entry.layer.name for entry in entries(model)]
    np.testing.assert_allclose(
        found[names.index("head")]["gradient"], expected, rtol=1e-4, atol=1e-6
    )
