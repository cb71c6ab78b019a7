import itertools
import typing

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.copier import CannotCopyError, Copier, objects_within
from tests.layer_cases import Scale2D


def test_layer_whose_config_does_not_suffice_is_named():
    class Opaque(layers.Layer):
        def __init__(self, thing, name=None):
            super().__init__(name=name)
            self.thing = thing

    layer = Opaque(object(), name="mine")

    with pytest.raises(CannotCopyError, match=r"'mine' \(Opaque\) can't be ma"):
        Copier(layer).copy(layer)


class Window(typing.NamedTuple):
    """Something with a list that configs hold."""

    sizes: list
    step: int


@keras.saving.register_keras_serializable("kprune_tests")
class Listed(layers.Layer):
    """Dense layers of several sizes, one after another."""

    def __init__(self, sizes, options=None, **kwargs):
        super().__init__(**kwargs)
        self.sizes, self.options = sizes, options

    def build(self, shape):
        ends = [shape[-1], *self.sizes[0]]
        self.kernels = [
            self.add_weight(shape=one, name=f"kernel_{number}")
            for number, one in enumerate(itertools.pairwise(ends))
        ]

    def call(self, x):
        for kernel in self.kernels:
            x = x @ kernel
        return x

    def get_config(self):
        own = {"sizes": self.sizes, "options": self.options}
        return super().get_config() | own


def test_lists_and_dicts_of_a_config_are_copied_without_their_layer():
    options = {"names": ["a", {"b"}], "pair": (1, [2]), "window": Window([1], 2)}
    layer = Listed([[3]], options)
    layer.build((None, 2))

    new = Copier(layer).copy(layer)

    assert (new.sizes, new.options) == ([[3]], options)
    new.sizes[0].append(4)
    new.options["names"].append("c")
    new.options["window"].sizes.append(3)
    assert (layer.sizes, layer.options) == ([[3]], options)
    assert new.sizes.tracker is new._tracker


WITH_LISTS = {
    "custom": ("element", lambda: [Listed([[4, 3]], Window([1], 2))]),
    "rms_normalization": (
        "channel",
        lambda: [layers.Dense(8), layers.RMSNormalization()],
    ),
    "batch_normalization": (
        "channel",
        lambda: [layers.Dense(8), layers.BatchNormalization(renorm=True)],
    ),
    "prelu": (
        "channel",
        lambda: [
            layers.Reshape((2, 2, 1)),
            layers.Conv2D(8, 1),
            layers.PReLU(shared_axes=[1, 2]),
            layers.Flatten(),
        ],
    ),
}


@pytest.mark.parametrize("name", WITH_LISTS)
def test_masked_layers_with_lists_in_their_configs_can_be_stripped(name):
    granularity, hidden = WITH_LISTS[name]
    model = keras.Sequential([keras.Input((4,)), *hidden(), layers.Dense(2)])
    pruned = kprune.prune(model, granularity=granularity)
    kprune.Pruner(pruned, kprune.ConstantSchedule(0.5)).step()
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")

    stripped = kprune.strip(pruned)

    expected = pruned.predict(x, verbose=0)
    np.testing.assert_allclose(stripped.predict(x, verbose=0), expected, rtol=1e-6)


def test_functions_have_their_names_back_after_copying():
    def double(x):
        return 2 * x

    layer = layers.Dense(2, activation=double)

    new = Copier(layer).copy(layer)

    assert new.activation is double
    assert double.__name__ == "double"


def test_classes_of_the_user_are_found_by_their_registered_names():
    known = objects_within(keras.Sequential([Scale2D(), layers.Dense(2)]))

    assert known == {"kprune_tests>Scale2D": Scale2D}
