"""Rewrites the README's table of supported layers from `layer_cases.CASES`.

python -m tests.make_layer_table
"""

import pathlib

from tests.layer_cases import CASES

README = pathlib.Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- layers:begin -->\n", "<!-- layers:end -->"


def table():
    """Returns the table in Markdown, one row a case."""
    rows = ["| layer | masked weights | TFLite | note |", "| --- | --- | --- | --- |"]
    for case in CASES:
        paths = ", ".join(f"`{path}`" for path in case.paths)
        tflite = "yes" if case.tflite else "no"
        rows.append(f"| {case.name} | {paths} | {tflite} | {case.note} |")
    return "\n".join(rows) + "\n"


def updated(readme):
    """Returns the README's text with the present table between its marks."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
