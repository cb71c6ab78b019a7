import keras
import numpy as np
import pytest

import kprune
from tests.training_helpers import BATCH, counts, data, fit, network

HOOKS = [
    f"on_{part}_{end}"
    for part in ("test", "test_batch", "predict", "predict_batch")
    for end in ("begin", "end")
]


@pytest.fixture
def model():
    model = kprune.prune(network())
    model.compile("sgd", "mse")
    return model


class Watch(keras.callbacks.Callback):
    """Notes which of its hooks are called, and how sparse the model is then."""

    def __init__(self):
        super().__init__()
        self.seen = []
        for hook in HOOKS:
            setattr(self, hook, lambda *_, hook=hook, **__: self.note(hook))

    def note(self, hook):
        self.seen.append((hook, counts(self.model)["hidden"]))


def evaluations(zeros):
    hooks = [HOOKS[0], *HOOKS[2:4], HOOKS[1]]
    return [(hook, zeros) for hook in hooks]


def test_evaluations_are_passed_on_from_the_target_on(model):
    watch, (x, y) = Watch(), data()
    pruning = kprune.PruningCallback(kprune.ConstantSchedule(0.75, 20))

    validation = {"validation_data": (x[:BATCH], y[:BATCH])}
    fit(model, kprune.AfterPruning(watch, pruning), pruning, epochs=3, **validation)

    assert watch.seen == evaluations(72) * 2  # after 24 and 36 steps, not after 12


def test_predictions_are_passed_on(model):
    watch, (x, _) = Watch(), data()
    after = kprune.AfterPruning(watch, kprune.PruningCallback(0.75))

    model.predict(x[:BATCH], verbose=0, callbacks=[after])

    hooks = [HOOKS[4], *HOOKS[6:8], HOOKS[5]]
    assert watch.seen == [(hook, 0) for hook in hooks]


def test_what_hooks_are_told_is_passed_on(model):
    told = []
    watch = keras.callbacks.Callback()
    watch.on_test_batch_end = lambda batch, logs: told.append((batch, logs["loss"]))
    watch.on_predict_batch_end = lambda batch, logs: told.append((batch, logs))
    x, y = data()
    pruning = kprune.PruningCallback(kprune.ConstantSchedule(0.75))
    fit(model, pruning, epochs=1)
    after = kprune.AfterPruning(watch, pruning)

    loss = model.evaluate(x[:BATCH], y[:BATCH], verbose=0, callbacks=[after])
    outputs = model.predict(x[:BATCH], verbose=0, callbacks=[after])

    assert told[0] == (0, pytest.approx(loss))
    np.testing.assert_array_equal(told[1][1]["outputs"], outputs)
