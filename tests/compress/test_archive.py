import os
import sys

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune import registry
from kprune.compress import ArchiveError, load_archive, save_archive
from kprune.compress.architecture import full_config
from tests.compress.streams_of import lenet_300_100, share_all
from tests.export import models
from tests.subclassed_models import bare

PLAIN = [m for m in models.FOR_EVERY_FORMAT[:-1] if "subclass" not in m.__name__]


@keras.saving.register_keras_serializable("tests")
class Scaled(layers.Layer):
    """A layer of a user's own."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x):
        return self.factor * self.scale * x

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("tests")
class OfOurOwn(keras.Model):
    """A subclassed model."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first, self.second = layers.Dense(units), layers.Dense(2)

    def call(self, x):
        return self.second(self.first(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def custom_layer():
    return keras.Sequential([keras.Input((3,)), Scaled(2.0), layers.Dense(2)])


def subclassed():
    model = OfOurOwn(5)
    model(np.ones((1, 3), "float32"))
    return model


def frozen():
    model = models.cnn()
    model.layers[0].trainable = False
    return model


def regularized():
    dense = layers.Dense(
        3,
        kernel_regularizer=keras.regularizers.L1L2(1e-4, 2e-4),
        bias_initializer=keras.initializers.Constant(0.25),
        kernel_constraint="max_norm",
        activation=keras.activations.gelu,
        dtype="mixed_bfloat16",
    )
    return keras.Sequential([keras.Input((4,), name="named"), dense], name="small")


def operations():
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    x = keras.ops.concatenate([left * 2.0, keras.ops.tanh(right)], axis=-1)
    return keras.Model({"left": left, "right": right}, {"y": layers.Dense(2)(x)[:, 1:]})


def adapted():
    model = models.normalized()
    assert model.layers[0].mean.numpy().any()
    return model


@keras.saving.register_keras_serializable("tests")
class Head(layers.Layer):
    """Uses the matrix of an embedding once more."""

    def __init__(self, embedding, **kwargs):
        super().__init__(**kwargs)
        self.embedding = embedding

    def call(self, x):
        return x @ keras.ops.transpose(self.embedding.embeddings)

    def get_config(self):
        embedding = keras.saving.serialize_keras_object(self.embedding)
        return {**super().get_config(), "embedding": embedding}

    @classmethod
    def from_config(cls, config):
        embedding = keras.saving.deserialize_keras_object(config.pop("embedding"))
        return cls(embedding, **config)


def tied():
    tokens, embedding = keras.Input((5,), dtype="int32"), layers.Embedding(7, 3)
    return keras.Model(tokens, Head(embedding)(embedding(tokens)))


EVERY_KIND = [
    *PLAIN,
    *(models.word_lookup, models.number_lookup),
    *(custom_layer, subclassed, frozen, regularized, operations, adapted, tied),
]


def assert_same_model(loaded, model):
    assert full_config(loaded) == full_config(model)
    assert loaded.built
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        assert (ours.name, ours.dtype) == (theirs.name, theirs.dtype)
        assert ours.trainable == theirs.trainable
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


@pytest.mark.parametrize("build", EVERY_KIND, ids=lambda build: build.__name__)
def test_a_loaded_model_is_the_one_saved(build, tmp_path):
    model = build()

    report = save_archive(model, tmp_path / "model.kpz")
    loaded = load_archive(tmp_path / "model.kpz")

    assert_same_model(loaded, model)
    assert report.bytes == os.path.getsize(tmp_path / "model.kpz")
    assert report.weights == sum(weight.numpy().size for weight in model.weights)
    assert os.listdir(tmp_path) == ["model.kpz"]


def test_a_loaded_model_answers_trains_and_saves_as_any_other(tmp_path):
    model = models.cnn()
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    save_archive(model, tmp_path / "model.kpz")

    loaded = load_archive(tmp_path / "model.kpz")

    np.testing.assert_array_equal(loaded(x), model(x))
    loaded.compile("adam", "mse")
    loaded.fit(x, np.zeros((4, 5)), verbose=0)
    assert np.abs(loaded(x) - model(x)).max() > 0
    loaded.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), loaded(x))


@pytest.mark.parametrize("coder", registry.keys("coders"))
def test_every_coder_makes_an_archive(coder, tmp_path):
    model = share_all(models.cnn())

    save_archive(model, tmp_path / "model.kpz", coder=coder)

    assert_same_model(load_archive(tmp_path / "model.kpz"), model)


