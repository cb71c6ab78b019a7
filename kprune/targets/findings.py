"""What stands in the way of a target, and the tables that show it."""

import dataclasses
import io


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that stands in the way, with its remedy.

    Attributes:
        where: String, the layer, operator or tensor, or "model".
        problem: String, what is and what was expected.
        remedy: String, what to change.
    """

    where: str
    problem: str
    remedy: str


def table(title, columns, rows, notes=()):
    """Lays out rows under a title, wrapped to 120 columns.

    Args:
        title: String, the first line.
        columns: Sequence of strings, the heads of the columns.
        rows: Sequence of sequences of strings. With none, the table is left out.
        notes: Sequence of strings, one line each below the table.

    Returns:
        String of several lines.

    Example:
    >>> print(table("two", ["name", "size"], [["a", "1"], ["b", "20"]]))
    two
    name   size
    a      1
    b      20
    """
    lines = [title]
    if rows:
        lines += _laid_out(columns, rows).splitlines()
    lines += [f"note: {note}" for note in notes]
    return "\n".join(line.rstrip() for line in lines)


def _laid_out(columns, rows):
    from rich import text
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for index, column in enumerate(columns):
        grid.add_column(column, no_wrap=index == 0)
    for row in rows:
        grid.add_row(*map(text.Text, row))
    out = io.StringIO()
    Console(
        file=out, width=120, force_jupyter=False, force_terminal=False, no_color=True
    ).print(grid)
    return out.getvalue()
