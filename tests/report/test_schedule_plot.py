import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

import kprune
from kprune.report import schedule_plot
from kprune.report.schedule_plot import plot_schedule


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were made, to look at what they show."""
    figures = []

    def make(**look):
        figures.append(Figure(**look))
        return figures[-1]

    monkeypatch.setattr(schedule_plot, "Figure", make)
    return figures


def test_schedule_is_drawn_as_the_staircase_of_its_updates(tmp_path, drawn):
    schedule = kprune.LinearSchedule(0.8, 20, end_step=100, frequency=40)

    plot_schedule(schedule, tmp_path / "schedule.png", steps=120)

    (line,) = drawn[0].axes[0].lines
    assert line.get_drawstyle() == "steps-post"
    assert line.get_label() == "LinearSchedule"
    np.testing.assert_allclose(line.get_xdata(), [0, 20, 60, 100, 120])
    np.testing.assert_allclose(line.get_ydata(), [0, 0, 0.4, 0.8, 0.8])
    assert image.imread(tmp_path / "schedule.png").std() > 0


def test_several_schedules_are_told_apart_by_their_labels(tmp_path, drawn):
    schedules = {
        "cyclic": kprune.CyclicSchedule(0.9, cycles=3, sparse_steps=30),
        "at once": kprune.ConstantSchedule(0.5),
    }

    plot_schedule(schedules, tmp_path / "schedules.svg")

    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.legend_.texts] == list(schedules)
    assert axes.lines[0].get_xdata()[-1] == axes.lines[1].get_xdata()[-1] == 132
    np.testing.assert_allclose(
        axes.lines[0].get_ydata(), [0.9] + [0.9, 0] * 2 + [0.9] * 2
    )


def test_long_schedule_is_drawn_with_a_thousand_points(tmp_path, drawn):
    schedule = kprune.CosineSchedule(0.9, end_step=10**7, frequency=1)

    plot_schedule(schedule, tmp_path / "schedule.png")

    (line,) = drawn[0].axes[0].lines
    assert 900 < len(line.get_xdata()) < 1100
    assert line.get_ydata()[-1] == 0.9
