"""Models that TFMOT has pruned, as models that kprune goes on pruning."""

import functools
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune.tfmot.callbacks import UpdatePruningStep
from kprune.tfmot.from_keras_2 import from_tf_keras
from kprune.tfmot.schedules import PruningSchedule
from kprune.tfmot.wrapper import PruneLowMagnitude
from kprune.whole_model import clock_of
from tests.checks import assert_plain, entries, values
from tests.tfmot import keras_2_models as models
from tests.tfmot.keras_2_cases import assert_same_outputs
from tests.tfmot.test_saving import Halves
from tests.training_helpers import with_slow

STEPS = 5


@functools.cache
def pruned(k, incumbent, build, batches=STEPS, **options):
    """Makes a model, wraps it by TFMOT and trains it; once, for all tests."""
    sparsity = incumbent.sparsity.keras
    schedule = sparsity.PolynomialDecay(0.2, 0.6, 0, 8, frequency=2)
    model = build(k)
    prunable = ("Dense", "Conv2D", "DepthwiseConv2D", "LSTM", "Embedding", "Flatten")

    def wrapped(layer):
        if isinstance(layer, k.Model):
            return k.models.clone_model(layer, clone_function=wrapped)
        if type(layer).__name__ not in (*prunable, "MultiHeadAttention"):
            return layer.__class__.from_config(layer.get_config())
        return sparsity.prune_low_magnitude(layer, schedule, **options)

    model = k.models.clone_model(model, clone_function=wrapped)
    return models.train(k, incumbent, model, batches)


def wrappers_of(model):
    """Maps layer names to TFMOT's wrappers with masks, nested models included."""
    return {
        part.layer.name: part
        for part in model._flatten_layers()
        if getattr(part, "pruning_vars", None)
    }


def assert_same_masks(old, new):
    """Compares masks and masked weights of all layers with those in TFMOT."""
    found = {x.name: x for x in new._flatten_layers() if type(x) is PruneLowMagnitude}
    expected = wrappers_of(old)
    assert set(found) == set(expected)
    for name, wrapper in expected.items():
        pairs = zip(found[name].store.entries, wrapper.pruning_vars, strict=True)
        for entry, (weight, mask, _) in pairs:
            keep = mask.numpy().astype(bool)
            assert not keep.all()
            np.testing.assert_array_equal(entry.mask, keep)
            np.testing.assert_array_equal(entry.variable, weight.numpy() * keep)


ARCHITECTURES = (
    models.sequential,
    models.convolutional,
    models.nested,
    models.sequence,
    models.attention,
)


# The slow ones hold the same layers, but for attention, of dense layers.
@pytest.mark.parametrize(
    "build", with_slow({models.nested, models.attention}, ARCHITECTURES)
)
def test_masks_weights_and_step_come_over(tf_keras, incumbent, build):
    old = pruned(tf_keras, incumbent, build)
    before = values(old)

    new = from_tf_keras(old)

    assert clock_of(new) == STEPS
    assert_same_masks(old, new)
    for value, variable in zip(before, old.variables, strict=True):
        np.testing.assert_array_equal(value, variable)
    assert_same_outputs(old, new)


@pytest.mark.parametrize(
    ("options", "granularity"),
    [
        ({"block_size": (2, 1)}, kprune.Block(2, 1)),
        (
            {"block_size": (2, 1), "block_pooling_type": "MAX"},
            kprune.Block(2, 1, pooling="max"),
        ),
        ({"sparsity_m_by_n": (2, 4)}, kprune.NofM(2, 4)),
        ({"sparsity_m_by_n": (1, 4)}, kprune.NofM(3, 4)),
    ],
)
def test_blocks_and_patterns_come_over(tf_keras, incumbent, options, granularity):
    old = pruned(tf_keras, incumbent, models.sequential, **options)

    new = from_tf_keras(old)

    assert_same_masks(old, new)
    assert repr(new.get_layer("hidden").granularity) == repr(granularity)


def test_training_goes_on_by_the_schedule(tf_keras, incumbent):
    new = from_tf_keras(pruned(tf_keras, incumbent, models.sequential))
    zeros = [~entry.mask.numpy() for entry in entries(new)]
    schedule = new.get_layer("hidden").pruning_schedule.get_config()

    x, y = np.ones((32, 6)), np.ones((32, 3))
    new.fit(x, y, batch_size=8, verbose=0, callbacks=[UpdatePruningStep()])

    assert schedule["class_name"] == "PolynomialDecay"
    assert schedule["config"]["end_step"] == 8
    assert clock_of(new) == STEPS + 4
    for entry, was_zero in zip(entries(new), zeros, strict=True):
        assert np.mean(~entry.mask.numpy()) == pytest.approx(0.6, abs=0.05)
        assert not entry.variable.numpy()[was_zero].any()


