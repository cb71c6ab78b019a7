import keras
import numpy as np
import pytest

import kprune
from kprune.compress import load_archive
from kprune.export import ExportError, export
from kprune.export.archive import Archive
from tests.compress.streams_of import lenet_300_100
from tests.export import models

KINDS = [models.cnn, models.lstm, models.recommender, models.nested, models.deferred]


@pytest.mark.parametrize("build", KINDS, ids=lambda build: build.__name__)
def test_the_archive_carries_the_model_without_a_difference(build, tmp_path):
    report = export(build(), tmp_path / "out", Archive())

    (record,) = report.records
    assert record.format == "Archive"
    assert record.path == str(tmp_path / "out" / "model.kpz")
    assert record.max_difference == 0.0


def test_the_record_tells_size_bound_and_what_is_no_weight(tmp_path):
    report = export(lenet_300_100(), tmp_path, Archive())

    (record,) = report.records
    assert record.bytes == (tmp_path / "model.kpz").stat().st_size
    assert record.overhead_bytes < 200
    assert record.bound <= record.bytes - record.overhead_bytes < 1.01 * record.bound
    assert "kprune.load_archive" in record.notes[0]


def test_options_go_to_the_file(tmp_path):
    model = models.cnn()

    report = export(model, tmp_path, Archive(coder=["huffman", "rans"], float16=True))

    kernel = load_archive(tmp_path / "model.kpz").layers[0].kernel
    expected = np.asarray(model.layers[0].kernel).astype("float16")
    np.testing.assert_array_equal(kernel, expected)
    assert 0 < report.records[0].max_difference < 1e-2


def test_a_format_with_options_survives_its_config():
    format = Archive(0.25, coder=["huffman"], float16=True)

    assert Archive.from_config(format.get_config()) == format


def test_a_pruned_model_is_stripped(tmp_path):
    model = kprune.prune(models.cnn())

    with pytest.warns(UserWarning, match="masks or shared weights; what was written"):
        export(model, tmp_path, Archive())

    assert not kprune.is_pruned(load_archive(tmp_path / "model.kpz"))


def test_a_model_without_a_config_is_refused_and_the_folder_stays(tmp_path):
    export(models.cnn(), tmp_path / "out", Archive())
    before = (tmp_path / "out" / "model.kpz").read_bytes()

    with pytest.raises(ExportError, match="'TwoHeads' .* registered"):
        export(models.subclassed(), tmp_path / "out", Archive())

    assert (tmp_path / "out" / "model.kpz").read_bytes() == before


@pytest.mark.parametrize("fault", ["cut", "flip"])
def test_a_file_spoiled_while_written_is_noticed(fault, tmp_path, monkeypatch):
    write = Archive.write

    def spoil(self, forward, path):
        written = write(self, forward, path)
        with open(path, "rb+") as file:
            data = bytearray(file.read())
            data[len(data) // 2] ^= 0x10
            file.seek(0)
            file.write(data)
            if fault == "cut":
                file.truncate(len(data) - 7)
        return written

    monkeypatch.setattr(Archive, "write", spoil)

    with pytest.raises(ExportError, match="does not load: .* checksum"):
        export(models.cnn(), tmp_path / "out", Archive())

    assert list(tmp_path.iterdir()) == []


def test_weights_out_of_a_loaded_archive_can_be_trained(tmp_path):
    export(models.cnn(), tmp_path, Archive())
    model = load_archive(tmp_path / "model.kpz")
    model.compile("sgd", "mse")

    history = model.fit(np.ones((4, 8, 8, 3)), np.zeros((4, 5)), epochs=3, verbose=0)

    assert history.history["loss"][-1] < history.history["loss"][0]
    assert isinstance(model, keras.Sequential)
