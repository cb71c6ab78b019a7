import json
import os
import pathlib

import pytest

from kprune.export.report import ExportRecord, ExportReport
from kprune.export.staging import check_target, local_path, replacing


def make_export(folder, *names):
    records = tuple(ExportRecord("TFLite", str(folder / n), 1, 1, 0.0) for n in names)
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("old")
    report = ExportReport("net", 1, 1, records)
    (folder / "export.json").write_text(json.dumps(report.to_dict()))


def write_new(staged):
    with open(os.path.join(staged, "a"), "w") as file:
        file.write("new")


def test_new_and_empty_folders_may_receive_an_export(tmp_path):
    check_target(str(tmp_path), ["model.tflite"])
    check_target(str(tmp_path / "new"), ["model.tflite"])

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "mark",
    [
        *("", "[]", "{}", '{"records": 3}', '{"a": 1}', "\x00", "[" * 100_000),
        json.dumps(
            ExportReport("net", 1, 1, (ExportRecord("", 5, 1, 1, 0),)).to_dict()
        ),
    ],
    ids=range(8),
)
def test_a_mark_that_is_not_ours_protects_the_folder(mark, tmp_path):
    (tmp_path / "export.json").write_text(mark)

    with pytest.raises(FileExistsError, match="no export of kprune"):
        check_target(str(tmp_path), ["model.tflite"])


def test_what_a_killed_export_left_is_in_nobodys_way(tmp_path):
    left = tmp_path / f".{tmp_path.name}.0123abcd.new"
    left.mkdir()

    check_target(str(tmp_path), ["model.tflite"])

    assert left.exists()


@pytest.mark.parametrize(
    "address", ["gs://bucket/out", "s3://bucket", pathlib.Path("gs://bucket/out")]
)
def test_an_address_is_no_folder(address):
    with pytest.raises(ValueError, match="expected a folder on this machine"):
        local_path(address)


def test_paths_are_expanded_and_may_be_bytes(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")

    assert local_path("~/out") == local_path(b"~/out") == "/home/someone/out"


def test_a_broken_link_is_refused(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "gone")

    with pytest.raises(FileExistsError, match="broken link"):
        check_target(str(tmp_path / "out"), [])


def test_the_new_folder_takes_the_place_of_the_old_one(tmp_path):
    make_export(tmp_path / "out", "a", "b")
    (tmp_path / "out" / "notes.txt").write_text("mine")

    with replacing(str(tmp_path / "out")) as staged:
        write_new(staged)

        assert (tmp_path / "out" / "a").read_text() == "old"

    assert sorted(os.listdir(tmp_path / "out")) == ["a", "notes.txt"]
    assert (tmp_path / "out" / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_or_ctrl_c_leaves_everything_as_it_was(error, tmp_path):
    make_export(tmp_path / "out", "a")

    with pytest.raises(error), replacing(str(tmp_path / "out")) as staged:
        write_new(staged)
        raise error

    assert (tmp_path / "out" / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_linked_folder_is_replaced_where_it_is(tmp_path):
    make_export(tmp_path / "real", "a")
    (tmp_path / "out").symlink_to(tmp_path / "real")

    with replacing(str(tmp_path / "out")) as staged:
        write_new(staged)

    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "new"


def test_the_folder_has_ordinary_permissions(tmp_path):
    (tmp_path / "plain").mkdir()

    with replacing(str(tmp_path / "out")):
        pass

    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
