import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import kprune
from kprune import whole_model
from tests.checks import assert_equal, entries, pruned_at_once, values
from tests.layer_cases import normal

X, Y = normal(6)(32), normal(3)(32)


def two_layers():
    return keras.Sequential(
        [
            keras.Input((6,), name="features"),
            layers.Dense(8, "relu", name="first"),
            layers.Dense(3, name="second"),
        ]
    )


def train(model, epochs=1):
    model.compile("adam", "mse")
    return model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0)


def assert_half_pruned(model):
    for entry in entries(model):
        mask, weight = np.array(entry.mask), np.array(entry.variable)
        assert mask.sum() == mask.size // 2
        assert not weight[~mask].any()


def test_attributes_of_the_layer_are_read_through_the_wrapper():
    wrapper = pruned_at_once(two_layers()).layers[0]

    assert wrapper.name == "first"
    assert wrapper.units == 8
    assert wrapper.kernel is wrapper.layer.kernel
    assert wrapper.activation is keras.activations.relu
    assert wrapper.dtype_policy is wrapper.layer.dtype_policy
    with pytest.raises(AttributeError, match="'Dense' object has no attribute 'filt"):
        _ = wrapper.filters


def test_masks_are_boolean_weights_that_are_not_trained():
    wrapper = kprune.prune(two_layers()).layers[0]

    mask = wrapper.masks["kernel"]

    assert mask.dtype == "bool"
    assert not mask.trainable
    assert np.array(mask).all()
    assert any(mask is v for v in wrapper.non_trainable_variables)


def test_paths_of_weights_are_those_of_the_plain_model():
    model = two_layers()

    pruned = kprune.prune(model)

    ours = [v.path for v in pruned.trainable_variables]
    assert ours == [v.path for v in model.trainable_variables]
    assert len({v.path for v in pruned.variables}) == len(pruned.variables)


def test_map_of_dtype_policies_reaches_sublayers():
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    policies["mha/query"] = keras.DTypePolicy("mixed_bfloat16")
    inputs = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(2, 3, dtype=policies, name="mha")
    model = keras.Model(inputs, attention(inputs, inputs))

    pruned = kprune.prune(model)

    assert pruned.get_layer("mha").query_dense.compute_dtype == "bfloat16"
    x = normal(5, 4)(4)
    assert_equal(pruned(x), model(x))


@pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16", "float64", "bfloat16"]
)
def test_dtype_policy_is_kept(policy, tmp_path):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, dtype=policy)])
    pruned = pruned_at_once(model)
    pruned.save(tmp_path / "m.keras")

    loaded = keras.saving.load_model(tmp_path / "m.keras")

    for new in (pruned, loaded):
        assert new.layers[0].dtype_policy.name == policy
        assert new.layers[0].kernel.dtype == model.layers[0].kernel.dtype
        assert new(X).dtype == model(X).dtype
    assert_half_pruned(loaded)


def test_training_argument_and_other_arguments_pass_through():
    class Noisy(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(4)

        def build(self, input_shape):
            self.dense.build(input_shape)

        def call(self, inputs, scale=1.0, training=False):
            outputs = scale * self.dense(inputs)
            return outputs + 100 if training else outputs

    inputs = keras.Input((6,), name="inputs")
    noisy = Noisy(name="noisy")
    model = keras.Model(
        inputs, [noisy(inputs), noisy(inputs, scale=2.0, training=True)]
    )

    pruned = kprune.prune(model)

    for training in (False, True):
        assert_equal(pruned(X, training=training), model(X, training=training))
    wrapper = pruned.get_layer("noisy")
    assert_equal(wrapper(X, scale=3.0), noisy(X, scale=3.0))
    assert_equal(wrapper(X, training=True), noisy(X, training=True))


def test_wrapper_by_hand_has_a_clock_of_its_own_and_trains(tmp_path):
    model = keras.Sequential(
        [
            kprune.PruningWrapper(layers.Dense(8, name="a"), weights=["kernel"]),
            kprune.PruningWrapper(layers.Dense(3, name="b")),
        ]
    )
    model.compile("adam", "mse")
    pruning = kprune.PruningCallback(kprune.ConstantSchedule(0.5))

    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[pruning])
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")

    assert_half_pruned(loaded)
    assert [s.clock.steps for s in whole_model.stores(loaded)] == [4, 4]
    assert_equal(kprune.strip(loaded)(X), model(X))


def test_wrapping_twice_is_refused():
    wrapper = kprune.PruningWrapper(layers.Dense(2, name="head"))

    with pytest.raises(ValueError, match="'head' is wrapped already"):
        kprune.PruningWrapper(wrapper)


