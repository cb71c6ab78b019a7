import contextlib
import io

import numpy as np
import pytest
import tensorflow as tf
from matplotlib import image

from kprune import datasets, demo
from kprune.demo import run_demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="module")
def result_and_text(folder):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        result = run_demo("digits", sparsity=0.75, epochs=2, out=folder)
    return result, printed.getvalue()


@pytest.fixture
def result(result_and_text):
    return result_and_text[0]


def test_demo_reaches_the_sparsity_it_was_asked_for(result):
    assert result.history["sparsity"][-1] == pytest.approx(0.75, abs=1e-3)
    assert result.history["sparsity"][:2] == [0, 0]
    assert result.pruned_export.nonzero_weights < 0.26 * result.pruned_export.weights


def test_demo_learns_the_digits(result):
    assert result.dense_accuracy > 0.6
    assert result.pruned_accuracy > 0.6


def test_demo_leaves_models_that_predict_what_it_says(result, folder):
    data = datasets.load("digits")

    loaded = tf.saved_model.load(folder / "saved_model")
    scores = loaded.serve(data.x_test)

    right = np.argmax(scores, -1) == data.y_test
    assert right.mean() == pytest.approx(result.pruned_accuracy, abs=0.006)
    assert (folder / "model.tflite").is_file()


@pytest.mark.parametrize("name", ["sparsity_and_accuracy.png", "layer_sparsity.png"])
def test_demo_draws_its_plots(result, folder, name):
    assert image.imread(folder / name).min() < 0.5


def test_demo_prints_the_comparison(result_and_text):
    printed = result_and_text[1]

    assert "test accuracy" in printed
    assert "gzip" in printed
    assert "Both files leave the zeros out" in " ".join(printed.split())


@pytest.mark.slow
def test_demo_replaces_what_it_wrote_before(folder, result):
    again = run_demo("digits", sparsity=0.5, epochs=1, out=folder)

    assert again.history["sparsity"][-1] == pytest.approx(0.5, abs=1e-3)
    assert image.imread(folder / "layer_sparsity.png").min() < 0.5


def test_every_data_set_has_a_plan():
    assert list(demo._PLANS) == datasets.names()


def test_demo_without_epochs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="epochs=0"):
        run_demo(epochs=0, out=tmp_path / "out")


def test_demo_refuses_a_folder_of_somebody_else_before_training(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(FileExistsError, match="thesis.txt"):
        run_demo(epochs=1, out=tmp_path)

    assert (tmp_path / "thesis.txt").read_text() == "years of work"
