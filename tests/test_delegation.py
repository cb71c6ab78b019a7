import inspect

import keras
import numpy as np
import pytest
from keras import layers

from kprune.delegation import DelegatingWrapper


class Doubled(DelegatingWrapper):
    def call_layer(self, *args, **kwargs):
        return 2 * self.layer(*args, **kwargs)


def test_wrapper_has_the_name_signature_and_attributes_of_its_layer():
    layer = layers.MultiHeadAttention(2, 4, name="attention")

    wrapper = Doubled(layer)

    assert wrapper.name == "attention"
    assert wrapper.num_heads == 2
    assert inspect.signature(wrapper.call) == inspect.signature(layer.call)
    with pytest.raises(AttributeError, match="has no attribute 'heads'"):
        wrapper.heads  # noqa: B018


def test_what_is_set_on_the_wrapper_is_set_on_the_layer_if_that_has_it():
    wrapper = Doubled(layers.Dropout(0.5))

    wrapper.rate = 0.1
    wrapper.note = "own"
    wrapper.trainable = False

    assert wrapper.layer.rate == 0.1
    assert not hasattr(wrapper.layer, "note")
    assert not wrapper.layer.trainable


def test_masks_of_time_steps_are_passed_on():
    ids = np.array([[1, 2, 0]])
    embedding = Doubled(layers.Embedding(4, 2, mask_zero=True))

    outputs = embedding(ids)

    np.testing.assert_array_equal(outputs, 2 * embedding.layer(ids))
    np.testing.assert_array_equal(
        keras.src.backend.get_keras_mask(outputs), [[True, True, False]]
    )


def test_config_makes_the_wrapper_again():
    wrapper = Doubled(layers.Dense(3, name="head"))

    again = Doubled.from_config(wrapper.get_config())

    assert again.name == "head"
    assert again.units == 3
