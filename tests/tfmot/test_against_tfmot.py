"""TFMOT and kprune.tfmot run the same code on the same weights and data."""

import importlib.util
import pickle

import keras
import numpy as np
import pytest

from kprune import tfmot
from tests.checks import entries
from tests.processes import run_script
from tests.tfmot.comparison import (
    BATCHES,
    RUNS,
    SCHEDULES,
    initial_weights,
    schedule,
    train,
)
from tests.tfmot.test_names import CLUSTERING, INITIALIZATIONS, SPARSITY

MISSING = [
    name
    for name in ("tensorflow_model_optimization", "tf_keras")
    if importlib.util.find_spec(name) is None
]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"compares with TFMOT, and {MISSING} cannot be imported"
)
# Objects in the public name space that belong to TFMOT's own way of clustering.
WITHOUT_MEANING_HERE = {"ClusteringAlgorithm", "ClusteringSummaries"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """What TFMOT answers, from a process that may import it."""
    path = tmp_path_factory.mktemp("tfmot") / "results.pickle"
    done = run_script(
        "import sys; from tests.tfmot import incumbent; incumbent.main(sys.argv[1])",
        path,
    )
    assert path.exists(), done.stderr
    return pickle.loads(path.read_bytes())


def masks_of(model):
    """Returns the masks and the kernels that the wrappers hold."""
    found = entries(model)
    return [e.mask.numpy() for e in found], [e.variable.numpy() for e in found]


@pytest.mark.parametrize("name", RUNS)
def test_masks_and_kernels_are_those_of_tfmot_after_each_batch(name, recorded):
    run = RUNS[name]

    ours = train(keras, tfmot, run, masks_of, timing="tfmot")

    theirs = recorded["runs"][name]
    assert len(ours) == len(theirs) == BATCHES
    for batch in range(BATCHES):
        for mask, expected in zip(ours[batch][0], theirs[batch][0], strict=True):
            np.testing.assert_array_equal(mask, expected, f"batch {batch + 1}")
        for kernel, expected in zip(ours[batch][1], theirs[batch][1], strict=True):
            np.testing.assert_allclose(kernel, expected, atol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_masks_of_tfmot_change_in_the_batches_that_are_compared(name, recorded):
    masks = [masks for masks, _ in recorded["runs"][name]]
    before = [[np.ones_like(mask) for mask in masks[0]], *masks]

    changed = [
        batch
        for batch, (old, new) in enumerate(zip(before, masks, strict=False), start=1)
        if any((a != b).any() for a, b in zip(old, new, strict=True))
    ]

    assert tuple(changed) == RUNS[name].steps


def test_masks_are_not_those_of_the_weights_before_training(recorded):
    kernel = initial_weights(RUNS["element, constant"].network(keras))[0]

    masks, _ = recorded["runs"]["element, constant"][-1]

    untrained = np.abs(kernel) > np.quantile(np.abs(kernel), 0.7)
    assert masks[0].sum() == untrained.sum()
    assert (masks[0] != untrained).any()


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_say_what_those_of_tfmot_say(name, recorded):
    ours = schedule(tfmot, name)
    due, sparsities = recorded["schedules"][name]

    answers = [ours(step) for step in range(len(due))]

    assert [answer[0] for answer in answers] == due
    np.testing.assert_allclose([a[1] for a in answers], sparsities, atol=1e-6)


def test_tables_of_names_are_those_of_tfmot(recorded):
    theirs = recorded["names"]

    assert theirs["clustering"].pop("CentroidInitialization") == INITIALIZATIONS
    assert theirs["sparsity"] == SPARSITY
    others = theirs["clustering"].keys() - WITHOUT_MEANING_HERE
    assert {name: theirs["clustering"][name] for name in others} == CLUSTERING
