import gc
import json
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

from kprune import SavedModel
from kprune.export import ExportError, export
from kprune.export.forward import Forward
from kprune.export.packing import PACKINGS
from kprune.export.samples import draw_samples
from kprune.export.verify import verify
from tests.processes import run_script
from tests.training_helpers import with_slow


def sparse(model, sparsity=0.9):
    """Sets the smallest weights of each kernel to zero."""
    for weight in model.weights:
        if len(weight.shape) > 1 and "float" in weight.dtype:
            array = np.asarray(weight).astype("float32")
            threshold = np.quantile(np.abs(array), sparsity)
            weight.assign(np.where(np.abs(array) > threshold, array, 0))
    return model


def perceptron():
    return keras.Sequential(
        [
            keras.Input((64,), name="x"),
            layers.Dense(256, activation="relu", bias_initializer="ones"),
            layers.Dense(64, activation="relu", bias_initializer="ones"),
            layers.Dense(5, name="logits"),
        ],
        name="perceptron",
    )


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 16)),
            layers.Conv2D(64, 3),
            layers.BatchNormalization(),
            layers.SeparableConv2D(64, 3),
            layers.GlobalMaxPool2D(),
        ]
    )


def recurrent():
    return keras.Sequential(
        [
            keras.Input((6, 32)),
            layers.LSTM(64),
        ]
    )


def stateful():
    return keras.Sequential(
        [keras.Input(batch_shape=(2, 4, 32)), layers.LSTM(64, stateful=True)]
    )


def embedding():
    ids = keras.Input((5,), dtype="int32", name="ids")
    return keras.Model(ids, layers.Embedding(500, 32)(ids))


def shared_layer():
    left, right = keras.Input((64,), name="left"), keras.Input((64,), name="right")
    dense = layers.Dense(64, name="shared")
    return keras.Model([left, right], [dense(left), dense(dense(right))])


def nested():
    inner = keras.Sequential([keras.Input((64,)), layers.Dense(64, activation="relu")])
    inputs = keras.Input((64,))
    return keras.Model(inputs, layers.Dense(64)(inner(inner(inputs))))


def word_lookup():
    words = keras.Input((1,), dtype="string", name="word")
    vocabulary = [f"word{i}" for i in range(300)]
    ids = layers.StringLookup(vocabulary=vocabulary)(words)
    return keras.Model(words, layers.Embedding(301, 32)(ids))


def of_type(dtype):
    return keras.Sequential(
        [keras.Input((64,)), layers.Dense(256, dtype=dtype), layers.Dense(64)]
    )


def half():
    return of_type("float16")


def brain_half():
    return of_type("bfloat16")


def mixed():
    return of_type("mixed_float16")


MODELS = [
    pytest.param(perceptron, marks=pytest.mark.slow),  # rounded it is loaded below
    convolutional,
    pytest.param(recurrent, marks=pytest.mark.slow),  # `stateful` is one too
    stateful,
    pytest.param(embedding, marks=pytest.mark.slow),  # `word_lookup` has one
    pytest.param(shared_layer, marks=pytest.mark.slow),
    pytest.param(nested, marks=pytest.mark.slow),
    word_lookup,
    half,
    pytest.param(brain_half, marks=pytest.mark.slow),  # `half` has 16 bits too
    pytest.param(mixed, marks=pytest.mark.slow),  # rounded it is loaded below
]


