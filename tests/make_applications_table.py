"""Rewrites the README's table of `keras.applications` from what the tests measured.

python -m pytest -m applications tests/shrinking --junitxml=applications.xml
python -m tests.make_applications_table applications.xml
"""

import pathlib
import sys
from xml.etree import ElementTree

from tests.shrinking.applications import FAMILIES

README = pathlib.Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- applications:begin -->\n", "<!-- applications:end -->"
COLUMNS = (
    "family",
    "models",
    "channels that may go",
    "parameters left",
    "multiply-adds left",
    "largest difference",
    "why the others stay",
)


def measured(paths):
    """Reads what the tests noted.

    Args:
        paths: List of strings, the files that pytest wrote.

    Returns:
        Dict from the name of each model that passed to a dict of strings.
    """
    found = {}
    for path in paths:
        for case in ElementTree.parse(path).iter("testcase"):
            noted = {p.get("name"): p.get("value") for p in case.iter("property")}
            has_failed = case.find("failure") is not None
            if "model" in noted and not has_failed:
                found[noted["model"]] = noted
    return found


def table(found):
    """Returns the table in Markdown, one row a family.

    Args:
        found: As `measured` returns it.

    Raises:
        ValueError: If models are missing.
    """
    missing = [n for names in FAMILIES.values() for n in names if n not in found]
    if missing:
        raise ValueError(f"No results of {', '.join(missing)}. Run their tests, too.")
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    lines += [
        _row(family, [found[n] for n in names]) for family, names in FAMILIES.items()
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(family, models):
    shares = [_span(models, key) for key in ("free", "parameters", "macs")]
    difference = max(float(m["difference"]) for m in models)
    return [
        family,
        str(len(models)),
        *shares,
        f"{difference:.0e} ({models[0]['dtype']})",
        "; ".join(sorted({m["why_not"] for m in models})),
    ]


def _span(models, key):
    percents = sorted(f"{100 * float(m[key]):4.1f}" for m in models)
    low, high = percents[0], percents[-1]
    return f"{low} %" if low == high else f"{low} to {high} %"


def updated(readme, found):
    """Returns the README's text with the present table between its marks."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table(found) + END + after


if __name__ == "__main__":
    README.write_text(updated(README.read_text(), measured(sys.argv[1:])))