def test_what_came_over_is_saved_and_loaded(tf_keras, incumbent, tmp_path):
    new = from_tf_keras(pruned(tf_keras, incumbent, models.nested))
    new.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert clock_of(loaded) == STEPS
    np.testing.assert_array_equal(loaded(np.ones((2, 6))), new(np.ones((2, 6))))


def test_weights_that_are_dense_between_two_steps_are_masked(tf_keras, incumbent):
    old = pruned.__wrapped__(tf_keras, incumbent, models.sequential)
    old.train_on_batch(np.ones((8, 6)), np.ones((8, 3)))
    kernel, mask, _ = wrappers_of(old)["hidden"].pruning_vars[0]
    assert kernel.numpy()[mask.numpy() == 0].any()

    new = from_tf_keras(old)

    assert kernel.numpy()[mask.numpy() == 0].any()
    assert_same_masks(old, new)


def test_a_model_made_for_several_devices_comes_over_with_its_masks(
    tf_keras, incumbent
):
    sparsity = incumbent.sparsity.keras
    schedule = sparsity.ConstantSparsity(0.5, 0, frequency=2)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        wrapped = sparsity.prune_low_magnitude(models.sequential(tf_keras), schedule)
        wrapped.compile("adam", "mse")
    callbacks = [sparsity.UpdatePruningStep()]
    x, y = np.ones((8, 6)), np.ones((8, 3))
    wrapped.fit(x, y, batch_size=2, verbose=0, callbacks=callbacks)

    new = from_tf_keras(wrapped)

    assert clock_of(new) == 4
    assert_same_masks(wrapped, new)
    new.fit(x, y, batch_size=2, verbose=0, callbacks=[UpdatePruningStep()])
    assert clock_of(new) == 8


def test_a_model_that_was_wrapped_and_not_trained_starts_at_step_0(tf_keras, incumbent):
    wrapped = incumbent.sparsity.keras.prune_low_magnitude(models.sequential(tf_keras))

    new = from_tf_keras(wrapped)

    assert clock_of(new) == 0
    assert all(entry.mask.numpy().all() for entry in entries(new))


def test_a_shared_layer_is_one_wrapper_and_counts_once_a_step(tf_keras, incumbent):
    old = pruned(tf_keras, incumbent, models.shared)
    steps = {n: int(w.pruning_step) for n, w in wrappers_of(old).items()}
    assert steps == {"shared": 2 * STEPS, "head": STEPS}

    new = from_tf_keras(old)

    assert clock_of(new) == STEPS
    assert_same_masks(old, new)


def test_layers_with_different_steps_go_on_from_the_largest(tf_keras, incumbent):
    old = pruned.__wrapped__(tf_keras, incumbent, models.sequential)
    wrappers_of(old)["head"].pruning_step.assign(3)

    with pytest.warns(UserWarning, match=r"\{'hidden': 5, 'head': 3\}"):
        new = from_tf_keras(old)

    assert clock_of(new) == STEPS


def test_a_stripped_model_comes_over_plain_with_its_zeros(tf_keras, incumbent):
    old = pruned(tf_keras, incumbent, models.convolutional)
    stripped = incumbent.sparsity.keras.strip_pruning(old)

    new = from_tf_keras(stripped)

    assert_plain(new)
    for layer in ("conv", "head"):
        kernel = stripped.get_layer(layer).kernel.numpy()
        assert (kernel == 0).mean() > 0.4
        np.testing.assert_array_equal(new.get_layer(layer).kernel, kernel)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