def bytes_under(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def arrays_for(model):
    return draw_samples(Forward(model), seed=7)


def graph_of(path):
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((path / "saved_model.pb").read_bytes())
    return proto.meta_graphs[0]


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_a_packed_file_answers_bit_for_bit_like_a_plain_one(build, tmp_path):
    model = sparse(build())
    samples = arrays_for(model)

    packed = export(model, tmp_path / "packed", SavedModel("lossless")).records[0]
    export(model, tmp_path / "plain", SavedModel(None))

    assert "packed (lossless)" in packed.notes[0]
    run, _ = SavedModel().load(str(tmp_path / "packed" / "saved_model"))
    run_plain, _ = SavedModel().load(str(tmp_path / "plain" / "saved_model"))
    for inputs, _ in samples:
        expected = run_plain(inputs)
        for name, output in run(inputs).items():
            np.testing.assert_array_equal(output, expected[name])


@pytest.mark.parametrize(
    ("build", "packing", "tolerance"),
    [
        (perceptron, "fp16", 1e-5),
        (perceptron, "codebook8", 1e-5),
        # With the same codebook `mixed` is loaded, and word_lookup above.
        pytest.param(perceptron, "codebook4", 1e-5, marks=pytest.mark.slow),
        pytest.param(recurrent, "codebook4", 1e-5, marks=pytest.mark.slow),
        pytest.param(word_lookup, "codebook4", 1e-5, marks=pytest.mark.slow),
        (mixed, "codebook4", 5e-3),
    ],
)
def test_a_rounded_file_is_compared_with_the_model_rounded_alike(
    build, packing, tolerance, tmp_path
):
    model = sparse(build())

    record = export(model, tmp_path, SavedModel(packing)).records[0]

    assert record.max_difference <= tolerance
    if packing == "codebook4":
        run, batch = SavedModel().load(str(tmp_path / "saved_model"))
        with pytest.raises(ExportError, match="differs from Keras"):
            verify(run, batch, arrays_for(model), 1e-3, "the unrounded model")


# The slow ones are between the two others.
@pytest.mark.parametrize("packing", with_slow({"fp16", "codebook8"}, PACKINGS))
def test_size_is_within_a_tenth_of_the_bound_beside_the_graph(packing, tmp_path):
    model = keras.Sequential([keras.Input((784,))])
    for units in (300, 100, 10):
        model.add(layers.Dense(units, bias_initializer="ones"))
    nonzeros = [23520, 3000, 100]

    record = export(sparse(model), tmp_path, SavedModel(packing)).records[0]

    entropy = 0.1 * np.log2(10) + 0.9 * np.log2(1 / 0.9)
    bits = {"lossless": 32, "fp16": 16, "codebook8": 8, "codebook4": 4}[packing]
    packed = sum(n * bits + 10 * n * entropy for n in nonzeros) / 8
    dense = 4 * (300 + 100 + 10)
    assert abs(record.bound - packed - dense) <= 1
    codebooks = 2 * 1024 if packing == "codebook8" else 0
    assert record.bytes - record.overhead_bytes <= 1.1 * record.bound + codebooks
    assert record.bytes == bytes_under(tmp_path / "saved_model")
    assert record.overhead_bytes < 60_000


def test_auto_packs_a_sparse_model_and_says_what_it_needs(tmp_path):
    model = sparse(perceptron())

    record = export(model, tmp_path, "saved_model").records[0]

    export(model, tmp_path / "plain", SavedModel(None))
    assert record.bytes < bytes_under(tmp_path / "plain" / "saved_model")
    assert "3 weights packed (lossless)" in record.notes[0]
    assert "decoded by TensorFlow when it is loaded" in record.notes[1]


@pytest.mark.parametrize(
    ("width", "sparsity"),
    [
        (16, 0.9),
        (64, 0.3),
        # More of what the sizes above show.
        pytest.param(64, 0.9, marks=pytest.mark.slow),
        pytest.param(96, 0.9, marks=pytest.mark.slow),
    ],
)
def test_auto_is_never_larger_than_plain(width, sparsity, tmp_path):
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(width), layers.Dense(32)]
    )

    record = export(sparse(model, sparsity), tmp_path / "a", SavedModel()).records[0]

    export(model, tmp_path / "b", SavedModel(None))
    # Names of functions hold a number, which may have one digit more.
    assert record.bytes <= bytes_under(tmp_path / "b" / "saved_model") + 16
    is_plain = record.notes[0].startswith("written plain")
    assert is_plain or "packed (lossless)" in record.notes[0]
    assert [p.name for p in (tmp_path / "a").iterdir() if p.is_dir()] == ["saved_model"]


