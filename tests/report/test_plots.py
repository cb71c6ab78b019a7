import matplotlib
import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from kprune.export import ExportRecord, ExportReport
from kprune.report.plots import plot_export, plot_history, plot_layer_sparsity
from kprune.report.summary import PruningSummary, WeightRecord


def summary_of(*records):
    return PruningSummary("net", list(records), step=0, costs=None)


def record(layer, size, zeros, masked=True):
    reason = "" if masked else "a norm"
    return WeightRecord(layer, "kernel", (size,), size, zeros, masked, reason)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to look at what they show."""
    figures = []
    save = Figure.savefig

    def savefig(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def test_history_plot_shows_every_accuracy_and_the_sparsity(tmp_path, drawn):
    history = {"loss": [2, 1], "accuracy": [0.5, 0.75], "sparsity": [0.25, 0.5]}
    history["val_accuracy"] = [0.5, 0.625]

    plot_history(history, tmp_path / "run.png")

    lines = {x.get_label(): x for axes in drawn[0].axes for x in axes.lines}
    assert set(lines) == {"accuracy", "val_accuracy", "sparsity"}
    np.testing.assert_array_equal(lines["sparsity"].get_ydata(), [0.25, 0.5])
    np.testing.assert_array_equal(lines["accuracy"].get_xdata(), [1, 2])


def test_history_plot_is_an_image_with_something_on_it(tmp_path):
    plot_history({"accuracy": [0.5, 0.75]}, tmp_path / "run.png")

    pixels = image.imread(tmp_path / "run.png")
    assert pixels.shape[:2] == (480, 840)
    assert pixels.min() < 0.5


def test_history_object_is_drawn_like_its_dict(tmp_path, drawn):
    class History:
        history = {"sparsity": [0.5]}

    plot_history(History(), tmp_path / "run.png")

    assert [line.get_label() for line in drawn[0].axes[1].lines] == ["sparsity"]


def test_history_without_sparsity_and_accuracy_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"only \['loss'\].*PruningCallback"):
        plot_history({"loss": [1.0]}, tmp_path / "run.png")


def test_layer_plot_has_one_bar_a_weight_and_none_for_dense_ones(tmp_path, drawn):
    records = [
        record("stem", 2000, 1000),
        record("head", 100, 90),
        record("norm", 10, 0, masked=False),
    ]

    plot_layer_sparsity(summary_of(*records), tmp_path / "layers.png")

    axes = drawn[0].axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0.9]
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "stem kernel",
        "head kernel",
    ]
    labels = [text.get_text() for text in axes.texts]
    assert labels == ["1,000 of 2,000 left", "10 of 100 left"]


def test_layer_plot_of_a_dense_model_is_refused(tmp_path):
    summary = summary_of(record("head", 10, 0, masked=False))

    with pytest.raises(ValueError, match="nothing to draw"):
        plot_layer_sparsity(summary, tmp_path / "layers.png")


def test_plots_leave_the_backend_alone(tmp_path):
    backend = matplotlib.get_backend()

    plot_history({"accuracy": [0.5]}, tmp_path / "run.png")

    assert matplotlib.get_backend() == backend


def test_export_sizes_are_drawn_with_a_bound_where_it_is_known(tmp_path):
    records = (
        ExportRecord("TFLite", "out/model.tflite", 2000, 1500, 0.0, accuracy=0.5),
        ExportRecord("SavedModel", "out/saved_model", 3000, 1000, 0.0, bound=900),
    )
    path = tmp_path / "sizes.svg"

    plot_export(ExportReport("net", 10, 5, records), path)

    drawing = path.read_text()
    assert all(f"<!-- {text} -->" in drawing for text in ("2.0", "1.5", "3.0", "bound"))
    assert "50.00%" in drawing


def test_an_export_without_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lists no file"):
        plot_export(ExportReport("net", 10, 5), tmp_path / "sizes.png")
