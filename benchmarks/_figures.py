"""The figures of the benchmarks: panels of lines or bars, black on white."""

import dataclasses
import pathlib

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image

# For `read_options`.
FIGURE = {"figure": {"help": "file to draw into, such as figure.png"}}
# Each looks different in print without colours too.
_MARKERS = "os^vD*Px<>+"
_DASHES = "-", "--", ":", "-."
_GREYS = "black", "0.35", "0.55"
_FILLS = "0.25", "0.75", "white"
_PANEL = 4.2, 3.2  # Inches.
_COLOURS = 64


@dataclasses.dataclass
class Panel:
    """One plot of a figure.

    Args:
        title: String.
        x: String, what lies along the horizontal axis; empty for bars.
        y: String, what lies along the vertical axis.
        series: Dict from a label to a list with as many values as `places`, or to
            a list of pairs of a value and its deviation.
        places: List of numbers, where the values of a line lie, or of strings,
            what stands below the bars.
        log: Bool, whether the vertical axis is logarithmic. Defaults to not.
        level: Float, where a thin line is drawn across. Defaults to none.
    """

    title: str
    x: str
    y: str
    series: dict
    places: list
    log: bool = False
    level: float = None


def draw(panels, path, columns=2):
    """Draws panels beside and below each other into a file.

    Args:
        panels: List of `Panel`.
        path: String or path, whose ending chooses the format.
        columns: Int, how many stand beside each other at most. Defaults to 2.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    size = _PANEL[0] * columns, _PANEL[1] * rows
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    for number, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, number)
        bars = isinstance(panel.places[0], str)
        (_bars if bars else _lines)(axes, panel)
        _dress(axes, panel)
    _explain(figure, panels)
    FigureCanvasAgg(figure)
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    if str(path).endswith(".png"):
        with Image.open(path) as image:  # A third of the bytes.
            few = image.convert("RGB").quantize(_COLOURS)
        few.save(path, optimize=True)


def _lines(axes, panel):
    colours = _colours(len(panel.series))
    for number, (label, values) in enumerate(panel.series.items()):
        values = np.array(values, float)
        means, deviations = values.T if values.ndim == 2 else (values, None)
        axes.errorbar(
            panel.places,
            means,
            deviations,
            label=label,
            color=colours[number],
            marker=_MARKERS[number % len(_MARKERS)],
            linestyle=_DASHES[number % len(_DASHES)],
            markersize=4,
            linewidth=1.2,
            capsize=2,
        )
    axes.set_xticks(panel.places, [f"{place:g}" for place in panel.places])


def _colours(count):
    """Returns greys for a few lines, and colours dark enough on white for more."""
    if count <= len(_GREYS):
        return _GREYS
    spectrum = colormaps["turbo"](np.linspace(0.02, 0.95, count))
    return spectrum * (0.8, 0.8, 0.8, 1)


def _bars(axes, panel):
    width = 0.8 / len(panel.series)
    for number, (label, values) in enumerate(panel.series.items()):
        shift = (number - (len(panel.series) - 1) / 2) * width
        bars = axes.bar(
            np.arange(len(values)) + shift,
            values,
            width,
            label=label,
            color=_FILLS[number],
            edgecolor="black",
            linewidth=0.6,
        )
        axes.bar_label(bars, [_short(value) for value in values], fontsize=7, padding=1)
    axes.set_xticks(range(len(panel.places)), panel.places)
    axes.margins(y=0.25)


def _short(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _dress(axes, panel):
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel(panel.x, fontsize=9)
    axes.set_ylabel(panel.y, fontsize=9)
    axes.tick_params(labelsize=8)
    if panel.log:
        _logarithmic(axes)
    if panel.level is not None:
        axes.axhline(panel.level, color="black", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _logarithmic(axes):
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 50 * low:  # Powers of ten alone would be too few.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _explain(figure, panels):
    """Adds one legend for all panels if they have the same labels, or one for each."""
    look = {"fontsize": 7.5, "frameon": False}
    labels = list(panels[0].series)
    if len(panels) > 1 and all(list(panel.series) == labels for panel in panels):
        handles, _ = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, **look)
    else:
        for axes in figure.axes:
            axes.legend(**look)
