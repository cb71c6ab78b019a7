"""Rows of strings in columns, as all reports print them."""

import itertools
import textwrap

_LINE = 120
_GAP = "  "


def laid_out(columns, rows, numbers=()):
    """Lays out rows of strings under their titles.

    Where a line would be longer than 120 characters, cells are wrapped between words,
    those of the widest column first. No word and no number is cut, so that names and
    paths can be copied.

    Args:
        columns: Sequence of strings, the titles, none of them empty.
        rows: Sequence of sequences of strings, one a column. Nothing in them is taken
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
    cells = [columns, *rows]
    is_number = [title in numbers for title in columns]
    widths = _widths(list(zip(*cells, strict=True)), is_number)
    lines = []
    for row in cells:
        parts = [_wrapped(cell, w) for cell, w in zip(row, widths, strict=True)]
        for line in itertools.zip_longest(*parts, fillvalue=""):
            placed = [
                part.rjust(width) if right else part.ljust(width)
                for part, width, right in zip(line, widths, is_number, strict=True)
            ]
            lines.append(_GAP.join(placed).rstrip())
    return "\n".join(lines)


def _widths(columns, is_number):
    """Returns how wide each column is, so that lines fit if words let them."""
    widths = [max(map(len, column)) for column in columns]
    least = [
        width if whole else max(len(word) for cell in column for word in cell.split())
        for column, width, whole in zip(columns, widths, is_number, strict=True)
    ]
    room = _LINE - len(_GAP) * (len(columns) - 1)
    while sum(widths) > room and widths != least:
        wide = [i for i, width in enumerate(widths) if width > least[i]]
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _wrapped(cell, width):
    return textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)
