"""Plots of a training run, a pruned model and an export, written to files.

The figures are drawn without a display and without matplotlib's global state, so
that nothing changes for a notebook that plots on its own.
"""

import os

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_SPARSITY = "tab:red"
_ROW_HEIGHT = 0.3
_TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1)


def plot_history(history, path):
    """Draws sparsity and accuracy over the epochs of a run into a file.

    Use it to see what each step of the schedule cost and whether training has
    made up for it.

    Args:
        history: What `fit` returned, or its `history` dict: a list of values, one
            an epoch, for each metric. Drawn are `"sparsity"` and every metric
            whose name ends with `accuracy`.
        path: String or path, the file to write; its ending chooses the format.

    Raises:
        ValueError: If there is nothing to draw.

    Example:
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "run.png")
    >>> plot_history({"accuracy": [0.8, 0.9], "sparsity": [0.4, 0.5]}, path)
    >>> path.stat().st_size > 1000
    True
    """
    history = getattr(history, "history", history)
    accuracies = [name for name in history if name.endswith("accuracy")]
    if not accuracies and "sparsity" not in history:
        raise ValueError(
            "The history holds neither 'sparsity' nor an accuracy, only "
            f"{sorted(history)}. Train with PruningCallback, or compile the model "
            "with metrics=['accuracy']."
        )
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="accuracy")
    lines = [_draw_epochs(axes, history[name], label=name) for name in accuracies]
    if "sparsity" in history:
        right = axes.twinx()
        right.set(ylabel="sparsity", ylim=(0, 1.02))
        look = dict(label="sparsity", color=_SPARSITY, linestyle="--")
        lines.append(_draw_epochs(right, history["sparsity"], **look))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(handles=lines, loc="lower right")
    _save(figure, path)


def _draw_epochs(axes, values, **look):
    return axes.plot(range(1, len(values) + 1), values, marker=".", **look)[0]


def plot_layer_sparsity(summary, path):
    """Draws the sparsity of every pruned weight into a file.

    Use it to see which layers carry the zeros; a bar's label gives the number of
    weights that are left.

    Args:
        summary: What `kprune.summary(model)` returned. Weights without a mask
            have no bar.
        path: String or path, the file to write; its ending chooses the format.

    Raises:
        ValueError: If no weight has a mask.

    Example:
    >>> import pathlib, tempfile, keras, kprune
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> path = pathlib.Path(tempfile.mkdtemp(), "layers.png")
    >>> plot_layer_sparsity(kprune.summary(kprune.prune(model), None), path)
    >>> path.stat().st_size > 1000
    True
    """
    records = summary.masked
    if not records:
        raise ValueError(
            f"No weight of {summary.model!r} has a mask, so there is nothing to draw. "
            "Pass the summary of a model that kprune.prune has made."
        )
    figure = _figure_for(len(records))
    # Room right of 1 for the bars' labels.
    axes = figure.add_subplot(xlabel="sparsity", xlim=(0, 1.3), xticks=_TICKS)
    bars = axes.barh(
        [_label(record) for record in records],
        [record.sparsity for record in records],
        color=_SPARSITY,
    )
    axes.bar_label(bars, [_left(record) for record in records], padding=3)
    axes.invert_yaxis()
    _save(figure, path)


def _figure_for(rows):
    """Returns a figure in which so many bars have room above each other."""
    return Figure(figsize=(7, 1.5 + _ROW_HEIGHT * rows), layout="constrained")


def _label(record):
    return f"{record.layer} {record.weight}"


def _left(record):
    return f"{record.size - record.zeros:,} of {record.size:,} left"


def plot_export(report, path):
    """Draws the sizes of the files of an export into a file.

    Use it to choose a format: a bar a way of shipping (raw, gzipped), the bound
    as a line where it is known, the accuracy beside the name.

    Args:
        report: The `ExportReport` that `kprune.export` returned.
        path: String or path, the file to write; its ending chooses the format.

    Raises:
        ValueError: If the report has no files.

    Example:
    >>> import pathlib, tempfile
    >>> from kprune.export import ExportRecord, ExportReport
    >>> record = ExportRecord("TFLite", "out/model.tflite", 2124, 1490, 6e-8)
    >>> path = pathlib.Path(tempfile.mkdtemp(), "sizes.png")
    >>> plot_export(ExportReport("net", 100, 10, (record,)), path)
    >>> path.stat().st_size > 1000
    True
    """
    records = report.records
    if not records:
        raise ValueError(
            f"The report of {report.model!r} lists no file, so there is nothing to "
            "draw. Pass what kprune.export returned."
        )
    figure = _figure_for(3 * len(records))
    axes = figure.add_subplot(xlabel="KB", title=report.model)
    places = range(len(records))
    for shift, field, label in ((-0.2, "bytes", "raw"), (0.2, "gzip_bytes", "gzipped")):
        kilobytes = [getattr(record, field) / 1e3 for record in records]
        bars = axes.barh([p + shift for p in places], kilobytes, 0.38, label=label)
        axes.bar_label(bars, [f"{k:,.1f}" for k in kilobytes], padding=3)
    bounds = [(p, r.bound / 1e3) for p, r in enumerate(records) if r.bound is not None]
    if bounds:
        at, kilobytes = np.transpose(bounds)
        axes.vlines(kilobytes, at - 0.4, at + 0.4, _SPARSITY, label="bound")
    axes.set_yticks(places, [_file_label(record) for record in records])
    axes.margins(x=0.2)
    axes.invert_yaxis()
    axes.legend()
    _save(figure, path)


def _file_label(record):
    name = os.path.basename(record.path)
    return name if record.accuracy is None else f"{name}\n{record.accuracy:.2%}"


def _save(figure, path):
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120)
