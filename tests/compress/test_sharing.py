import copy
import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kprune
from kprune import whole_model
from kprune.compress.codebooks import codebook
from kprune.compress.sharing import is_shared, share_weights
from kprune.compress.sharing_store import SharedWeight, shared
from tests.checks import assert_equal, assert_plain, entries, values
from tests.layer_cases import CASES
from tests.subclassed_models import Bare, Net, bare, net
from tests.training_helpers import (
    BATCH,
    OwnStep,
    averages_of,
    build_optimizer,
    data,
    network,
    with_slow,
)

X, Y = data()


def two_layers(**first):
    return keras.Sequential(
        [
            keras.Input((6,), name="features"),
            layers.Dense(16, "tanh", name="first", **first),
            layers.Dense(3, name="second"),
        ]
    )


def half_zero(model):
    """Zeroes the smaller half of each kernel, as in a model that was stripped."""
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            array = np.array(variable)
            array.flat[np.argsort(np.abs(array), None)[: array.size // 2]] = 0
            variable.assign(array)
    return model


def train(model):
    """Trains for four steps; eagerly, since that takes the least time."""
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    model.fit(X[:32], Y[:32], batch_size=BATCH, verbose=0)


def shared_entries(model):
    return [e for e in entries(model) if isinstance(e, SharedWeight)]


def number_of_values(array):
    array = np.asarray(array)
    return len(np.unique(array[array != 0]))


def assert_held(model):
    """Members of a cluster are equal, index 0 is zero, averages likewise."""
    assert shared_entries(model)
    averages = averages_of(model)
    for entry in shared_entries(model):
        indices = entry.indices.numpy() * entry.mask.numpy()
        for variable in (entry.variable, averages.get(id(entry.variable))):
            if variable is not None:
                value = keras.ops.convert_to_numpy(variable).astype("float32")
                _, first, place = np.unique(
                    indices, return_index=True, return_inverse=True
                )
                equal = value.ravel()[first][place.reshape(indices.shape)]
                np.testing.assert_array_equal(value, equal)
                np.testing.assert_array_equal(value[indices == 0], 0)


class Spy(keras.callbacks.Callback):
    """Checks after every batch that sharing is held; counts the batches."""

    batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        assert_held(self.model)

    def on_test_begin(self, logs=None):
        assert_held(self.model)

    def on_train_end(self, logs=None):
        assert_held(self.model)


def test_weights_become_the_values_of_their_codebooks():
    model = two_layers()

    shared = share_weights(model, bits=3)

    for old, new in zip(model.layers, shared.layers, strict=True):
        centroids, indices = codebook(old.kernel.numpy(), 3)
        assert_equal(new.kernel.numpy(), centroids[indices])
        assert_equal(new.bias.numpy(), old.bias.numpy())


def test_input_model_is_left_as_it_is():
    model = two_layers()
    model.compile("adam", "mse")
    before = values(model)

    train(share_weights(model, bits=3))

    assert_equal(values(model), before)
    assert_plain(model)


def step_of_sgd(model, kernel, learning_rate):
    """The gradient of the mean squared error of one linear layer, by hand."""
    return learning_rate * 2 / Y.size * X.T @ (X @ kernel - Y)


def linear_model(kernel):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, use_bias=False)])
    model.layers[0].kernel.assign(kernel)
    return model


def mean_of_members(array, indices):
    """Each element replaced by the mean over those of its index; 0 stays out."""
    result = np.zeros_like(array)
    for index in range(1, indices.max() + 1):
        result[indices == index] = array[indices == index].mean()
    return result


