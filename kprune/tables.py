"""Rows of strings in columns, as all reports print them."""

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

_LINE = 120
_GAP = 2


def laid_out(columns, rows, numbers=()):
    """Lays out rows of strings under their titles.

    Where a line would be longer than 120 characters, cells are wrapped between words,
    those of the widest column first. No word and no number is cut, so that names and
    paths can be copied.

    Args:
        columns: Sequence of strings, the titles, none of them empty.
        rows: Iterable of sequences of strings, one a column. Nothing in them is taken
            for markup.
        numbers: Sequence of those titles whose columns stand on the right and are
            not wrapped. Defaults to none.

    Returns:
        String of a line or more for each row.

    Example:
    >>> rows = [("stem", "8 -> 4", ""), ("head", "10", "it is an output")]
    >>> print(laid_out(("layer", "channels", "reason"), rows, numbers=("channels",)))
    layer  channels  reason
    stem     8 -> 4
    head         10  it is an output
    """
    rows = list(rows)
    cells = list(zip(columns, *rows, strict=True))
    # As wide as a word or number that is not to be cut.
    least = [
        max(len(part) for cell in column for part in _uncut(cell, title in numbers))
        for title, column in zip(columns, cells, strict=True)
    ]
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    for title, width in zip(columns, least, strict=True):
        kind = {"justify": "right", "no_wrap": True} if title in numbers else {}
        table.add_column(Text(title), min_width=width, **kind)
    for row in rows:
        table.add_row(*map(Text, row))
    room = max(_LINE, sum(least) + _GAP * (len(columns) - 1))
    console = Console(file=io.StringIO(), width=room, color_system=None)
    console.print(table)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _uncut(cell, is_number):
    """Lists the parts of a cell that stay in one line."""
    return [cell] if is_number else cell.split() or [""]