def test_a_small_model_has_a_small_file(tmp_path):
    report = save_archive(lenet_300_100(), tmp_path / "model.kpz")

    coded, bound = report.coded_bytes, sum(report.bounds.values())
    assert bound <= coded < 1.01 * bound
    assert report.bytes - coded < 600  # Codebooks, the last kernel, 410 biases.
    assert report.parts["architecture"] < 110
    assert report.parts["header"] < 60
    assert report.nonzeros == sum(array.nonzeros for array in report.arrays)


def test_the_report_is_a_table(tmp_path):
    report = save_archive(lenet_300_100(), tmp_path / "model.kpz")

    first, header, *rows = str(report).splitlines()
    assert first.startswith("lenet: 266,610 weights of 1,066,440 bytes in ")
    assert header.split() == ["part", "bytes", "bound", "what"]
    assert [row.split()[0] for row in rows] == [
        *("positions", "indices", "codebooks", "values", "architecture", "header")
    ]
    total = sum(int(row.split()[1].replace(",", "")) for row in rows)
    assert total == report.bytes == report.to_dict()["bytes"]


def test_rounding_to_float16_is_asked_for(tmp_path):
    model = models.cnn()
    halves = [np.asarray(weight).astype("float16") for weight in model.weights]

    exact = save_archive(model, tmp_path / "exact.kpz")
    rounded = save_archive(model, tmp_path / "rounded.kpz", float16=True)

    loaded = load_archive(tmp_path / "rounded.kpz")
    for weight, values in zip(loaded.weights, halves, strict=True):
        np.testing.assert_array_equal(weight, values)
    assert rounded.parts["values"] < 0.6 * exact.parts["values"]


def test_values_out_of_reach_of_float16_are_not_rounded_to_infinity(tmp_path):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1e6], [0.1]])])

    save_archive(model, tmp_path / "model.kpz", float16=True)

    (kernel,) = load_archive(tmp_path / "model.kpz").get_weights()
    np.testing.assert_array_equal(kernel, np.float32([[1e6], [np.float16(0.1)]]))


def test_negative_zeros_become_zeros(tmp_path):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[-0.0], [-1.0]])])

    save_archive(model, tmp_path / "model.kpz")

    (kernel,) = load_archive(tmp_path / "model.kpz").get_weights()
    assert np.signbit(kernel).tolist() == [[False], [True]]
    assert np.signbit(model.get_weights()[0]).all()


def test_a_pruned_model_is_stripped_with_a_word(tmp_path):
    model = kprune.prune(models.cnn())

    with pytest.warns(UserWarning, match="masks or shared weights; what was written"):
        report = save_archive(model, tmp_path / "model.kpz")

    assert_same_model(load_archive(tmp_path / "model.kpz"), kprune.strip(model))
    assert "note: the model was still set up for training" in str(report)
    assert kprune.is_pruned(model)


def test_defaults_that_a_user_has_set_change_nothing(tmp_path):
    model = models.resnet()
    save_archive(model, tmp_path / "model.kpz")
    keras.config.set_dtype_policy("mixed_float16")
    keras.config.set_image_data_format("channels_first")
    try:
        loaded = load_archive(tmp_path / "model.kpz")
        half = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
        save_archive(half, tmp_path / "half.kpz")

        assert keras.config.dtype_policy().name == "mixed_float16"
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_dtype_policy("float32")
        keras.config.set_image_data_format("channels_last")

    assert_same_model(loaded, model)
    assert load_archive(tmp_path / "half.kpz").layers[0].compute_dtype == "float16"


def test_loading_does_not_disturb_other_scopes(tmp_path):
    save_archive(models.cnn(), tmp_path / "model.kpz")

    load_archive(tmp_path / "model.kpz")
    with keras.StatelessScope():
        pass  # On exit, Keras initializes what waits for it.

    pending = keras.src.backend.common.global_state.get_global_attribute(
        "uninitialized_variables"
    )
    assert not pending


def test_no_other_package_is_needed_for_the_default_coder(tmp_path, monkeypatch):
    save_archive(lenet_300_100(), tmp_path / "model.kpz")
    save_archive(models.cnn(), tmp_path / "brotli.kpz", coder=["brotli", "huffman"])
    for name in ("bitarray", "brotli", "constriction"):
        monkeypatch.setitem(sys.modules, name, None)

    assert load_archive(tmp_path / "model.kpz").count_params() == 266_610
    with pytest.raises(ArchiveError, match="cannot be read: .* pip install"):
        load_archive(tmp_path / "brotli.kpz")


def test_a_failure_leaves_the_earlier_file_in_place(tmp_path, monkeypatch):
    path = tmp_path / "model.kpz"
    save_archive(models.cnn(), path)
    before = path.read_bytes()
    model = models.resnet()
    # A class whose config leaves out an argument gives another model.
    monkeypatch.setattr(layers.Conv2D, "get_config", layers.Dense.get_config)

    with pytest.raises(ArchiveError):
        save_archive(model, path)

    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.kpz"]