@pytest.mark.parametrize("compiled", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_step_of_sgd_moves_a_centroid_by_the_mean_of_its_gradients(compiled):
    kernel = np.random.default_rng(2).normal(size=(6, 3)).astype("float32")
    kernel[0] = kernel[3, 1] = 0
    shared = share_weights(linear_model(kernel), bits=2)
    before = shared.layers[0].kernel.numpy()
    _, indices = codebook(kernel, 2)
    shared.compile(keras.optimizers.SGD(0.5), "mse", **compiled)

    shared.fit(X, Y, batch_size=len(X), verbose=0)

    after = shared.layers[0].kernel.numpy()
    step = step_of_sgd(shared, before, 0.5)
    expected = mean_of_members(before - step, indices)
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
    for index in range(1, 5):  # the paper's sum, over the size of the cluster
        members = indices == index
        moved = (before - after)[members][0]
        paper = step[members].sum()
        np.testing.assert_allclose(moved, paper / members.sum(), rtol=1e-4, atol=1e-6)


def test_step_of_adam_is_that_of_the_plain_model_averaged_over_members():
    plain = half_zero(two_layers())
    shared = share_weights(plain, bits=3)
    for entry in shared_entries(shared):
        plain.get_layer(entry.layer.name).kernel.assign(entry.variable)

    for model in (plain, shared):
        model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
        model.fit(X[:8], Y[:8], verbose=0)

    for entry in shared_entries(shared):
        kernel = plain.get_layer(entry.layer.name).kernel.numpy()
        expected = mean_of_members(kernel, entry.indices.numpy().astype(int))
        np.testing.assert_allclose(entry.variable.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_means_of_a_large_kernel_are_those_of_numpy(compiled, dtype):
    random = np.random.default_rng(0)
    weight = (random.normal(size=(150, 200)) + 3).astype(dtype)
    indices = random.integers(0, 9, weight.shape).astype("uint8")
    mask = random.random(weight.shape) < 0.3
    weight[~mask] = np.nan  # whatever was there

    means = tf.function(shared, jit_compile=compiled)(weight, indices, mask, 9).numpy()

    members = np.where(mask, indices, 0).astype(int)
    expected = mean_of_members(weight.astype("float64"), members).astype(dtype)
    np.testing.assert_allclose(means, expected, rtol=1e-12)  # thus equal, but doubles


def adam(**options):
    return lambda: keras.optimizers.Adam(0.01, **options)


def sgd(**options):
    return lambda: keras.optimizers.SGD(0.1, **options)


def scaled(make):
    # A low scale, so that no step is skipped because of an overflow.
    return lambda: keras.optimizers.LossScaleOptimizer(make(), initial_scale=2.0**6)


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of training."""

    optimizer: Callable = dataclasses.field(default_factory=adam)
    compile: dict = dataclasses.field(default_factory=dict)
    policy: str = "float32"
    model: Callable = network
    averaged: bool = False


ROWS = {
    "graph": Row(),
    "eager": Row(compile={"run_eagerly": True}),
    "jit": Row(compile={"jit_compile": True}),
    "sgd": Row(sgd()),
    "mixed_float16": Row(scaled(adam()), policy="mixed_float16"),
    "mixed_float16_sgd_jit": Row(
        scaled(sgd()), {"jit_compile": True}, policy="mixed_float16"
    ),
    "bfloat16": Row(sgd(), policy="bfloat16"),  # in which Keras' Adam stands still
    "ema": Row(adam(use_ema=True), averaged=True),
    "ema_sgd_jit": Row(
        sgd(use_ema=True, momentum=0.9), {"jit_compile": True}, averaged=True
    ),
    "ema_overwrite": Row(adam(use_ema=True, ema_overwrite_frequency=5), averaged=True),
    "accumulation": Row(adam(gradient_accumulation_steps=4)),
    "accumulation_sgd": Row(sgd(gradient_accumulation_steps=4)),
    "steps_per_execution": Row(compile={"steps_per_execution": 2}),
    "own_train_step": Row(model=lambda: network(OwnStep)),
}


# Pairs of what other rows train with alone.
IN_THE_SLOW_RUN = {
    "jit",
    "ema",
    "accumulation_sgd",
    "mixed_float16_sgd_jit",
    # Siblings of those: alone, on another optimizer, in another half precision.
    "eager",
    "sgd",
    "ema_overwrite",
    "bfloat16",
}


@pytest.mark.parametrize("name", with_slow(IN_THE_SLOW_RUN, ROWS))
def test_sharing_is_held_after_every_batch_of_every_training(name):
    row = ROWS[name]
    keras.config.set_dtype_policy(row.policy)
    try:
        shared = share_weights(half_zero(row.model()), bits=3)
    finally:
        keras.config.set_dtype_policy("float32")
    before = [e.variable.numpy().astype("float32") for e in shared_entries(shared)]
    shared.compile(row.optimizer(), "mse", **row.compile)
    build_optimizer(shared)
    spy = Spy()

    history = shared.fit(
        X[:48],
        Y[:48],
        batch_size=BATCH,
        epochs=2,
        validation_data=(X[:8], Y[:8]),
        verbose=0,
        callbacks=[spy],
    ).history

    assert spy.batches == (6 if name == "steps_per_execution" else 12)
    if row.policy != "bfloat16":  # in which Keras counts batches with eight bits
        assert history["loss"][-1] < history["loss"][0]
    assert bool(averages_of(shared)) == row.averaged
    for entry, old in zip(shared_entries(shared), before, strict=True):
        new = entry.variable.numpy().astype("float32")
        assert_equal(new == 0, old == 0)  # half of them
        assert (new == 0).sum() == new.size // 2
        assert number_of_values(new) <= 8
        assert not np.array_equal(new, old)


LAYERS = [
    "Dense",
    "EinsumDense",
    "Conv2D",
    "SeparableConv2D",
    "Embedding",
    "LSTM",
    "Bidirectional",
    "MultiHeadAttention",
    "layer used twice",
    "tied weights",
]


# Each has a sibling in `LAYERS` with weights of the same kind, or more of them.
SIBLINGS = {"Dense", "Conv2D", "Embedding", "Bidirectional", "MultiHeadAttention"}


@pytest.mark.parametrize(
    "case",
    with_slow(
        [c for c in CASES if c.name in SIBLINGS],
        [c for c in CASES if c.name in LAYERS],
    ),
    ids=lambda case: case.name,
)
def test_layer_shares_trains_saves_and_strips(case, tmp_path):
    model = case.build()
    x = case.inputs(16)
    y = np.random.default_rng(3).normal(size=(16, 3)).astype("float32")

    shared = share_weights(half_zero(model), bits=2)
    shared.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    shared.fit(x, y, batch_size=8, verbose=0)
    shared.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", safe_mode=False)

    assert_equal(loaded(x), shared(x))
    loaded.fit(x, y, batch_size=8, verbose=0)
    assert_held(loaded)
    paths = [e.path for e in shared_entries(loaded)]
    assert set(case.paths) <= {path.removeprefix("subject/") for path in paths}
    for entry in shared_entries(loaded):
        assert number_of_values(entry.variable) <= 4
        assert (entry.variable.numpy() == 0).mean() == pytest.approx(0.5, abs=0.1)
    stripped = kprune.strip(loaded)
    assert_plain(stripped)
    assert_equal(stripped(x), loaded(x))


@keras.saving.register_keras_serializable("kprune_sharing")
class OtherNet(Net):
    def call(self, inputs):
        return -super().call(inputs)


@pytest.mark.parametrize("model_class", [Net, OtherNet])
def test_subclassed_model_keeps_its_class_and_its_sharing(model_class, tmp_path):
    shared = share_weights(net(model_class), bits=3)
    train(shared)
    shared.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")

    assert isinstance(loaded, model_class)
    assert_equal(loaded(X), shared(X))
    train(loaded)
    assert_held(loaded)
    assert [number_of_values(e.variable) for e in shared_entries(loaded)] == [8, 8]
    assert_held(copy.deepcopy(loaded))


def test_subclassed_model_is_stripped_to_its_class():
    shared = share_weights(net(), bits=3)

    stripped = kprune.strip(shared)

    assert type(stripped) is Net
    assert_plain(stripped)
    assert_equal(stripped(X), shared(X))


def test_model_that_only_its_constructor_can_make_is_shared_in_place():
    model = bare()
    train(model)

    with pytest.warns(UserWarning, match="pruned in place"):
        shared = share_weights(model, bits=2)
    shared.fit(X, Y, batch_size=BATCH, verbose=0)

    assert shared is model
    assert_held(model)
    with pytest.warns(UserWarning, match="stripped in place"):
        assert_plain(kprune.strip(model))
    assert type(model) is Bare
    assert number_of_values(model.dense.kernel) == 4


def test_layers_of_nested_models_are_shared(tmp_path):
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, name="a"), layers.Dense(6, name="b")],
        name="inner",
    )
    model = keras.Sequential([inner, net(), layers.Dense(3, name="last")])
    model.build((None, 6))

    bits = {"head": 2, "inner": 1, "net": 3, "*": 4}
    shared = share_weights(model, bits=bits)
    train(shared)
    shared.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    train(loaded)

    assert_held(loaded)
    found = {e.layer.name: number_of_values(e.variable) for e in shared_entries(loaded)}
    # Nine weights need no more than nine values.
    assert found == {"a": 2, "b": 2, "body": 8, "head": 4, "last": 9}
    assert_plain(kprune.strip(shared))


# A file of weights is the part of a model's file that holds them, as is a copy.
@pytest.mark.parametrize(
    "how",
    with_slow({"weights", "deepcopy"}, ["keras", "weights", "checkpoint", "deepcopy"]),
)
def test_clusters_survive(how, tmp_path):
    plain = half_zero(two_layers())
    shared = share_weights(plain, bits=3)
    train(shared)
    # Made from other weights, so that what it holds is what is brought to it.
    new = share_weights(half_zero(two_layers()), bits=3)

    if how == "keras":
        shared.save(tmp_path / "m.keras")
        new = keras.saving.load_model(tmp_path / "m.keras")
    elif how == "weights":
        shared.save_weights(tmp_path / "m.weights.h5")
        new.load_weights(tmp_path / "m.weights.h5")
    elif how == "checkpoint":
        path = tf.train.Checkpoint(model=shared).save(str(tmp_path / "c"))
        tf.train.Checkpoint(model=new).restore(path).assert_existing_objects_matched()
    else:
        new = copy.deepcopy(shared)

    assert is_shared(new)
    for ours, theirs in zip(shared_entries(new), shared_entries(shared), strict=True):
        assert ours.indices is not theirs.indices
        assert_equal(ours.indices.numpy(), theirs.indices.numpy())
        assert_equal(ours.mask.numpy(), theirs.mask.numpy())
    assert_equal(new(X), shared(X))
    assert whole_model.clock_of(new) == 4
    train(new)
    assert_held(new)


def test_weights_of_a_larger_codebook_are_refused(tmp_path):
    model = two_layers()
    share_weights(model, bits=4).save_weights(tmp_path / "m.weights.h5")
    small = share_weights(model, bits=2)

    with pytest.raises(
        ValueError, match="16 shared values in 'kernel' of 'first'; .* for 4 there"
    ):
        small.load_weights(tmp_path / "m.weights.h5")


def test_refused_weights_leave_indices_and_masks_as_they_were(tmp_path):
    model = two_layers()
    share_weights(model, bits=4).save_weights(tmp_path / "m.weights.h5")
    small = share_weights(model, bits=2)
    before = [(e.indices.numpy(), e.mask.numpy()) for e in shared_entries(small)]

    with pytest.raises(ValueError, match="16 shared values"):
        small.load_weights(tmp_path / "m.weights.h5")

    for entry, (indices, mask) in zip(shared_entries(small), before, strict=True):
        assert_equal(entry.indices.numpy(), indices)
        assert_equal(entry.mask.numpy(), mask)
    train(small)
    assert_held(small)


@pytest.mark.parametrize("make", [two_layers, net])
def test_what_was_written_past_the_clusters_is_stripped_to_their_means(make):
    shared = share_weights(half_zero(make()), bits=3)
    written = np.random.default_rng(5)
    for entry in shared_entries(shared):
        entry.variable.assign(written.normal(size=entry.variable.shape))

    stripped = kprune.strip(shared)

    kernels = [w for w in stripped.weights if len(w.shape) > 1]
    for entry, kernel in zip(shared_entries(shared), kernels, strict=True):
        members = entry.indices.numpy().astype(int) * entry.mask.numpy()
        expected = mean_of_members(entry.variable.numpy().astype("float64"), members)
        np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-6)
        assert number_of_values(kernel) <= 8


def test_warning_of_a_model_that_is_not_stripped_speaks_of_shared_weights(tmp_path):
    with pytest.warns(UserWarning, match="kprune.save_archive: .* or shared weights"):
        kprune.save_archive(share_weights(two_layers(), bits=2), tmp_path / "m.kpz")


def test_strip_changes_no_bit_of_what_is_held():
    shared = share_weights(half_zero(two_layers()), bits=3)
    train(shared)

    stripped = kprune.strip(shared)

    for entry, layer in zip(shared_entries(shared), stripped.layers, strict=True):
        assert entry.variable.numpy().tobytes() == layer.kernel.numpy().tobytes()


def test_masks_and_clock_of_a_pruned_model_go_on():
    pruned = kprune.prune(two_layers())
    train(pruned)
    kprune.Pruner(pruned, kprune.ConstantSchedule(0.75)).step()

    shared = share_weights(pruned, bits=4)
    train(shared)

    assert whole_model.clock_of(shared) == 8
    for ours, theirs in zip(shared_entries(shared), entries(pruned), strict=True):
        assert_equal(ours.mask.numpy(), theirs.mask.numpy())
        assert_equal(ours.variable.numpy() == 0, ~theirs.mask.numpy())
    assert_held(shared)


def test_pruning_goes_on_in_a_shared_model():
    shared = share_weights(two_layers(), bits=3)
    shared.compile("adam", "mse", run_eagerly=True)
    pruning = kprune.PruningCallback(kprune.PolynomialSchedule(0.75, end_step=12))

    shared.fit(X, Y, BATCH, epochs=2, verbose=0, callbacks=[pruning, Spy()])

    for entry in shared_entries(shared):
        assert (entry.variable.numpy() == 0).mean() == 0.75
        assert number_of_values(entry.variable) <= 8


def test_step_that_changes_nothing_changes_no_bit():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(20_000, name="wide")])
    shared = share_weights(model, bits=1)
    before = values(shared)
    shared.compile(keras.optimizers.SGD(0.0), "mse")

    shared.fit(X[:8], np.zeros((8, 20_000)), batch_size=1, verbose=0)

    assert_equal(values(shared)[0], before[0])


def test_only_and_skip_choose_as_in_prune():
    model = two_layers()

    for options in ({"only": "first"}, {"only": model.layers[0]}, {"skip": "sec*"}):
        shared = share_weights(model, bits=2, **options)

        assert [e.layer.name for e in shared_entries(shared)] == ["first"]
        assert type(shared.layers[1]) is layers.Dense


def test_what_only_leaves_out_keeps_its_masks():
    pruned = kprune.prune(two_layers())
    kprune.Pruner(pruned, kprune.ConstantSchedule(0.5)).step()

    shared = share_weights(pruned, bits=2, only="first")
    train(shared)

    assert [e.layer.name for e in shared_entries(shared)] == ["first"]
    second = shared.get_layer("second")
    assert (second.kernel.numpy() == 0).mean() == 0.5
    assert number_of_values(second.kernel) == 24


def test_first_pattern_that_matches_gives_the_bits():
    shared = share_weights(two_layers(), bits={"sec*": 1, "*": 3})

    found = {e.layer.name: number_of_values(e.variable) for e in shared_entries(shared)}
    assert found == {"first": 8, "second": 2}


def test_codebooks_of_more_than_a_byte_are_held():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(200, name="wide")])

    shared = share_weights(model, bits=8)
    shared.compile("adam", "mse")
    shared.fit(X[:16], np.ones((16, 200)), BATCH, verbose=0)

    assert_held(shared)
    assert number_of_values(shared.layers[0].kernel) == 256


def test_sharing_that_there_is_can_be_kept():
    once = share_weights(half_zero(two_layers()), bits=3)
    train(once)

    again = share_weights(kprune.strip(once), bits=None)
    train(again)

    for ours, theirs in zip(shared_entries(again), shared_entries(once), strict=True):
        assert number_of_values(ours.variable) == 8
        assert_equal(ours.mask.numpy(), theirs.mask.numpy())
    assert_held(again)


def test_shared_model_can_be_shared_with_fewer_bits():
    shared = share_weights(share_weights(half_zero(two_layers()), bits=4), bits=2)

    train(shared)

    assert_held(shared)
    assert [number_of_values(e.variable) for e in shared_entries(shared)] == [4, 4]


def test_frozen_layers_are_left_alone():
    model = two_layers()
    model.layers[0].trainable = False

    shared = share_weights(model, bits=2)
    train(shared)

    assert [e.layer.name for e in shared_entries(shared)] == ["second"]
    assert_equal(shared.layers[0].kernel.numpy(), model.layers[0].kernel.numpy())
    reasons = {w.layer: w.reason for w in kprune.summary(shared, None).masked}
    assert reasons == {"first": "frozen; pruned once it is trained", "second": ""}


def test_layer_frozen_later_does_not_move():
    shared = share_weights(two_layers(), bits=2)
    shared.layers[0].trainable = False
    before = shared.layers[0].kernel.numpy().copy()

    train(shared)

    assert_equal(shared.layers[0].kernel.numpy(), before)
    assert_held(shared)


def test_user_constraint_runs_before_sharing_and_comes_back():
    model = two_layers(kernel_constraint="non_neg")
    model.layers[0].kernel.assign(np.abs(model.layers[0].kernel))
    shared = share_weights(model, bits=3)
    shared.compile(keras.optimizers.SGD(3.0), "mse")

    shared.fit(X, Y, BATCH, verbose=0)

    assert shared.layers[0].kernel.numpy().min() >= 0
    assert_held(shared)
    stripped = kprune.strip(shared).layers[0]
    assert type(stripped.kernel.constraint) is keras.constraints.NonNeg


def test_export_writes_the_shared_values(tmp_path):
    shared = share_weights(half_zero(two_layers()), bits=2)

    with pytest.warns(UserWarning, match="strip"):
        report = kprune.export(shared, tmp_path / "out", formats="tflite")

    assert report.weights == 6 * 16 + 16 + 16 * 3 + 3


def test_mirrored_replicas_share_alike():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        shared = share_weights(two_layers(), bits=2)
        shared.compile("sgd", "mse")

    shared.fit(X, Y, BATCH, verbose=0)

    for layer in shared.layers:
        assert number_of_values(layer.kernel) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 0}, "bits=0 must be an int from 1 to 12"),
        ({"bits": {"*": 13}}, "bits=13 must be"),
        ({"bits": {"thrid": 3}}, "'thrid', which matches no layer. .* 'first', 'sec"),
        ({"bits": {"first": 3}}, "bits says nothing of the layer 'second'"),
        ({"bits": 3, "only": "thrid"}, "only got 'thrid', which matches no layer"),
        ({"initialization": "kmeans"}, "'kernel' of 'first': 'kmeans' is none of"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        share_weights(two_layers(), **options)


def test_models_that_cannot_be_shared_are_refused():
    unbuilt = keras.Sequential([layers.Dense(2)], name="unbuilt")
    frozen = two_layers()
    frozen.trainable = False
    spoiled = two_layers()
    spoiled.layers[1].kernel.assign(np.full((16, 3), np.nan))
    large = keras.Sequential([keras.Input((80,)), layers.Dense(80, name="large")])

    with pytest.raises(ValueError, match="'unbuilt' has no weights yet"):
        share_weights(unbuilt)
    with pytest.raises(ValueError, match="all of its prunable layers are frozen"):
        share_weights(frozen)
    with pytest.raises(ValueError, match="'kernel' of 'second': 48 of 48 weights are"):
        share_weights(spoiled)
    with pytest.raises(ValueError, match="'large': More than 4,096 distinct values"):
        share_weights(large, bits=None)
    with pytest.raises(TypeError, match="Expected a keras.Model"):
        share_weights("model.keras")


def test_weight_behind_a_mask_counts_as_zero():
    pruned = kprune.prune(two_layers())
    kprune.Pruner(pruned, kprune.ConstantSchedule(0.5)).step()
    removed = ~pruned.layers[0].masks["kernel"].numpy()
    pruned.layers[0].kernel.assign(np.ones((6, 16)))

    shared = share_weights(pruned, bits=2)

    assert_equal(shared.layers[0].kernel.numpy() == 0, removed)


@pytest.mark.parametrize(
    ("make", "first", "second"),
    [(two_layers, "first", "second"), (net, "body", "head")],
)
def test_sharing_one_layer_more_leaves_all_others_as_they_are(make, first, second):
    pruned = kprune.prune(make())
    kprune.Pruner(pruned, kprune.ConstantSchedule(0.5)).step()
    kprune.set_clock(pruned, 7)
    shared_first = share_weights(pruned, bits=2, only=first)
    before = [e.variable.numpy() for e in entries(shared_first)]
    masks = [e.mask.numpy() for e in entries(shared_first)]

    both = share_weights(shared_first, bits=3, only=second)

    clustered, later = entries(both)
    np.testing.assert_array_equal(clustered.variable, before[0])
    assert (clustered.size, later.size) == (5, 9)
    for entry, mask in zip(entries(both), masks, strict=True):
        np.testing.assert_array_equal(entry.mask, mask)
    assert whole_model.clock_of(both) == 7
    train(both)
    assert_held(both)


def test_masks_that_sharing_one_layer_anew_leaves_out_go_on():
    pruned = kprune.prune(two_layers())
    kprune.Pruner(pruned, kprune.ConstantSchedule(0.5)).step()
    shared_second = share_weights(pruned, bits=2, only="second")

    again = share_weights(shared_second, bits=1, only="second")

    assert [isinstance(e, SharedWeight) for e in entries(again)] == [False, True]
    np.testing.assert_array_equal(entries(again)[0].mask, entries(pruned)[0].mask)
    assert entries(again)[1].size == 3


def test_model_shared_in_part_of_a_layer_is_loaded_again(tmp_path):
    inputs = keras.Input((4, 6))
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    pruned = kprune.prune(keras.Model(inputs, attention(inputs, inputs)))
    model = share_weights(pruned, bits=2, skip="query")

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert 0 < len(shared_entries(loaded)) < len(entries(loaded))
    assert_held(loaded)
    for entry, other in zip(entries(loaded), entries(model), strict=True):
        np.testing.assert_array_equal(entry.variable, other.variable)
