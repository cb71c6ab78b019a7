"""What stands in the way of a target, and the tables that show it."""

import dataclasses

from kprune.tables import laid_out


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
    """Lays out rows under a title, and notes below them.

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
    name  size
    a     1
    b     20
    """
    lines = [title]
    if rows:
        lines.append(laid_out(columns, rows))
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])
