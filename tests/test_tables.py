"""Rows of strings in columns."""

import pytest

from kprune.tables import laid_out

WORDS = " ".join(["word"] * 40)  # 199 characters


def test_columns_are_as_wide_as_what_is_in_them():
    text = laid_out(
        ("layer", "size", "why"), [("a", "1,000", "x y"), ("head", "2", "")]
    )

    assert text.splitlines() == [
        "layer  size   why",
        "a      1,000  x y",
        "head   2",
    ]


def test_rows_may_be_an_iterator():
    rows = (row for row in [("a", "1"), ("b", "2")])

    assert laid_out(("layer", "size"), rows).splitlines() == [
        "layer  size",
        "a      1",
        "b      2",
    ]


def test_numbers_stand_on_the_right():
    text = laid_out(("layer", "size"), [("a", "8 -> 4"), ("b", "20")], numbers=["size"])

    assert text.splitlines() == ["layer    size", "a      8 -> 4", "b          20"]


def test_a_long_cell_goes_on_below_itself():
    text = laid_out(("layer", "size", "why"), [("a", "1", WORDS)], numbers=["size"])

    title, *lines = text.splitlines()
    assert title == "layer  size  why"
    assert lines[0].startswith("a         1  word word")
    assert lines[1].startswith("             word word")
    assert max(map(len, lines)) <= 120
    assert " ".join(text.split()).count("word") == 40


def test_the_widest_column_is_wrapped_first():
    short = "one two three"

    text = laid_out(("short", "long"), [(short, WORDS)])

    assert text.splitlines()[1].startswith(f"{short}  word")
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", ["a/very-long_name" * 9, "a/path" * 30])
def test_a_name_longer_than_a_line_stays_whole(name):
    text = laid_out(("name", "why"), [(name, WORDS), ("b", "")])

    assert name in text
    assert all(len(line) <= len(name) + 6 for line in text.splitlines())


def test_numbers_are_never_wrapped():
    text = laid_out(("a", "b"), [("1 -> 2 " * 12, "3 -> 4 " * 12)], numbers=["a", "b"])

    assert len(text.splitlines()) == 2


def test_brackets_stay_as_they_are():
    assert "[bold]name[/bold]" in laid_out(("layer",), [("[bold]name[/bold]",)])


def test_without_rows_the_titles_are_left():
    assert laid_out(("layer", "size"), []) == "layer  size"