def test_nan_is_refused(tmp_path):
    model = models.cnn()
    model.layers[0].bias.assign([0.0, np.nan, 0.0, 0.0])

    with pytest.raises(ArchiveError, match="'cnn' has NaN in its weights .*bias"):
        save_archive(model, tmp_path / "model.kpz")

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (3, TypeError, "Expected a keras.Model, got int"),
        (keras.Sequential([layers.Dense(2)]), ValueError, "has no weights yet"),
        (models.text, ArchiveError, "made anew with their vocabulary"),
        (models.subclassed, ArchiveError, "'TwoHeads' of module .* registered"),
    ],
)
def test_models_that_cannot_be_archived_are_named(model, error, message, tmp_path):
    model = model() if callable(model) and not isinstance(model, keras.Model) else model

    with pytest.raises(error, match=message):
        save_archive(model, tmp_path / "model.kpz")

    assert os.listdir(tmp_path) == []


def test_an_unknown_coder_is_named(tmp_path):
    with pytest.raises(ValueError, match="'zip' is none of the registered coders"):
        save_archive(models.cnn(), tmp_path / "model.kpz", coder="zip")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder '.*/no' to write 'model.kp"):
        save_archive(models.cnn(), tmp_path / "no" / "model.kpz")
    with pytest.raises(FileNotFoundError):
        load_archive(tmp_path / "model.kpz")


def test_a_model_with_shared_weights_is_stripped(tmp_path):
    sharing = pytest.importorskip("kprune.compress.sharing")
    model = sharing.share_weights(lenet_300_100(), bits=3)

    with pytest.warns(UserWarning, match="masks or shared weights; what was written"):
        report = save_archive(model, tmp_path / "model.kpz")

    loaded = load_archive(tmp_path / "model.kpz")
    for dense in loaded.layers:
        assert type(dense) is layers.Dense
        assert len(np.unique(dense.kernel)) <= 9
    assert all(a.codebook in (8, 9) for a in report.arrays if len(a.shape) > 1)


@pytest.mark.parametrize(
    ("lookup", "data"),
    [(layers.StringLookup, [["a"], ["b"]]), (layers.IntegerLookup, [[3], [9]])],
)
def test_an_adapted_vocabulary_is_not_lost_in_silence(lookup, data, tmp_path):
    layer = lookup()
    layer.adapt(np.array(data))
    dtype = "string" if lookup is layers.StringLookup else "int64"
    inputs = keras.Input((1,), dtype=dtype)
    model = keras.Model(inputs, layers.Embedding(4, 2)(layer(inputs)))

    with pytest.raises(ArchiveError, match="was adapted, and what it learnt"):
        save_archive(model, tmp_path / "m.kpz")

    assert not (tmp_path / "m.kpz").exists()


def test_an_unregistered_class_is_named_before_the_file_is_written(tmp_path):
    class Twice(layers.Layer):
        def call(self, x):
            return 2 * x

    model = keras.Sequential([keras.Input((2,)), Twice()])

    with pytest.raises(ArchiveError, match="asks for 'Twice'(?!.*None).* registered"):
        save_archive(model, tmp_path / "m.kpz")


def test_a_model_quantized_by_keras_is_refused_with_a_way_out(tmp_path):
    model = models.cnn()
    model.layers[-1].quantize("int8")

    with pytest.raises(ArchiveError, match="'int8_from_float32'.* call `quantize` on"):
        save_archive(model, tmp_path / "m.kpz")


@keras.saving.register_keras_serializable("tests")
class Counting(Scaled):
    """Keeps a number beside its weights."""

    seen = 0

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["seen"] = np.array(self.seen)

    def load_own_variables(self, store):
        self.seen = int(store["seen"])


@keras.saving.register_keras_serializable("tests")
class InItsOwnOrder(Scaled):
    """Saves its weights by name, and nothing else."""

    def save_own_variables(self, store):
        store["scale"] = self.scale.numpy()

    def load_own_variables(self, store):
        self.scale.assign(store["scale"])


@keras.saving.register_keras_serializable("tests")
class WithFiles(Scaled):
    """Writes files beside its weights."""

    def save_assets(self, folder):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (
            Counting,
            r"\(Counting\) saves 'seen' \(`save_own_variables`\), which is in no",
        ),
        (WithFiles, "WithFiles.* writes files of its own .`save_assets`., which is"),
    ],
)
def test_state_beside_the_weights_is_not_lost_in_silence(cls, message, tmp_path):
    model = keras.Sequential([keras.Input((3,)), cls(2.0)])

    with pytest.raises(ArchiveError, match=message):
        save_archive(model, tmp_path / "m.kpz")


