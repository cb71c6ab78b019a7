"""What a model remembers of updates that can't be repeated."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune import memory
from tests.checks import entries
from tests.training_helpers import BATCH, build_optimizer, data, fit, network


def pruned(optimizer="sgd"):
    model = kprune.prune(network())
    model.compile(optimizer, "mse")
    build_optimizer(model)
    return model


def surgery():
    return kprune.DynamicNetworkSurgery(frequency=2, end_step=100)


def counts(model):
    return {e.layer.name: int((~e.mask.numpy()).sum()) for e in entries(model)}


LATER_FITS = {
    "cycles": lambda sparsity: {
        "schedule": kprune.CyclicSchedule(sparsity, cycles=2, sparse_steps=3)
    },
    "rewind": lambda sparsity: {
        "schedule": kprune.ConstantSchedule(sparsity),
        "regrowth": kprune.Rewind(),
    },
    "set": lambda sparsity: {
        "schedule": kprune.ConstantSchedule(sparsity),
        "regrowth": kprune.SET(frequency=4, end_step=10),
    },
    "surgery": lambda sparsity: {
        "schedule": kprune.ConstantSchedule(sparsity),
        "regrowth": kprune.DynamicNetworkSurgery(frequency=4, end_step=10),
    },
}


@pytest.mark.parametrize("method", LATER_FITS)
def test_a_later_fit_with_a_higher_target_reaches_it(method):
    model = pruned()
    early = [e.variable.numpy() for e in entries(model)]
    fit(model, kprune.PruningCallback(**LATER_FITS[method](0.5)), epochs=1)
    assert counts(model) == {"hidden": 48, "head": 24}
    seen = []

    class First(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append([e.variable.numpy() for e in entries(self.model)])

    later = kprune.PruningCallback(**LATER_FITS[method](0.75))
    fit(model, later, First(), epochs=1)

    assert counts(model) == {"hidden": 72, "head": 36}
    assert later.sparsity == 0.75
    if method == "rewind":  # it goes back, as after each update that removes weights
        for weight, first in zip(seen[0], early, strict=True):
            np.testing.assert_array_equal(weight, np.where(weight != 0, first, 0))


def test_a_later_fit_whose_schedule_begins_at_zero_brings_nothing_back():
    model = pruned()
    fit(model, kprune.PruningCallback(**LATER_FITS["surgery"](0.5)), epochs=1)
    zeros = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            zeros.append(int((~entries(self.model)[0].mask.numpy()).sum()))

    rising = kprune.PolynomialSchedule(0.75, 14, end_step=20, frequency=2)
    fit(model, kprune.PruningCallback(rising, regrowth=surgery()), Watch(), epochs=1)

    assert zeros == sorted(zeros)
    assert zeros[0] == 48 and zeros[-1] == 72


@pytest.mark.parametrize("regrowth", ["set", "rewind"])
def test_a_checkpoint_resumes_without_a_second_update(regrowth, tmp_path):
    options = {
        "schedule": kprune.ConstantSchedule(0.5, begin_step=2),
        "regrowth": {
            "set": kprune.SET(frequency=4, end_step=100),
            "rewind": kprune.Rewind(step=1),
        }[regrowth],
    }
    model, (x, y) = pruned(), data()
    pruner = kprune.Pruner(model, **options)
    for _ in range(6):
        pruner.step()
        model.train_on_batch(x[:BATCH], y[:BATCH])
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "half"))
    fresh = pruned()
    resumed = kprune.Pruner(fresh, **options)
    tf.train.Checkpoint(model=fresh).restore(path)

    resumed.step()

    assert memory.last_update(fresh, 0).step == (4 if regrowth == "set" else 2)
    for one, other in zip(model.variables, fresh.variables, strict=True):
        np.testing.assert_array_equal(other, one, err_msg=one.path)


def test_what_was_asked_for_is_noted_exactly():
    model = pruned()
    memory.prepare(model)
    assert memory.last_update(model, 0) is None and not memory.has_removed(model)

    memory.note_update(model, 0, 1 / 3, 0.25)

    assert memory.last_update(model, 0) == memory.Noted(0, 1 / 3)
    assert memory.last_update(model, 5) is None
    memory.note_update(model, 0, 0.0, 0.0)
    assert memory.has_removed(model)  # though all of it is back


def test_weights_are_rewound_to_where_they_were_before_masks_were_added():
    model, rewind = kprune.prune(network(), only="head"), kprune.Rewind()
    first = model.get_layer("head").kernel.numpy()
    kprune.Pruner(model, kprune.ConstantSchedule(0.25), regrowth=rewind).step()
    kernel = model.get_layer("head").kernel
    kernel.assign(2 * kernel)
    wider = kprune.prune(model)

    kprune.Pruner(wider, kprune.ConstantSchedule(0.5), regrowth=rewind).step()

    assert counts(wider) == {"hidden": 48, "head": 24}
    kernel = wider.get_layer("head").kernel.numpy()
    np.testing.assert_array_equal(kernel, np.where(kernel != 0, first, 0))
