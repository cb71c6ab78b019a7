import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers, saving

from kprune import litefile, registry
from kprune.export import ExportError, TFLite, provenance
from kprune.export.conversion import convert
from kprune.export.forward import Forward
from kprune.export.quantized import check_answers, check_constants
from kprune.export.representative import take_rows
from kprune.export.samples import draw_samples
from kprune.export.verify import verify
from kprune.export.zeros import encode_zeros
from tests.export import models
from tests.processes import run_script
from tests.training_helpers import with_slow

CALIBRATED = ("int8", "int16x8")
MODES = ("float16", "dynamic_range", *CALIBRATED)


def normal_rows(forward, count=48, seed=0):
    """Returns normal rows for float inputs, small whole numbers for others."""
    rng = np.random.default_rng(seed)
    rows = {}
    for spec in forward.inputs:
        shape = (count, *spec.shape[1:])
        rows[spec.name] = (
            rng.normal(size=shape).astype("float32")
            if spec.dtype.is_floating
            else rng.integers(0, 7, shape).astype(spec.dtype.as_numpy_dtype)
        )
    return rows


def written(model, tmp_path, quantization=None, **options):
    """Writes a file as `kprune.export` does; returns notes, path and largest error."""
    forward = Forward(model)
    if quantization in CALIBRATED:
        options.setdefault("representative_data", normal_rows(forward))
    format = TFLite(quantization, **options)
    format.check(forward)
    path = str(tmp_path / format.file)
    notes = format.write(forward, path).notes
    run, batch = format.load(path)
    inputs = format.inputs(forward)
    if inputs is None:
        inputs = [arrays for arrays, _ in draw_samples(forward)]
    samples = [(arrays, forward(arrays)) for arrays in inputs]
    tolerance = format.tolerance or format.default_tolerance(forward)
    return notes, path, verify(run, batch, samples, tolerance, "the file")


