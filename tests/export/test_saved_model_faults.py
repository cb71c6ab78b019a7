import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from kprune.export import ExportError, SavedModel, export
from kprune.export.forward import Forward
from kprune.export.loaded_model import compare_content
from kprune.export.report import files_under
from kprune.export.samples import draw_samples
from kprune.export.saved_content import Content
from kprune.export.verify import verify
from tests.export.test_packed_saved_model import sparse

GRAPH, INDEX = "saved_model.pb", "variables/variables.index"
DATA = "variables/variables.data-00000-of-00001"
PACKED = [None, "lossless"]


def small_model():
    model = keras.Sequential(
        [keras.Input((32,), name="x"), layers.Dense(64), layers.Dense(3)], name="small"
    )
    return sparse(model)


def words_model(words):
    inputs = keras.Input((1,), dtype="string", name="word")
    ids = layers.StringLookup(vocabulary=words)(inputs)
    return keras.Model(inputs, layers.Embedding(len(words) + 1, 2, name="table")(ids))


def contents(folder):
    return {path: Path(path).read_bytes() for path in files_under(folder)}


class Damaged(SavedModel):
    """Spoils one of its files after writing."""

    def __init__(self, packed, file, damage):
        super().__init__(packed)
        self.target, self.damage = file, damage

    def write(self, forward, path):
        written = super().write(forward, path)
        self.damage(os.path.join(path, self.target))
        return written


