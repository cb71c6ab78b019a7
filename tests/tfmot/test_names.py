"""TFMOT's public names stand in TFMOT's places and take TFMOT's arguments."""

import inspect

import keras
import pytest

from kprune import tfmot
from tests.tfmot.comparison import parameters

HALF_AT_ONCE = {
    "target_sparsity": 0.5,
    "begin_step": 0,
    "end_step": -1,
    "frequency": 100,
}
SPARSITY = {
    "prune_low_magnitude": {
        "to_prune": "required",
        "pruning_schedule": HALF_AT_ONCE,
        "block_size": (1, 1),
        "block_pooling_type": "AVG",
        "pruning_policy": None,
        "sparsity_m_by_n": None,
    },
    "strip_pruning": {"model": "required"},
    "prune_scope": {},
    "UpdatePruningStep": {},
    "PruningSummaries": {"log_dir": "required", "update_freq": "epoch"},
    "PruningSchedule": {},
    "ConstantSparsity": {
        "target_sparsity": "required",
        "begin_step": "required",
        "end_step": -1,
        "frequency": 100,
    },
    "PolynomialDecay": {
        "initial_sparsity": "required",
        "final_sparsity": "required",
        "begin_step": "required",
        "end_step": "required",
        "power": 3,
        "frequency": 100,
    },
    "PrunableLayer": {},
    "PruningPolicy": {},
    "PruneForLatencyOnXNNPack": {},
}
CLUSTERING = {
    "cluster_weights": {
        "to_cluster": "required",
        "number_of_clusters": "required",
        "cluster_centroids_init": "KMEANS_PLUS_PLUS",
    },
    "strip_clustering": {"model": "required"},
    "cluster_scope": {},
    "ClusterableLayer": {},
}
INITIALIZATIONS = ["DENSITY_BASED", "KMEANS_PLUS_PLUS", "LINEAR", "RANDOM"]
# TFMOT's `cluster_weights` hands its **kwargs on to a function that takes these.
OF_KWARGS = {"preserve_sparsity": False, "cluster_per_channel": False}
# `None` stands for TFMOT's default, which would be an object that all calls share.
WRITTEN_AS_NONE = {"pruning_schedule": HALF_AT_ONCE}

PLACES = {
    "sparsity": (tfmot.sparsity.keras, SPARSITY),
    "clustering": (tfmot.clustering.keras, CLUSTERING),
}
ALL = [(place, name) for place, (_, names) in PLACES.items() for name in names]


@pytest.mark.parametrize("place, name", ALL)
def test_public_name_of_tfmot_takes_its_arguments(place, name):
    module, names = PLACES[place]

    ours = parameters(getattr(module, name))

    for argument, default in WRITTEN_AS_NONE.items():
        if argument in ours:
            assert ours[argument] is None
            ours[argument] = default
    assert list(ours)[: len(names[name])] == list(names[name])
    assert names[name].items() <= ours.items()
    added = {key: ours[key] for key in ours.keys() - names[name].keys()}
    assert "required" not in added.values()


@pytest.mark.parametrize("place, name", ALL)
def test_public_name_of_tfmot_is_found_without_its_place_too(place, name):
    assert getattr(tfmot, name) is getattr(PLACES[place][0], name)


def test_clustering_takes_what_tfmot_passes_on():
    ours = parameters(tfmot.cluster_weights)

    assert OF_KWARGS.items() <= ours.items()


def test_initializations_are_those_of_tfmot():
    assert sorted(tfmot.CentroidInitialization.__members__) == INITIALIZATIONS
    assert tfmot.clustering.keras.CentroidInitialization is tfmot.CentroidInitialization


def test_schedule_that_is_not_given_is_that_of_tfmot():
    wrapper = tfmot.prune_low_magnitude(keras.layers.Dense(2))

    assert wrapper.pruning_schedule == tfmot.ConstantSparsity(**HALF_AT_ONCE)


@pytest.mark.parametrize(
    "name, method",
    [
        ("PruningSchedule", "_should_prune_in_step"),
        ("PruningSchedule", "_validate_step"),
        ("PruningSchedule", "_validate_sparsity"),
        ("PruningSchedule", "from_config"),
        ("PrunableLayer", "get_prunable_weights"),
        ("PruningPolicy", "allow_pruning"),
        ("PruningPolicy", "ensure_model_supports_pruning"),
    ],
)
def test_base_has_the_methods_that_subclasses_call_and_define(name, method):
    assert inspect.isroutine(getattr(getattr(tfmot, name), method))
