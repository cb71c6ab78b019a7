"""How a model of tf_keras was compiled and how far it was trained, in Keras 3."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kprune.tfmot.from_keras_2 import from_tf_keras
from tests.tfmot import keras_2_models as models
from tests.tfmot.keras_2_cases import randomised


def test_a_compiled_model_is_compiled_alike(tf_keras):
    old = models.sequential(tf_keras)
    rate = tf_keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    old.compile(
        tf_keras.optimizers.SGD(rate, momentum=0.9, clipnorm=1.0),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", tf_keras.metrics.SparseTopKCategoricalAccuracy(2)],
    )

    new = from_tf_keras(old)

    assert type(new.optimizer) is keras.optimizers.SGD
    assert (new.optimizer.momentum, new.optimizer.clipnorm) == (0.9, 1.0)
    assert float(new.optimizer._learning_rate(10)) == pytest.approx(0.05)
    x, y = np.ones((4, 6), "float32"), np.array([0, 1, 2, 0])
    expected = old.evaluate(x, y, verbose=0)
    assert new.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


OPTIMIZERS = [
    ("Adam", {"amsgrad": True}),
    ("Adam", {"use_ema": True}),
    ("AdamW", {"clipnorm": 1.0}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("RMSprop", {}),
    ("RMSprop", {"centered": True, "momentum": 0.5}),
    ("Adagrad", {}),
    ("Nadam", {}),
    ("Lion", {}),
]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_an_optimizer_goes_on_where_it_was(tf_keras, name, options):
    old = models.sequential(tf_keras)
    optimizer = getattr(tf_keras.optimizers, name)(0.05, **options)
    old.compile(optimizer, "mse", run_eagerly=True)
    random = np.random.default_rng(3)
    x, y = random.normal(size=(8, 6)), random.normal(size=(8, 3))
    for _ in range(3):
        old.train_on_batch(x, y)

    new = from_tf_keras(old)
    new.run_eagerly = True
    for model in (old, new):
        model.train_on_batch(x, y)

    assert int(new.optimizer.iterations) == 4
    for ours, theirs in zip(new.get_weights(), old.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_moments_that_are_kept_in_another_way_are_said_to_be_lost(tf_keras):
    old = models.sequential(tf_keras)
    old.compile(tf_keras.optimizers.legacy.Adam(), "mse", run_eagerly=True)
    old.train_on_batch(np.ones((8, 6)), np.ones((8, 3)))

    with pytest.warns(UserWarning, match="Adam begins anew: a legacy optimizer"):
        new = from_tf_keras(old)

    assert new.compiled


def test_a_loss_of_the_user_leaves_the_model_uncompiled(tf_keras):
    old = models.sequential(tf_keras)
    old.compile("sgd", lambda truth, found: tf.reduce_mean(truth - found))

    with pytest.warns(UserWarning, match="therefore not compiled"):
        new = from_tf_keras(old)

    assert not new.compiled


def trained(old):
    """Trains a tf_keras model for a step."""
    old.train_on_batch(np.ones((8, 6)), np.ones((8, 3)))
    return old


def test_an_optimizer_of_a_class_with_more_state_begins_anew(tf_keras):
    class Counting(keras.optimizers.SGD):
        def build(self, variables):
            super().build(variables)
            self.count = self.add_variable((), name="count")

    class CountingOfOld(tf_keras.optimizers.SGD):
        pass

    old = models.sequential(tf_keras)
    old.compile(CountingOfOld(momentum=0.9), "mse", run_eagerly=True)

    with pytest.warns(UserWarning, match="begins anew: Keras 3 keeps 'count' of it"):
        new = from_tf_keras(trained(old), {"CountingOfOld": Counting})

    assert type(new.optimizer) is Counting
    assert int(new.optimizer.iterations) == 0


def test_a_layer_that_was_unfrozen_since_is_the_reason_given(tf_keras):
    old = models.sequential(tf_keras)
    old.get_layer("hidden").trainable = False
    old.compile("adam", "mse", run_eagerly=True)
    trained(old).get_layer("hidden").trainable = True

    with pytest.warns(UserWarning, match="Adam begins anew: .* for 2 weights, .* 4 "):
        from_tf_keras(old)


def test_a_model_made_for_several_devices_comes_over_with_its_moments(tf_keras):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        old = models.sequential(tf_keras)
        old.compile("adam", "mse")
    old.fit(np.ones((8, 6)), np.ones((8, 3)), verbose=0)

    new = from_tf_keras(old)

    assert int(new.optimizer.iterations) == 1
    expected = [x.numpy() for x in old.optimizer._momentums]
    for ours, theirs in zip(new.optimizer._momentums, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def distance(truth, found):
    return abs(truth - found)


def test_a_loss_and_a_metric_of_the_user_are_found_by_name(tf_keras):
    old = models.sequential(tf_keras)
    old.compile("sgd", distance, metrics=[distance])
    x, y = np.ones((4, 6)), np.zeros((4, 3))

    new = from_tf_keras(old, {"distance": distance})

    expected = old.evaluate(x, y, verbose=0, return_dict=True)
    assert new.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(expected)
    assert expected.keys() == {"loss", "distance"}


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        ({"run_eagerly": True}, "run_eagerly", True),
        ({"steps_per_execution": 7}, "steps_per_execution", 7),
        ({"jit_compile": True}, "jit_compile", True),
        ({"jit_compile": False}, "jit_compile", False),
    ],
)
def test_how_steps_are_run_stays(tf_keras, options, name, expected):
    old = models.sequential(tf_keras)
    old.compile("sgd", "mse", **options)

    assert getattr(from_tf_keras(old), name) == expected


@pytest.mark.parametrize("is_loaded", [False, True])
def test_metrics_keep_their_names_and_values(tf_keras, incumbent, tmp_path, is_loaded):
    k, metrics = tf_keras, tf_keras.metrics
    layers = [k.Input((6,)), k.layers.Dense(3, "sigmoid")]
    old = randomised(k.Sequential(layers))
    named = metrics.MeanMetricWrapper(metrics.mean_squared_error, name="zz")
    given = ["Accuracy", "mae", "Recall", metrics.Precision(0.3), named]
    old.compile("sgd", "binary_crossentropy", metrics=given)
    x = np.random.default_rng(0).normal(size=(8, 6))
    y = (x[:, :3] > 0).astype(float)
    expected = old.evaluate(x, y, 4, verbose=0, return_dict=True)
    if is_loaded:
        old.save(tmp_path / "model.keras")
        old = tmp_path / "model.keras"

    found = from_tf_keras(old).evaluate(x, y, 4, verbose=0, return_dict=True)

    assert found == pytest.approx(expected, rel=1e-5)


LABELS = {
    "categorical": (3, np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 1]]),
    "sparse": (3, np.array([0, 1, 2, 0, 1, 1])),
    "sparse column": (3, np.array([[0], [1], [2], [0], [1], [1]])),
    "binary": (1, np.array([0.0, 1, 1, 0, 1, 1])),
}
LOSSES = {
    "categorical": "categorical_crossentropy",
    "sparse": "sparse_categorical_crossentropy",
    "sparse column": "sparse_categorical_crossentropy",
    "binary": "binary_crossentropy",
}


def classifier(k, classes):
    """Makes a model of four numbers whose outputs are probabilities."""
    activation = "softmax" if classes > 1 else "sigmoid"
    layers = [k.Input((4,)), k.layers.Dense(classes, activation)]
    return randomised(k.Sequential(layers))


@pytest.mark.parametrize("labels", LABELS)
def test_short_names_mean_the_same_in_any_case(tf_keras, labels):
    classes, y = LABELS[labels]
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    old = classifier(tf_keras, classes)
    names = ["Accuracy", "ACC", "acc", "CE", "Crossentropy", "ce"]
    old.compile("sgd", LOSSES[labels], metrics=names[:3], weighted_metrics=names[3:])

    found = from_tf_keras(old).evaluate(x, y, verbose=0, return_dict=True)

    expected = old.evaluate(x, y, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found.keys() == {"loss", *names}


METRICS = {
    "KLDivergence": "kullback_leibler_divergence",
    "LogCoshError": "logcosh",
    "FBetaScore": "fbeta_score",
    "AUC": "auc",
    "logcosh": "logcosh",
    "cosine_similarity": "cosine_similarity",
    "MSE": "MSE",
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_called_as_in_tf_keras(tf_keras, name):
    tf_keras.backend.clear_session()  # which numbers the metrics of a class
    classes, y = LABELS["categorical"]
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    old = classifier(tf_keras, classes)
    old.compile("sgd", "mse", metrics=[name])

    found = from_tf_keras(old).evaluate(x, y, verbose=0, return_dict=True)

    expected = old.evaluate(x, y, verbose=0, return_dict=True)
    assert found.keys() == expected.keys() == {"loss", METRICS[name]}
    for key, value in expected.items():  # F scores are one for each class
        np.testing.assert_allclose(found[key], value, rtol=1e-5)


@pytest.mark.parametrize("name", ["logcosh", "log_cosh", "kld", "Huber", "MAE"])
def test_a_loss_is_found_by_any_name_that_tf_keras_knows(tf_keras, name):
    classes, y = LABELS["categorical"]
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    old = classifier(tf_keras, classes)
    old.compile("sgd", name)

    found = from_tf_keras(old).evaluate(x, y, verbose=0)

    assert found == pytest.approx(old.evaluate(x, y, verbose=0), rel=1e-5)


def test_a_compiled_model_is_saved_with_its_metrics_and_loaded(tf_keras, tmp_path):
    classes, y = LABELS["categorical"]
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    old = classifier(tf_keras, classes)
    old.compile("sgd", "logcosh", metrics=["CE", "Accuracy", "LogCoshError"])
    new = from_tf_keras(old)
    expected = new.evaluate(x, y, verbose=0, return_dict=True)

    new.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")
    found = loaded.evaluate(x, y, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