def pruned(model, sparsity=0.9, block=1):
    """Sets weights to zero, in blocks along the inputs of each matrix."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if len(weight.shape) >= 2:
            value = weight.numpy()
            shape = (-(-value.shape[0] // block), *value.shape[1:])
            keep = np.repeat(rng.random(shape) >= sparsity, block, axis=0)
            weight.assign(value * keep[: value.shape[0]])
    return model


def two_dense(sparsity=0.9, block=1, size=128):
    model = keras.Sequential(
        [
            keras.Input((size,), name="x"),
            layers.Dense(size, activation="relu"),
            layers.Dense(size, name="y"),
        ],
        name="two_dense",
    )
    return pruned(model, sparsity, block)


def two_convolutions():
    return pruned(
        keras.Sequential(
            [
                keras.Input((6, 6, 32), name="x"),
                layers.Conv2D(32, 1, activation="relu"),
                layers.Conv2D(16, 3, name="y"),
            ]
        )
    )


def self_attention():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    return keras.Model(inputs, layers.LayerNormalization()(x + inputs))


def unrolled():
    return keras.Sequential(
        [keras.Input((4, 3)), layers.LSTM(4, unroll=True), layers.Dense(2)]
    )


def gated():
    return keras.Sequential([keras.Input((4, 16)), layers.GRU(24), layers.Dense(2)])


def bidirectional():
    layer = layers.Bidirectional(layers.GRU(24))
    return keras.Sequential([keras.Input((4, 16)), layer, layers.Dense(2)])


def half_precision():
    first = layers.Dense(32, activation="relu", dtype="mixed_float16")
    second = layers.Dense(5, dtype="mixed_bfloat16")
    return keras.Sequential([keras.Input((16,)), first, second])


def text_classifier():
    return keras.Sequential(
        [
            keras.Input((6,), dtype="int32", name="ids"),
            layers.Embedding(300, 16),
            layers.Conv1D(16, 3, activation="relu"),
            layers.GlobalMaxPool1D(),
            layers.Dense(3),
        ]
    )


LARGEST = {"float16": 5e-3, "dynamic_range": 0.1, "int8": 0.2, "int16x8": 0.1}


@pytest.mark.parametrize(
    ("build", "mode"),
    [
        *((models.cnn, mode) for mode in MODES),
        (models.two_in_two_out, "int8"),
        (two_dense, "dynamic_range"),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_every_mode_carries_the_model(build, mode, tmp_path):
    _, path, difference = written(build(), tmp_path, mode)

    assert os.path.basename(path) == f"model_{mode}.tflite"
    assert difference < LARGEST[mode]
    run, batch = TFLite().load(path)
    assert batch is None
    forward = Forward(build())
    assert set(run(normal_rows(forward, 5))) == set(forward.output_names)


@pytest.mark.parametrize(
    ("build", "mode"),
    [
        # A loop is carried by `gated`, and what is slow of these by others as well.
        pytest.param(models.resnet, "int8", marks=pytest.mark.slow),
        pytest.param(models.recommender, "int8", marks=pytest.mark.slow),
        (models.normalized, "int16x8"),
        pytest.param(models.lstm, "float16", marks=pytest.mark.slow),
        (gated, "dynamic_range"),
        pytest.param(bidirectional, "dynamic_range", marks=pytest.mark.slow),
        pytest.param(half_precision, "float16", marks=pytest.mark.slow),
        (half_precision, "int8"),
        (unrolled, "int8"),
        pytest.param(unrolled, "int16x8", marks=pytest.mark.slow),
        (text_classifier, "int8"),
        pytest.param(models.subclassed, "int8", marks=pytest.mark.slow),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_models_of_other_kinds_are_carried_too(build, mode, tmp_path):
    notes, path, _ = written(build(), tmp_path, mode)

    fixed = any("batch fixed to 1" in note for note in notes)
    assert fixed == (build in (models.lstm, gated, bidirectional))
    assert any("of the outputs' spread" in note for note in notes)


@pytest.mark.parametrize(("mode", "step"), [("int8", "int8"), ("int16x8", "int16")])
def test_inputs_and_outputs_are_integers_where_asked_for(mode, step, tmp_path):
    _, path, difference = written(models.cnn(), tmp_path, mode, integer_io=True)

    interpreter = Interpreter(model_path=path)
    details = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert [detail["dtype"](0).dtype.name for detail in details] == [step, step]
    assert litefile.read(path).float_operators == []
    assert difference < 0.2


def test_whole_number_inputs_stay_what_they_are(tmp_path):
    _, path, _ = written(text_classifier(), tmp_path, "int8", integer_io=True)

    contents = litefile.read(path)
    assert contents.inputs["ids"].dtype == "int32"
    assert [tensor.dtype for tensor in contents.outputs.values()] == ["int8"]


# The slow ones store weights as their siblings do: rounded, or as int8.
@pytest.mark.parametrize("mode", with_slow({"float16", "int16x8"}, [None, *MODES]))
def test_pruned_weights_are_exactly_zero_in_the_file(mode, tmp_path):
    model = pruned(
        keras.Sequential(
            [
                keras.Input((8, 8, 4)),
                layers.Conv2D(16, 3, activation="relu"),
                layers.DepthwiseConv2D(3),
                layers.Flatten(),
                layers.Dense(7),
            ]
        ),
        sparsity=0.6,
    )

    _, path, _ = written(model, tmp_path, mode, sparse=False)

    kernels = {w.numpy().size: w.numpy() for w in model.weights[::2]}
    stored = [c for c in litefile.read(path).constants if len(c.shape) in (2, 4)]
    assert (
        sorted(c.values().size for c in stored) == sorted(kernels) == [144, 576, 1792]
    )
    for constant in stored:
        zeros = np.sum(kernels[constant.values().size] == 0)
        assert np.sum(constant.real_values() == 0) >= zeros > 50
        if constant.dtype == "int8":
            assert not constant.zero_points.any()


def test_zeros_of_an_embedding_are_exact_though_its_zero_point_is_not(tmp_path):
    model = pruned(text_classifier(), 0.5)
    table = model.layers[0].embeddings
    table.assign(np.where(table.numpy() == 0, 0, table.numpy() + 0.02))
    zeros = table.numpy() == 0

    _, path, _ = written(model, tmp_path, "int8")

    (stored,) = [c for c in litefile.read(path).constants if c.shape == (300, 16)]
    assert stored.dtype == "int8"
    np.testing.assert_array_equal(stored.real_values()[zeros], 0.0)


def test_a_table_that_the_data_hardly_reaches_is_cut_off_with_a_word(tmp_path):
    few = np.random.default_rng(0).integers(0, 3, (16, 6))
    all_of_it = np.arange(300).reshape(50, 6)

    notes = {
        name: written(text_classifier(), tmp_path, "int8", representative_data=ids)[0]
        for name, ids in (("few", few), ("all", all_of_it))
    }

    assert any("were cut off; rows that use more" in note for note in notes["few"])
    assert not any("cut off" in note for note in notes["all"])


def test_a_data_set_with_targets_calibrates_like_its_arrays(tmp_path):
    model, rows = two_dense(size=16), np.random.default_rng(1).normal(size=(32, 16))
    data = tf.data.Dataset.from_tensor_slices((rows, rows)).batch(16)

    scales = []
    for given in (rows, data):
        _, path, _ = written(model, tmp_path, "int8", representative_data=given)
        scales.append([tensor.scales for tensor in litefile.read(path).tensors])

    for one, other in zip(*scales, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", CALIBRATED)
def test_loops_are_refused_before_they_crash_the_converter(mode, tmp_path):
    # The way out that is named must be one: neither calibrated mode takes loops.
    message = r"loops.*unroll=True.*set_weights.*Use kprune\.TFLite\('dynamic_range'\)"
    with pytest.raises(ExportError, match=message):
        written(models.lstm(), tmp_path, mode)

    assert os.listdir(tmp_path) == []


def test_a_mask_that_int8_spoils_is_noticed(tmp_path):
    model = models.attention()

    with pytest.raises(ExportError, match=r"off by 0\.\d+ of its spread.*mask attent"):
        written(model, tmp_path, "int8")

    notes, _, _ = written(model, tmp_path, "int8", tolerance=0.9)
    assert not any("spread" in note for note in notes)


def test_operators_left_in_float_are_named_or_refused(tmp_path):
    notes, _, _ = written(self_attention(), tmp_path, "int8")

    assert any("NEG compute in float32" in note for note in notes)
    with pytest.raises(ExportError, match="integer_io=True, and NEG would compute in"):
        written(self_attention(), tmp_path, "int8", integer_io=True)


def test_a_mode_that_lacks_an_operator_names_it_and_another_mode(tmp_path):
    with pytest.raises(ExportError, match=r"(?s)'int16x8'.*'NEG'.*TFLite\('int8'"):
        written(self_attention(), tmp_path, "int16x8")


def test_whole_numbers_are_what_int16x8_cannot_take(tmp_path):
    with pytest.raises(ExportError, match=r"whole numbers \(ids\).*TFLite\('int8'"):
        written(text_classifier(), tmp_path, "int16x8")


def read_sparse(path):
    return [c for c in litefile.read(path).constants if c.is_sparse]


@pytest.mark.parametrize("block", [1, 4])
def test_zeros_of_float_weights_are_left_out_by_default(block, tmp_path):
    model = two_dense(block=block)

    notes, path, difference = written(model, tmp_path)
    (tmp_path / "plain").mkdir()
    _, plain, _ = written(model, tmp_path / "plain", sparse=False)

    sparse = read_sparse(path)
    assert len(sparse) == 2
    for layer in model.layers:
        matches = [np.array_equal(layer.kernel.numpy().T, c.values()) for c in sparse]
        assert sum(matches) == 1
    assert os.path.getsize(path) < 0.4 * os.path.getsize(plain)
    assert difference < 1e-5
    (note,) = notes
    assert note.startswith("zeros of its weights are not stored: ")
    assert "GPU delegates, TensorFlow Lite Micro" in note


def test_zeros_of_convolutions_are_left_out_as_the_interpreter_reads_them(tmp_path):
    _, path, _ = written(two_convolutions(), tmp_path)

    interpreter = Interpreter(
        model_path=path,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    interpreter.invoke()
    contents = litefile.read(path)
    decoders = [o for o in contents.operators if o.name == "DENSIFY"]
    assert len(decoders) == len(read_sparse(path)) == 2
    for decoder in decoders:
        decoded = interpreter.get_tensor(contents.tensors.index(decoder.outputs[0]))
        np.testing.assert_array_equal(decoder.inputs[0].values(), decoded)


@pytest.mark.parametrize("sparsity", [0.0, 0.31])
def test_a_file_that_would_not_shrink_stays_plain(sparsity, tmp_path):
    model = two_dense(sparsity, size=300)

    notes, path, _ = written(model, tmp_path)

    assert read_sparse(path) == []
    explained = any("with them the file would have" in note for note in notes)
    assert explained == (sparsity == 0.31)
    with pytest.raises(ExportError, match=r"zeros left out: .*Use sparse='auto'"):
        written(model, tmp_path, sparse=True)


@pytest.mark.parametrize(
    ("mode", "block"),
    [
        pytest.param("float16", 1, marks=pytest.mark.slow),  # single ones, as int16x8
        ("int8", 16),
        ("int16x8", 1),
    ],
)
def test_zeros_of_rounded_weights_are_left_out_where_that_is_right(
    mode, block, tmp_path
):
    model = two_dense(block=block)

    notes, path, _ = written(model, tmp_path, mode, sparse=True)

    assert len(read_sparse(path)) == 2
    assert any("are not stored" in note for note in notes)
    _, plain, _ = written(model, tmp_path, mode)
    assert read_sparse(plain) == []


@pytest.mark.parametrize(
    ("mode", "block", "reason"),
    [
        ("float16", 4, "blocks of float16 weights"),
        ("int16x8", 16, "blocks of int8 weights and int16 inputs"),
        ("int8", 1, "failed to prepare"),
    ],
)
def test_zeros_are_kept_where_leaving_them_out_is_wrong(mode, block, reason, tmp_path):
    with pytest.raises(ExportError, match=f"{reason}.*Use sparse='auto'"):
        written(two_dense(block=block), tmp_path, mode, sparse=True)


RUN_ALONE = """
    import sys
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    try:
        runner = Interpreter(model_path=sys.argv[1]).get_signature_runner()
        output = runner(x=np.load(sys.argv[2]))["y"]
    except RuntimeError as error:
        sys.exit("refused: " + str(error))
    np.save(sys.argv[2], output)
