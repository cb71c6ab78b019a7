import copy
import json

import keras
import pytest
from keras import layers

from kprune.compress.architecture import (
    _expand,
    _slim,
    full_config,
    pack_config,
    unpack_config,
)
from kprune.compress.defaults import DEFAULTS

ARGUMENTS = {
    "InputLayer": {"batch_shape": (None, 4)},
    "Dense": {"units": 2},
    "Conv2DTranspose": {"filters": 2, "kernel_size": 3},
    "DepthwiseConv2D": {"kernel_size": 3},
    "SeparableConv2D": {"filters": 2, "kernel_size": 3},
    "Rescaling": {"scale": 2.0},
    "Activation": {"activation": "relu"},
    "Dropout": {"rate": 0.5},
    "AveragePooling2D": {"pool_size": 2},
    "Reshape": {"target_shape": (2, 2)},
    "Embedding": {"input_dim": 3, "output_dim": 2},
    "MultiHeadAttention": {"num_heads": 2, "key_dim": 2},
    **{f"Conv{rank}D": {"filters": 2, "kernel_size": 3} for rank in (1, 2, 3)},
    **{name: {"units": 2} for name in ("LSTM", "GRU")},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_is_left_out_is_what_keras_fills_in_today(name):
    """If a newer Keras has other defaults, files are larger, and right as ever."""
    layer = getattr(layers, name)(**ARGUMENTS.get(name, {}))

    config = json.loads(json.dumps(layer.get_config()))

    assert {key: config[key] for key in DEFAULTS[name]} == DEFAULTS[name]
    needed = set(config) - set(DEFAULTS[name]) - {"name", "value_dim", "padding"}
    assert needed == set(ARGUMENTS.get(name, {})) - {"pool_size"}


def model_config():
    inputs = keras.Input((4,), name="in")
    x = layers.Dense(4, name="first", use_bias=False)(inputs)
    return full_config(keras.Model(inputs, layers.Dense(4, name="second")(x + 1.0)))


def test_a_config_comes_back_as_it_was():
    config = model_config()

    assert unpack_config(pack_config(config), largest=1000) == config


def layer_of(config):
    return config["config"]["layers"][1]["config"]


CHANGES = {
    "an argument is missing": lambda c: layer_of(c).pop("kernel_constraint"),
    "an argument is new": lambda c: layer_of(c).update(of_a_later_keras=[1, None]),
    "a one for a true": lambda c: layer_of(c).update(use_bias=1),
    "a zero for a 0.0": lambda c: layer_of(c).update(bias_regularizer=0),
    "a key of ours": lambda c: layer_of(c).update(name={"@": ["x", 0, 0]}),
    "another key of ours": lambda c: layer_of(c).update(name={"=": {"a": 1}}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_odd_configs_come_back_as_they_were(change):
    config = model_config()
    change(config)
    before = json.dumps(config, sort_keys=True)

    again = unpack_config(pack_config(config), largest=1000)

    assert (
        json.dumps(again, sort_keys=True)
        == before
        == json.dumps(config, sort_keys=True)
    )


def test_what_is_filled_in_is_a_copy():
    slim = _slim(model_config())
    before = copy.deepcopy(DEFAULTS)

    layer_of(_expand(slim))["dtype"]["config"]["name"] = "changed by Keras"

    assert before == DEFAULTS
