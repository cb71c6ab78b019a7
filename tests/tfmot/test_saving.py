"""Pruned models that are saved, loaded and trained on."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kprune import tfmot
from tests.checks import assert_equal, entries, values
from tests.processes import run_script
from tests.tfmot.models import (
    EVERY_STEP,
    data,
    nested_model,
    simple_dense_model,
    sparsities,
    train,
)


def by_keras_file(model, folder):
    """Saves and loads a whole model."""
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def by_hdf5(model, folder):
    """Saves and loads a whole model in the format of old.

    Keras 3.15 can't train what it has loaded of these files with their optimizer.
    """
    model.save(folder / "model.h5")
    with tfmot.prune_scope():
        return keras.models.load_model(folder / "model.h5", compile=False)


def by_weights(model, folder):
    """Saves weights, and loads them into a model that is pruned anew."""
    model.save_weights(folder / "model.weights.h5")
    schedule = model.layers[0].pruning_schedule
    again = tfmot.prune_low_magnitude(simple_dense_model(), schedule)
    again.load_weights(folder / "model.weights.h5")
    return again


def own_config(wrapper):
    """Returns the config of a wrapper without that of its layer."""
    return {k: v for k, v in wrapper.get_config().items() if k != "layer"}


WAYS = [
    by_keras_file,
    by_weights,
    pytest.param(by_hdf5, marks=pytest.mark.slow),
]


@pytest.mark.filterwarnings("ignore:The run is too short")
@pytest.mark.filterwarnings("ignore:Training ended at step")
@pytest.mark.parametrize(
    "timing", ["kprune", pytest.param("tfmot", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("restored", WAYS)
def test_run_goes_on_where_it_was_stopped(restored, timing, tmp_path):
    decay = tfmot.PolynomialDecay(0.25, 0.6, begin_step=1, end_step=4, frequency=1)
    model = tfmot.prune_low_magnitude(simple_dense_model(), decay)
    assert sparsities(model) == [0.0, 0.0]
    train(model, epochs=1, timing=timing)
    assert sparsities(model) == [0.25, 0.25]

    model = restored(model, tmp_path)
    assert sparsities(model) == [0.25, 0.25]
    train(model, epochs=3, timing=timing)

    assert sparsities(model) == [0.6, 0.6]


@pytest.mark.parametrize("restored", WAYS)
def test_sparsity_stays_beyond_the_end_of_the_schedule(restored, tmp_path):
    decay = tfmot.PolynomialDecay(0.25, 0.6, begin_step=0, end_step=2, frequency=1)
    model = tfmot.prune_low_magnitude(simple_dense_model(), decay)
    train(model, epochs=3)
    x, _ = data(model)

    again = restored(model, tmp_path)

    assert_equal(again(x), model(x))
    assert sparsities(again) == [0.6, 0.6]
    before = [entry.mask.numpy() for entry in entries(again)]
    train(again, epochs=1)
    assert_equal([entry.mask.numpy() for entry in entries(again)], before)


@pytest.mark.parametrize("restored", [WAYS[0], WAYS[2]])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pruning_schedule": tfmot.PolynomialDecay(0.2, 0.6, 10, 20, 5, 10)},
        {"block_size": (2, 3), "block_pooling_type": "MAX"},
        # TFMOT's config loses this one.
        {"sparsity_m_by_n": (2, 4)},
    ],
)
def test_wrappers_are_loaded_with_all_that_they_were_made_of(
    options, restored, tmp_path
):
    model = tfmot.prune_low_magnitude(simple_dense_model(), **options)

    again = restored(model, tmp_path)

    for ours, theirs in zip(
        *map(tfmot.collect_prunable_layers, (again, model)), strict=True
    ):
        assert type(ours) is tfmot.PruneLowMagnitude
        assert own_config(ours) == own_config(theirs)
        assert ours.pruning_schedule == theirs.pruning_schedule
        assert ours.granularity == theirs.granularity


def test_model_in_a_model_is_loaded_with_its_masks(tmp_path):
    model = tfmot.prune_low_magnitude(nested_model(), EVERY_STEP)
    train(model)

    again = by_keras_file(model, tmp_path)

    assert sparsities(again) == [0.5, 0.5]
    assert_equal(values(again), values(model))


class Halves(tfmot.PruningSchedule):
    """A schedule of the user's."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, step):
        return step % self.steps == 0, 0.5

    def get_config(self):
        return {"steps": self.steps}


