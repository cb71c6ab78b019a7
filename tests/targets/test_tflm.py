import keras
import numpy as np
import pytest
from keras import layers

from kprune.litefile import Contents, Operator, Subgraph, Tensor
from kprune.targets import check_tflm
from tests.targets import models
from tests.targets.files import to_tflite


def tiny():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(16, activation="relu", name="dense"),
            layers.Dense(3, name="head"),
        ]
    )


def sparse_tiny():
    model = tiny()
    kernel = model.get_layer("dense").kernel
    mask = np.random.default_rng(0).random(kernel.shape) < 0.1
    kernel.assign(kernel * mask)
    return model


@pytest.mark.parametrize(
    ("mode", "sizes"),
    [("float32", [576, 576, 256, 64, 16]), ("int8", [144, 144, 64, 16, 16])],
)
def test_plain_and_full_int8_files_run(mode, sizes):
    content = to_tflite(tiny(), mode, as_bytes=True)

    check = check_tflm(content)

    assert check, str(check)
    assert check.bytes == len(content)
    assert check.operators["CONV_2D"] == 1
    assert check.operators["FULLY_CONNECTED"] == 2
    # The feature maps (6 x 6 x 4) before and after the reshape, the image (8 x 8), 16
    # units and 3 units, rounded up to 16 bytes.
    assert [buffer.bytes for buffer in check.arena.buffers] == sizes
    assert check.arena_bytes == check.arena.peak_bytes == 2 * sizes[0]
    assert f"{2 * sizes[0]:,} bytes in the arena" in str(check)


def attention():
    inputs = keras.Input((6, 3))
    return keras.Model(inputs, layers.MultiHeadAttention(2, 2)(inputs, inputs))


def unrolled():
    return keras.Sequential([keras.Input((6, 3)), layers.LSTM(4, unroll=True)])


def looping():
    return keras.Sequential([keras.Input((6, 3)), layers.LSTM(4)])


# What the interpreter of the package tflite-micro 0.dev20261023 prints as "Arena
# allocation head"; it ran each of these files, with outputs equal to LiteRT's.
@pytest.mark.parametrize(
    ("build", "mode", "head"),
    [
        (lambda: models.mobile(size=32), "float32", 29184),
        (lambda: models.mobile(size=32, middle=models.squeeze), "int8", 6544),
        (attention, "float32", 656),
        (unrolled, "float32", 352),
        (looping, "float32", 560),
    ],
    ids=["mobile", "mobile int8", "attention", "LSTM", "LSTM in a loop"],
)
def test_the_plan_is_that_of_tensorflow_lite_micro(build, mode, head):
    check = check_tflm(to_tflite(build(), mode, as_bytes=True))

    assert check
    assert check.arena_bytes == head


@pytest.mark.parametrize(
    ("mode", "sparse", "words"),
    [
        ("float32", True, "stored as a sparse tensor"),
        ("float16", False, "is of type float16"),
        ("dynamic", False, "float activations and int8 weights"),
    ],
    ids=["sparse", "float16", "dynamic range"],
)
def test_encodings_that_are_missing_are_found(mode, sparse, words):
    check = check_tflm(to_tflite(sparse_tiny(), mode, sparse, as_bytes=True))

    assert not check
    assert any(words in finding.problem for finding in check.findings)
    assert "does not run" in str(check)


def test_sparse_convolutions_need_an_operator_that_is_missing():
    model = tiny()
    model.layers[0].kernel.assign(np.zeros(model.layers[0].kernel.shape))

    check = check_tflm(to_tflite(model, sparse=True, as_bytes=True))

    assert "DENSIFY" in [finding.where for finding in check.findings]
    assert all("sparse=False" in finding.remedy for finding in check.findings)


def test_operators_without_a_kernel_are_named():
    inputs = keras.Input((4, 4, 2))
    x = layers.UpSampling2D(2, interpolation="bilinear")(inputs)
    x = keras.ops.top_k(layers.Flatten()(x), 3)[0]

    check = check_tflm(to_tflite(keras.Model(inputs, x), as_bytes=True))

    assert [finding.where for finding in check.findings] == ["TOPK_V2"]
    assert "no kernel" in check.findings[0].problem
    assert "RESIZE_BILINEAR" in check.operators


def test_an_open_batch_is_noted_and_an_open_image_is_found():
    image = keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(2, 3)])
    row = keras.Sequential([keras.Input((4,)), layers.Dense(2)])

    open_row = check_tflm(to_tflite(row, batch=None, as_bytes=True))
    open_image = check_tflm(to_tflite(image, as_bytes=True))

    assert open_row
    assert "the batch size is open" in open_row.notes[0]
    assert not open_image
    assert "open in dimension 1, 2" in open_image.findings[0].problem


def found_in(monkeypatch, tensors, *operators):
    """Checks a subgraph that no converter here writes."""
    contents = Contents((Subgraph(tensors, operators, tensors[:1], ()),), {}, {})
    monkeypatch.setattr("kprune.targets.tflm.read", lambda _: contents)
    return check_tflm(bytes(4) + b"TFL3").findings


