import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import kprune
from kprune import L0Budget


def projected(weight, keep):
    """The same by a stable sort."""
    flat = np.asarray(weight, "float64").ravel()
    result = np.zeros_like(flat)
    best = np.argsort(-np.abs(flat), kind="stable")[:keep]
    result[best] = flat[best]
    return result.reshape(weight.shape)


DRAWS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "few_levels": lambda rng, n: rng.integers(-2, 3, n),
    "all_equal": lambda rng, n: np.full(n, -0.5),
    "mostly_zero": lambda rng, n: rng.normal(size=n) * (rng.random(n) < 0.1),
    "wide_range": lambda rng, n: np.exp(rng.uniform(-9, 9, n)) * rng.choice([-1, 1], n),
    "tiny": lambda rng, n: rng.integers(-5, 5, n) * 1e-40,
}


@pytest.mark.parametrize(
    ("draw", "jit_compile"),
    [*((draw, False) for draw in DRAWS), ("normal", True), ("few_levels", True)],
)
def test_the_largest_stay_and_ties_go_to_the_lower_index(draw, jit_compile):
    weight = DRAWS[draw](np.random.default_rng(0), 60).astype("float32")
    weight = weight.reshape(4, 5, 3)

    for keep in (7, 59):
        project = tf.function(L0Budget(count=keep), jit_compile=jit_compile)
        found = project(tf.constant(weight)).numpy()
        np.testing.assert_array_equal(found, projected(weight, keep))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_type_of_weight_is_projected_and_keeps_its_type(dtype):
    weight = ops.cast(np.random.default_rng(0).normal(size=(20, 10)), dtype)

    found = L0Budget(density=0.1)(weight)

    assert keras.backend.standardize_dtype(found.dtype) == dtype
    expected = projected(ops.convert_to_numpy(ops.cast(weight, "float64")), 20)
    np.testing.assert_array_equal(ops.cast(found, "float64"), expected)


@pytest.mark.parametrize(
    ("budget", "left"),
    [({"density": 0.25}, 16), ({"density": 1}, 64), ({"count": 99}, 64)],
)
def test_density_is_that_of_what_is_left(budget, left):
    weight = np.arange(1.0, 65).reshape(8, 8)

    assert np.count_nonzero(L0Budget(**budget)(weight)) == left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "got density=None and count=None. Give one of the two"),
        ({"density": 0.5, "count": 3}, "got density=0.5 and count=3"),
        ({"density": 0}, r"density=0 must be in \(0, 1\]"),
        ({"density": 10}, "density=10 must be in"),
        ({"density": True}, "density=True must be in"),
        ({"density": "x"}, "density='x' must be in"),
        ({"count": 0}, "count=0 must be a whole number of 1 or more"),
        ({"count": 2.5}, "count=2.5 must be a whole number"),
    ],
)
def test_arguments_are_checked_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        L0Budget(**arguments)


def test_config_of_a_numpy_density_can_be_written_as_json():
    config = json.dumps(L0Budget(np.float32(0.25)).get_config())

    assert json.loads(config) == {"density": 0.25, "count": None}


def regression(constraint):
    """A linear model, and data of which three inputs of thirty explain all."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 30)).astype("float32")
    truth = np.zeros((30, 1), "float32")
    truth[[4, 17, 23]] = [[2.0], [-1.5], [1.0]]
    dense = keras.layers.Dense(1, use_bias=False, kernel_constraint=constraint)
    return keras.Sequential([keras.Input((30,)), dense]), x, x @ truth, truth


@pytest.mark.parametrize("jit_compile", [False, True])
def test_hard_thresholding_finds_the_inputs_that_matter(jit_compile):
    model, x, y, truth = regression(L0Budget(count=3))
    model.compile(keras.optimizers.SGD(0.2), "mse", jit_compile=jit_compile)

    x, y = np.tile(x, (40, 1)), np.tile(y, (40, 1))
    model.fit(x, y, batch_size=128, shuffle=False, verbose=0)

    np.testing.assert_allclose(model.layers[0].kernel, truth, atol=1e-3)
    assert np.count_nonzero(model.layers[0].kernel) == 3


def test_budget_holds_after_every_step():
    model, x, y, _ = regression(L0Budget(density=0.2))
    model.compile("adam", "mse")
    counts = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: counts.append(
            np.count_nonzero(model.layers[0].kernel)
        )
    )

    model.fit(x, y, batch_size=16, verbose=0, callbacks=[count])

    assert counts == [6] * 8


def test_budget_is_saved_with_the_model(tmp_path):
    model, *_ = regression(L0Budget(density=0.2))
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert loaded.layers[0].kernel_constraint.get_config() == {
        "density": 0.2,
        "count": None,
    }


def test_budget_spends_nothing_on_what_a_mask_removes():
    """Momentum drives removed weights; none may push out one that the mask keeps."""
    model, x, y, _ = regression(L0Budget(count=10))
    model = kprune.prune(model)
    model.compile(keras.optimizers.SGD(0.3, momentum=0.9), "mse")
    counts = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: counts.append(
            np.count_nonzero(model.layers[0].layer.kernel)
        )
    )
    pruning = kprune.PruningCallback(kprune.ConstantSchedule(2 / 3))

    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[pruning, count])

    assert counts == [10] * 16
    kernel = kprune.strip(model).layers[0].kernel
    mask = model.layers[0].masks["kernel"]
    np.testing.assert_array_equal(np.asarray(kernel) != 0, np.asarray(mask))


def test_tighter_of_budget_and_mask_counts():
    model, x, y, _ = regression(L0Budget(count=4))
    model = kprune.prune(model)
    model.compile("adam", "mse")

    model.fit(
        *(x, y), verbose=0, callbacks=[kprune.PruningCallback(0.5)], batch_size=16
    )

    assert np.count_nonzero(kprune.strip(model).layers[0].kernel) == 4
