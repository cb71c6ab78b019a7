import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from kprune import litefile
from kprune.export.base import quiet
from kprune.export.conversion import convert
from kprune.export.forward import Forward
from kprune.litefile.reader import with_tables
from kprune.litefile.writer import packed
from tests.export import models

CSR, DENSE = 1, 0


def level(size=0, segments=None, indices=None):
    if segments is None:
        return schema.DimensionMetadataT(format=DENSE, denseSize=size)
    vectors = [schema.Uint8VectorT(values=x) for x in (segments, indices)]
    return schema.DimensionMetadataT(CSR, size, 3, vectors[0], 3, vectors[1])


def file_with(tensor, stored):
    """Returns a file with one constant and nothing that computes."""
    tensor.buffer = 1
    buffers = [schema.BufferT(), schema.BufferT(np.frombuffer(stored, "uint8"))]
    graph = schema.SubGraphT(tensors=[tensor], inputs=[], outputs=[], operators=[])
    return packed(schema.ModelT(3, [], [graph], buffers=buffers))


def constant_of(content):
    (constant,) = litefile.read(content).constants
    return constant


# Each case: traversal order, block map, levels, stored values, the dense matrix.
ENCODINGS = {
    "rows compressed": (
        [0, 1],
        [],
        [level(3), level(4, [0, 1, 1, 3], [2, 0, 3])],
        [5, 7, 8],
        [[0, 0, 5, 0], [0, 0, 0, 0], [7, 0, 0, 8]],
    ),
    "columns compressed": (
        [1, 0],
        [],
        [level(4), level(3, [0, 1, 1, 2, 3], [2, 0, 2])],
        [7, 5, 8],
        [[0, 0, 5, 0], [0, 0, 0, 0], [7, 0, 0, 8]],
    ),
    "both compressed": (
        [0, 1],
        [],
        [level(3, [0, 2], [0, 2]), level(4, [0, 1, 3], [2, 0, 3])],
        [5, 7, 8],
        [[0, 0, 5, 0], [0, 0, 0, 0], [7, 0, 0, 8]],
    ),
    "blocks of 1 x 2": (
        [0, 1, 2],
        [1],
        [level(2), level(2, [0, 1, 2], [1, 0]), level(2)],
        [5, 0, 7, 8],
        [[0, 0, 5, 0], [7, 8, 0, 0]],
    ),
    "blocks of 2 x 2": (
        [0, 1, 2, 3],
        [0, 1],
        [level(2), level(2, [0, 1, 2], [1, 0]), level(2), level(2)],
        [1, 2, 3, 4, 5, 6, 7, 8],
        [[0, 0, 1, 2], [0, 0, 3, 4], [5, 6, 0, 0], [7, 8, 0, 0]],
    ),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_sparse_constants_come_with_their_zeros(name):
    order, block_map, levels, stored, dense = ENCODINGS[name]
    dense = np.array(dense, "float32")
    sparsity = schema.SparsityParametersT(order, block_map, levels)
    tensor = schema.TensorT(shape=list(dense.shape), sparsity=sparsity)

    constant = constant_of(file_with(tensor, np.array(stored, "float32").tobytes()))

    assert constant.is_sparse
    np.testing.assert_array_equal(constant.values(), dense)
    assert constant.values().dtype == "float32"


def test_quantized_values_are_scaled_along_their_axis():
    quantization = schema.QuantizationParametersT(
        scale=[0.5, 2.0], zeroPoint=[0, 1], quantizedDimension=1
    )
    tensor = schema.TensorT(
        [2, 2], schema.TensorType.INT8, name=b"w", quantization=quantization
    )

    constant = constant_of(file_with(tensor, np.array([1, 2, -3, 4], "int8").tobytes()))

    assert (constant.name, constant.dtype, constant.axis) == ("w", "int8", 1)
    np.testing.assert_array_equal(constant.values(), [[1, 2], [-3, 4]])
    np.testing.assert_array_equal(constant.real_values(), [[0.5, 2.0], [-1.5, 6.0]])


def test_int4_values_are_two_in_a_byte_the_low_half_first():
    tensor = schema.TensorT([5], schema.TensorType.INT4)

    constant = constant_of(file_with(tensor, bytes([0x21, 0xF8, 0x07])))

    np.testing.assert_array_equal(constant.real_values(), [1, 2, -8, -1, 7])


def test_a_converted_model_is_read_as_the_interpreter_sees_it():
    content, _ = convert(Forward(models.cnn()))

    contents = litefile.read(content)

    names = [operator.name for operator in contents.operators]
    assert names[:2] == ["CONV_2D", "DEPTHWISE_CONV_2D"]
    assert names[-1] == "FULLY_CONNECTED"
    assert contents.inputs["image"].shape == (-1, 8, 8, 3)
    assert contents.outputs["logits"].shape == (-1, 5)
    interpreter = Interpreter(model_content=content)
    details = {d["name"]: d for d in interpreter.get_tensor_details()}
    assert len(contents.constants) >= 6
    for constant in contents.constants:
        detail = details[constant.name]
        np.testing.assert_array_equal(detail["dtype"](0).dtype, constant.dtype)
        np.testing.assert_array_equal(
            interpreter.get_tensor(detail["index"]), constant.values()
        )


def test_bodies_of_loops_are_read_too():
    content, _ = convert(Forward(models.lstm()))

    names = {operator.name for operator in litefile.read(content).operators}

    assert {"WHILE", "LOGISTIC"} <= names or "UNIDIRECTIONAL_SEQUENCE_LSTM" in names


def test_a_path_and_the_bytes_read_the_same(tmp_path):
    content, _ = convert(Forward(models.nested()))
    path = tmp_path / "model.tflite"
    path.write_bytes(content)

    from_path, from_bytes = litefile.read(path), litefile.read(content)

    shapes = [[t.shape for t in c.tensors] for c in (from_path, from_bytes)]
    assert shapes[0] == shapes[1]


def test_metadata_comes_back_and_the_file_still_runs():
    model = models.cnn()
    content, _ = convert(Forward(model))
    data = {"version": "1.2", "sparsity": 0.9, "source_sha256": "ab" * 32}

    extended = litefile.add_metadata(content, data)

    assert litefile.read_metadata(extended) == data
    assert 0 < len(extended) - len(content) < 1024
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    with quiet():
        outputs = [
            Interpreter(model_content=c).get_signature_runner()(image=x)["logits"]
            for c in (content, extended)
        ]
    np.testing.assert_array_equal(*outputs)


def test_metadata_of_one_name_is_replaced_and_of_others_kept():
    content, _ = convert(Forward(models.nested()))

    content = litefile.add_metadata(content, {"a": 1}, name="other")
    content = litefile.add_metadata(content, [1, 2])
    content = litefile.add_metadata(content, [3])

    assert litefile.read_metadata(content) == [3]
    assert litefile.read_metadata(content, "other") == {"a": 1}
    assert litefile.read_metadata(content, "third") is None


@pytest.mark.parametrize("source", [b"", b"PK\x03\x04 a zip file", b"\0" * 64])
def test_something_that_is_no_tflite_file_is_refused(source):
    with pytest.raises(
        ValueError, match="bytes given are no TFLite file: expected 'TFL3'"
    ):
        litefile.read(source)


def test_a_damaged_file_is_refused_by_its_path(tmp_path):
    content, _ = convert(Forward(models.nested()))
    path = tmp_path / "model.tflite"
    path.write_bytes(content[: len(content) // 3])

    with pytest.raises(ValueError, match="model.tflite' start as a TFLite file does"):
        litefile.read(path)


def test_replaced_values_leave_a_tensor_that_shared_the_buffer():
    tensors = [schema.TensorT([2], name=name, buffer=1) for name in (b"a", b"b")]
    stored = np.array([1, 2], "float32")
    buffers = [schema.BufferT(), schema.BufferT(stored.view("uint8"))]
    graph = schema.SubGraphT(tensors=tensors, inputs=[], outputs=[], operators=[])
    content = packed(schema.ModelT(3, [], [graph], buffers=buffers))

    content = litefile.replace_constants(content, {(0, 1): stored * 3})

    values = {c.name: c.values().tolist() for c in litefile.read(content).constants}
    assert values == {"a": [1.0, 2.0], "b": [3.0, 6.0]}


def test_open_sizes_are_told_and_count_once():
    tensor = litefile.Tensor("x", "int4", (-1, 5, -1, 3))

    assert tensor.open_axes == (0, 2)
    assert tensor.bytes == 8  # 15 halves of a byte


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda graph: setattr(graph.operators[0], "inputs", [7]), "index 7 of"),
        (lambda graph: setattr(graph, "outputs", [-2]), "index -2 of"),
        (lambda graph: setattr(graph.tensors[0], "buffer", 99), "index 99 of"),
    ],
    ids=["input", "output", "buffer"],
)
def test_what_points_out_of_the_file_is_damage(change, place):
    content, _ = convert(Forward(models.nested()))

    def changed(model):
        change(model.subgraphs[0])
        return packed(model)

    content = with_tables(content, changed)

    with pytest.raises(ValueError, match=f"damaged further on .IndexError: {place}"):
        litefile.read(content)