"""


def broken(mode, block, tmp_path):
    """Returns how a file that kprune does not write fares in a process of its own.

    Either the largest error relative to the plain file's largest output, or what
    the interpreter says. A process of its own, for kernels that read memory
    which is not theirs may take it down.
    """
    forward = Forward(two_dense(block=block))
    rows = normal_rows(forward)
    content, _ = convert(forward, mode, rows)
    (tmp_path / "plain").write_bytes(content)
    expected = TFLite().load(str(tmp_path / "plain"))[0](rows)["y"]
    (tmp_path / "sparse").write_bytes(encode_zeros(content))
    np.save(tmp_path / "x.npy", rows["x"])
    done = run_script(RUN_ALONE, tmp_path / "sparse", tmp_path / "x.npy")
    if done.returncode:
        return done.stderr or "crashed"
    output = np.load(tmp_path / "x.npy")
    return np.abs(output - expected).max() / np.abs(expected).max()


# The two tests below watch LiteRT, not kprune: they tell when a workaround can go.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "block"), [("float16", 4), ("dynamic_range", 16), ("int16x8", 16)]
)
def test_litert_still_gives_wrong_numbers_in_silence(mode, block, tmp_path):
    """Fails with the first LiteRT that has the kernel: then allow it in zeros.py."""
    error = broken(mode, block, tmp_path)

    assert not error <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["dynamic_range", "int8"])
def test_litert_still_does_not_load_decoded_int8_weights(mode, tmp_path):
    """Fails with the first LiteRT that runs them: then allow it in tflite.py."""
    message = broken(mode, 1, tmp_path)

    assert "failed to prepare" in message


@pytest.fixture(scope="module")
def int8_file():
    """A model's forward pass, rows, its int8 file and its float file."""
    keras.utils.set_random_seed(1)
    forward = Forward(two_dense(size=32))
    rows = normal_rows(forward)
    return forward, rows, convert(forward, "int8", rows)[0], convert(forward)[0]


