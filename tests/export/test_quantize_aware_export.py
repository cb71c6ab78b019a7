import keras
import numpy as np
import pytest

import kprune
from kprune import litefile


@pytest.fixture(scope="module")
def aware():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    x = np.random.default_rng(0).random((64, 8, 8, 1), dtype="float32")
    model = kprune.prune(model)
    kprune.Pruner(model, kprune.ConstantSchedule(0.75)).step()
    model = kprune.quantize_aware(kprune.strip(model), preserve="sparsity")
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    model.fit(x, np.arange(64) % 4, epochs=2, verbose=0)
    return model


def test_an_aware_model_becomes_its_int8_file_with_its_zeros(aware, tmp_path):
    report = kprune.export(aware, tmp_path / "out", "tflite")

    contents = litefile.read(report.records[0].path)
    kernels = [t.values() for t in contents.constants if t.values().ndim > 1]
    assert not contents.float_operators
    assert {str(k.dtype) for k in kernels} == {"int8"}
    assert sum(np.count_nonzero(k == 0) for k in kernels) >= 0.75 * sum(
        k.size for k in kernels
    )
    assert "int8, as kprune.quantize_aware trained it" in report.records[0].notes


def test_another_mode_for_an_aware_model_is_refused(aware, tmp_path):
    with pytest.raises(ValueError, match="Leave both out: its file is int8"):
        kprune.export(aware, tmp_path / "out", kprune.TFLite("float16"))


def test_dequantized_it_goes_into_every_mode(aware, tmp_path):
    plain = kprune.dequantize(aware)

    report = kprune.export(
        plain, tmp_path / "out", ["saved_model", kprune.TFLite("float16"), "archive"]
    )

    assert len(report.records) == 3
