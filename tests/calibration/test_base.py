import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune import registry
from kprune.calibration import Calibration, gathers
from tests.checks import entries

X, Y = np.ones((8, 3), "float32"), np.zeros((8, 2), "float32")


@pytest.fixture
def families(monkeypatch):
    """A registry that forgets what the test adds."""
    copy = {name: dict(found) for name, found in registry._families.items()}
    monkeypatch.setattr(registry, "_families", copy)


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="head")])
    model = kprune.prune(model)
    model.compile("sgd", "mse")
    return model


def test_evidence_of_several_sources_comes_together(model, families):
    @gathers("rank", "size")
    def gather_shapes(model, entries, kinds, data):
        found = [{"rank": len(e.variable.shape), "size": 6} for e in entries]
        return [{kind: f[kind] for kind in kinds} for f in found]

    calibration = Calibration(model, ["name", "rank", "gradient"], (X, Y))

    (found,) = calibration.gather(entries(model))

    assert found.keys() == {"rank", "gradient"}
    assert found["rank"] == 2


def test_class_is_made_once_and_keeps_what_it_has(model, families):
    @gathers("updates", data=True)
    class Updates:
        def __init__(self, model, kinds, data):
            self.batches = len(list(data))
            self.updates = 0

        def __call__(self, entries):
            self.updates += self.batches
            return [{"updates": self.updates} for _ in entries]

    calibration = Calibration(model, ["updates"], X)

    found = [calibration.gather(entries(model)) for _ in range(2)]

    assert found == [[{"updates": 1}], [{"updates": 2}]]


def test_kind_that_is_taken_is_refused(families):
    with pytest.raises(ValueError, match="'gradient' is already registered in 'evid"):

        @gathers("gradient")
        def gather_others(model, entries, kinds, data):
            return []


def test_unknown_kind_is_refused_with_the_known_ones(model):
    with pytest.raises(ValueError, match="'curl' is required, and .* 'gradient'"):
        Calibration(model, ["curl"], (X, Y))


def test_missing_data_is_refused(model):
    with pytest.raises(ValueError, match="gradient, total_saliency must be gathered"):
        Calibration(model, ["gradient", "total_saliency"])


@pytest.mark.parametrize(
    ("data", "message"),
    [(None, "must be gathered over examples"), (X, "has no labels")],
)
def test_fit_stops_before_the_first_batch(model, data, message):
    batches = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_: batches.append)
    pruning = kprune.PruningCallback(0.5, criterion="taylor", calibration_data=data)

    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, verbose=0, callbacks=[pruning, count])

    assert not batches