def test_a_right_file_passes_both_checks(int8_file):
    forward, rows, content, plain = int8_file

    check_constants(litefile.read(content), litefile.read(plain))

    error, notes = check_answers(forward, content, rows, "int8")

    assert 1e-4 < error < 0.1
    assert notes == []


def test_one_flipped_bit_in_a_weight_is_noticed(int8_file):
    _, _, content, plain = int8_file
    contents = litefile.read(content)
    weights = next(c for c in contents.constants if c.shape == (32, 32))
    spoiled = bytearray(weights.stored.tobytes())
    spoiled[100] ^= 0x02
    assert content.count(weights.stored.tobytes()) == 1
    content = content.replace(weights.stored.tobytes(), bytes(spoiled))

    with pytest.raises(ExportError, match=r"not the model's, rounded: .* int8"):
        check_constants(litefile.read(content), litefile.read(plain))


def test_one_wrong_scale_is_noticed(int8_file):
    _, _, content, plain = int8_file
    contents = litefile.read(content)
    scales = next(c.scales for c in contents.constants if c.shape == (32, 32))
    wrong = scales.copy()
    wrong[3] *= 1.1
    content = content.replace(scales.tobytes(), wrong.tobytes())

    with pytest.raises(ExportError, match="not the model's, rounded"):
        check_constants(litefile.read(content), litefile.read(plain))