@pytest.mark.parametrize("packing", ["auto", "lossless"])
def test_a_dense_model_stays_plain(packing, tmp_path):
    record = export(perceptron(), tmp_path, SavedModel(packing)).records[0]

    assert record.notes[0].startswith("written plain")
    loaded = tf.saved_model.load(tmp_path / "saved_model")
    assert sorted(v.shape[0] for v in loaded.state) == [5, 64, 64, 64, 256, 256]


def test_a_dense_model_is_packed_where_values_are_rounded(tmp_path):
    record = export(perceptron(), tmp_path, SavedModel("codebook4")).records[0]

    assert "packed (codebook4)" in record.notes[0]
    assert record.bytes - record.overhead_bytes < 4 * (256 + 64 + 5 + 320) + 18_000


@pytest.mark.parametrize("packing", ["fp16", "codebook4"])
def test_a_packed_file_that_is_larger_than_a_plain_one_says_so(packing, tmp_path):
    model = keras.Sequential([keras.Input((40,)), layers.Dense(40)])

    packed, plain = (
        export(model, tmp_path / str(p), SavedModel(p)).records[0]
        for p in (packing, None)
    )

    assert packed.bytes > plain.bytes
    sizes = f"{packed.bytes:,} bytes, where the plain file"
    assert any(sizes in note for note in packed.notes)


def test_vectors_are_not_rounded(tmp_path):
    model = keras.Sequential([keras.Input((64,), name="x"), layers.Dense(1024)])
    bias = np.random.default_rng(0).normal(size=1024).astype("float32")
    model.layers[0].bias.assign(bias)
    format = SavedModel("codebook4")

    export(model, tmp_path, format)

    run, _ = format.load(str(tmp_path / "saved_model"))
    (output,) = run({"x": np.zeros((1, 64), "float32")}).values()
    np.testing.assert_array_equal(output[0], bias)


def test_every_weight_is_stored_bit_for_bit(tmp_path):
    model = sparse(perceptron())
    kernel = model.layers[0].kernel
    array = kernel.numpy()
    array[0, :4] = [-np.inf, 1e-45, -1e-40, np.finfo("float32").max]
    kernel.assign(array)
    array = kernel.numpy()

    SavedModel("lossless").write(Forward(model), str(tmp_path / "m"))

    loaded = tf.saved_model.load(tmp_path / "m")
    value = loaded.weights[0].numpy()
    np.testing.assert_array_equal(value.view("u4"), array.view("u4"))
    assert (value.view("u4")[0, :3] == [0xFF800000, 1, 0x800116C2]).all()


def test_zeros_of_either_sign_are_left_out(tmp_path):
    model = sparse(perceptron())
    kernel = model.layers[0].kernel
    export(model, tmp_path / "positive", SavedModel("lossless"))
    signs = np.where(np.arange(256) % 2, 1, -1)
    array = np.where(kernel.numpy() == 0, 0.0 * signs, kernel.numpy())
    kernel.assign(array)
    assert np.signbit(kernel.numpy()[kernel.numpy() == 0]).any()

    export(model, tmp_path / "both", SavedModel("lossless"))

    one, other = (
        tf.saved_model.load(tmp_path / name / "saved_model").streams.numpy()
        for name in ("positive", "both")
    )
    np.testing.assert_array_equal(one, other)


def test_a_stateful_model_keeps_counting_in_a_packed_file(tmp_path):
    model = sparse(stateful())
    x = np.full((2, 4, 32), 0.5, "float32")

    export(model, tmp_path, SavedModel("lossless"))

    loaded = tf.saved_model.load(tmp_path / "saved_model")
    for _ in range(2):
        np.testing.assert_allclose(loaded.serve(x), model(x), atol=1e-6)


def test_serve_takes_and_returns_what_the_model_does(tmp_path):
    model = sparse(shared_layer())
    inputs = [np.ones((3, 64), "float32"), np.full((3, 64), 2, "float32")]

    export(model, tmp_path, SavedModel("lossless"))

    loaded = tf.saved_model.load(tmp_path / "saved_model")
    for output, reference in zip(loaded.serve(inputs), model(inputs), strict=True):
        np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-6)


