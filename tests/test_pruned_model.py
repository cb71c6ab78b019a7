import copy

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune import PrunedModel, whole_model
from tests.checks import assert_equal, assert_plain, entries, pruned_at_once, values
from tests.layer_cases import normal
from tests.subclassed_models import Net, bare, net
from tests.training_helpers import with_slow

X, Y = normal(6)(32), normal(3)(32)


def train(model, epochs=1, callbacks=()):
    model.compile("adam", "mse", run_eagerly=True)  # tracing takes longer
    return model.fit(
        X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks)
    )


def test_model_is_an_instance_of_its_class_and_has_its_methods():
    model = net()

    pruned = pruned_at_once(model)

    assert isinstance(pruned, Net)
    assert isinstance(pruned, PrunedModel)
    assert type(model) is Net
    assert pruned.units == 8
    assert type(pruned.body) is layers.Dense
    assert_equal(pruned.twice(X), 2 * np.array(pruned(X)))


def test_masks_hold_while_it_trains():
    pruned = kprune.prune(net())
    pruning = kprune.PruningCallback(
        kprune.PolynomialSchedule(0.75, end_step=5, frequency=2)
    )

    train(pruned, epochs=2, callbacks=[pruning])

    assert [e.path for e in entries(pruned)] == ["body/kernel", "heads.a/kernel"]
    for entry, zeros in zip(entries(pruned), (36, 18), strict=True):
        mask, weight = np.array(entry.mask), np.array(entry.variable)
        assert (~mask).sum() == zeros
        assert not weight[~mask].any()


# Copies by Python are what tests of the wrapper make as well.
@pytest.mark.parametrize(
    "how", with_slow({"deepcopy"}, ["keras", "deepcopy", "weights"])
)
def test_masks_and_clock_survive(how, tmp_path):
    pruned = pruned_at_once(net())
    train(pruned)

    if how == "keras":
        pruned.save(tmp_path / "m.keras")
        new = keras.saving.load_model(tmp_path / "m.keras")
    elif how == "deepcopy":
        new = copy.deepcopy(pruned)
    else:
        pruned.save_weights(tmp_path / "m.weights.h5")
        new = kprune.prune(net())
        new.load_weights(tmp_path / "m.weights.h5")

    assert whole_model.clock_of(new) == 4
    assert_equal(new(X), pruned(X))
    for ours, theirs in zip(entries(new), entries(pruned), strict=True):
        assert ours.mask is not theirs.mask
        assert_equal(ours.mask.numpy(), theirs.mask.numpy())
    train(new)
    assert whole_model.clock_of(new) == 8
    for entry in entries(new):
        assert not entry.variable.numpy()[~entry.mask.numpy()].any()


def test_two_classes_are_kept_apart(tmp_path):
    @keras.saving.register_keras_serializable("kprune_tests")
    class Other(Net):
        def call(self, inputs):
            return -super().call(inputs)

    other = Other(name="other")
    other(X)
    models = {"a": pruned_at_once(net()), "b": pruned_at_once(other)}
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")

    for name, model in models.items():
        loaded = keras.saving.load_model(tmp_path / f"{name}.keras")
        assert type(loaded) is type(model)
        assert_equal(loaded(X), model(X))


def test_strip_gives_the_class_back_and_leaves_the_pruned_model():
    pruned = pruned_at_once(net())
    before = values(pruned)

    stripped = kprune.strip(pruned)

    assert type(stripped) is Net
    assert_plain(stripped)
    assert_equal(stripped(X), pruned(X))
    assert_equal(values(pruned), before)
    assert len(entries(pruned)) == 2
    stripped.compile("sgd", "mse")
    stripped.fit(X, Y, verbose=0)


def test_attributes_can_be_added_to_a_model_stripped_in_place():
    model = bare()
    with pytest.warns(UserWarning, match="pruned in place"):
        kprune.prune(model)
    with pytest.warns(UserWarning, match="stripped in place"):
        kprune.strip(model)

    with pytest.warns(UserWarning, match="pruned in place"):
        pruned = kprune.prune(model)

    assert [e.path for e in entries(pruned)] == ["dense/kernel"]
