import json

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from tests.checks import pruned_at_once


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


def sparse_and_aware():
    model = small()
    kernel = model.get_layer("first").kernel
    kernel.assign(np.where(np.arange(32).reshape(4, 8) % 4 == 0, kernel, 0))
    # The normalization, folded, has no weights any more.
    return kprune.quantize_aware(model)


def test_ranges_and_masks_of_a_quantization_aware_model_are_no_weights_of_it():
    summary = kprune.summary(sparse_and_aware(), None)

    assert [(w.layer, w.weight, w.masked, w.bits) for w in summary.weights] == [
        ("first", "kernel", True, 8),
        ("first", "bias", False, None),
        ("second", "kernel", False, 8),
        ("second", "bias", False, None),
    ]
    assert summary.size == 32 + 8 + 32 + 4
    assert summary.sparsity == 0.75
    assert summary.step is None
    assert summary.weights[2].reason == "it had no zeros to keep, or only zeros"


def test_finished_model_is_listed_as_frozen():
    aware = sparse_and_aware()
    aware(np.ones((2, 4), "float32"), training=True)

    found = records(kprune.finish(aware))

    assert found["first", "kernel"].reason == "frozen by kprune.finish"
    assert found["first", "kernel"].bits == 8
    assert len(found) == 4


def test_layers_that_a_quantization_aware_model_computes_in_float_are_listed():
    inputs = keras.Input((4,))
    x = layers.ELU(name="elu")(layers.Dense(8, name="first")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="last")(x))
    aware = kprune.quantize_aware(model, skip=["elu", "last"])

    summary = kprune.summary(aware, None)

    assert summary.in_float == {
        "elu": "there is no rule for layers of type ELU",
        "last": "left out by `only` or `skip`",
    }
    assert "in float:\n  elu: there is no rule for layers" in str(summary)
    assert [w.bits for w in summary.weights if w.weight == "kernel"] == [8, None]
    assert json.loads(json.dumps(summary.to_dict()))["in_float"] == summary.in_float


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_shared_weights_have_the_bits_of_their_codebook(bits):
    shared = kprune.share_weights(pruned_at_once(small(), 0.25), bits=bits)

    summary = kprune.summary(shared, None)

    assert [(w.layer, w.bits) for w in summary.masked] == [
        ("first", bits),
        ("second", bits),
    ]
    assert {w.bits for w in summary.dense} == {None}
    assert len(summary.weights) == 8


def test_shared_weights_have_a_bit_column_in_the_table():
    text = str(kprune.summary(kprune.share_weights(small(), bits=2), None))

    rows = [line.split() for line in text.splitlines()]
    row = next(row for row in rows if row[:2] == ["first", "kernel"])
    assert row[-3:] == ["0.00%", "2", "32"]


def test_masks_of_a_model_pruned_while_it_trains_for_int8_are_listed():
    aware = kprune.quantize_aware(
        keras.Sequential([keras.Input((4,)), layers.Dense(8, name="only")])
    )

    pruned = kprune.prune(aware)
    shared = kprune.share_weights(pruned, bits=2)

    found = records(pruned)
    assert list(found) == [("only", "kernel"), ("only", "bias")]
    assert (found["only", "kernel"].masked, found["only", "kernel"].bits) == (True, 8)
    assert found["only", "kernel"].reason == ""
    assert records(shared)["only", "kernel"].bits == 2


def test_costs_are_shown_in_total_and_by_weight():
    model = small()
    summary = kprune.summary(pruned_at_once(model, 0.75), None)

    assert {(w.layer, w.weight): w.macs for w in summary.weights if w.macs} == {
        ("first", "kernel"): 4 * 8,
        ("second", "kernel"): 8 * 4,
    }
    assert {w.macs for w in summary.weights} == {0, 32}
    assert summary.costs.macs == 64
    assert summary.costs.parameters == summary.size == 108
    headline = str(summary).splitlines()[1]
    assert headline == (
        "108 parameters; for one example 64 multiply-adds and 80 bytes of activations"
    )
    row = next(line for line in str(summary).splitlines() if "kernel" in line)
    assert row.split() == ["first", "kernel", "4", "x", "8", "75.00%", "32"]
    assert json.loads(json.dumps(summary.to_dict()))["costs"]["macs"] == 64


def test_multiply_adds_that_are_not_known_are_marked():
    inputs = keras.Input((4,))
    wrapped = layers.SpectralNormalization(layers.Dense(4, name="in"), name="own")
    model = keras.Model(inputs, wrapped(inputs))

    summary = kprune.summary(model, None)

    assert {w.macs for w in summary.weights} == {None}
    assert "at least 0 multiply-adds (not known: own)" in str(summary)
    row = next(line for line in str(summary).splitlines() if "kernel" in line)
    assert " ? " in row
