"""TFMOT's clustering: kernels of a few distinct values, which training moves."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers

from kprune import tfmot
from tests.checks import assert_equal, assert_plain, entries, values
from tests.tfmot.models import (
    around,
    data,
    nested_model,
    reused_layer,
    simple_dense_model,
    two_branches,
    unbuilt_model,
)
from tests.training_helpers import with_slow

INITIALIZATIONS = list(tfmot.CentroidInitialization)


def distinct(values):
    """Returns the number of distinct values."""
    return np.unique(np.array(values)).size


def clustered(model, number=4, **options):
    return tfmot.cluster_weights(model, number, **options)


def fit(model, epochs=2):
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    x, y = data(model)
    return model.fit(x, y, epochs=epochs, verbose=0)


@pytest.mark.parametrize("number", [2, 6, 14])
@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_kernels_have_as_many_values_as_asked_for_once_stripped(initialization, number):
    model = around(layers.Dense(32), (10,))
    before = model.layers[1].kernel.numpy()

    stripped = tfmot.strip_clustering(
        clustered(model, number, cluster_centroids_init=initialization)
    )

    after = stripped.layers[1].kernel.numpy()
    assert type(stripped.layers[1]) is layers.Dense
    assert distinct(before) == 320
    assert 2 <= distinct(after) <= number
    assert before.min() <= after.min() < after.max() <= before.max()


def test_values_are_the_means_of_weights_that_lie_apart():
    kernel = np.array([[1.0, 1.2, 5.0], [5.4, 9.0, 1.4]])
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, use_bias=False)])
    model.set_weights([kernel])

    stripped = tfmot.strip_clustering(clustered(model, 3))

    np.testing.assert_allclose(
        stripped.layers[0].kernel, [[1.2, 1.2, 5.2], [5.2, 9.0, 1.2]], rtol=1e-6
    )


@pytest.mark.parametrize("number", ["13", 13.4, 0, 1, -32, None])
def test_number_that_makes_no_clusters_is_refused(number):
    with pytest.raises(ValueError, match="must be an int from 2"):
        clustered(simple_dense_model(), number)


def test_initialization_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="DEADBEEF"):
        clustered(simple_dense_model(), 4, cluster_centroids_init="DEADBEEF")


@pytest.mark.parametrize("given", [{"no": "layer"}, "dense", None])
def test_what_is_no_layer_is_refused(given):
    with pytest.raises(ValueError, match="Expected a Keras 3 model, a layer or a list"):
        clustered(given)


def test_a_model_of_tf_keras_is_told_the_way(tf_keras):
    given = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(2)])

    with pytest.raises(ValueError, match=r"by `kprune\.tfmot\.from_tf_keras\(model\)`"):
        clustered(given)


@pytest.mark.parametrize("make", [simple_dense_model, nested_model])
def test_training_moves_the_values_and_keeps_their_number(make):
    once = clustered(make())
    before = [entry.variable.numpy() for entry in entries(once)]

    fit(once)

    after = [entry.variable.numpy() for entry in entries(once)]
    assert [distinct(kernel) for kernel in after] == [4, 4]
    assert all((a != b).all() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "make, kernels",
    [(simple_dense_model, 2), (two_branches, 2), (nested_model, 2), (reused_layer, 1)],
)
def test_kernels_of_a_model_are_clustered_once_each_and_come_out_plain(make, kernels):
    model = make()
    before = values(model)

    once = clustered(model)
    stripped = tfmot.strip_clustering(once)

    assert [distinct(entry.variable) for entry in entries(once)] == [4] * kernels
    assert_plain(stripped)
    assert stripped.get_config() == model.get_config()
    x, _ = data(model)
    assert_equal(stripped(x), once(x))
    assert_equal(values(model), before)


def test_zeros_of_a_pruned_model_stay_zeros():
    model = simple_dense_model()
    kernel = model.layers[0].kernel.numpy()
    kernel[:5] = 0
    model.layers[0].kernel.assign(kernel)

    once = clustered(model, 6, preserve_sparsity=True)
    fit(once, epochs=5)

    trained = tfmot.strip_clustering(once).layers[0].kernel.numpy()
    assert not trained[:5].any()
    assert trained[5:].all()
    assert distinct(trained) <= 6


def test_model_that_was_pruned_is_clustered_with_its_masks():
    pruned = tfmot.prune_low_magnitude(
        simple_dense_model(), tfmot.ConstantSparsity(0.5, 0, frequency=1)
    )
    x, y = data(pruned)
    pruned.compile("sgd", "mse", run_eagerly=True)
    pruned.fit(x, y, verbose=0, callbacks=[tfmot.UpdatePruningStep()])

    once = clustered(pruned, 5)
    fit(once)

    for entry in entries(once):
        assert np.mean(entry.variable.numpy() == 0) == 0.5
        assert distinct(entry.variable) == 5


# Name: how to make the layer, the shape of its inputs, and how many kernels it has.
LAYERS = {
    "Conv2D": (lambda: layers.Conv2D(6, 3), (4, 4, 3), 1),
    "SimpleRNN": (lambda: layers.SimpleRNN(8), (3, 4), 2),
    "LSTM": (lambda: layers.LSTM(8), (3, 4), 2),
    "GRU": (lambda: layers.GRU(8), (3, 4), 2),
    "RNN of cells": (
        lambda: layers.RNN([layers.SimpleRNNCell(6), layers.SimpleRNNCell(5)]),
        (3, 4),
        4,
    ),
    # TFMOT refuses this one.
    "Bidirectional": (lambda: layers.Bidirectional(layers.GRU(8)), (3, 4), 4),
    "MultiHeadAttention": (lambda: layers.MultiHeadAttention(2, 4), (5, 6), 4),
    "Embedding": (lambda: layers.Embedding(10, 4), (5,), 1),
}


@pytest.mark.parametrize(
    "name", with_slow({"SimpleRNN", "GRU", "RNN of cells", "Bidirectional"}, LAYERS)
)
def test_kernels_of_other_layers_are_clustered(name):
    make, shape, kernels = LAYERS[name]
    once = clustered(around(make(), shape), 7)

    fit(once, epochs=1)

    assert [distinct(entry.variable) for entry in entries(once)] == [7] * kernels


@pytest.mark.parametrize(
    "layer, shape",
    [
        (layers.DepthwiseConv2D(3, name="subject"), (4, 4, 3)),
        (layers.BatchNormalization(name="subject"), (4,)),
        (layers.Dropout(0.4, name="subject"), (4,)),
    ],
)
def test_layers_that_would_suffer_are_left_as_they_are(layer, shape):
    inputs = keras.Input(shape)
    x = layers.Flatten()(layer(inputs))
    model = keras.Model(inputs, layers.Dense(5, name="head")(x))

    once = clustered(model)

    assert type(once.get_layer("subject")) is type(layer)
    assert_equal(once.get_layer("subject").get_weights(), layer.get_weights())
    assert distinct(once.get_layer("head").kernel) == 4


def test_layers_are_chosen_one_by_one():
    model = simple_dense_model()

    def only_hidden(layer):
        return clustered(layer) if layer.name == "hidden" else layer

    some = keras.models.clone_model(model, clone_function=only_hidden)

    assert distinct(some.get_layer("hidden").kernel) == 4
    assert distinct(some.get_layer("classes").kernel) == 40
    assert_plain(tfmot.strip_clustering(some))


def test_list_of_layers_is_clustered_one_by_one():
    model = simple_dense_model()

    hidden, classes = clustered(model.layers)

    assert [distinct(layer.kernel) for layer in (hidden, classes)] == [4, 4]
    assert distinct(model.layers[0].kernel) == 80


def test_layer_without_weights_has_to_be_built_first():
    with pytest.raises(ValueError, match="is not built, and clusters are made of"):
        clustered(layers.Dense(10))


@pytest.mark.parametrize(
    "argument",
    [
        {"kernel_regularizer": regularizers.L1(0.01)},
        {"bias_regularizer": regularizers.L1(0.01)},
        {"activity_regularizer": regularizers.L1(0.01)},
        {"kernel_constraint": keras.constraints.MaxNorm(2.0)},
        {"bias_constraint": keras.constraints.MaxNorm(2.0)},
    ],
)
def test_regularizers_and_constraints_of_layers_outlive_clustering(argument, tmp_path):
    model = around(layers.Dense(10, **argument), (10,))

    stripped = tfmot.strip_clustering(clustered(model))
    stripped.save(tmp_path / "model.keras")

    (name,) = argument
    kept = getattr(stripped.layers[1], name)
    assert type(kept) is type(argument[name])
    assert kept.get_config() == argument[name].get_config()
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(values(loaded), values(stripped))


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_clustered_model_is_loaded_and_trained_on(suffix, tmp_path):
    once = clustered(simple_dense_model())
    once.save(tmp_path / f"model.{suffix}")

    with tfmot.cluster_scope():
        loaded = keras.models.load_model(tmp_path / f"model.{suffix}")

    assert_equal(*[[e.variable.numpy() for e in entries(m)] for m in (loaded, once)])
    fit(loaded)
    assert [distinct(entry.variable) for entry in entries(loaded)] == [4, 4]


class WithBias(layers.Dense, tfmot.ClusterableLayer):
    """A layer of the user's that says what is clustered."""

    def get_clusterable_weights(self):
        return [("kernel", self.kernel), ("bias", self.bias)]