def test_the_file_of_another_model_is_noticed(int8_file):
    _, rows, content, _ = int8_file
    keras.utils.set_random_seed(2)
    other = Forward(two_dense(size=32))

    with pytest.raises(ExportError, match="'y' of model 'two_dense'.*off by 1"):
        check_answers(other, content, rows, "int8")


def test_an_output_of_few_steps_is_named_in_the_report(tmp_path):
    inputs = keras.Input((8,), name="x")
    rare = keras.initializers.Constant(-6.0)
    dense = layers.Dense(3, "sigmoid", bias_initializer=rare, name="p")
    rows = np.random.default_rng(0).normal(size=(64, 8))
    model = keras.Model(inputs, dense(inputs))

    notes, _, _ = written(model, tmp_path, "int8", representative_data=rows)

    # A sigmoid has steps of 1/256, and these outputs are below a twentieth.
    outputs = model.predict(rows, verbose=0)
    note = next(note for note in notes if "'p'" in note)
    assert float(note.split(" has ")[1].split(" steps")[0]) < 256 * np.ptp(outputs) + 1
    assert "export the logits" in note


@pytest.mark.parametrize("rows", [np.zeros((64, 8)), np.ones((1, 8))])
def test_calibration_on_few_different_rows_is_named_in_the_report(rows, tmp_path):
    notes, _, _ = written(two_dense(size=8), tmp_path, "int8", representative_data=rows)

    assert any("compared on 1 different rows" in note for note in notes)


