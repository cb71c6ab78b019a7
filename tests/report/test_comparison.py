import json

import keras
import pytest
from keras import layers

from kprune.report.comparison import compare


def model(units, name="head"):
    shared = layers.Dense(units, name="shared")
    inputs = keras.Input((units,))
    x = layers.ReLU(name="relu")(shared(shared(inputs)))
    return keras.Model(inputs, layers.Dense(2, name=name)(x), name="net")


def test_calls_of_a_shared_layer_are_one_entry():
    comparison = compare(model(8), model(4), None)

    found = {
        a.name: (a.parameters, b.parameters, a.macs, b.macs)
        for a, b in comparison.layers
    }

    assert found == {
        "shared": (72, 20, 2 * 64, 2 * 16),
        "relu": (0, 0, 0, 0),
        "head": (18, 10, 16, 8),
    }
    assert comparison.left("macs") == (32 + 8) / (128 + 16)
    assert comparison.left("activation_bytes") == (12 + 2) / (24 + 2)


def test_layers_of_one_model_alone_are_shown_without_numbers():
    comparison = compare(model(8, "old"), model(8, "new"), None)

    assert [(a and a.name, b and b.name) for a, b in comparison.layers] == [
        ("shared", "shared"),
        ("relu", "relu"),
        ("old", None),
        (None, "new"),
    ]
    text = str(comparison)
    assert "shared" not in text
    assert "18 -> -" in text
    assert "- -> 18" in text


def test_what_is_not_known_has_no_part_that_is_left():
    inputs = keras.Input((4,))
    own = keras.Model(inputs, layers.Lambda(lambda x: x * 2, name="own")(inputs))

    comparison = compare(own, own, None)

    assert comparison.left("macs") is None
    assert comparison.left("parameters") is None
    assert str(comparison).splitlines()[-1].split() == ["left", "?", "?", "100.0%"]


def test_data_is_plain_python(capsys):
    comparison = compare(model(8), model(4))

    data = json.loads(json.dumps(comparison.to_dict()))

    assert data["left"]["macs"] == pytest.approx(40 / 144)
    assert data["before"]["macs"] == 144
    assert capsys.readouterr().out == f"{comparison}\n"