def test_layer_of_the_user_says_what_is_clustered():
    model = around(WithBias(30, bias_initializer="uniform", name="own"), (6,))

    with keras.saving.custom_object_scope({"WithBias": WithBias}):
        layer = clustered(model, 3).get_layer("own")

    assert [distinct(layer.kernel), distinct(layer.bias)] == [3, 3]
    with pytest.raises(NotImplementedError, match="Nothing defines no"):
        type("Nothing", (tfmot.ClusterableLayer,), {})().get_clusterable_weights()


def test_each_channel_has_clusters_of_its_own():
    model = around(layers.Conv2D(5, 4), (6, 6, 3))

    once = clustered(model, 4, cluster_per_channel=True)

    kernel = tfmot.strip_clustering(once).layers[1].kernel.numpy()
    assert [distinct(kernel[..., channel]) for channel in range(5)] == [4] * 5
    assert distinct(kernel) == 20
    assert distinct(clustered(model, 4).layers[1].kernel) == 4
    fit(once)
    assert [distinct(once.layers[1].kernel.numpy()[..., i]) for i in range(5)] == [
        4
    ] * 5


def test_channels_have_no_more_values_than_indices_can_tell():
    model = around(layers.Conv2D(70, 1), (2, 2, 1))

    with pytest.raises(
        ValueError, match="each of 70 channels, and a kernel has 65,535"
    ):
        clustered(model, 1000, cluster_per_channel=True)


@pytest.mark.parametrize(
    "make, message",
    [
        (unbuilt_model, "Sequential 'sequential.*' has no weights yet"),
        (
            lambda: tfmot.prune_low_magnitude(layers.Dense(3)),
            "'dense.*' is wrapped for pruning. Cluster the model that holds it",
        ),
    ],
)
def test_what_has_no_weights_of_its_own_to_cluster_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        clustered(make())


def test_only_models_are_stripped():
    with pytest.raises(TypeError, match="None"):
        tfmot.strip_clustering(None)
