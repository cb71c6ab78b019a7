import keras
import numpy as np
import pytest

import kprune
from kprune import litefile
from kprune.targets import check_tflm


def small_net(**entry):
    """Qualifies for XNNPACK's sparse kernels, but for what `entry` changes."""
    options = {"strides": 2, "padding": "valid", "activation": "relu", **entry}
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.ZeroPadding2D(1),
            keras.layers.Conv2D(8, 3, **options),
            keras.layers.Conv2D(16, 1, activation="relu", name="point_1"),
            keras.layers.Conv2D(16, 1, activation="relu", name="point_2"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4),
        ]
    )


def pruned(model, sparsity=0.9):
    model = kprune.prune(model, only="point_*")
    kprune.Pruner(model, kprune.ConstantSchedule(sparsity)).step()
    return kprune.strip(model)


def test_a_model_that_qualifies_is_written_sparse_for_xnnpack(tmp_path):
    report = kprune.export(
        pruned(small_net()), tmp_path / "out", kprune.TFLite(target="xnnpack")
    )

    contents = litefile.read(report.records[0].path)
    assert any(tensor.is_sparse for tensor in contents.tensors)
    assert any("XNNPACK's sparse kernels" in note for note in report.records[0].notes)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: pruned(small_net(strides=1)), "strides=2"),
        (lambda: pruned(small_net(), 0.5), "two thirds"),
    ],
)
def test_a_model_that_does_not_qualify_is_refused_with_the_reason(
    tmp_path, model, reason
):
    with pytest.raises(ValueError, match=f"(?s)does not qualify.*{reason}"):
        kprune.export(model(), tmp_path / "out", kprune.TFLite(target="xnnpack"))

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_a_file_for_microcontrollers_passes_their_check(tmp_path, quantization):
    x = np.random.default_rng(0).random((32, 32, 32, 3), dtype="float32")
    data = None if quantization is None else x

    report = kprune.export(
        pruned(small_net()),
        tmp_path / "out",
        kprune.TFLite(quantization, target="tflm", representative_data=data),
    )

    assert check_tflm(report.records[0].path)
    assert any("of activations in the arena" in n for n in report.records[0].notes)


def test_an_operator_that_microcontrollers_lack_is_named(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Activation("gelu")])

    with pytest.raises(kprune.ExportError, match="(?s)does not run.*GELU|ERF"):
        kprune.export(model, tmp_path / "out", kprune.TFLite(target="tflm"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "phone"}, "expected None or one of 'xnnpack', 'tflm'"),
        ({"target": "xnnpack", "sparse": False}, "whose zeros are left out"),
        ({"target": "xnnpack", "quantization": "float16"}, "for float32 files"),
        ({"target": "tflm", "sparse": True}, "reads neither sparse tensors"),
        ({"target": "tflm", "quantization": "float16"}, "nor weights that are rounded"),
        ({"target": "tflm", "quantization": "dynamic_range"}, "activations are not"),
    ],
)
def test_options_that_contradict_the_target_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        kprune.TFLite(**options)


def test_a_cut_sparse_cluster_is_written_plain_for_it_would_be_wrong_on_arm(tmp_path):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.ZeroPadding2D(1)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.Conv2D(64, 1, activation="relu", name="point_1")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(64, 1, name="point_2")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))

    report = kprune.export(pruned(model), tmp_path / "out", "tflite")

    contents = litefile.read(report.records[0].path)
    assert not any(tensor.is_sparse for tensor in contents.tensors)
    assert any("wrong numbers or not load" in n for n in report.records[0].notes)
