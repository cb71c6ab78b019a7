import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune import registry
from kprune.channels.tracing import trace
from kprune.shrinking.groups import families_of
from kprune.shrinking.importance import NORMS, REDUCTIONS, Importance


def importance(model, criterion="l1", **arguments):
    tracing = trace(model)
    families = [f for f in families_of(tracing) if len(f.groups)]
    return Importance(model, tracing, families, criterion, **arguments), families


def scores_of(model, criterion="l1", **arguments):
    """Returns the scores of each family, in the order of its first layer's units."""
    ask, families = importance(model, criterion, **arguments)
    found = ask()
    return {f.name: found[f.axes[0].line] for f in families}


def set_kernel(layer, kernel):
    layer.kernel.assign(np.asarray(kernel, "float32"))


def two_added():
    """Two layers of two units each whose outputs are added up."""
    inputs = keras.Input((2,))
    left, right = (layers.Dense(2, name=n) for n in ("left", "right"))
    x = layers.Add()([left(inputs), right(inputs)])
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    set_kernel(left, [[1, -2], [3, -4]])  # mean sizes 2 and 3
    set_kernel(right, [[4, 0], [-8, 2]])  # 6 and 1
    return model


@pytest.mark.parametrize(
    "reduce, expected",
    [("mean", [4, 2]), ("sum", [8, 4]), ("max", [6, 3]), ("l2", [40**0.5, 10**0.5])],
)
def test_scores_of_channels_that_go_together_are_put_together(reduce, expected):
    scores = scores_of(two_added(), reduce=reduce, normalize=None)

    assert list(scores) == ["left"]
    np.testing.assert_allclose(scores["left"], expected)


@pytest.mark.parametrize(
    "normalize, left, right",
    [("mean", 2.5, 3.5), ("max", 3, 6), ("l2", 13**0.5, 37**0.5), (None, 1, 1)],
)
def test_scores_are_divided_layer_by_layer(normalize, left, right):
    scores = scores_of(two_added(), reduce="sum", normalize=normalize)

    expected = np.array([2, 3]) / left + np.array([6, 1]) / right
    np.testing.assert_allclose(scores["left"], expected)


def test_a_layer_of_zeros_has_scores_of_zero():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="a")])
    model.add(layers.Dense(2))
    set_kernel(model.layers[0], np.zeros((3, 4)))

    np.testing.assert_array_equal(scores_of(model)["a"], np.zeros(4))


def test_the_l2_norm_ranks_by_mean_squares():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="a")])
    model.add(layers.Dense(2))

    scores = scores_of(model, "l2", normalize=None)["a"]

    expected = np.square(np.asarray(model.layers[0].kernel)).mean(0)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_scales_are_found_behind_a_concatenation():
    inputs = keras.Input((4,))
    parts = [layers.Dense(2, name=f"part_{i}")(inputs) for i in range(2)]
    norm = layers.BatchNormalization()
    x = norm(layers.Concatenate()(parts))
    model = keras.Model(inputs, layers.Dense(2)(x))
    norm.gamma.assign([0.5, -2, 3, 0])

    scores = scores_of(model, "batch_norm_scale", normalize=None)

    np.testing.assert_array_equal(scores["part_0"], [0.5, 2])
    np.testing.assert_array_equal(scores["part_1"], [3, 0])


def test_layers_without_scales_are_named():
    with pytest.raises(ValueError, match=r"No batch normalization.*'left', 'right'"):
        importance(two_added(), "batch_norm_scale")


def test_activations_are_looked_at_over_the_data():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(5, "relu", name="a")])
    model.add(layers.Dense(2))
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")

    arguments = {"normalize": None, "calibration_data": x}
    scores = scores_of(model, "apoz", **arguments)["a"]

    answers = x @ np.asarray(model.layers[0].kernel)
    np.testing.assert_allclose(scores, (answers > 0).mean(0), rtol=1e-6)


def test_gradients_are_taken_over_the_data():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="a")])
    model.add(layers.Dense(1, name="b"))
    model.compile(loss="mse")
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 3)), random.normal(size=(8, 1))

    arguments = {"normalize": None, "calibration_data": (x, y)}
    scores = scores_of(model, "taylor", **arguments)["a"]

    # The loss is the mean of (x a b - y)^2 over one batch of 8.
    a, b = (np.asarray(layer.kernel, "float64") for layer in model.layers)
    gradient = x.T @ (2 * (x @ a @ b - y) / len(x)) @ b.T
    np.testing.assert_allclose(scores, np.abs(a * gradient).mean(0), rtol=1e-4)


def model_with_everything():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(3, 1, name="narrow")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3, "softmax", name="head")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("name", registry.keys("criteria"))
def test_every_criterion_scores_channels_or_says_why_not(name):
    model = model_with_everything()
    random = np.random.default_rng(0)
    x = random.normal(size=(6, 6, 6, 2)).astype("float32")
    data = x, random.integers(0, 3, 6)

    if "movement" in registry.get("criteria", name).requires:
        with pytest.raises(ValueError, match="nobody has followed here"):
            importance(model, name, calibration_data=data)
        return
    scores = scores_of(model, name, calibration_data=data)

    assert [s.shape for s in scores.values()] == [(4,), (3,)]
    assert all(np.isfinite(s).all() for s in scores.values())
    assert any(len(set(s.tolist())) > 1 for s in scores.values()) or name in (
        "batch_norm_scale",  # all scales are 1
    )


@pytest.mark.parametrize("name", ["taylor", "apoz", "wanda"])
def test_missing_calibration_data_is_an_error_before_any_work(name):
    with pytest.raises(ValueError, match="must be gathered over examples"):
        importance(model_with_everything(), name)


def test_a_function_of_the_weights_is_a_criterion():
    scores = scores_of(two_added(), lambda weight: weight**2, normalize=None)

    np.testing.assert_allclose(scores["left"], [(5 + 40) / 2, (10 + 2) / 2])


@pytest.mark.parametrize(
    "argument, value", [("reduce", "median"), ("normalize", "l1"), ("reduce", None)]
)
def test_unknown_ways_of_putting_together_are_errors(argument, value):
    known = REDUCTIONS if argument == "reduce" else NORMS

    with pytest.raises(ValueError, match=f"{argument}={value!r} must be one of") as e:
        importance(two_added(), **{argument: value})

    assert all(repr(name) in str(e.value) for name in known)


def test_a_criterion_of_the_wrong_shape_is_an_error():
    ask, _ = importance(two_added(), lambda weight: weight[0])

    with pytest.raises(ValueError, match=r"gave scores of shape \(2,\)"):
        ask()


def test_weights_that_are_no_numbers_are_an_error():
    model = two_added()
    set_kernel(model.get_layer("right"), [[np.nan, 0], [0, 1]])
    ask, _ = importance(model)

    with pytest.raises(ValueError, match="'right/kernel'.*1 values that are NaN"):
        ask()


class InputChannels(kprune.Criterion):
    axis = -2

    def __call__(self, weight):
        return weight


def test_a_criterion_of_input_channels_is_an_error():
    with pytest.raises(ValueError, match="scores input channels"):
        importance(two_added(), InputChannels())