class TestFiles:
    """Models that are read from files."""

    def test_a_pruned_model(self, tf_keras, incumbent, tmp_path, suffix):
        old = pruned(tf_keras, incumbent, models.nested)
        old.save(tmp_path / f"model{suffix}")

        new = from_tf_keras(tmp_path / f"model{suffix}")

        assert clock_of(new) == STEPS
        assert_same_masks(old, new)
        assert_same_outputs(old, new)
        assert float(new.optimizer.learning_rate) == pytest.approx(0.01)
        assert new.loss in ("mse", "mean_squared_error")

    def test_a_stripped_model(self, tf_keras, incumbent, tmp_path, suffix):
        old = pruned(tf_keras, incumbent, models.convolutional)
        stripped = incumbent.sparsity.keras.strip_pruning(old)
        path = str(tmp_path / f"model{suffix}")
        stripped.save(path)

        new = from_tf_keras(path)

        assert_plain(new)
        assert_same_outputs(stripped, new)

    def test_a_file_of_keras_3_needs_no_translation(self, tf_keras, tmp_path, suffix):
        path = tmp_path / f"model{suffix}"
        keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)

        with pytest.raises(ValueError, match="was written by Keras 3"):
            from_tf_keras(path)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_a_file_with_keys_that_keras_3_refuses_is_read(tf_keras, incumbent, tmp_path):
    old, path = models.convolutional(tf_keras), tmp_path / "model.h5"
    old.save(path)
    with h5py.File(path) as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    depthwise = next(x for x in layers if x["class_name"] == "DepthwiseConv2D")
    assert depthwise["config"]["groups"] == 1
    with pytest.raises(TypeError, match="Unrecognized keyword arguments"):
        keras.saving.load_model(path)

    new = from_tf_keras(path)

    assert_same_outputs(old, new)


def aged(config):
    """Writes a config as the tf.keras of TensorFlow 1 and 2.0 wrote it."""
    if not isinstance(config, dict):
        return [aged(part) for part in config] if isinstance(config, list) else config
    found = {name: aged(part) for name, part in config.items()}
    if found.pop("module", None) == "keras.initializers":
        found["config"]["dtype"] = "float32"
    found.pop("registered_name", None)
    if found.get("class_name") == "Functional":
        found["class_name"] = "Model"
    if found.get("class_name") == "BatchNormalization":
        found["config"]["axis"] = [3]
    return found


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("build", [models.convolutional, models.sequence])
def test_a_file_of_an_old_tf_keras_is_read(tf_keras, incumbent, tmp_path, build):
    old, path = build(tf_keras), tmp_path / "model.h5"
    old.save(path)
    with h5py.File(path, "r+") as file:
        config = aged(json.loads(file.attrs["model_config"]))
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.2.4-tf"

    new = from_tf_keras(path)

    assert_same_outputs(old, new)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_files_without_a_model_are_refused(tf_keras, incumbent, tmp_path):
    models.sequential(tf_keras).save_weights(tmp_path / "weights.h5")
    (tmp_path / "text.h5").write_text("no model")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("text", "no model")

    with pytest.raises(ValueError, match="holds weights and no architecture"):
        from_tf_keras(tmp_path / "weights.h5")
    with pytest.raises(ValueError, match="is neither an HDF5"):
        from_tf_keras(tmp_path / "text.h5")
    with pytest.raises(ValueError, match="holds no `metadata.json`"):
        from_tf_keras(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="is no file"):
        from_tf_keras(tmp_path)


BROKEN = {
    "[]": r"holds \[\], no dict",
    "{": "can't be read as a file of Keras",
    '{"keras_version": 2}': "holds weights and no architecture",
    "{}": "'keras_version'",
}


@pytest.mark.parametrize("metadata", BROKEN)
def test_a_broken_archive_is_named(tf_keras, incumbent, tmp_path, metadata):
    with zipfile.ZipFile(tmp_path / "broken.keras", "w") as archive:
        archive.writestr("metadata.json", metadata)

    with pytest.raises(ValueError, match=f"broken.keras' .*{BROKEN[metadata]}"):
        from_tf_keras(tmp_path / "broken.keras")


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_half_a_file_is_named(tf_keras, incumbent, tmp_path):
    path = tmp_path / "half.h5"
    models.sequential(tf_keras).save(path)
    path.write_bytes(path.read_bytes()[:5000])

    with pytest.raises(ValueError, match="half.h5' can't be read .* or only in part"):
        from_tf_keras(path)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_a_class_that_tf_keras_misses_is_named(tf_keras, incumbent, tmp_path):
    class Mine(tf_keras.layers.Layer):
        pass

    tf_keras.Sequential([tf_keras.Input((2,)), Mine()]).save(tmp_path / "mine.h5")

    with pytest.raises(ValueError, match="tf_keras can't load .*Mine"):
        from_tf_keras(tmp_path / "mine.h5")


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_file_with_a_loss_of_the_user_is_said_to_be_uncompiled(
    tf_keras, incumbent, tmp_path, suffix
):
    def distance(truth, found):
        return abs(truth - found)

    old = models.sequential(tf_keras)
    old.compile("sgd", distance)
    old.save(tmp_path / f"model{suffix}")

    with pytest.warns(UserWarning, match="can't compile the model in .*distance"):
        new = from_tf_keras(tmp_path / f"model{suffix}")

    assert not new.compiled
    assert_same_outputs(old, new)


