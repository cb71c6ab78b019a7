"""Plots of a training run and of a pruned model, written to files.

The figures are drawn without a display and without matplotlib's global state, so
that nothing changes for a notebook that plots on its own.
"""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_SPARSITY = "tab:red"
_LAYER_HEIGHT = 0.3
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
    height = 1.5 + _LAYER_HEIGHT * len(records)
    figure = Figure(figsize=(7, height), layout="constrained")
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


def _label(record):
    return f"{record.layer} {record.weight}"


def _left(record):
    return f"{record.size - record.zeros:,} of {record.size:,} left"


def _save(figure, path):
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120)