def test_signature_is_that_of_a_plain_file(tmp_path):
    model = sparse(shared_layer())

    export(model, tmp_path / "packed", SavedModel("lossless"))
    export(model, tmp_path / "plain", SavedModel(None))

    one, other = (
        graph_of(tmp_path / name / "saved_model").signature_def["serving_default"]
        for name in ("packed", "plain")
    )
    assert set(one.inputs) == set(other.inputs) == {"left", "right"}
    assert set(one.outputs) == set(other.outputs)
    for name, info in one.inputs.items():
        assert info.tensor_shape == other.inputs[name].tensor_shape
        assert [d.size for d in info.tensor_shape.dim] == [-1, 64]


ALONE = """
    import importlib.abc, json, sys

    class Blocked(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name.split(".")[0] in ("kprune", "keras", "tf_keras"):
                raise ImportError(name)

    import tensorflow as tf  # Imports Keras itself.
    for name in [name for name in sys.modules if name.split(".")[0] == "keras"]:
        del sys.modules[name]
    sys.meta_path.insert(0, Blocked())
    x = tf.reshape(tf.linspace(-1.0, 1.0, 128), [2, 64])
    answers = []
    for path in sys.argv[1:]:
        loaded = tf.saved_model.load(path)
        served = loaded.signatures.items()
        outputs = {n: [y.numpy().tolist() for y in f(x=x).values()] for n, f in served}
        answers.append(outputs)
    print(json.dumps([answers, list(sys.modules)]))
"""


