"""The steps of TFMOT's clustering guide, with kprune.tfmot in TFMOT's place."""

import keras
import numpy as np
import pytest

import kprune.tfmot as tfmot
from tests.checks import assert_equal, assert_plain
from tests.tfmot.guide_steps import X, Y, compiled, set_up_model, zipped_size

pytestmark = pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")

CLUSTERS = {
    "number_of_clusters": 3,
    "cluster_centroids_init": (
        tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    ),
}


@pytest.fixture
def base_model():
    model = compiled(set_up_model())
    model.fit(X, Y, verbose=0)
    return model


def distinct(values):
    return np.unique(values).size


def test_guide_clusters_a_whole_model_or_some_layers(base_model):
    def cluster_dense(layer):
        if isinstance(layer, keras.layers.Dense):
            return tfmot.clustering.keras.cluster_weights(layer, **CLUSTERS)
        return layer

    whole = tfmot.clustering.keras.cluster_weights(base_model, **CLUSTERS)
    some = keras.models.clone_model(base_model, clone_function=cluster_dense)

    assert distinct(base_model.layers[0].kernel) == 400
    for model in (whole, some):
        assert distinct(model.layers[0].kernel) == 3


def test_guide_saves_and_loads_a_clustered_model(base_model, tmp_path):
    model = tfmot.clustering.keras.cluster_weights(base_model, **CLUSTERS)
    path = tmp_path / "clustered.h5"

    model.save(path, include_optimizer=True)
    with tfmot.clustering.keras.cluster_scope():
        loaded = keras.models.load_model(path)

    assert_equal(loaded(X), model(X))
    compiled(loaded).fit(X, Y, verbose=0)
    assert distinct(loaded.layers[0].kernel) == 3


def test_guide_trains_and_strips(tmp_path):
    model = tfmot.clustering.keras.cluster_weights(set_up_model(), **CLUSTERS)
    compiled(model).fit(X, Y, verbose=0)

    final = tfmot.clustering.keras.strip_clustering(model)
    for name, each in (("clustered.h5", model), ("final.h5", final)):
        each.save(tmp_path / name, include_optimizer=False)

    assert_plain(final)
    assert distinct(final.layers[0].kernel) == 3
    assert zipped_size(tmp_path / "final.h5") < zipped_size(tmp_path / "clustered.h5")
