import importlib.util
import sys
import warnings

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import layers

import kprune
from kprune import litefile
from kprune.export import ExportError, int4
from kprune.export.base import quiet
from kprune.export.conversion import convert
from kprune.export.forward import Forward
from kprune.export.quantized import check_constants
from tests.export import models
from tests.training_helpers import with_slow

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_quantizer") is None,
    reason="the extra kprune[int4] is not installed",
)


def pruned_dense():
    """Half of the weights are zero, among them all of the unit 3."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32,), name="x"),
            layers.Dense(48, activation="relu", name="hidden"),
            layers.Dense(5, name="y"),
        ],
        name="pruned_dense",
    )
    for layer in model.layers:
        kernel = np.asarray(layer.kernel)
        kernel = np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel)
        kernel[:, 3] = 0
        layer.kernel.assign(kernel)
        layer.bias.assign(np.linspace(-1, 1, layer.units))
    return model


def rounded(kernel):
    """Rounds each unit of a kernel to whole sevenths of its largest weight."""
    steps = np.abs(kernel).max(axis=0) / np.float32(7)
    steps[steps == 0] = 1
    return np.round(kernel / steps) * steps


def exported(model, folder, *formats):
    return kprune.export(model, folder / "out", formats).records


@needs_library
def test_the_file_computes_with_each_unit_in_sevenths_of_its_largest_weight(tmp_path):
    model = pruned_dense()
    (record,) = exported(model, tmp_path, kprune.TFLite("int4"))
    x = np.random.default_rng(0).normal(size=(50, 32)).astype("float32")

    run, batch = kprune.TFLite().load(record.path)

    reference = pruned_dense()
    for layer in reference.layers:
        layer.kernel.assign(rounded(np.asarray(layer.kernel)))
    expected = np.asarray(reference(x))
    assert batch is None
    np.testing.assert_allclose(run({"x": x})["y"], expected, atol=1e-5)
    exact = np.asarray(model(x))
    assert 0.01 < np.abs(expected - exact).max() / np.abs(exact).max() < 0.2


@needs_library
def test_zeros_stay_exact_zeros_also_in_a_unit_without_other_weights(tmp_path):
    model = pruned_dense()

    (record,) = exported(model, tmp_path, kprune.TFLite("int4"))

    stored = {c.shape: c for c in litefile.read(record.path).constants}
    for layer in model.layers:
        kernel = np.asarray(layer.kernel).T
        constant = stored[kernel.shape]
        assert constant.dtype == "int4"
        assert constant.values().dtype == ml_dtypes.int4
        assert not constant.zero_points.any()
        assert np.isfinite(constant.scales).all()
        np.testing.assert_array_equal(constant.real_values()[kernel == 0], 0.0)


@needs_library
def test_the_file_is_an_eighth_of_the_float_file(tmp_path):
    model = keras.Sequential([keras.Input((512,)), layers.Dense(256)])

    plain, small = exported(model, tmp_path, kprune.TFLite(), kprune.TFLite("int4"))

    weights = 512 * 256
    assert plain.bytes > weights * 4
    # A scale takes 4 bytes and a zero point 8, for each unit.
    assert weights / 2 < small.bytes < weights / 2 + 256 * 12 + 2000
    assert small.path.endswith("model_int4.tflite")
    assert any("of the outputs' spread" in note for note in small.notes)


def every_kind():
    images, ids = keras.Input((8, 8, 4), name="images"), keras.Input((6,), name="ids")
    x = layers.Conv2D(8, 3, name="full")(images)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2DTranspose(6, 3, name="transposed")(x)
    words = layers.Embedding(300, 16)(ids)
    pooled = [layers.GlobalMaxPool2D()(x), layers.GlobalMaxPool1D()(words)]
    return keras.Model([images, ids], layers.Dense(7)(layers.Concatenate()(pooled)))


@needs_library
def test_each_kind_of_layer_has_the_fewest_bits_that_litert_reads(tmp_path):
    (record,) = exported(every_kind(), tmp_path, kprune.TFLite("int4"))

    found = {c.shape: c.dtype for c in litefile.read(record.path).constants}
    assert found[8, 3, 3, 4] == "int4"
    assert found[7, 22] == "int4"
    assert found[1, 3, 3, 8] == "int8"
    assert found[6, 3, 3, 8] == "int8"
    assert found[300, 16] == "float32"
    (note,) = [note for note in record.notes if "stay float32" in note]
    assert note.startswith("weights of GATHER")


@needs_library
@pytest.mark.parametrize(
    "build",
    with_slow(
        {models.lstm, models.nested},  # dense layers to int4, as in the others
        [models.lstm, models.attention, models.nested, models.two_in_two_out],
    ),
    ids=lambda build: build.__name__,
)
def test_models_of_other_kinds_are_carried_too(build, tmp_path):
    keras.utils.set_random_seed(0)

    (record,) = exported(build(), tmp_path, kprune.TFLite("int4"))

    assert "int4" in {c.dtype for c in litefile.read(record.path).constants}


@needs_library
def test_the_interpreter_in_tensorflow_gives_the_same(tmp_path):
    import tensorflow as tf

    (record,) = exported(pruned_dense(), tmp_path, kprune.TFLite("int4"))
    x = np.random.default_rng(0).normal(size=(4, 32)).astype("float32")

    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # it announces its own removal
        runner = tf.lite.Interpreter(record.path).get_signature_runner()
        outputs = runner(x=x)["y"]

    run, _ = kprune.TFLite().load(record.path)
    np.testing.assert_allclose(outputs, run({"x": x})["y"], atol=1e-6)


@pytest.fixture(scope="module")
def files():
    """A float file, the int4 file made of it, and inputs."""
    pytest.importorskip("ai_edge_quantizer")
    plain, _ = convert(Forward(pruned_dense()))
    inputs = [{"x": np.random.default_rng(0).normal(size=(9, 32)).astype("float32")}]
    return plain, int4.round_weights(plain), inputs


def test_weights_that_are_not_the_models_rounded_are_noticed(files):
    plain, content, inputs = files
    graph = litefile.read(content).subgraphs[0]
    place = [t.shape for t in graph.tensors].index((48, 32))
    spoiled = graph.tensors[place].stored.copy()
    spoiled[5] ^= 0x40
    wrong = litefile.replace_constants(content, {(0, place): spoiled})

    int4.check_rounding(content, plain, inputs)
    check_constants(litefile.read(content), litefile.read(plain))
    with pytest.raises(ExportError, match="not the model's, rounded: .*int4"):
        check_constants(litefile.read(wrong), litefile.read(plain))


def test_a_file_that_computes_something_else_is_noticed(files):
    plain, content, inputs = files
    tensors = litefile.read(plain).subgraphs[0].tensors
    bias = [t.shape for t in tensors].index((48,))
    values = tensors[bias].values() + np.float32(0.01)
    other = litefile.replace_constants(plain, {(0, bias): values})

    with pytest.raises(ExportError, match="file of int4 weights differs"):
        int4.check_rounding(content, other, inputs)


def test_the_missing_library_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)

    with pytest.raises(ImportError, match=r"pip install 'kprune\[int4\]'"):
        exported(pruned_dense(), tmp_path, kprune.TFLite("int4"))

    assert not (tmp_path / "out").exists()


def test_microcontrollers_do_not_read_such_files():
    with pytest.raises(ValueError, match="target='tflm' with quantization='int4'"):
        kprune.TFLite("int4", target="tflm")