def test_files_load_where_keras_and_kprune_are_missing(tmp_path):
    model = sparse(perceptron())
    signatures = {"hidden": model.layers[0].name}
    rounded = SavedModel("codebook8", signatures=signatures)
    paths = []
    for format in (SavedModel(None, signatures=signatures), rounded):
        folder = tmp_path / str(format.packed)
        paths.append(export(model, folder, format).records[0].path)
    x = np.linspace(-1, 1, 128, dtype="float32").reshape(2, 64)

    done = run_script(ALONE, *paths, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    (plain, packed), modules = json.loads(done.stdout)
    assert not {"kprune", "keras"} & set(modules)
    expected = rounded.reference(Forward(model))({"x": x})["logits"]
    np.testing.assert_allclose(plain["serving_default"], [model(x)], atol=1e-6)
    np.testing.assert_allclose(packed["serving_default"], [expected], atol=1e-6)
    np.testing.assert_allclose(plain["hidden"], [model.layers[0](x)], atol=1e-6)
    np.testing.assert_allclose(packed["hidden"], [model.layers[0](x)], atol=2e-2)


@pytest.mark.parametrize("build", [perceptron, word_lookup])
def test_the_loader_of_tensorflow_1_runs_the_initializers(build, tmp_path):
    model = sparse(build())
    export(model, tmp_path, SavedModel("lossless"))
    inputs, expected = arrays_for(model)[2]

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.loader.load(
            session, ["serve"], str(tmp_path / "saved_model")
        )
        signature = loaded.signature_def["serving_default"]
        feeds = {signature.inputs[name].name: x for name, x in inputs.items()}
        fetches = {name: info.name for name, info in signature.outputs.items()}
        outputs = [session.run(fetches, feeds) for _ in range(2)]

    for name, reference in expected.items():
        for output in outputs:
            np.testing.assert_allclose(output[name], reference, rtol=1e-5, atol=1e-6)


def calls_of(node):
    names = [attr.func.name for attr in node.attr.values() if attr.func.name]
    return names + [f.name for attr in node.attr.values() for f in attr.list.func]


def ops_reached(graph, nodes):
    """Lists the operations of nodes and of all functions that they call."""
    functions = {f.signature.name: f for f in graph.library.function}
    found, waiting, seen = set(), list(nodes), set()
    while waiting:
        node = waiting.pop()
        found.add(node.op)
        for name in set(calls_of(node)) - seen:
            seen.add(name)
            waiting += functions[name].node_def
    return found


def nodes_before(graph, name):
    """Lists a node of the main graph and all that it depends on."""
    nodes = {node.name: node for node in graph.node}
    waiting, found = [name.split(":")[0]], {}
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = nodes[name]
            waiting += [i.lstrip("^").split(":")[0] for i in nodes[name].input]
    return list(found.values())


def test_decoding_is_part_of_the_initializer_and_of_no_call(tmp_path):
    model = sparse(perceptron())
    export(model, tmp_path / "packed", SavedModel("lossless"))
    export(model, tmp_path / "plain", SavedModel(None))

    meta, plain = (graph_of(tmp_path / n / "saved_model") for n in ("packed", "plain"))

    graph = meta.graph_def
    (output,) = meta.signature_def["serving_default"].outputs.values()
    (plain_output,) = plain.signature_def["serving_default"].outputs.values()
    called = ops_reached(graph, nodes_before(graph, output.name))
    start = meta.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"]
    initial = ops_reached(graph, nodes_before(graph, start.name))
    plain_nodes = nodes_before(plain.graph_def, plain_output.name)
    assert called == ops_reached(plain.graph_def, plain_nodes)
    assert "DecodeCompressed" in initial - called
    function = next(f for f in graph.library.function if "serve" in f.signature.name)
    assert "DecodeCompressed" not in ops_reached(graph, function.node_def)


def test_weights_of_one_encoding_share_the_function_that_decodes(tmp_path):
    sizes = []
    for depth in (2, 12):
        model = keras.Sequential([keras.Input((64,))])
        for _ in range(depth):
            model.add(layers.Dense(64, use_bias=False))
        path = tmp_path / str(depth)
        record = export(sparse(model), path, SavedModel("lossless")).records[0]
        sizes.append(record.overhead_bytes)
        functions = graph_of(path / "saved_model").graph_def.library.function
        ops = [node.op for function in functions for node in function.node_def]
        assert ops.count("DecodeCompressed") == 1

    assert sizes[1] - sizes[0] < 10 * 4096


def test_loading_a_file_twice_gives_two_models(tmp_path):
    model = sparse(perceptron())
    export(model, tmp_path, SavedModel("lossless"))
    x = tf.ones((2, 64))

    first, second = (tf.saved_model.load(tmp_path / "saved_model") for _ in range(2))
    expected = second.serve(x)
    del first
    gc.collect()

    np.testing.assert_array_equal(second.serve(x), expected)


def test_a_loaded_file_can_be_trained_as_a_plain_one(tmp_path):
    model = sparse(convolutional())
    export(model, tmp_path, SavedModel("lossless"))
    x = np.ones((2, 8, 8, 16), "float32")
    loaded = tf.saved_model.load(tmp_path / "saved_model")

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded.serve(x) ** 2)

    trained = tape.watched_variables()
    expected = sorted(tuple(weight.shape) for weight in model.trainable_weights)
    assert sorted(tuple(variable.shape) for variable in trained) == expected
    assert all(x is not None for x in tape.gradient(loss, trained))
    served = layers.TFSMLayer(tmp_path / "saved_model", call_endpoint="serve")
    assert len(served.trainable_weights) == len(expected)


