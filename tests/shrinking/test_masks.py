"""Masks on whole channels while a model trains, and the model without them."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune import ties, whole_model
from kprune.shrinking import ShrinkError
from tests.channels.exactness import outputs_of, random_inputs, randomised
from tests.channels.random_graphs import Builder
from tests.checks import assert_plain, computing_in, pruned_at_once
from tests.training_helpers import with_slow

HALF = kprune.ConstantSchedule(0.5)
IMAGE = (6, 6, 3)


def _dense(activation):
    def build():
        x = inputs = keras.Input((5,))
        for width in (8, 6):
            x = layers.Dense(width, activation)(x)
        return inputs, layers.Dense(3)(x)

    return build


def _normalized(activation):
    def build():
        inputs = keras.Input(IMAGE)
        x = layers.Conv2D(8, 3, use_bias=False)(inputs)
        x = layers.Activation(activation)(layers.BatchNormalization()(x))
        return inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))

    return build


def _depthwise():
    inputs = keras.Input(IMAGE)
    x = layers.Conv2D(8, 1)(inputs)
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3)(x))
    x = layers.Conv2D(8, 3, groups=8)(layers.Activation("sigmoid")(x))
    return inputs, layers.Conv2D(4, 1)(layers.Activation("softplus")(x))


def _multiplied():
    inputs = keras.Input(IMAGE)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(layers.Conv2D(4, 1)(inputs))
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, activation="sigmoid")(x)
    return inputs, layers.Conv2D(4, 1)(x)


def _residual():
    inputs = keras.Input(IMAGE)
    x = layers.Conv2D(8, 1, name="stem")(inputs)
    for name in ("first", "second"):
        y = layers.Activation("sigmoid")(layers.BatchNormalization()(x))
        y = layers.Conv2D(6, 3, padding="same", name=f"{name}_in")(y)
        y = layers.Activation("softplus")(y)
        x = layers.Add()([x, layers.Conv2D(8, 1, name=f"{name}_out")(y)])
    x = layers.Activation("sigmoid")(x)
    return inputs, layers.Dense(3, name="head")(layers.Flatten()(x))


def _concatenated():
    inputs = keras.Input(IMAGE)
    parts = [layers.Conv2D(n, 1, activation="sigmoid")(inputs) for n in (6, 4)]
    x = layers.BatchNormalization()(layers.Concatenate()(parts))
    x = layers.Add()([x, layers.Conv2D(10, 1)(inputs)])
    return inputs, layers.Conv2D(2, 3)(layers.Activation("sigmoid")(x))


def _split():
    inputs = keras.Input((5,))
    left, right = ops.split(layers.Dense(12, "sigmoid", name="wide")(inputs), 2, -1)
    left = layers.Dense(6, "sigmoid", name="left")(left)
    right = layers.Dense(6, "softplus", name="right")(right)
    return inputs, layers.Dense(2, name="head")(layers.Add()([left, right]))


def _grouped():
    inputs = keras.Input(IMAGE)
    x = layers.Conv2D(8, 1, activation="sigmoid")(inputs)
    x = layers.Conv2D(12, 3, groups=2, activation="softplus")(x)
    return inputs, layers.Conv2D(2, 1)(x)


def _transposed():
    inputs = keras.Input(IMAGE)
    x = layers.Conv2DTranspose(8, 2, 2, activation="sigmoid")(inputs)
    return inputs, layers.Conv2DTranspose(2, 3)(x)


def _recurrent():
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Embedding(9, 6)(inputs)
    x = layers.LSTM(8, return_sequences=True)(x)
    x = layers.Bidirectional(layers.GRU(6))(x)
    return inputs, layers.Dense(3)(x)


def _nested():
    body = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, "sigmoid"), layers.Dense(8, "softplus")],
        name="body",
    )
    inputs = keras.Input((5,))
    x = layers.Dense(8, "sigmoid")(inputs)
    return inputs, layers.Dense(3)(body(body(x)))


def _einsum():
    inputs = keras.Input((4, 5))
    x = layers.EinsumDense("btc,cd->btd", (None, 8), activation="sigmoid")(inputs)
    x = layers.TimeDistributed(layers.Dense(6, "softplus"))(x)
    return inputs, layers.Dense(3)(x)


def _encoder():
    inputs = keras.Input((4, 8))
    x = layers.LayerNormalization()(inputs)
    x = layers.Add()([inputs, layers.Dense(8, name="stays")(x)])
    y = layers.Dense(16, "gelu", name="up")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(8, name="down")(y)])
    return inputs, layers.Dense(3, name="head")(x)


MODELS = {
    "dense_sigmoid": _dense("sigmoid"),
    "dense_softplus": _dense("softplus"),
    "normalized_sigmoid": _normalized("sigmoid"),
    "normalized_softplus": _normalized("softplus"),
    "depthwise": _depthwise,
    "multiplied": _multiplied,
    "residual": _residual,
    "concatenated": _concatenated,
    "split": _split,
    "grouped": _grouped,
    "transposed": _transposed,
    "recurrent": _recurrent,
    "nested": _nested,
    "einsum": _einsum,
    "encoder": _encoder,
}


def model_of(name):
    return randomised(keras.Model(*MODELS[name](), name="model"))


def assert_same(model, small, tolerance=1e-5):
    """Checks that two models put out the same for random inputs."""
    inputs = random_inputs(model)
    for theirs, ours in zip(
        outputs_of(model, inputs), outputs_of(small, inputs), strict=True
    ):
        largest = np.abs(theirs).max()
        assert largest > 0
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


def channels_left(model):
    """Returns the fractions of output channels that the masks of kernels leave."""
    masks = {e.name.layer: e.mask.numpy() for e in whole_model.masked_weights(model)}
    return {n: m.any(tuple(range(m.ndim - 1))).mean() for n, m in masks.items()}


@pytest.mark.parametrize("name", MODELS)
def test_removing_what_is_masked_changes_nothing(name):
    pruned = pruned_at_once(model_of(name), granularity="channel")

    small = kprune.shrink(pruned)

    assert_plain(small)
    assert small.count_params() < 0.8 * kprune.strip(pruned).count_params()
    assert_same(pruned, small)
    assert_same(kprune.strip(pruned), small)


@pytest.fixture
def float64():
    """Lets rounding hide nothing."""
    with computing_in("float64"):
        yield


@pytest.mark.parametrize(
    "seed",
    [pytest.param(s, marks=pytest.mark.slow if s > 1 else ()) for s in range(99)],
)
def test_removing_what_is_masked_changes_nothing_in_random_models(seed, float64):
    generator = np.random.default_rng(seed)
    builder = Builder(lambda items: items[generator.integers(len(items))], seed % 2)
    model = randomised(builder.model(6), seed)

    try:
        pruned = kprune.prune(model, granularity="channel")
    except ValueError as error:
        assert "its channels" in str(error)
        return
    scope = "global" if seed % 3 else "layer_wise"
    kprune.Pruner(pruned, HALF, scope=scope).step()

    assert_same(pruned, kprune.shrink(pruned), 1e-9)


def trained(model, epochs=2, jit_compile=False, sparsity=0.5, last=6, **kwargs):
    """Trains a model while channels are masked."""
    # To compile takes longer than these few steps.
    model.compile("sgd", "mse", jit_compile=jit_compile, run_eagerly=not jit_compile)
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 5, size=(24, *model.input_shape[1:]))
    y = generator.normal(size=np.shape(model(x)))
    schedule = kprune.LinearSchedule(sparsity, 0, last, frequency=2)
    if kwargs.pop("with_data", False):
        kwargs["calibration_data"] = (x, y)
    callbacks = [kprune.PruningCallback(schedule, **kwargs)]
    model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["DenseNet121", "EfficientNetB0", "MobileNetV2", "ResNet50V2"]
)
def test_removing_what_is_masked_changes_nothing_in_large_models(name):
    build = getattr(keras.applications, name)
    arguments = {"weights": None, "classes": 10, "classifier_activation": None}
    model = build(input_shape=(64, 64, 3), **arguments)
    generator = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("beta", "gamma", "bias", "moving_mean"):
            noise = generator.normal(0, 0.1, variable.shape)
            variable.assign(np.asarray(variable) + noise)

    pruned = pruned_at_once(model, granularity="channel")
    small = kprune.shrink(pruned)

    assert small.count_params() < 0.4 * model.count_params()
    assert_same(pruned, small)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_what_is_masked_stays_hidden_while_any_model_trains(name, jit_compile):
    model = kprune.prune(model_of(name), granularity="channel")

    trained(model, epochs=4, jit_compile=jit_compile)

    small = kprune.shrink(model)
    assert small.count_params() < 0.8 * kprune.strip(model).count_params()
    assert_same(model, small)


@pytest.mark.parametrize(  # eagerly all of these tests train
    "jit_compile", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_what_is_masked_stays_hidden_while_the_model_trains(jit_compile):
    model = kprune.prune(model_of("dense_softplus"), granularity="channel")

    trained(model, epochs=4, jit_compile=jit_compile)

    small = kprune.shrink(model)
    assert [layer.units for layer in small.layers[1:]] == [4, 3, 3]
    assert_same(model, small)


def residual_dense():
    """Returns a small model that trains fast, with units in families of all kinds."""
    inputs = keras.Input((5,))
    x = layers.Dense(8, name="stem")(inputs)
    for name in ("first", "second"):
        y = layers.Activation("sigmoid")(layers.BatchNormalization()(x))
        y = layers.Dense(6, "softplus", name=f"{name}_in")(y)
        x = layers.Add()([x, layers.Dense(8, name=f"{name}_out")(y)])
    outputs = layers.Dense(3, name="head")(layers.Activation("sigmoid")(x))
    return randomised(keras.Model(inputs, outputs, name="model"))


@pytest.mark.parametrize(
    "scope",
    [
        "layer_wise",
        "global",
        "erk",
        # Siblings of the scopes above.
        pytest.param("erdos_renyi", marks=pytest.mark.slow),
        pytest.param(kprune.Sparing("global", first=0.4), marks=pytest.mark.slow),
        pytest.param(kprune.Global(max_layer_sparsity=0.7), marks=pytest.mark.slow),
        kprune.PerLayer({"stem": 0.5, "second_in": 1 / 3}),
    ],
    ids=str,
)
def test_any_scope_says_what_goes(scope):
    model = kprune.prune(residual_dense(), granularity="channel")

    kprune.Pruner(model, HALF, scope=scope).step()

    left = channels_left(model)
    assert left["stem"] == left["first_out"] == left["second_out"]
    assert 0 < min(left.values()) < 1
    assert_same(model, kprune.shrink(model))


# Of criteria by weights, by data and by training one each; the slow ones are second.
@pytest.mark.parametrize(
    "criterion",
    with_slow(
        {"taylor", "random", "layer_adaptive"},
        ["geometric_median", "taylor", "apoz", "random", "layer_adaptive", "movement"],
    ),
)
def test_any_criterion_says_what_goes(criterion):
    x = inputs = keras.Input((5,))
    for width in (8, 6):
        x = layers.ReLU()(layers.Dense(width)(x))
    model = randomised(keras.Model(inputs, layers.Dense(3)(x)))
    model = kprune.prune(model, granularity="channel")

    with_data = criterion in ("taylor", "apoz")
    trained(model, 3, criterion=criterion, with_data=with_data)

    assert set(channels_left(model).values()) == {0.5}
    assert_same(model, kprune.shrink(model))


def test_scales_of_normalizations_say_what_goes():
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, use_bias=False, name="dense"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(3, name="head"),
        ]
    )
    randomised(model).get_layer("norm").gamma.assign([0.1, -3, 2, -0.2])

    pruned = kprune.prune(model, granularity="channel")
    kprune.Pruner(pruned, HALF, criterion="batch_norm_scale").step()

    np.testing.assert_allclose(pruned.get_layer("norm").gamma, [0, -3, 2, 0])


def test_channels_that_are_added_are_ranked_by_the_mean_over_all_their_weights():
    inputs = keras.Input((2,))
    x = layers.Add()([layers.Dense(3, name=n)(inputs) for n in ("a", "b")])
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    model.get_layer("a").kernel.assign([[1, 5, 3], [1, -5, 3]])
    model.get_layer("b").kernel.assign([[7, 1, 2], [7, 1, -2]])

    pruned = pruned_at_once(model, 1 / 3, granularity="channel")

    # The means are 4, 3 and 2.5.
    for name in ("a", "b"):
        np.testing.assert_array_equal(
            pruned.get_layer(name).masks["kernel"], [[True, True, False]] * 2
        )
    assert not pruned.get_layer("head").masks
    np.testing.assert_array_equal(
        np.asarray(pruned.get_layer("head").kernel).any(1), [True, True, False]
    )


def test_a_layer_that_makes_a_part_of_a_sum_has_a_part_of_its_units():
    inputs = keras.Input((2,))
    parts = [layers.Dense(2, name=n)(inputs) for n in ("a", "b")]
    whole = layers.Dense(4, name="whole")(inputs)
    x = layers.Add()([layers.Concatenate()(parts), whole])
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.get_layer("a").kernel.assign([[1, 5], [1, 5]])
    model.get_layer("b").kernel.assign([[9, 2], [9, 2]])
    model.get_layer("whole").kernel.assign([[2, 1, 1, 2], [2, 1, 1, 2]])

    pruned = pruned_at_once(model, 0.5, granularity="channel")

    # The means are 1.5, 3, 5 and 2.
    expected = {"a": [0, 1], "b": [1, 0], "whole": [0, 1, 1, 0]}
    for name, kept in expected.items():
        np.testing.assert_array_equal(
            pruned.get_layer(name).masks["kernel"], [kept] * 2
        )


def test_a_split_leaves_something_of_each_part():
    model = model_of("split")
    kernel = np.asarray(model.get_layer("wide").kernel) * ([0.01] * 6 + [1] * 6)
    model.get_layer("wide").kernel.assign(kernel)

    pruned = pruned_at_once(model, 0.75, granularity="channel")

    kept = pruned.get_layer("wide").masks["kernel"].numpy().any(0)
    assert (kept[:6].sum(), kept[6:].sum()) == (1, 2)
    assert_same(pruned, kprune.shrink(pruned))


def test_no_layer_loses_all_its_channels_to_others():
    model = model_of("dense_sigmoid")
    model.layers[1].kernel.assign(np.asarray(model.layers[1].kernel) / 1000)

    pruned = kprune.prune(model, granularity="channel")
    kprune.Pruner(pruned, kprune.ConstantSchedule(0.6), scope="global").step()

    assert pruned.layers[1].masks["kernel"].numpy().any(0).sum() == 1
    assert_same(pruned, kprune.shrink(pruned))


def test_a_layer_of_one_unit_keeps_it():
    x = inputs = keras.Input((5,))
    for width in (1, 8):
        x = layers.Dense(width, "sigmoid", name=f"of_{width}")(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    model.get_layer("of_1").kernel.assign(np.full((5, 1), 1e-3))

    pruned = kprune.prune(model, granularity="channel")
    kprune.Pruner(pruned, HALF, scope="global").step()

    assert np.asarray(pruned.get_layer("of_1").kernel).all()
    assert kprune.shrink(pruned).get_layer("of_8").units == 4


def test_sparsity_counts_the_channels_of_kernels_and_nothing_that_follows():
    pruned = kprune.prune(residual_dense(), granularity="channel")
    pruner = kprune.Pruner(pruned, HALF)

    pruner.step()

    assert pruner.sparsity == pruner.measure() == 0.5
    assert set(channels_left(pruned).values()) == {0.5}
    summary = kprune.summary(pruned, print_fn=None)
    assert {w.layer for w in summary.masked} == {
        "stem",
        *(f"{name}_{end}" for name in ("first", "second") for end in ("in", "out")),
    }


def test_what_stays_dense_is_listed_with_its_reason():
    pruned = kprune.prune(model_of("encoder"), granularity="channel")

    kernels = [
        w for w in kprune.summary(pruned, print_fn=None).weights if w.weight == "kernel"
    ]

    reasons = {w.layer: w.reason for w in kernels}
    assert reasons.pop("up") == ""
    assert "its channels are the model's outputs" in reasons.pop("head")
    for reason in reasons.values():
        assert reason.startswith("its channels can't be removed: add")
    assert list(reasons) == ["stays", "down"]


@pytest.mark.parametrize("arguments", [{"skip": "first_out"}, {"only": "*_in"}])
def test_a_layer_that_is_left_out_keeps_what_its_channels_go_with(arguments):
    model = residual_dense()

    pruned = pruned_at_once(model, granularity="channel", **arguments)

    masked = [e.name.layer for e in whole_model.masked_weights(pruned)]
    assert masked == ["first_in", "second_in"]
    records = kprune.summary(pruned, print_fn=None).weights
    (stem,) = [w for w in records if w.layer == "stem" and w.weight == "kernel"]
    assert "its channels go together with those of 'first_out'" in stem.reason
    assert_same(pruned, kprune.shrink(pruned))


def test_a_frozen_layer_keeps_what_its_channels_go_with():
    model = kprune.prune(residual_dense(), granularity="channel")
    model.get_layer("second_out").trainable = False

    kprune.Pruner(model, kprune.ConstantSchedule(0.25), scope="global").step()

    left = channels_left(model)
    assert left["stem"] == left["first_out"] == left["second_out"] == 1
    assert left["first_in"] < 1
    records = kprune.summary(model, print_fn=None).weights
    (stem,) = [w for w in records if w.layer == "stem" and w.weight == "kernel"]
    assert stem.reason.endswith("'second_out', which is frozen")
    assert_same(model, kprune.shrink(model))


def test_layers_that_only_followed_can_be_pruned_later():
    model = residual_dense()
    first = pruned_at_once(model, granularity="channel", only="first_in")

    both = pruned_at_once(first, granularity="channel", only="second_in")

    masked = [e.name.layer for e in whole_model.masked_weights(both)]
    assert masked == ["first_in", "second_in"]
    np.testing.assert_array_equal(
        both.get_layer("first_in").masks["kernel"],
        first.get_layer("first_in").masks["kernel"],
    )
    small = kprune.shrink(both)
    assert [small.get_layer(name).units for name in masked] == [3, 3]
    assert_same(both, small)


def test_masks_survive_saving_in_the_middle(tmp_path):
    model = kprune.prune(residual_dense(), granularity="channel")
    trained(model, 1, last=2)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    for ours, theirs in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert_same(model, kprune.shrink(loaded))
    trained(loaded, 2, sparsity=0.75)
    assert max(channels_left(loaded).values()) < 0.5
    assert_same(loaded, kprune.shrink(loaded))


def test_masks_are_held_before_the_first_update_of_a_resumed_run(tmp_path):
    model = pruned_at_once(residual_dense(), granularity="channel")
    model.save_weights(tmp_path / "model.weights.h5")
    resumed = kprune.prune(residual_dense(), granularity="channel")
    resumed.load_weights(tmp_path / "model.weights.h5")
    resumed.compile("sgd", "mse", run_eagerly=True)

    resumed.train_on_batch(np.ones((2, 5)), np.ones((2, 3)))

    assert kprune.shrink(resumed).get_layer("stem").units == 4


def test_a_second_training_goes_on_from_the_masks():
    model = trained(kprune.prune(residual_dense(), granularity="channel"))
    before = channels_left(model)

    again = kprune.prune(model, granularity="channel")
    trained(again, 3, sparsity=2 / 3, start="fit")

    assert set(before.values()) == {0.5}
    assert max(channels_left(again).values()) <= 0.5
    assert_same(again, kprune.shrink(again))


def test_what_follows_stays_gone_when_weights_are_rewound():
    model = kprune.prune(residual_dense(), granularity="channel")

    trained(model, 3, regrowth=kprune.Rewind())

    small = kprune.shrink(model)
    assert small.get_layer("stem").units == 4
    assert_same(model, small)


def test_a_model_of_code_around_a_pruned_graph_masks_all_that_follows():
    class Around(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def call(self, inputs):
            return self.inner(inputs)

    inner = kprune.prune(residual_dense(), granularity="channel")
    model = Around(inner)
    model(np.ones((1, 5)))

    kprune.Pruner(model, HALF).step()

    assert_same(inner, kprune.shrink(inner))


def test_own_constraints_see_nothing_of_what_is_gone():
    x = inputs = keras.Input((5,))
    x = layers.Dense(8, "sigmoid")(x)
    x = layers.Dense(6, "relu", kernel_constraint="unit_norm", name="bound")(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    pruned = kprune.prune(model, granularity="channel")

    trained(pruned, 3)

    norms = np.linalg.norm(np.asarray(pruned.get_layer("bound").kernel), axis=0)
    np.testing.assert_allclose(norms[norms > 0], 1, rtol=1e-5)
    assert np.count_nonzero(norms) == 3


def test_averages_of_weights_lose_the_channels_too():
    model = kprune.prune(residual_dense(), granularity="channel")
    optimizer = keras.optimizers.Adam(use_ema=True, ema_overwrite_frequency=None)
    model.compile(optimizer, "mse", run_eagerly=True)
    callback = kprune.PruningCallback(kprune.ConstantSchedule(0.5, begin_step=2))

    x, y = np.ones((24, 5)), np.ones((24, 3))
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[callback])

    small = kprune.shrink(model)
    assert small.get_layer("stem").units == 4
    assert_same(model, small)


def test_a_model_with_following_masks_can_be_shared_and_stripped():
    model = pruned_at_once(model_of("dense_sigmoid"), granularity="channel")

    shared = kprune.share_weights(model, bits=3)

    plain = kprune.strip(shared)
    assert_plain(plain)
    assert [layer.units for layer in kprune.shrink(plain).layers[1:]] == [4, 3, 3]


def test_a_head_can_get_masks_of_its_own_beside_those_that_follow():
    model = pruned_at_once(residual_dense(), granularity="channel")

    both = kprune.prune(model, only="head")
    kprune.Pruner(both, kprune.ConstantSchedule(0.6)).step()

    head = np.asarray(both.get_layer("head").kernel)
    inputs_left = np.asarray(model.get_layer("head").kernel).any(1)
    assert not head[~inputs_left].any()
    assert both.get_layer("head").masks["kernel"].shape == head.shape
    assert_same(both, kprune.shrink(both))


def test_uncoupled_channels_leave_everything_else_as_it_is():
    model = model_of("dense_sigmoid")

    pruned = pruned_at_once(model, granularity=kprune.Channel(coupled=False))

    assert [type(layer) is layers.Dense for layer in pruned.layers[1:]] == [
        False,
        False,
        True,
    ]
    for ours, theirs in zip(pruned.layers[1:], model.layers[1:], strict=True):
        np.testing.assert_array_equal(ours.bias, theirs.bias)
    assert (np.asarray(pruned.layers[2].kernel) != 0).mean() == 0.5
    with pytest.raises(ShrinkError, match="The kernels of some channels of the model"):
        kprune.shrink(pruned)


def test_zeros_that_can_not_go_stay_and_are_named_beside_those_that_go():
    inputs = keras.Input((5,))
    x = layers.Dense(8, "sigmoid", name="felt")(inputs)
    x = layers.Dense(6, "relu", name="goes", use_bias=False)(x)
    parts = [layers.Dense(4, name=name)(x) for name in ("left", "right")]
    outputs = layers.Dense(3, name="head")(layers.Add(name="sum")(parts))
    model = randomised(keras.Model(inputs, outputs))
    for name, places in (("felt", [1, 4]), ("goes", [0, 2, 3]), ("right", [3])):
        kernel = np.array(model.get_layer(name).kernel)
        kernel[:, places] = 0
        model.get_layer(name).kernel.assign(kernel)

    small, report = kprune.shrink(model, return_report=True)

    widths = {layer.name: getattr(layer, "units", None) for layer in small.layers[1:]}
    assert widths == dict(felt=8, goes=3, left=4, right=4, sum=None, head=3)
    assert_same(model, small)
    found = {record.layers[0]: record for record in report.left}
    assert {name: (r.width, r.stuck) for name, r in found.items()} == {
        "head": (3, 3),
        "felt": (8, 2),
        "right": (4, 1),
    }
    reasons = [str(*found[name].reasons) for name in ("felt", "right")]
    assert reasons[0].startswith("felt: zero in kernels alone")
    assert reasons[1].endswith("zero here, but not in all that they go together with")


def test_zeros_that_stay_for_the_sake_of_a_width_are_named():
    pruned = pruned_at_once(model_of("dense_softplus"), granularity="channel")

    small, report = kprune.shrink(pruned, min_width=5, return_report=True)

    assert [layer.units for layer in small.layers[1:]] == [5, 5, 3]
    found = {record.layers[0]: record for record in report.left}
    assert [(r.width, r.stuck) for r in found.values()] == [(3, 3), (8, 1), (6, 2)]
    assert_same(pruned, small)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Dense(8, "sigmoid"),
        lambda: layers.Conv1D(8, 2, activation="softplus", padding="same"),
        lambda: layers.Conv1DTranspose(8, 2, activation="sigmoid", padding="same"),
    ],
    ids=["Dense", "Conv1D", "Conv1DTranspose"],
)
def test_channels_whose_kernels_are_divided_by_their_norms_are_removed(layer):
    inputs = keras.Input((4, 5))
    x = layers.SpectralNormalization(layer(), name="first")(inputs)
    x = layers.Add()([x, layers.SpectralNormalization(layer(), name="second")(x)])
    pruned = pruned_at_once(
        randomised(keras.Model(inputs, layers.Dense(2)(x))), granularity="channel"
    )

    small = kprune.shrink(pruned)

    assert small.get_layer("second").kernel.shape[-2:] == (4, 4)
    assert small.get_layer("second").vector_u.shape == (1, 4)
    assert_same(pruned, small)


def test_depthwise_kernels_lose_one_filter_of_each_input():
    inputs = keras.Input(IMAGE)
    x = layers.DepthwiseConv2D(3, depth_multiplier=4, name="depthwise")(inputs)
    model = randomised(keras.Model(inputs, layers.Dense(2)(x)))
    pruned = pruned_at_once(model, granularity="channel", only="depthwise")

    small = kprune.shrink(pruned)

    assert small.get_layer("depthwise").depth_multiplier == 2
    assert_same(pruned, small)


def test_layers_wrapped_by_hand_lose_channels_of_their_own():
    inputs = keras.Input((5,))
    wrapped = kprune.PruningWrapper(layers.Dense(8, "relu"), "channel")
    model = keras.Model(inputs, layers.Dense(3)(wrapped(inputs)))

    kprune.Pruner(model, HALF).step()

    assert np.asarray(wrapped.kernel).any(0).sum() == 4
    assert np.asarray(model.layers[2].kernel).all()


def test_channels_of_an_unbuilt_model_are_refused_with_the_ways_out():
    model = keras.Sequential([layers.Dense(8), layers.Dense(3)])

    with pytest.raises(ValueError, match=r"Give it an Input.*Channel\(coupled=False\)"):
        kprune.prune(model, granularity="channel")

    assert kprune.is_pruned(
        kprune.prune(model, granularity=kprune.Channel(coupled=False))
    )


@pytest.mark.parametrize(
    "parts",
    [
        {"schedule": kprune.CyclicSchedule(0.5, sparse_steps=2)},
        {"schedule": HALF, "regrowth": kprune.RigL(end_step=9)},
        {"schedule": HALF, "regrowth": kprune.DynamicNetworkSurgery(end_step=9)},
    ],
    ids=["schedule", "exchange", "shadow"],
)
def test_what_brings_channels_back_is_refused(parts):
    model = kprune.prune(model_of("dense_sigmoid"), granularity="channel")
    model.compile("adam", "mse")

    with pytest.raises(ValueError, match=r"don't come back.*Channel\(coupled=False\)"):
        kprune.Pruner(model, **parts)


def test_layers_that_lose_the_same_channels_are_given_one_sparsity():
    model = kprune.prune(residual_dense(), granularity="channel")
    scope = kprune.PerLayer({"stem": 0.5, "first_out": 0.25})

    with pytest.raises(ValueError, match="0.5 for 'stem', 0.25 for 'first_out'.*one"):
        kprune.Pruner(model, HALF, scope=scope)


def test_a_graph_is_followed_once():
    model = kprune.prune(residual_dense(), granularity="channel")

    (first,), (second,) = ties.couplings(model), ties.couplings(model)

    assert first is second


def test_what_is_known_of_a_graph_goes_with_the_model():
    model = kprune.prune(model_of("dense_sigmoid"), granularity="channel")
    ties.couplings(model)
    gone = weakref.ref(model)

    del model
    keras.backend.clear_session()
    gc.collect()

    assert gone() is None
