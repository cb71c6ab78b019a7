"""What `prune_low_magnitude` wraps, what it leaves, and how that comes off again."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune import tfmot
from tests.checks import assert_equal, assert_plain, entries, values
from tests.subclassed_models import net
from tests.tfmot import layer_table
from tests.tfmot.models import (
    around,
    data,
    nested_model,
    reused_layer,
    simple_dense_model,
    two_branches,
    unbuilt_model,
)
from tests.training_helpers import with_slow

PARAMETERS = {
    "pruning_schedule": tfmot.ConstantSparsity(0.5, 0),
    "block_size": (1, 1),
    "block_pooling_type": "AVG",
}
LAYERS = {**layer_table.PRUNABLE, **layer_table.PRUNABLE_HERE}
# Function that makes a model, and the names of the layers that are wrapped.
MODELS = {
    "Sequential": (simple_dense_model, ["hidden", "classes"]),
    "not built": (unbuilt_model, ["a", "b"]),
    "Functional": (two_branches, ["left", "right"]),
    "nested": (nested_model, ["deep", "flat"]),
    "layer called twice": (reused_layer, ["twice"]),
}


def wrapped_names(model):
    return [wrapper.name for wrapper in tfmot.collect_prunable_layers(model)]


def paths_of(wrapper):
    return [path.split("/")[-1] for path in wrapper.masks]


@pytest.mark.parametrize("name", LAYERS)
def test_single_layer_gets_masks_on_its_prunable_weights(name):
    make, shape, expected = LAYERS[name]
    layer = make()

    wrapper = tfmot.prune_low_magnitude(layer, **PARAMETERS)
    around(wrapper, shape)

    assert isinstance(wrapper, tfmot.PruneLowMagnitude)
    assert wrapper.layer is layer
    assert wrapper.name == layer.name
    assert paths_of(wrapper) == expected


@pytest.mark.parametrize("name", with_slow(layer_table.ALIKE, LAYERS))
def test_layer_of_a_model_gets_masks_on_its_prunable_weights(name):
    make, shape, expected = LAYERS[name]
    model = around(make(), shape)
    before = values(model)

    pruned = tfmot.prune_low_magnitude(model, **PARAMETERS)

    found = tfmot.collect_prunable_layers(pruned)
    assert [p for wrapper in found for p in paths_of(wrapper)] == expected
    x, _ = data(model)
    assert_equal(pruned(x), model(x))
    assert_equal(values(model), before)


@pytest.mark.parametrize("name", layer_table.UNPRUNABLE)
def test_layer_without_prunable_weights_stays_dense(name):
    make, shape = layer_table.UNPRUNABLE[name]
    inputs = keras.Input(shape)
    x = layers.Flatten()(make()(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))

    alone = tfmot.prune_low_magnitude(make(), **PARAMETERS)
    pruned = tfmot.prune_low_magnitude(model, **PARAMETERS)

    assert not entries(around(alone, shape))
    assert wrapped_names(pruned) == ["head"]
    assert [type(one) for one in pruned.layers[1:-1]] == [
        type(one) for one in model.layers[1:-1]
    ]


def test_weights_that_stay_dense_are_listed_with_a_reason():
    model = around(layers.DepthwiseConv2D(2, name="depthwise"), (4, 4, 2))
    model = keras.Model(model.input, layers.Dense(2, name="head")(model.output))

    pruned = tfmot.prune_low_magnitude(model)

    dense = {
        f"{w.layer}/{w.weight}": w.reason for w in kprune.summary(pruned, None).dense
    }
    assert dense["head/bias"] == "a bias"
    assert dense["depthwise/kernel"].startswith("a depthwise kernel; name its layer")


@pytest.mark.parametrize("name", MODELS)
def test_layers_of_a_model_are_wrapped_once_each(name):
    make, expected = MODELS[name]
    model = make()
    was_built = model.built

    pruned = tfmot.prune_low_magnitude(model, **PARAMETERS)

    assert wrapped_names(pruned) == expected
    assert [layer.name for layer in pruned.layers] == [
        layer.name for layer in model.layers
    ]
    assert model.built == pruned.built == was_built
    for wrapper in tfmot.collect_prunable_layers(pruned):
        assert wrapper.pruning_schedule == PARAMETERS["pruning_schedule"]
        assert wrapper.block_size == (1, 1)
        assert wrapper.block_pooling_type == "AVG"


@pytest.mark.parametrize("name", MODELS)
def test_model_is_built_of_its_json_as_it_was(name):
    pruned = tfmot.prune_low_magnitude(MODELS[name][0](), **PARAMETERS)

    with tfmot.prune_scope():
        loaded = keras.models.model_from_json(pruned.to_json())

    assert loaded.built == pruned.built
    assert wrapped_names(loaded) == wrapped_names(pruned)
    assert json.loads(loaded.to_json()) == json.loads(pruned.to_json())


@pytest.mark.parametrize("name", MODELS)
def test_stripped_model_has_the_config_that_it_had(name):
    model = MODELS[name][0]()

    stripped = tfmot.strip_pruning(tfmot.prune_low_magnitude(model, **PARAMETERS))

    assert_plain(stripped)
    assert stripped.get_config() == model.get_config()
    assert_equal(values(stripped), values(model))


def test_list_of_layers_is_wrapped_one_by_one():
    given = [layers.Dense(10), layers.Dropout(0.4), layer_table.Prunable(5)]

    wrapped = tfmot.prune_low_magnitude(given, **PARAMETERS)

    dense, dropout, custom = wrapped
    assert dense.layer is given[0]
    assert dropout is given[1]
    assert custom.layer is given[2]
    model = keras.Sequential([keras.Input((4,)), *wrapped])
    assert [len(w.masks) for w in tfmot.collect_prunable_layers(model)] == [1, 2]


def test_layer_that_is_wrapped_already_is_not_wrapped_again():
    own = tfmot.PolynomialDecay(0.1, 0.9, 5, 50)
    second = tfmot.prune_low_magnitude(layers.Dense(4, name="second"), own)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(5), second])

    pruned = tfmot.prune_low_magnitude(model, **PARAMETERS)

    schedules = [w.pruning_schedule for w in tfmot.collect_prunable_layers(pruned)]
    assert schedules == [PARAMETERS["pruning_schedule"], own]
    assert not isinstance(pruned.layers[1].layer, tfmot.PruneLowMagnitude)
    assert tfmot.prune_low_magnitude(second) is second
    assert tfmot.prune_low_magnitude([second])[0] is second


def test_wrapped_layers_and_plain_ones_stand_in_one_model():
    first = tfmot.prune_low_magnitude(layers.Dense(4), **PARAMETERS)
    model = keras.Sequential([keras.Input((3,)), first, layers.Dense(2)])

    stripped = tfmot.strip_pruning(model)

    assert tfmot.collect_prunable_layers(model) == [first]
    assert_plain(stripped)


def test_clone_function_chooses_the_layers():
    model = simple_dense_model()

    def only_classes(layer):
        is_chosen = layer.name == "classes"
        return tfmot.prune_low_magnitude(layer) if is_chosen else layer

    clone = keras.models.clone_model(model, clone_function=only_classes)

    x, _ = data(model)
    assert wrapped_names(clone) == ["classes"]
    assert_equal(clone(x), model(x))


def test_first_layer_tells_a_sequential_its_inputs():
    with pytest.warns(UserWarning, match="input_shape"):
        inside = keras.Sequential(
            [tfmot.prune_low_magnitude(layers.Dense(4, input_shape=(6,)))]
        )
    with pytest.warns(UserWarning, match="input_shape"):
        outside = keras.Sequential(
            [tfmot.prune_low_magnitude(layers.Dense(4), input_shape=(6,))]
        )

    for model in (inside, outside):
        assert model.built
        assert model.input_shape == (None, 6)
        assert [entry.path for entry in entries(model)] == ["kernel"]


@pytest.mark.parametrize("given", [object(), "dense", None, 3])
def test_what_is_no_layer_is_refused(given):
    with pytest.raises(ValueError, match="Expected a Keras 3 layer, a list of layers"):
        tfmot.prune_low_magnitude(given)
    with pytest.raises(ValueError, match="Expected a Keras 3 layer to wrap"):
        tfmot.PruneLowMagnitude(given)


def test_model_of_which_nothing_can_be_pruned_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization()])

    with pytest.raises(ValueError, match="Nothing in the model .* can be pruned"):
        tfmot.prune_low_magnitude(model)


def test_subclassed_model_is_pruned_and_stripped():
    # TFMOT refuses it.
    model = net()
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")

    pruned = tfmot.prune_low_magnitude(model, **PARAMETERS)

    assert len(entries(pruned)) == 2
    assert_equal(pruned(x), model(x))
    assert_plain(tfmot.strip_pruning(pruned))


def test_strip_pruning_takes_models_alone():
    with pytest.raises(TypeError, match="Expected a keras.Model, got Dense"):
        tfmot.strip_pruning(layers.Dense(3))


def test_predictions_before_training_are_those_of_the_plain_model():
    model = simple_dense_model()
    model.compile("sgd", "mse")
    x, y = data(model)

    pruned = tfmot.prune_low_magnitude(model, **PARAMETERS)
    pruned.compile("sgd", "mse")
    before = values(pruned)

    assert_equal(pruned.predict(x, verbose=0), model.predict(x, verbose=0))
    assert pruned.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    assert_equal(values(pruned), before)


@pytest.mark.parametrize("schedule", ["polynomial", tfmot.ConstantSparsity, 0.5])
@pytest.mark.parametrize("make", [simple_dense_model, lambda: layers.Dense(3)])
def test_what_is_no_schedule_is_refused_where_it_is_given(make, schedule):
    with pytest.raises(ValueError, match="Expected a schedule.* Pass an object"):
        tfmot.prune_low_magnitude(make(), schedule)


@pytest.mark.parametrize("make", [simple_dense_model, lambda: [layers.Dense(3)]])
def test_keywords_that_are_unknown_are_named(make):
    with pytest.raises(TypeError, match="'blok_size', 'prunning_schedule'"):
        tfmot.prune_low_magnitude(make(), blok_size=3, prunning_schedule=None)