def test_weights_that_changed_survive_saving_and_loading_again(tmp_path):
    model = sparse(perceptron())
    export(model, tmp_path, SavedModel("lossless"))
    x = np.random.default_rng(0).normal(size=(2, 64)).astype("float32")
    loaded = tf.saved_model.load(tmp_path / "saved_model")
    loaded.weights[0].assign(loaded.weights[0] * 0.5)
    model.layers[0].kernel.assign(model.layers[0].kernel * 0.5)

    tf.saved_model.save(loaded, tmp_path / "again", loaded.signatures)

    again = tf.saved_model.load(tmp_path / "again")
    np.testing.assert_array_equal(again.weights[0], model.layers[0].kernel)
    np.testing.assert_allclose(again.serve(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_signature_works_when_the_loaded_object_is_gone(tmp_path):
    model = sparse(perceptron())
    export(model, tmp_path, SavedModel("lossless"))
    x = np.ones((2, 64), "float32")

    loaded = tf.saved_model.load(tmp_path / "saved_model")
    signature = loaded.signatures["serving_default"]
    del loaded
    gc.collect()

    (name,) = signature.structured_input_signature[1]
    (output,) = signature(**{name: tf.constant(x)}).values()
    np.testing.assert_allclose(output, model(x), atol=1e-6)


def test_a_damaged_stream_is_noticed_when_the_file_is_loaded(tmp_path):
    export(sparse(perceptron()), tmp_path, SavedModel("lossless"))
    path = tmp_path / "saved_model" / "variables" / "variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)

    with pytest.raises(tf.errors.DataLossError):
        tf.saved_model.load(tmp_path / "saved_model")


def test_export_does_not_change_the_model(tmp_path):
    model = sparse(perceptron())
    weights = model.get_weights()

    export(model, tmp_path, SavedModel("codebook4"))

    for weight, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, before)


def test_the_same_model_gives_the_same_streams(tmp_path):
    model = sparse(perceptron())

    streams = []
    for name in "ab":
        export(model, tmp_path / name, SavedModel("codebook8"))
        loaded = tf.saved_model.load(tmp_path / name / "saved_model")
        streams.append(loaded.streams.numpy().tolist())

    assert streams[0] == streams[1]


def test_the_tflite_converter_reads_a_packed_file(tmp_path):
    model = sparse(perceptron())
    export(model, tmp_path, SavedModel("lossless"))

    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved_model"))
    run = Interpreter(model_content=converter.convert()).get_signature_runner()

    for inputs, expected in arrays_for(model):
        output = run(**inputs)["logits"]
        np.testing.assert_allclose(output, expected["logits"], rtol=1e-5, atol=1e-6)


def test_weights_are_freed_with_the_model(tmp_path):
    export(sparse(perceptron()), tmp_path, SavedModel("lossless"))

    loaded = tf.saved_model.load(tmp_path / "saved_model")
    weights = [weakref.ref(weight) for weight in loaded.weights]
    del loaded
    gc.collect()

    assert [weight() for weight in weights] == [None] * 3


@pytest.mark.parametrize(
    ("packing", "value"), [("fp16", 1e6), ("codebook8", np.inf), ("codebook4", -np.inf)]
)
def test_values_that_a_packing_can_not_hold_are_refused(packing, value, tmp_path):
    model = sparse(perceptron())
    kernel = model.layers[0].kernel.numpy()
    kernel[0, 0] = value
    model.layers[0].kernel.assign(kernel)

    with pytest.raises(ExportError, match=r"kernel' has values up to.*packed='loss"):
        export(model, tmp_path / "out", SavedModel(packing))

    assert list(tmp_path.iterdir()) == []


def test_the_report_says_what_rounding_did(tmp_path):
    model = sparse(perceptron())
    kernel = model.layers[0].kernel.numpy()
    kernel[0, :3] = [1e-9, -2e-8, 1e-7]  # float16 holds nothing below 3e-8.
    model.layers[0].kernel.assign(kernel)
    samples = draw_samples(Forward(model))

    report = export(model, tmp_path, SavedModel("fp16"))

    (record,) = report.records
    path = model.layers[0].kernel.path
    (note,) = (note for note in record.notes if "became zero" in note)
    assert note.startswith("2 weights that were not zero") and note.endswith(path)
    run, _ = SavedModel().load(str(tmp_path / "saved_model"))
    loss = max(
        np.max(np.abs(run(inputs)["logits"] - expected["logits"]))
        for inputs, expected in samples
    )
    np.testing.assert_allclose(record.rounding_difference, loss, atol=1e-6)
    assert record.rounding_difference > 2 * record.max_difference
    assert "by rounding" in str(report)


def test_a_file_that_rounds_nothing_has_no_figure_for_it(tmp_path):
    report = export(sparse(perceptron()), tmp_path, SavedModel("lossless"))

    assert report.records[0].rounding_difference is None
    assert "by rounding" not in str(report)


@pytest.mark.parametrize("packed", ["int8", True, 8])
def test_an_unknown_packing_is_refused(packed):
    with pytest.raises(ValueError, match="expected 'auto', None .* 'codebook4'"):
        SavedModel(packed)
