"""Which weights come first, and what those of nested models are called."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.scopes.names import WeightName, layer_of
from kprune.whole_model import trained_weights


def body(name="body"):
    parts = [layers.Dense(8, name=f"s{i}") for i in (1, 2, 3)]
    return keras.Sequential([keras.Input((8,)), *parts], name=name)


def before_a_head():
    inputs = keras.Input((8,))
    return keras.Model(inputs, layers.Dense(4, name="head")(body()(inputs)))


def behind_a_stem():
    deep = keras.Sequential([keras.Input((8,)), body("deep")], name="body")
    return keras.Sequential([keras.Input((8,)), layers.Dense(8, name="stem"), deep])


def twins():
    inputs = keras.Input((8,))
    return keras.Model(
        inputs, layers.Add()([body("left")(inputs), body("right")(inputs)])
    )


@keras.saving.register_keras_serializable("test_running_order")
class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.body = body()
        self.both = layers.Bidirectional(layers.LSTM(4))
        self.head = layers.Dense(4)

    def call(self, inputs):
        return self.head(self.both(self.body(inputs)[:, None]))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8), "float32"))
    return model


def sparsities(model, **arguments):
    pruner = kprune.Pruner(model, kprune.ConstantSchedule(0.5), **arguments)
    pruner.step()
    return {
        str(entry.name): round(1 - float(entry.mask.numpy().mean()), 3)
        for _, entry in trained_weights(model)
    }


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (before_a_head, ["body/s1", "body/s2", "body/s3", "head"]),
        (behind_a_stem, ["stem", "body/deep/s1", "body/deep/s2", "body/deep/s3"]),
        (twins, [f"{side}/s{i}" for side in ("left", "right") for i in (1, 2, 3)]),
        (subclassed, ["body/s1", "body/s2", "body/s3", *["both"] * 4, "head"]),
    ],
)
def test_layers_come_in_running_order_with_the_names_of_models_around(make, expected):
    names = [entry.name for _, entry in trained_weights(kprune.prune(make()))]

    assert [layer_of(name) for name in names] == expected
    assert len(set(names)) == len(names)


def test_first_and_last_layer_are_found_in_nested_models():
    scope = kprune.Sparing(first=0.0, last=0.25)

    found = sparsities(kprune.prune(behind_a_stem()), scope=scope)

    assert found["stem/kernel"] == 0
    assert found["body/deep/s3/kernel"] == 0.25
    assert found["body/deep/s1/kernel"] == found["body/deep/s2/kernel"] == 0.875


def test_whole_layers_are_first_and_last_in_a_subclassed_model():
    scope = kprune.Sparing(first=0.0, last=1.0)

    found = sparsities(kprune.prune(subclassed()), scope=scope)

    assert [name for name, sparsity in found.items() if sparsity == 0] == [
        "body/s1/kernel"
    ]


def test_layers_of_one_name_in_two_models_get_different_random_masks():
    model = kprune.prune(twins())
    sparsities(model, criterion="random")

    masks = {entry.name: entry.mask.numpy() for _, entry in trained_weights(model)}

    assert (masks["left/s1/kernel"] != masks["right/s1/kernel"]).any()


@keras.saving.register_keras_serializable("test_running_order")
class WithItsOwnKernel(keras.Model):
    def build(self, shape):
        self.own = self.add_weight(shape=(shape[-1], 4), name="own")

    def call(self, inputs):
        return inputs @ self.own


def test_weights_that_a_model_holds_by_itself_are_called_by_their_path():
    model = WithItsOwnKernel()
    model(np.zeros((1, 8), "float32"))

    assert sparsities(kprune.prune(model), scope=kprune.PerLayer({"own": 0.5})) == {
        "own": 0.5
    }


@pytest.mark.parametrize(
    ("name", "pruned"),
    [
        ("left/s1", ["left/s1/kernel"]),
        ("left/s1/kernel", ["left/s1/kernel"]),
        ("left", ["left/s1/kernel", "left/s2/kernel", "left/s3/kernel"]),
        ("s1", ["left/s1/kernel", "right/s1/kernel"]),
        ("s1/kernel", ["left/s1/kernel", "right/s1/kernel"]),
        ("*/s1", ["left/s1/kernel", "right/s1/kernel"]),
    ],
)
def test_per_layer_finds_layers_by_their_own_names_and_by_those_around(name, pruned):
    found = sparsities(kprune.prune(twins()), scope=kprune.PerLayer({name: 0.5}))

    assert [name for name, sparsity in found.items() if sparsity] == pruned


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))]
)
def test_a_copied_name_knows_its_layer(copied):
    name = copied(WeightName("a/b", "c/kernel"))

    assert (name, name.layer) == ("a/b/c/kernel", "a/b")