def test_weights_under_other_names_are_no_state(tmp_path):
    model = keras.Sequential([keras.Input((3,)), InItsOwnOrder(2.0)])

    save_archive(model, tmp_path / "m.kpz")

    assert_same_model(load_archive(tmp_path / "m.kpz"), model)


def test_defaults_that_a_later_keras_changes_change_no_archive(tmp_path, monkeypatch):
    model = models.resnet()
    save_archive(model, tmp_path / "model.kpz")
    layer = layers.BatchNormalization
    defaults = [0.5 if x == 0.99 else x for x in layer.__init__.__defaults__]
    monkeypatch.setattr(layer.__init__, "__defaults__", tuple(defaults))
    assert layer().momentum == 0.5

    assert_same_model(load_archive(tmp_path / "model.kpz"), model)


def test_a_size_that_loading_refuses_by_default_is_noted(tmp_path):
    padding = layers.ZeroPadding1D(3_000_000)
    model = keras.Sequential([keras.Input((2, 1)), padding, layers.Dense(1)])

    report = save_archive(model, tmp_path / "m.kpz")

    assert "note: load it with `max_bytes`, since otherwise: " in str(report)
    with pytest.raises(ArchiveError, match="padding=3000000, at most 1,"):
        load_archive(tmp_path / "m.kpz")
    loaded = load_archive(tmp_path / "m.kpz", max_bytes=3_000_000)
    assert_same_model(loaded, model)


def test_a_model_shared_in_place_is_refused_with_one_remedy(tmp_path):
    with pytest.warns(UserWarning, match="pruned in place"):
        shared = kprune.share_weights(bare(), bits=1)

    with pytest.raises(ArchiveError, match=r"get_config`, build .*kprune\.strip`\.$"):
        save_archive(shared, tmp_path / "m.kpz")


def test_frozen_layers_of_a_frozen_sequential_stay_frozen(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.trainable = False

    save_archive(model, tmp_path / "m.kpz")

    assert not load_archive(tmp_path / "m.kpz").trainable_weights


def test_an_argument_that_is_nan_is_no_difference(tmp_path):
    masking = layers.Masking(mask_value=float("nan"))
    model = keras.Sequential([keras.Input((3, 2)), masking, layers.Dense(2)])

    save_archive(model, tmp_path / "m.kpz")

    assert np.isnan(load_archive(tmp_path / "m.kpz").layers[0].mask_value)


@keras.saving.register_keras_serializable("tests")
class WithVariable(layers.Layer):
    """A layer whose variable is made from a value."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = keras.Variable(np.ones(3, "float32"), name="scale")

    def call(self, x):
        return x * self.scale


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.LSTM(2, stateful=True, name="s"), "'s' .LSTM. is stateful.*=F"),
        (lambda: layers.RNN(layers.GRUCell(2), stateful=True), "is stateful"),
        (
            lambda: WithVariable(name="w"),
            "class WithVariable makes a variable from a value.*self.add_weight",
        ),
    ],
)
def test_variables_made_from_values_are_named_with_the_remedy(layer, message, tmp_path):
    model = keras.Sequential([keras.Input(batch_shape=(1, 4, 3)), layer()])

    with pytest.raises(ArchiveError, match=message):
        save_archive(model, tmp_path / "m.kpz")

    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_place_of_the_file_is_refused_before_the_work(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder.*/model.kpz"):
        save_archive("no model at all", tmp_path)


def test_a_link_goes_on_pointing_to_the_file_that_is_replaced(tmp_path):
    (tmp_path / "v1.kpz").write_bytes(b"old")
    (tmp_path / "latest.kpz").symlink_to("v1.kpz")

    save_archive(models.cnn(), tmp_path / "latest.kpz")

    assert (tmp_path / "latest.kpz").is_symlink()
    assert load_archive(tmp_path / "v1.kpz").name == "cnn"


def test_nan_behind_a_mask_is_no_nan(tmp_path):
    model = kprune.prune(models.cnn())
    kprune.Pruner(model, kprune.ConstantSchedule(0.5)).step()
    layer = model.layers[0]
    layer.kernel.assign(np.where(layer.masks["kernel"], layer.kernel, np.nan))

    with pytest.warns(UserWarning, match="set up for training with masks"):
        save_archive(model, tmp_path / "m.kpz")

    assert np.isfinite(load_archive(tmp_path / "m.kpz").layers[0].kernel).all()