def test_schedule_of_the_user_is_loaded_in_its_scope(tmp_path):
    model = tfmot.prune_low_magnitude(simple_dense_model(), Halves(3))
    model.save(tmp_path / "model.keras")

    with keras.saving.custom_object_scope({"Halves": Halves}):
        again = keras.models.load_model(tmp_path / "model.keras")

    assert again.layers[0].pruning_schedule == Halves(3)
    train(again)
    assert sparsities(again) == [0.5, 0.5]


def test_layers_share_a_schedule_after_loading_as_before(tmp_path):
    # Each schedule of the user's has a pruner of its own, which asks it at each step.
    shared, own = Halves(3), Halves(3)
    kept = [shared, shared, own, shared]
    wrapped = [tfmot.prune_low_magnitude(keras.layers.Dense(4), s) for s in kept]
    keras.Sequential([keras.Input((4,)), *wrapped]).save(tmp_path / "model.keras")

    with keras.saving.custom_object_scope({"Halves": Halves}):
        again = keras.models.load_model(tmp_path / "model.keras")

    found = [layer.pruning_schedule for layer in again.layers]
    assert [found.index(s) for s in found] == [0, 0, 0, 0]  # all are equal
    assert [[s is t for t in found].index(True) for s in found] == [0, 0, 2, 0]


def test_checkpoints_hold_zeros_whatever_the_order_of_callbacks(tmp_path):
    # TFMOT's do not: its weights are dense between a step and the next.
    model = tfmot.prune_low_magnitude(simple_dense_model(), EVERY_STEP)
    model.compile("sgd", "mse", run_eagerly=True)
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "{batch}.weights.h5", save_weights_only=True, save_freq=1
    )
    x, y = data(model, 12)

    model.fit(
        x,
        y,
        batch_size=4,
        verbose=0,
        callbacks=[checkpoint, tfmot.UpdatePruningStep()],
    )

    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 3
    for path in paths:
        loaded = tfmot.prune_low_magnitude(simple_dense_model(), EVERY_STEP)
        loaded.load_weights(path)
        assert sparsities(loaded) == [0.5, 0.5]


def test_weights_of_the_plain_model_are_loaded_before_it_is_pruned(tmp_path):
    trained, other = simple_dense_model(), simple_dense_model()
    trained.save_weights(tmp_path / "plain.weights.h5")
    x, _ = data(trained)

    with pytest.raises(ValueError):
        tfmot.prune_low_magnitude(other).load_weights(tmp_path / "plain.weights.h5")
    other.load_weights(tmp_path / "plain.weights.h5")

    assert_equal(tfmot.prune_low_magnitude(other)(x), trained(x))


def test_pruned_model_is_saved_as_a_saved_model(tmp_path):
    model = tfmot.prune_low_magnitude(simple_dense_model(), EVERY_STEP)
    train(model)
    x, _ = data(model)

    model.export(tmp_path / "saved", verbose=False)

    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(loaded.serve(x), model(x), atol=1e-6)


def test_model_is_loaded_where_kprune_alone_is_imported(tmp_path):
    model = tfmot.prune_low_magnitude(simple_dense_model(), sparsity_m_by_n=(2, 4))
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"model.{suffix}")

    done = run_script(
        """
        import keras, kprune
        for suffix in ("keras", "h5"):
            model = keras.models.load_model(f"model.{suffix}")
            print(model.layers[0].sparsity_m_by_n, model.layers[0].granularity)
        """,
        folder=tmp_path,
    )

    assert done.stdout.splitlines() == ["(2, 4) NofM(n=2, m=4, axis=-2)"] * 2, done


def test_layers_that_were_wrapped_one_by_one_are_loaded(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((10,)),
            tfmot.prune_low_magnitude(layers.Dense(4, name="own"), EVERY_STEP),
            layers.Dense(3),
        ]
    )
    train(model)

    again = by_keras_file(model, tmp_path)

    assert sparsities(again) == [0.5]
    assert again.layers[0].pruning_schedule == EVERY_STEP