def test_a_rounded_file_needs_an_output_for_each_row(tmp_path):
    inputs = keras.Input((8,), name="x")
    model = keras.Model(inputs, keras.ops.mean(layers.Dense(200)(inputs)))

    with pytest.raises(ExportError, match="has no axis for rows.*tolerance="):
        written(model, tmp_path, "float16")
    written(model, tmp_path, "float16", tolerance=0.05)


def test_metadata_tells_where_the_file_came_from(tmp_path):
    model = two_dense(0.9, size=16)

    _, path, _ = written(model, tmp_path, "int8")

    zeros = sum(int(np.sum(w.numpy() == 0)) for w in model.weights)
    found = litefile.read_metadata(path)
    assert found == {
        "kprune_version": provenance.kprune_version(),
        "quantization": "int8",
        "sparsity": round(zeros / model.count_params(), 6),
        "source_sha256": provenance.weights_sha256(model),
    }
    model.layers[0].bias.assign_add(np.ones(16))
    assert provenance.weights_sha256(model) != found["source_sha256"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "int2"}, "quantization is 'int2', expected one of None"),
        ({"quantization": "int8"}, "needs representative_data.*'dynamic_range'"),
        ({"quantization": "int16x8"}, "needs representative_data"),
        ({"integer_io": True}, "integer_io=True with quantization=None"),
        ({"sparse": "yes"}, "sparse is 'yes', expected 'auto', True or False"),
        (
            {"quantization": "dynamic_range", "sparse": True},
            r"wrong numbers.*TFLite\(sparse=True\)",
        ),
        ({"quantization": "int4", "sparse": True}, "sparse=True with .*'int4'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TFLite(**options)


def test_data_is_checked_before_anything_else():
    format = TFLite("int8", representative_data=np.zeros((5, 7)))

    with pytest.raises(ValueError, match=r"shape \(5, 7\), expected \(rows, 8, 8, 3\)"):
        format.check(Forward(models.cnn()))


def test_rows_are_taken_once_so_that_shuffled_data_stays_calibrated():
    data = tf.data.Dataset.from_tensor_slices(np.arange(100.0)[:, None]).shuffle(100)
    forward = Forward(keras.Sequential([keras.Input((1,)), layers.Dense(1)]))
    format = TFLite("int8", representative_data=data.batch(10))

    first, second = format.inputs(forward), format.inputs(forward)

    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(*[list(x.values())[0] for x in (one, other)])


def test_formats_with_the_same_data_are_equal_and_survive_their_config():
    data = {"x": np.arange(6.0).reshape(2, 3)}
    format = TFLite("int8", representative_data=data, integer_io=True)

    restored = registry.get("formats", saving.serialize_keras_object(format))

    assert restored == format
    assert hash(restored) == hash(format)
    assert format != TFLite("int8", representative_data={"x": data["x"] + 1})
    assert format != TFLite()
    assert TFLite("float16", sparse=False) == TFLite("float16", sparse=False)


def test_the_printed_form_leaves_out_defaults_and_data():
    format = TFLite("int8", representative_data=np.zeros((2, 3)), tolerance=0.3)

    assert repr(format) == (
        "TFLite(quantization='int8', representative_data=Ellipsis, tolerance=0.3)"
    )
    assert repr(TFLite(sparse=False)) == "TFLite(sparse=False)"


def test_rows_given_without_need_are_what_files_are_compared_on():
    rows = np.arange(12.0, dtype="float32").reshape(4, 3)
    forward = Forward(models.normalized())

    batches = TFLite("float16", representative_data=rows).inputs(forward)

    values = [list(batch.values())[0] for batch in batches]
    assert [len(value) for value in values] == [1, 1, 4]
    np.testing.assert_array_equal(values[0], rows[:1])
    assert take_rows(rows, forward).keys() == batches[0].keys()