def halved(path):
    os.truncate(path, os.path.getsize(path) // 2)


def emptied(path):
    os.truncate(path, 0)


def flipped(path, place=None, bit=0):
    with open(path, "r+b") as file:
        content = bytearray(file.read())
        content[len(content) // 2 if place is None else place] ^= 1 << bit
        file.seek(0)
        file.write(content)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier") / "out"
    export(small_model(), folder, "saved_model")
    return folder


def check_refused(packed, file, damage, earlier, folder):
    shutil.copytree(earlier, folder / "out")
    before = contents(folder)

    with pytest.raises(ExportError, match="is no longer what was written"):
        export(small_model(), folder / "out", Damaged(packed, file, damage))

    assert contents(folder) == before


@pytest.mark.parametrize(
    ("packed", "file", "damage"),
    [
        (None, GRAPH, flipped),
        (None, DATA, halved),
        (None, "fingerprint.pb", os.remove),
        ("lossless", GRAPH, halved),
        ("lossless", DATA, flipped),
        ("lossless", INDEX, emptied),
    ],
)
def test_a_file_that_changed_after_writing_is_refused(
    packed, file, damage, earlier, tmp_path
):
    check_refused(packed, file, damage, earlier, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [halved, emptied, flipped, os.remove])
@pytest.mark.parametrize("file", [GRAPH, DATA, INDEX, "fingerprint.pb"])
@pytest.mark.parametrize("packed", PACKED)
def test_any_file_changed_in_any_way_is_refused(
    packed, file, damage, earlier, tmp_path
):
    check_refused(packed, file, damage, earlier, tmp_path)


def test_a_file_that_was_added_is_noticed(tmp_path):
    def add(path):
        with open(os.path.join(os.path.dirname(path), "assets.extra"), "w") as file:
            file.write("x")

    with pytest.raises(ExportError, match="is no longer what was written"):
        export(small_model(), tmp_path / "out", Damaged(None, GRAPH, add))


class OneBitOff(SavedModel):
    """Writes the model with the last bit of its smallest weight flipped."""

    def write(self, forward, path):
        kernel = forward.model.layers[0].kernel
        kept = kernel.numpy()
        spoiled = kept.copy()
        sizes = np.where(kept == 0, np.inf, np.abs(kept))
        spoiled.view("u4")[np.unravel_index(sizes.argmin(), kept.shape)] ^= 1
        kernel.assign(spoiled)
        try:
            return super().write(forward, path)
        finally:
            kernel.assign(kept)


class WrongType(SavedModel):
    """Writes the model with outputs of another type than it has."""

    def write(self, forward, path):
        half = keras.ops.cast(forward.model.outputs[0], "float16")
        (name,) = forward.output_names
        half = keras.Model(forward.model.inputs[0], {name: half})
        return super().write(Forward(half), path)


@pytest.mark.parametrize("packed", PACKED)
def test_outputs_of_another_type_are_refused(packed, tmp_path):
    with pytest.raises(ExportError, match="gives {.*'float16'}, the Keras .*'float32'"):
        export(small_model(), tmp_path / "out", WrongType(packed))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("packed", PACKED)
def test_a_weight_is_compared_bit_for_bit(packed, tmp_path):
    # Far below what any tolerance on outputs would notice.
    with pytest.raises(ExportError, match="'small/dense.*/kernel' of .* is not what"):
        export(small_model(), tmp_path / "out", OneBitOff(packed, tolerance=1e3))

    assert list(tmp_path.iterdir()) == []


def test_a_rounded_weight_is_compared_bit_for_bit(tmp_path):
    model = small_model()
    format = SavedModel("fp16")
    format.write(Forward(model), str(tmp_path / "m"))
    run, _ = format.load(str(tmp_path / "m"))
    kernel = model.layers[0].kernel
    kernel.assign(np.where(kernel.numpy() == kernel.numpy().max(), 0, kernel.numpy()))

    with pytest.raises(ExportError, match="'small/dense.*/kernel' of the file is not"):
        format.examine(Forward(model), run, "the file")


def test_a_word_that_no_sample_holds_is_compared_too(tmp_path):
    words = [f"word{index}" for index in range(300)]
    SavedModel(None).write(Forward(words_model(words)), str(tmp_path / "m"))
    run, _ = SavedModel(None).load(str(tmp_path / "m"))
    words[250] = "other"
    model = words_model(words)
    model.set_weights([run.loaded.state[0].numpy()])

    with pytest.raises(ExportError, match="A lookup table of the file has other"):
        compare_content(run.loaded, Content(Forward(model), {}, None), "the file")


def is_caught_or_harmless(format, forward, samples, path):
    """Verifies a folder as export does, without the comparison of bytes."""
    try:
        run, batch = format.load(path)
        format.examine(forward, run, "the file")
        verify(run, batch, samples, 1e-6, "the file")
    except Exception:
        return True
    # `examine` compared every weight; the answers are those of the model.
    return all(
        np.allclose(run(inputs)[name], output, rtol=1e-5, atol=1e-6)
        for inputs, expected in samples
        for name, output in expected.items()
    )


def flip_at_random(packed, count, folder):
    forward, format = Forward(small_model()), SavedModel(packed)
    samples = draw_samples(forward)
    format.write(forward, str(folder / "right"))
    rng = np.random.default_rng(0)
    harmless = []
    for number in range(count):
        path = str(folder / str(number))
        shutil.copytree(folder / "right", path)
        file = os.path.join(path, (DATA, INDEX)[number % 2])
        place = int(rng.integers(os.path.getsize(file)))
        flipped(file, place, int(rng.integers(8)))
        if not is_caught_or_harmless(format, forward, samples, path):
            harmless.append((file, place))
        shutil.rmtree(path)
    return harmless


@pytest.mark.parametrize("packed", PACKED)
def test_flips_that_bytes_are_not_compared_for_are_caught_or_harmless(packed, tmp_path):
    assert flip_at_random(packed, 6, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("packed", [None, "lossless", "fp16", "codebook4"])
def test_any_flip_of_weights_is_caught_or_harmless(packed, tmp_path):
    assert flip_at_random(packed, 100, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("packed", PACKED)
def test_any_flip_of_the_graph_is_noticed(packed, tmp_path):
    rng = np.random.default_rng(0)
    model = small_model()

    def flip(path):
        flipped(path, int(rng.integers(os.path.getsize(path))), int(rng.integers(8)))

    for _ in range(60):
        with pytest.raises(ExportError, match="is no longer what was written"):
            export(model, tmp_path / "out", Damaged(packed, GRAPH, flip))

    assert list(tmp_path.iterdir()) == []
