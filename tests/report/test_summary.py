import json

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from tests.layer_cases import pruned_at_once


def small():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(4, name="second"),
        ],
        name="small",
    )


def records(model):
    return {(w.layer, w.weight): w for w in kprune.summary(model, None).weights}


def test_every_weight_is_listed_with_its_reason():
    model = small()

    found = records(kprune.prune(model, skip="second"))

    assert {key: (w.masked, w.reason) for key, w in found.items()} == {
        ("first", "kernel"): (True, ""),
        ("first", "bias"): (False, "a bias"),
        ("norm", "gamma"): (False, "the rule for BatchNormalization leaves it out"),
        ("norm", "beta"): (False, "the rule for BatchNormalization leaves it out"),
        ("norm", "moving_mean"): (False, "not a trainable weight"),
        ("norm", "moving_variance"): (False, "not a trainable weight"),
        ("second", "kernel"): (
            False,
            "left out by `only` or `skip`, or the model is not pruned at all",
        ),
        ("second", "bias"): (False, "a bias"),
    }
    assert sum(w.size for w in found.values()) == model.count_params()


def test_numbers_are_those_of_the_weights():
    pruned = pruned_at_once(small(), 0.75)

    summary = kprune.summary(pruned, None)

    kernel = np.array(pruned.get_layer("first").kernel)
    assert records(pruned)["first", "kernel"].zeros == (kernel == 0).sum() == 24
    assert summary.sparsity == (24 + 24) / (32 + 32)
    # 64 weights in kernels, 12 in biases, 4 x 8 in the normalization.
    assert summary.size == 108
    zeros = sum(int((np.array(v) == 0).sum()) for v in small().weights)
    assert summary.nonzero == 108 - zeros - 48
    assert summary.step == 0
    assert [w.layer for w in summary.masked] == ["first", "second"]
    assert len(summary.masked) + len(summary.dense) == len(summary.weights)


def test_table_is_printed_and_shows_each_row(capsys):
    summary = kprune.summary(pruned_at_once(small(), 0.75))

    text = capsys.readouterr().out
    assert text == f"{summary}\n"
    assert "pruned part 75.00% zeros, at step 0" in text
    rows = [line for line in text.splitlines() if "kernel" in line]
    assert len(rows) == 2
    assert "first" in rows[0]
    assert "4 x 8" in rows[0]
    assert "75.00%" in rows[0]
    assert "a bias" in text


def test_data_is_plain_python():
    summary = kprune.summary(pruned_at_once(small(), 0.75), None)

    data = json.loads(json.dumps(summary.to_dict()))

    assert data["sparsity"] == 0.75
    assert data["model"] == "small"
    assert data["weights"][0]["layer"] == "first"
    assert data["weights"][0]["zeros"] == 24


def test_stripped_and_plain_models_have_a_summary_without_masks():
    stripped = kprune.strip(pruned_at_once(small(), 0.75))

    for model in (stripped, small()):
        summary = kprune.summary(model, None)
        assert summary.masked == []
        assert summary.step is None
        assert summary.sparsity == 0.0
    zeros = {key: w.zeros for key, w in records(stripped).items()}
    assert zeros["first", "kernel"] == 24


def test_layers_of_nested_models_are_listed_by_their_names():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="deep")])
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2, name="top")])

    found = records(kprune.prune(model))

    assert [key for key, w in found.items() if w.masked] == [
        ("deep", "kernel"),
        ("top", "kernel"),
    ]


def test_frozen_weight_says_when_it_will_be_pruned():
    pruned = kprune.prune(small())
    pruned.get_layer("first").trainable = False

    record = records(pruned)["first", "kernel"]

    assert record.masked
    assert record.reason == "frozen; pruned once it is trained"


def test_unbuilt_model_is_refused():
    with pytest.raises(ValueError, match="'net' is not built, so its weights are not"):
        kprune.summary(keras.Sequential([layers.Dense(2)], name="net"))
