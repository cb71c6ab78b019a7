"""What happens to a TFLite file between writing and shipping has to be noticed."""

import dataclasses
import os
import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune import litefile
from kprune.export import ExportError, interpreter
from kprune.export.forward import Forward
from kprune.export.provenance import files_sha256


def small():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,), name="x"),
            layers.Dense(16, activation="relu"),
            layers.Dense(3, name="y"),
        ],
        name="small",
    )


def weights_of(content):
    """Returns indices of the first kernel in a file, and the tensor."""
    tensors = litefile.read(content).subgraphs[0].tensors
    index = [tensor.shape for tensor in tensors].index((16, 8))
    return (0, index), tensors[index]


def flipped_bit(content):
    content = bytearray(content)
    content[len(content) // 2] ^= 1
    return bytes(content)


# Happens to the file on its way to the disk.
DAMAGE = {
    "empty": lambda content: b"",
    "cut to a quarter": lambda content: content[: len(content) // 4],
    "last byte missing": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\0",
    "zeros at the end": lambda content: content[:-512] + bytes(512),
    "flipped bit": flipped_bit,
    "another kind of file": lambda content: b"PK\3\4" + content[4:],
}


def replaced(change):
    """Returns a function that gives the first kernel of a file other values."""

    def fault(content):
        place, tensor = weights_of(content)
        array = change(tensor.values()).astype("float32")
        return litefile.replace_constants(content, {place: array})

    return fault


def with_nan(values):
    values[2, 3] = np.nan
    return values


def with_type(dtype):
    """Returns a function that declares the kernel as another type of 4 bytes."""

    def fault(content):
        from ai_edge_litert.schema_py_generated import TensorType

        (_, index), _ = weights_of(content)

        def changed(model):
            model.subgraphs[0].tensors[index].type = getattr(TensorType, dtype)
            return litefile.writer.packed(model)

        return litefile.reader.with_tables(content, changed)

    return fault


# Happens before, so that what is wrong is written faithfully.
WRONG = {
    "NaN": replaced(with_nan),
    "zeros": replaced(np.zeros_like),
    "other sign": replaced(np.negative),
    "rows in another order": replaced(lambda values: values[::-1]),
    "whole numbers": with_type("INT32"),
}


class Spoiled(kprune.TFLite):
    """A format whose file is spoiled once it lies on the disk."""

    fault = staticmethod(lambda content: content)

    def write(self, forward, path):
        result = super().write(forward, path)
        pathlib.Path(path).write_bytes(self.fault(pathlib.Path(path).read_bytes()))
        return result


class Mistaken(Spoiled):
    """A format that writes a wrong file, as a faulty converter would."""

    def write(self, forward, path):
        return dataclasses.replace(super().write(forward, path), sha256=None)


def spoiled(kind, fault, **options):
    format = kind(**options)
    format.fault = fault
    return format


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with an export."""
    folder = tmp_path_factory.mktemp("good") / "out"
    kprune.export(small(), folder, "tflite")
    return folder


@pytest.mark.parametrize("name", ["empty", "cut to a quarter", "flipped bit"])
def test_a_file_damaged_on_its_way_is_refused_and_the_last_good_one_stays(name, good):
    before = {path.name: path.read_bytes() for path in good.iterdir()}

    with pytest.raises(ExportError, match="'small' is no longer what was written"):
        kprune.export(small(), good, spoiled(Spoiled, DAMAGE[name]))

    assert {path.name: path.read_bytes() for path in good.iterdir()} == before
    assert os.listdir(good.parent) == ["out"]


@pytest.mark.parametrize("name", WRONG)
def test_a_file_with_wrong_weights_is_refused(name, tmp_path):
    message = "NaN or infinite|differs from Keras|does not (load|run)"

    with pytest.raises(ExportError, match=message):
        kprune.export(small(), tmp_path / "out", spoiled(Mistaken, WRONG[name]))

    assert not (tmp_path / "out").exists()


def test_a_format_that_spoils_nothing_passes(tmp_path):
    report = kprune.export(small(), tmp_path / "out", Mistaken())

    assert report.records[0].max_difference < 1e-5


def damaged(content, count):
    """Yields a file with every kind of damage, then with flipped bits and cut off."""
    yield from (fault(content) for fault in DAMAGE.values())
    rng = np.random.default_rng(0)
    for place in np.linspace(0, len(content) - 1, count).astype(int):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        yield changed
        yield content[:place]


@pytest.mark.parametrize(
    ("mode", "count"),
    [
        (None, 60),
        pytest.param(None, 3000, marks=pytest.mark.slow),
        pytest.param("float16", 3000, marks=pytest.mark.slow),
        pytest.param("dynamic_range", 3000, marks=pytest.mark.slow),
    ],
)
def test_no_flipped_bit_and_no_truncation_is_overlooked(mode, count, tmp_path):
    path = tmp_path / "model.tflite"
    written = kprune.TFLite(mode).write(Forward(small()), path)
    content = path.read_bytes()

    assert files_sha256(path) == written.sha256
    for changed in damaged(content, count):
        path.write_bytes(changed)
        assert files_sha256(path) != written.sha256


@pytest.mark.slow  # it watches LiteRT, not kprune
def test_litert_still_takes_a_changed_weight_without_a_word(tmp_path):
    path = tmp_path / "model.tflite"
    kprune.TFLite().write(Forward(small()), path)
    content = path.read_bytes()
    place, tensor = weights_of(content)
    wrong = tensor.values() * np.float32(2)
    changed = content.replace(tensor.stored.tobytes(), wrong.tobytes())
    x = {"x": np.ones((1, 8), "float32")}

    right, wrong = (interpreter.load(c)[0](x)["y"] for c in (content, changed))

    assert np.abs(right - wrong).max() > 0.1


def test_a_file_that_somebody_else_wrote_is_loaded_as_it_is(good):
    run, batch = kprune.TFLite().load(good / "model.tflite")

    x = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    np.testing.assert_allclose(run({"x": x})["y"], small()(x), atol=1e-5)
    assert batch is None