@pytest.mark.parametrize("step", ["quantize_model", "quantize_annotate_model"])
def test_a_model_in_quantization_aware_training_is_refused(tf_keras, incumbent, step):
    prepare = getattr(incumbent.quantization.keras, step)
    old = prepare(models.sequential(tf_keras))

    with pytest.raises(ValueError, match=r"`kprune\.quantize_aware`"):
        from_tf_keras(old)


def test_a_schedule_of_the_user_is_asked_for_by_name(tf_keras, incumbent):
    class Halves(incumbent.sparsity.keras.PruningSchedule):
        def __call__(self, step):
            return step % 2 == 0, 0.5

        def get_config(self):
            return {"class_name": "Halves", "config": {}}

    class HalvesAnew(PruningSchedule):
        __call__ = Halves.__call__
        get_config = Halves.get_config

    wrap = incumbent.sparsity.keras.prune_low_magnitude
    old = wrap(models.sequential(tf_keras), Halves())

    with pytest.raises(ValueError, match="a schedule of your own, Halves"):
        from_tf_keras(old)
    new = from_tf_keras(old, {"Halves": HalvesAnew})

    assert type(new.get_layer("hidden").pruning_schedule) is HalvesAnew


def test_layers_share_a_schedule_of_the_user_if_theirs_are_alike(tf_keras, incumbent):
    class HalvesOfOld(incumbent.sparsity.keras.PruningSchedule):
        __init__ = Halves.__init__
        __call__ = Halves.__call__
        get_config = Halves.get_config

    wrap = incumbent.sparsity.keras.prune_low_magnitude
    layers = [wrap(tf_keras.layers.Dense(4), HalvesOfOld(n)) for n in (2, 2, 3, 2)]
    old = tf_keras.Sequential([tf_keras.Input((4,)), *layers])

    new = from_tf_keras(old, {"HalvesOfOld": Halves})

    found = [layer.pruning_schedule for layer in new.layers]
    assert [schedule.steps for schedule in found] == [2, 2, 3, 2]
    assert [[s is t for t in found].index(True) for s in found] == [0, 0, 2, 0]


def own_layer(module):
    """Returns a class of the user's that says itself what is pruned."""

    class Mixing(module.layers.Layer):
        def build(self, input_shape):
            self.first = self.add_weight(name="first", shape=(input_shape[-1], 4))
            self.second = self.add_weight(name="second", shape=(4, 4))

        def call(self, inputs):
            return inputs @ self.first @ self.second

        def get_prunable_weights(self):
            return [self.second]

    return Mixing


def test_a_layer_of_the_user_keeps_the_masks_of_what_it_lists(tf_keras, incumbent):
    k, wrap = tf_keras, incumbent.sparsity.keras.prune_low_magnitude
    schedule = incumbent.sparsity.keras.ConstantSparsity(0.5, 0, frequency=1)
    layer = wrap(own_layer(k)(name="mixing"), schedule)
    old = models.train(k, incumbent, k.Sequential([k.Input((6,)), layer]))

    new = from_tf_keras(old, {"Mixing": own_layer(keras)})

    assert list(new.get_layer("mixing").masks) == ["second"]
    assert_same_masks(old, new)


def test_a_clustered_model_has_to_be_stripped(tf_keras, incumbent):
    clustering = incumbent.clustering.keras
    old = clustering.cluster_weights(
        models.sequential(tf_keras),
        number_of_clusters=4,
        cluster_centroids_init=clustering.CentroidInitialization.LINEAR,
    )

    with pytest.raises(ValueError, match="strip_clustering"):
        from_tf_keras(old)


def test_padding_counts_as_under_tfmots_wrapper(tf_keras, incumbent):
    k, wrap = tf_keras, incumbent.sparsity.keras.prune_low_magnitude
    inputs = k.Input((6,), dtype="int32")
    embedding = k.layers.Embedding(11, 4, mask_zero=True, name="embedding")
    old = k.Model(inputs, k.layers.LSTM(3)(wrap(embedding)(inputs)))

    with pytest.warns(UserWarning, match="does not pass on"):
        new = from_tf_keras(old)

    assert_same_outputs(old, new)
