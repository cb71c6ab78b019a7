import json
import os
import resource

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.core.protobuf import saved_model_pb2

import kprune
from kprune.export import ExportError, ExportReport, SavedModel, TFLite, export
from tests.export import models
from tests.training_helpers import with_slow


def contents(folder):
    """Returns the bytes of each file under a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def flat(outputs):
    return [np.asarray(x) for x in keras.tree.flatten(outputs)]


# One that takes long, and siblings: of a cnn, a loop, several inputs, another half.
IN_THE_SLOW_RUN = {
    models.mobilenet,
    models.resnet,
    models.recurrent_stack,
    models.open_sequence,
    models.recommender,
    models.mixed_bfloat16,
}


@pytest.mark.parametrize(
    "build",
    with_slow(IN_THE_SLOW_RUN, models.FOR_EVERY_FORMAT),
    ids=lambda b: b.__name__,
)
def test_both_formats_carry_the_model(build, tmp_path):
    model = build()

    report = export(model, tmp_path / "out")

    rounding = {"mixed_float16": 1e-2, "mixed_bfloat16": 5e-2}
    assert [record.format for record in report.records] == ["SavedModel", "TFLite"]
    for record in report.records:
        assert record.max_difference <= rounding.get(build.__name__, 1e-5)
    present = sorted(os.listdir(tmp_path / "out"))
    assert present == ["export.json", "model.tflite", "saved_model"]
    batch_notes = ["batch fixed to 1" in n for n in report.records[1].notes]
    assert any(batch_notes) == (build in models.BATCH_OF_ONE)
    assert os.listdir(tmp_path) == ["out"]


def test_files_answer_like_keras_on_inputs_of_our_own(tmp_path):
    model = models.recommender()
    arrays = {
        "user": np.array([0, 49, 3, 7], "int32"),
        "film": np.array([6, 0, 1, 2], "int64"),
        "age": np.array([[-1.0], [0.0], [0.5], [70.0]], "float32"),
    }
    expected = flat(model(arrays))

    export(model, tmp_path)

    loaded = tf.saved_model.load(tmp_path / "saved_model")
    tensors = {name: tf.constant(x) for name, x in arrays.items()}
    served = loaded.signatures["serving_default"](**tensors)
    interpreter = Interpreter(model_path=str(tmp_path / "model.tflite"))
    lite = interpreter.get_signature_runner("serving_default")(**arrays)
    for outputs in (served, loaded.serve(tensors), lite):
        for output, reference in zip(flat(outputs), expected, strict=True):
            np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-5)


def test_serve_takes_a_list_where_the_model_does(tmp_path):
    model = models.two_in_two_out()
    inputs = [np.ones((2, 3), "float32"), np.ones((2, 4), "float32")]

    export(model, tmp_path, "saved_model")

    loaded = tf.saved_model.load(tmp_path / "saved_model")
    served = loaded.serve(inputs)
    for output, reference in zip(flat(served), flat(model(inputs)), strict=True):
        np.testing.assert_allclose(output, reference, rtol=1e-6)


def test_recurrent_tflite_answers_row_by_row(tmp_path):
    model = models.open_sequence()
    rows = np.random.default_rng(3).normal(size=(3, 9, 3)).astype("float32")

    export(model, tmp_path, "tflite")

    interpreter = Interpreter(model_path=str(tmp_path / "model.tflite"))
    runner = interpreter.get_signature_runner()
    (name,) = runner.get_input_details()
    outputs = [flat(runner(**{name: row[None]}))[0][0] for row in rows]
    np.testing.assert_allclose(outputs, model(rows), atol=1e-6)


def test_signature_has_the_names_of_the_model_and_an_open_batch(tmp_path):
    export(models.recommender(), tmp_path)

    loaded = tf.saved_model.load(tmp_path / "saved_model")
    signature = loaded.signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    shapes = {name: spec.shape.as_list() for name, spec in specs.items()}
    assert shapes == {"user": [None], "film": [None], "age": [None, 1]}
    assert set(signature.structured_outputs) == {"score", "genre"}
    lite = Interpreter(model_path=str(tmp_path / "model.tflite"))
    (names,) = lite.get_signature_list().values()
    assert sorted(names["inputs"]) == ["age", "film", "user"]
    assert sorted(names["outputs"]) == ["genre", "score"]


def test_outputs_have_the_names_of_their_layers(tmp_path):
    report = export(models.two_in_two_out(), tmp_path, "saved_model")

    loaded = tf.saved_model.load(report.records[0].path)
    outputs = loaded.signatures["serving_default"].structured_outputs
    assert set(outputs) == {"first", "second"}


@pytest.mark.parametrize("build", models.WITH_TABLES, ids=lambda b: b.__name__)
def test_lookup_tables_are_part_of_a_saved_model(build, tmp_path):
    model = build()

    export(model, tmp_path, formats=["saved_model"])

    loaded = tf.saved_model.load(tmp_path / "saved_model")
    known = {"word_lookup": "pepper", "text": "be or", "number_lookup": 5}
    inputs = tf.constant([[known[build.__name__]]], model.inputs[0].dtype)
    np.testing.assert_array_equal(loaded.serve(inputs), model(inputs))


@pytest.mark.parametrize("build", models.WITH_TABLES, ids=lambda b: b.__name__)
def test_tflite_refuses_lookup_tables_and_leaves_nothing(build, tmp_path):
    with pytest.raises(ExportError, match=r"lookup.*formats=\('saved_model',\)"):
        export(build(), tmp_path / "out")

    assert os.listdir(tmp_path) == []


def test_tflite_refusal_names_the_ops_that_are_missing(tmp_path):
    inputs = keras.Input((4,))
    outputs = keras.layers.Lambda(keras.ops.erfinv)(inputs)
    model = keras.Model(inputs, outputs)

    with pytest.raises(
        ExportError, match="of built-in operators: it needs the ops Erfinv"
    ):
        export(model, tmp_path / "out", "tflite")

    assert os.listdir(tmp_path) == []


def test_saved_model_holds_each_weight_once_and_nothing_of_training(tmp_path):
    model = keras.Sequential(
        [keras.Input((100,)), keras.layers.Dense(300), keras.layers.Dense(10)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((8, 100)), np.ones((8, 10)), verbose=0)

    export(model, tmp_path, "saved_model")

    stored = tmp_path / "saved_model" / "variables" / "variables.data-00000-of-00001"
    weight_bytes = 4 * (100 * 300 + 300 + 300 * 10 + 10)
    assert weight_bytes <= stored.stat().st_size <= weight_bytes + 2000
    entries = dict(
        tf.train.list_variables(str(tmp_path / "saved_model/variables/variables"))
    )
    shapes = sorted(tuple(s) for name, s in entries.items() if "VARIABLE_VALUE" in name)
    assert shapes == [(10,), (100, 300), (300,), (300, 10)]


@pytest.mark.parametrize(
    ("build", "op"),
    [(models.cnn, "Conv2D"), (models.attention, "Softmax"), (models.lstm, "While")],
)
def test_saved_model_holds_the_operations_of_a_model_once(build, op, tmp_path):
    export(build(), tmp_path, SavedModel(packed=None))

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((tmp_path / "saved_model" / "saved_model.pb").read_bytes())
    functions = proto.meta_graphs[0].graph_def.library.function
    ops = [node.op for function in functions for node in function.node_def]
    assert ops.count(op) == 1


def test_report_counts_weights_and_measures_files(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="tiny")
    model.layers[0].kernel.assign([[1, 0, 0], [0, 2, 0], [0, 0, 3], [4, 0, 0]])

    report = export(model, tmp_path, ["saved_model", TFLite()])

    assert (report.weights, report.nonzero_weights) == (15, 4)
    folder = contents(tmp_path / "saved_model")
    assert report.records[0].bytes == sum(map(len, folder.values()))
    assert report.records[1].bytes == (tmp_path / "model.tflite").stat().st_size
    assert report.records[1].path == str(tmp_path / "model.tflite")
    saved = json.loads((tmp_path / "export.json").read_text())
    assert ExportReport.from_dict(saved) == report


def test_export_does_not_change_the_model(tmp_path):
    model = models.mixed_float16()
    model.compile("adam", "mse")
    weights = model.get_weights()
    policies = [layer.dtype_policy.name for layer in model._flatten_layers()]
    x = np.random.default_rng(0).normal(size=(2, 6, 8)).astype("float32")
    before = np.array(model(x))

    export(model, tmp_path)

    after = [layer.dtype_policy.name for layer in model._flatten_layers()]
    assert after == policies
    assert model.optimizer.iterations == 0
    for weight, old in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, old)
    np.testing.assert_array_equal(model(x), before)


def test_stateful_model_keeps_its_state_during_export(tmp_path):
    model = keras.Sequential(
        [keras.Input(batch_shape=(2, 4, 3)), keras.layers.LSTM(3, stateful=True)]
    )
    model(np.ones((2, 4, 3), "float32"))
    state = [s.numpy() for s in model.layers[0].states]

    export(model, tmp_path, "saved_model")

    for now, before in zip(model.layers[0].states, state, strict=True):
        np.testing.assert_array_equal(now, before)
    loaded = tf.saved_model.load(tmp_path / "saved_model")
    x = np.full((2, 4, 3), 0.5, "float32")
    np.testing.assert_allclose(loaded.serve(x), model(x), atol=1e-6)


def test_pruned_model_is_stripped_with_a_word_about_it(tmp_path):
    model = kprune.prune(models.cnn())

    with pytest.warns(UserWarning, match=r"kprune\.strip\(model\)"):
        report = export(model, tmp_path, "saved_model")

    assert "kprune.strip(model)" in report.notes[0]
    assert "kprune.strip(model)" in str(report)
    assert report.weights == models.cnn().count_params()
    assert kprune.is_pruned(model)


def test_earlier_export_is_replaced_as_a_whole(tmp_path):
    export(models.cnn(), tmp_path / "out")

    export(models.lstm(), tmp_path / "out", "tflite")

    assert sorted(os.listdir(tmp_path / "out")) == ["export.json", "model.tflite"]
    assert os.listdir(tmp_path) == ["out"]


def test_files_of_others_beside_an_export_survive_the_next_one(tmp_path):
    export(models.cnn(), tmp_path / "out", "tflite")
    (tmp_path / "out" / "plot.png").write_bytes(b"picture")

    export(models.cnn(), tmp_path / "out", "tflite")

    assert (tmp_path / "out" / "plot.png").read_bytes() == b"picture"
    assert os.listdir(tmp_path) == ["out"]


def test_folder_that_is_no_export_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(FileExistsError, match=r"no export of kprune.*'thesis\.tex'"):
        export(models.cnn(), tmp_path)

    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_file_of_the_users_in_the_way_is_refused_untouched(tmp_path):
    export(models.cnn(), tmp_path, "tflite")
    (tmp_path / "saved_model").mkdir()
    (tmp_path / "saved_model" / "own").write_text("mine")
    before = contents(tmp_path)

    with pytest.raises(FileExistsError, match="'saved_model', not written by kprune"):
        export(models.cnn(), tmp_path)

    assert contents(tmp_path) == before


def test_path_of_a_file_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("weights")

    with pytest.raises(FileExistsError, match="is a file"):
        export(models.cnn(), path)

    assert path.read_text() == "weights"


@pytest.mark.parametrize("format", ["saved_model", "tflite"])
def test_full_disk_leaves_the_previous_export(format, tmp_path):
    model = keras.Sequential([keras.Input((400,)), keras.layers.Dense(300)])
    export(models.cnn(), tmp_path / "out", format)
    before = contents(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(
            ExportError, match="(?s)could not be written.*disk has room"
        ):
            export(model, tmp_path / "out", format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert contents(tmp_path) == before


def test_parent_folders_made_for_a_failed_export_are_removed(tmp_path):
    with pytest.raises(ExportError, match="lookup"):
        export(models.word_lookup(), tmp_path / "a" / "b" / "out")

    assert os.listdir(tmp_path) == []


class Poisoned(SavedModel):
    """Writes the model with one weight nudged."""

    def write(self, forward, path):
        kernel = forward.model.layers[-1].kernel
        kernel.assign_add(np.full(kernel.shape, 0.01))
        try:
            return super().write(forward, path)
        finally:
            kernel.assign_sub(np.full(kernel.shape, 0.01))


class Nullified(SavedModel):
    """Writes the model with NaN weights."""

    def write(self, forward, path):
        kernel = forward.model.layers[-1].kernel
        kept = kernel.numpy()
        kernel.assign(np.full(kernel.shape, np.nan))
        try:
            return super().write(forward, path)
        finally:
            kernel.assign(kept)


class Shifted(SavedModel):
    """Answers a little more than the model does."""

    def load(self, path):
        run, batch = super().load(path)
        right = run.loaded.signatures["serving_default"]

        def shifted(**x):
            return {name: y + 0.01 for name, y in right(**x).items()}

        shifted.structured_outputs = right.structured_outputs
        run.loaded.signatures = {"serving_default": shifted}
        return run, batch


class Truncated(TFLite):
    """Cuts the file it wrote in half."""

    def write(self, forward, path):
        notes = super().write(forward, path)
        os.truncate(path, os.path.getsize(path) // 2)
        return notes


class Flipped(TFLite):
    """Flips the exponent bits of every weight of the last kernel."""

    def write(self, forward, path):
        notes = super().write(forward, path)
        kernel = forward.model.layers[-1].kernel.numpy().T.tobytes()
        with open(path, "rb") as file:
            content = file.read()
        assert kernel in content
        spoiled = bytes(b ^ 0x10 for b in kernel)
        with open(path, "wb") as file:
            file.write(content.replace(kernel, spoiled))
        return notes


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Poisoned(), "Weight 'cnn/logits/kernel' of .* is not what was to be stored"),
        (Nullified(), "Weight 'cnn/logits/kernel' of .* is not what was to be stored"),
        (Shifted(), "differs from Keras by"),
        (Truncated(), "written"),
        (Flipped(), "written"),
    ],
)
def test_faulty_file_is_caught_and_the_previous_export_stays(fault, message, tmp_path):
    model = models.cnn()
    export(model, tmp_path / "out", type(fault).__base__())
    before = contents(tmp_path)

    with pytest.raises(ExportError, match=message):
        export(model, tmp_path / "out", [fault])

    assert contents(tmp_path) == before


def test_tolerance_decides_what_counts_as_equal(tmp_path):
    report = export(models.cnn(), tmp_path, Shifted(tolerance=0.5))

    assert 1e-4 < report.records[0].max_difference < 0.5


def test_nan_weights_are_refused_by_name(tmp_path):
    model = models.cnn()
    kernel = model.layers[-1].kernel
    kernel.assign(np.where(np.arange(5) == 2, np.nan, kernel.numpy()))

    with pytest.raises(ExportError, match=r"NaN in its weights cnn/logits/kernel\."):
        export(model, tmp_path / "out")

    assert os.listdir(tmp_path) == []


def test_model_that_gives_only_nan_is_refused(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Lambda(lambda x: keras.ops.log(-1 - x * x))]
    )

    with pytest.raises(ExportError, match="NaN or infinite throughout"):
        export(model, tmp_path / "out", "saved_model")

    assert os.listdir(tmp_path) == []


def test_model_that_draws_at_inference_is_refused(tmp_path):
    class Noise(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.generator = keras.random.SeedGenerator(1)

        def call(self, x):
            return x + keras.random.normal((3,), seed=self.generator)

    model = keras.Sequential([keras.Input((3,)), Noise()])

    with pytest.raises(ExportError, match="random numbers at inference"):
        export(model, tmp_path / "out", "saved_model")


def test_unbuilt_and_uncalled_models_are_refused(tmp_path):
    class Built(keras.Model):
        def __init__(self):
            super().__init__()
            self.built = True

    with pytest.raises(ValueError, match="has no weights yet. Call it once"):
        export(models.TwoHeads(), tmp_path / "out")
    with pytest.raises(ExportError, match=r"not called yet. Call it once.*model\(x\)"):
        export(Built(), tmp_path / "out")


@pytest.mark.parametrize("wrong", ["model.keras", None, keras.layers.Dense(2)])
def test_something_that_is_no_model_is_refused(wrong, tmp_path):
    with pytest.raises(TypeError, match="keras.Model"):
        export(wrong, tmp_path / "out")


def test_tf_keras_model_is_refused_with_the_way_out(tmp_path):
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])

    with pytest.raises(TypeError, match="Keras 2.*from_tf_keras"):
        export(model, tmp_path / "out")


@pytest.mark.parametrize("formats", [[], ["tflite", TFLite()]])
def test_each_format_is_asked_for_once(formats, tmp_path):
    with pytest.raises(ValueError, match="at least one and each once"):
        export(models.cnn(), tmp_path / "out", formats)


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        (None, "formats is None, expected a format or a list"),
        (3, "formats is 3, expected a format or a list"),
        (TFLite, r"class TFLite, expected an object of it: TFLite\(\)"),
        (["saved_model", TFLite], r"class TFLite, expected an object"),
    ],
)
def test_what_is_no_format_is_refused_with_the_way_out(formats, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        export(models.cnn(), tmp_path / "out", formats)


def test_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'onnx' is none of the registered formats"):
        export(models.cnn(), tmp_path / "out", ["onnx"])


def test_sparse_inputs_are_refused(tmp_path):
    inputs = keras.Input((4,), sparse=True, name="bag")
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))

    with pytest.raises(ExportError, match="'bag' is sparse"):
        export(model, tmp_path / "out")


def test_an_export_into_the_working_directory_leaves_it_in_place(tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o2775)

    for _ in range(2):
        export(model, ".", formats="tflite")

    assert sorted(p.name for p in tmp_path.iterdir()) == ["export.json", "model.tflite"]
    assert tmp_path.stat().st_mode & 0o7777 == 0o2775


def test_a_saved_model_is_refused_where_tensorflow_does_not_find_it(tmp_path):
    with pytest.raises(ExportError, match=r"reads \[ in a path as part of a pattern"):
        export(models.cnn(), tmp_path / "run[1]", "saved_model")

    assert list(tmp_path.iterdir()) == []


def test_layers_in_float64_are_named_with_the_way_out(tmp_path):
    wide = keras.layers.Dense(2, dtype="float64", name="wide")
    model = keras.Sequential([keras.Input((4,), dtype="float64"), wide])

    with pytest.raises(ExportError, match="wide compute in float64.*dtype='float32'"):
        export(model, tmp_path / "out", "tflite")


def test_layers_that_keras_quantized_are_named_with_the_way_out(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="whole")])
    model.layers[0].quantize("int8")

    with pytest.raises(ExportError, match="whole were quantized by Keras.*as it was"):
        export(model, tmp_path / "out", "tflite")


def test_a_model_that_needs_its_batch_is_exported_with_it(tmp_path):
    inputs = keras.Input(batch_shape=(4, 6), name="x")
    halves = keras.ops.reshape(keras.layers.Dense(6)(inputs), (4, 3, 2))

    export(keras.Model(inputs, halves), tmp_path / "out")

    loaded = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    assert loaded.serve(tf.zeros((4, 6))).shape == (4, 3, 2)
