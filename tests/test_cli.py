import keras
import pytest
from typer.testing import CliRunner

import kprune
from kprune import cli
from tests.processes import run_script


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def pruned_file(tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, name="hidden")], name="small"
    )
    path = tmp_path / "small.keras"
    kprune.prune(model).save(path)
    return path


def test_version_is_printed():
    result = run("--version")

    assert result.exit_code == 0
    assert result.output == f"kprune {kprune.__version__}\n"


def test_help_lists_the_commands():
    result = run("--help")

    assert result.exit_code == 0
    assert all(command in result.output for command in ("demo", "summary", "export"))


def test_demo_hands_its_options_on(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(cli, "run_demo", lambda *a, **k: given.append((a, k)))

    result = run("demo", "--sparsity", 0.5, "--epochs", 2, "--out", tmp_path)

    assert result.exit_code == 0
    assert given == [(("digits",), dict(sparsity=0.5, epochs=2, out=tmp_path, seed=0))]


def test_demo_refuses_an_unknown_data_set_in_one_message(tmp_path):
    result = run("demo", "--dataset", "minst", "--out", tmp_path / "out")

    assert result.exit_code == 1
    assert "Error: There is no data set 'minst'" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_summary_prints_the_table_of_a_saved_model(pruned_file):
    result = run("summary", pruned_file)

    assert result.exit_code == 0
    expected = str(kprune.summary(keras.saving.load_model(pruned_file), None))
    assert result.output.strip() == expected.strip()
    assert "hidden" in result.output


def test_export_writes_the_files_and_prints_the_report(pruned_file, tmp_path):
    result = run("export", pruned_file, tmp_path / "out")

    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "saved_model" / "saved_model.pb").is_file()
    assert (tmp_path / "out" / "model.tflite").is_file()
    assert "model.tflite" in result.output


@pytest.mark.parametrize("command", [["summary"], ["export", "out"]])
def test_missing_file_is_one_message_and_exit_code_1(tmp_path, command):
    name, *rest = command

    result = run(name, tmp_path / "none.keras", *(tmp_path / r for r in rest))

    assert result.exit_code == 1
    assert "none.keras" in result.output
    assert "Traceback" not in result.output


def test_module_runs_as_a_program_and_says_what_is_wrong(tmp_path):
    # What `python -m kprune` does.
    script = "import runpy; runpy.run_module('kprune', run_name='__main__')"

    done = run_script(script, "summary", tmp_path / "none.keras")

    assert done.returncode == 1
    assert "Error: File not found" in done.stderr
    assert "none.keras" in done.stderr
    assert "Traceback" not in done.stderr