@pytest.mark.parametrize(
    ("operator", "data", "weights", "words"),
    [
        ("CONV_2D", "int8", "int4", None),
        ("FULLY_CONNECTED", "int16", "int8", None),
        ("TRANSPOSE_CONV", "int8", "int4", "takes no int4 weights"),
        ("FULLY_CONNECTED", "float32", "int4", "float activations and int4"),
        ("CONV_2D", "int8", "int2", "of type int2"),
    ],
)
def test_weights_of_few_bits_pass_where_kernels_take_them(
    monkeypatch, operator, data, weights, words
):
    tensors = (
        Tensor("x", data, (1, 4)),
        Tensor("w", weights, (2, 4), stored=np.zeros(8, "uint8")),
        Tensor("z", data, (1, 4)),
    )

    findings = found_in(monkeypatch, tensors, Operator(operator, tensors, tensors[2:]))

    assert (words is None and not findings) or words in findings[0].problem


# Run in the interpreter of the package tflite-micro 0.dev20261023.
@pytest.mark.parametrize(
    ("operator", "inputs", "output", "words"),
    [
        ("CAST", ["bool"], "float32", None),
        ("CAST", ["float32"], "bool", None),
        ("CAST", ["uint8"], "float32", "its kernel takes no uint8, as in 'x0'"),
        ("CAST", ["float32"], "int64", "its kernel takes no int64, as in 'y'"),
        ("GATHER", ["float32", "int32"], "float32", None),
        ("GATHER", ["float32", "int64"], "float32", "no int64, as in 'x1'"),
        (
            "GATHER_ND",
            ["int32", "int32"],
            "int32",
            "no int32, as in 'y'; expected int8",
        ),
        ("ARG_MAX", ["float32", "int32"], "int32", None),
        ("ARG_MAX", ["float32", "int32"], "int64", "no int64, as in 'y'"),
        ("ADD", ["int32", "int32"], "int32", None),
        ("ADD", ["int64", "int64"], "int64", "no int64, as in 'y'"),
        ("SLICE", ["bool", "int32", "int32"], "bool", None),
        ("SLICE", ["uint8", "int32", "int32"], "uint8", "no uint8"),
        ("SUM", ["int32", "int32"], "int32", "expected int8, int16, float32"),
        ("NEG", ["int32"], "int32", "no int32, as in 'y'"),
        ("FLOOR_DIV", ["int32", "int32"], "int32", "expected float32"),
        ("EQUAL", ["int64", "int64"], "bool", None),
        ("EQUAL", ["int16", "int16"], "bool", "no int16, as in 'x0'"),
        ("CONCATENATION", ["int64", "int64"], "int64", None),
    ],
)
def test_types_that_a_kernel_lacks_are_found(
    monkeypatch, operator, inputs, output, words
):
    inputs = tuple(Tensor(f"x{i}", dtype, (1, 4)) for i, dtype in enumerate(inputs))
    outputs = (Tensor("y", output, (1, 4)),)

    findings = found_in(
        monkeypatch, inputs + outputs, Operator(operator, inputs, outputs)
    )

    assert (words is None and not findings) or words in findings[0].problem


def test_an_image_of_bytes_that_is_cast_does_not_run():
    inputs = keras.Input((4,), dtype="uint8")
    model = keras.Model(inputs, layers.Dense(2)(layers.Rescaling(1 / 255)(inputs)))

    check = check_tflm(to_tflite(model, as_bytes=True))

    assert [finding.where for finding in check.findings] == ["CAST"]


@pytest.mark.parametrize("inputs", [(0, None, 1), (None, 0, 1), (0,)])
def test_weights_and_activations_that_are_left_out_are_found(monkeypatch, inputs):
    x = (Tensor("x", "int8", (1, 4)), Tensor("w", "int8", (1, 4)))
    chosen = tuple(None if i is None else x[i] for i in inputs)

    findings = found_in(monkeypatch, x, Operator("CONV_2D", chosen, x[:1]))

    assert "an input that its kernel reads is left out" in findings[0].problem


def test_custom_operators_are_told_from_those_that_tflm_brings(monkeypatch):
    x = (Tensor("x", "int8", (1, 4)),)
    operators = [Operator(name, x, x, True) for name in ("ethos-u", "FlexErf", "ADD")]

    findings = found_in(monkeypatch, x, *operators)

    assert [finding.where for finding in findings] == ["FlexErf", "ADD"]


@pytest.mark.parametrize("content", [b"", b"PK\3\4zipfile", bytes(100)])
def test_what_is_no_tflite_file_is_refused(content):
    with pytest.raises(ValueError, match="no TFLite file: expected 'TFL3'"):
        check_tflm(content)


def test_a_file_is_read_from_its_path_and_a_damaged_one_refused(tmp_path):
    content = to_tflite(tiny(), as_bytes=True)
    path = tmp_path / "model.tflite"
    path.write_bytes(content)

    assert check_tflm(path) == check_tflm(content)
    with pytest.raises(ValueError, match="is damaged"):
        check_tflm(content[:400])


def test_flipped_bytes_give_an_answer_or_a_clear_error():
    content = to_tflite(tiny(), "int8", as_bytes=True)
    rng = np.random.default_rng(0)
    damaged = 0

    for place in rng.integers(8, len(content), 300):
        changed = bytearray(content)
        changed[place] ^= int(rng.integers(1, 256))
        try:
            check_tflm(changed)
        except ValueError as error:
            assert "is damaged" in str(error)
            damaged += 1

    assert 30 < damaged < 300
