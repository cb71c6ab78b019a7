import keras
import pytest
from keras import layers

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
