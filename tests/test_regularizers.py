import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune import GroupLasso, Penalties


def by_hand(weight, axes):
    """The sum over groups, one after another."""
    moved = np.moveaxis(weight.astype("float64"), axes, range(len(axes)))
    groups = moved.reshape(np.prod(moved.shape[: len(axes)]), -1)
    return sum(len(g) ** 0.5 * np.sqrt((g**2).sum()) for g in groups)


@pytest.mark.parametrize(
    ("axis", "axes"), [(-1, [3]), (-2, [2]), ([-2, -1], [2, 3]), ((0, 1), [0, 1])]
)
def test_penalty_is_the_formula(axis, axes):
    weight = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype("float32")

    penalty = GroupLasso(0.01, axis=axis)(weight)

    np.testing.assert_allclose(penalty, 0.01 * by_hand(weight, axes), rtol=1e-5)


def test_gradient_has_one_length_in_every_group_however_small():
    weight = tf.Variable([[3.0, 1e-6, 0.0], [4.0, 0.0, 0.0]])

    with tf.GradientTape() as tape:
        penalty = GroupLasso(0.5)(weight)
    gradient = tape.gradient(penalty, weight).numpy()

    push = 0.5 * 2**0.5
    np.testing.assert_allclose(
        gradient, [[0.6 * push, push, 0.0], [0.8 * push, 0.0, 0.0]], rtol=1e-6
    )


@pytest.mark.parametrize("strength", [-0.1, np.nan, np.inf, True, "x"])
def test_strength_is_checked_at_once(strength):
    with pytest.raises(ValueError, match=f"strength={strength!r} must be a finite"):
        GroupLasso(strength)


@pytest.mark.parametrize("axis", [1.5, True, "x", [0, None]])
def test_what_is_no_axis_is_refused_at_once(axis):
    with pytest.raises(ValueError, match=re.escape(f"axis={axis!r} must be an int")):
        GroupLasso(axis=axis)


def test_axis_that_a_weight_lacks_is_refused_with_its_shape():
    layer = keras.layers.Dense(3, kernel_regularizer=GroupLasso(axis=[0, 2]))
    model = keras.Sequential([keras.Input((4,)), layer])

    with pytest.raises(ValueError, match=r"axis=\[0, 2\]\) is on .* shape \(4, 3\)"):
        _ = model.losses


@pytest.mark.parametrize(
    "regularizer",
    [
        GroupLasso(0.25, axis=-2),
        GroupLasso(0.25, axis=[0, 1]),
        Penalties(["l1", GroupLasso(0.5)]),
    ],
)
def test_regularizers_survive_a_file(regularizer, tmp_path):
    layer = keras.layers.Dense(3, kernel_regularizer=regularizer)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")

    held = loaded.layers[0].kernel_regularizer
    assert held.get_config() == regularizer.get_config()
    np.testing.assert_allclose(loaded.losses[0], model.losses[0])


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 12)).astype("float32")
    return x, x[:, :2]  # ten of the inputs say nothing


def test_training_with_group_lasso_empties_whole_groups():
    x, y = data()
    penalty = GroupLasso(0.02, axis=-2)
    layer = keras.layers.Dense(2, kernel_regularizer=penalty, use_bias=False)
    model = keras.Sequential([keras.Input((12,)), layer])
    model.compile(keras.optimizers.SGD(0.05), "mse")

    model.fit(np.tile(x, (30, 1)), np.tile(y, (30, 1)), batch_size=16, verbose=0)

    norms = np.linalg.norm(layer.kernel, axis=1)
    assert norms[:2].min() > 0.9
    assert norms[2:].max() < 0.01


@pytest.mark.parametrize("penalty", [GroupLasso(0.01), keras.regularizers.L1(0.01)])
def test_penalty_leaves_removed_weights_at_zero(penalty):
    x, y = data()
    layer = keras.layers.Dense(2, kernel_regularizer=penalty)
    model = kprune.prune(keras.Sequential([keras.Input((12,)), layer]))
    model.compile("adam", "mse")
    schedule = kprune.ConstantSchedule(0.75)

    history = model.fit(
        *(x, y), epochs=2, verbose=0, callbacks=[kprune.PruningCallback(schedule)]
    )

    kernel = np.asarray(kprune.strip(model).layers[0].kernel)
    assert np.isfinite(history.history["loss"]).all()
    np.testing.assert_array_equal(kernel != 0, model.layers[0].masks["kernel"])
    assert np.count_nonzero(kernel) == 6


def test_a_group_that_a_mask_has_emptied_does_no_harm():
    """The norm of such a group has no gradient of its own."""
    x, y = data()
    layer = keras.layers.Dense(2, kernel_regularizer=GroupLasso(0.1))
    model = keras.Sequential([keras.Input((12,)), layer])
    model = kprune.prune(model, granularity="channel", only=keras.layers.Dense)
    model.compile("adam", "mse")

    model.fit(
        *(x, y),
        verbose=0,
        callbacks=[kprune.PruningCallback(kprune.ConstantSchedule(0.5))],
    )

    kernel = np.asarray(kprune.strip(model).layers[0].kernel)
    assert (kernel == 0).all(axis=0).sum() == 1
    assert np.isfinite(kernel).all()