def test_path_that_the_layer_does_not_have_is_refused():
    layer = layers.Dense(2, name="head")
    layer.build((None, 3))

    with pytest.raises(ValueError, match="'head' .* no weight at 'kernal'; it has"):
        kprune.PruningWrapper(layer, weights=["kernal"])


def test_config_holds_what_was_resolved():
    pruned = kprune.prune(two_layers(), only=lambda layer: layer.name == "first")

    config = pruned.layers[0].get_config()

    assert config["weights"] == ["kernel"]
    assert config["granularity"]["registered_name"] == "kprune>Element"
    assert config["clock"]["registered_name"] == "kprune>Clock"
    again = kprune.PruningWrapper.from_config(copy.deepcopy(config))
    again.build((None, 6))
    assert again.name == "first"
    assert list(again.masks) == ["kernel"]
    assert again.granularity == kprune.Element()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_copies_by_python_are_pruned_models_of_their_own(copied):
    pruned = pruned_at_once(two_layers())

    new = copied(pruned)

    assert_equal(new(X), pruned(X))
    train(new)
    assert_half_pruned(new)
    assert whole_model.clock_of(new) == 4
    assert whole_model.clock_of(pruned) == 0


def test_clone_model_gives_a_model_that_can_be_pruned():
    clone = keras.models.clone_model(pruned_at_once(two_layers()))
    clone.compile("adam", "mse")
    pruning = kprune.PruningCallback(kprune.ConstantSchedule(0.5))

    clone.fit(X, Y, batch_size=8, verbose=0, callbacks=[pruning])

    assert_half_pruned(clone)
    assert whole_model.clock_of(clone) == 4


def test_weights_go_out_and_in():
    pruned, other = pruned_at_once(two_layers()), kprune.prune(two_layers())

    other.set_weights(pruned.get_weights())

    assert_equal(other(X), pruned(X))
    train(other)
    assert_half_pruned(other)


def test_models_are_built_out_of_wrapped_layers():
    pruned = pruned_at_once(two_layers())
    features = keras.Model(pruned.inputs, pruned.get_layer("first").output)
    model = keras.Sequential([features, layers.Dense(2, name="new")])

    again = kprune.prune(model)

    assert_equal(again(X), model(X))
    sparsity = {w.layer: w.sparsity for w in kprune.summary(again, None).masked}
    assert sparsity == {"first": 0.5, "new": 0.0}


def test_graphs_and_exports_of_keras_see_the_pruned_values(tmp_path):
    pruned = pruned_at_once(two_layers())
    expected = pruned(X)

    traced = tf.function(pruned)(X)
    pruned.export(tmp_path / "saved", verbose=False)

    np.testing.assert_allclose(traced, expected, rtol=1e-5, atol=1e-6)
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(saved.serve(X), expected, rtol=1e-5, atol=1e-6)


def test_keras_own_summary_lists_the_wrapped_layers():
    lines = []

    kprune.prune(two_layers()).summary(print_fn=lines.append)

    text = "\n".join(map(str, lines))
    assert "first (PruningWrapper)" in text
    assert "Trainable params: 83" in text


def test_int8_policy_is_refused_and_undone():
    pruned = pruned_at_once(two_layers())
    wrapper, before = pruned.layers[0], values(pruned)
    int8 = keras.dtype_policies.get("int8_from_float32")

    for layer in (wrapper, wrapper.layer):
        with pytest.raises(ValueError, match="on 'first', in a model that is pruned"):
            layer.dtype_policy = int8

    assert_equal(values(pruned), before)
    assert wrapper.dtype_policy.name == "float32"
    assert_equal(kprune.strip(pruned)(X), pruned(X))


def test_user_constraint_runs_before_the_mask_and_comes_back():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, kernel_constraint="non_neg"), Shift()]
    )
    pruned = pruned_at_once(model)

    pruned.compile("sgd", "mse")
    pruned.fit(X, X[:, :1] * np.ones((1, 8)), verbose=0)

    kernel = np.array(pruned.layers[0].kernel)
    assert kernel.min() == 0
    assert_half_pruned(pruned)
    stripped = kprune.strip(pruned).layers[0]
    assert type(stripped.kernel.constraint) is keras.constraints.NonNeg


class Shift(layers.Layer):
    def call(self, inputs):
        return ops.subtract(inputs, 1.0)


def test_what_is_set_through_the_wrapper_is_set_on_the_layer():
    layer = keras.layers.Dense(2, activation="relu")
    wrapper = kprune.PruningWrapper(layer)
    x = -np.ones((1, 3), "float32")
    layer.build((None, 3))
    layer.kernel.assign(np.ones((3, 2)))

    wrapper.activation = keras.activations.linear

    np.testing.assert_array_equal(wrapper(x), [[-3.0, -3.0]])
