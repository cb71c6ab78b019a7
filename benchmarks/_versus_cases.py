"""Runs every case with either library, and shows what happened."""

import re
import textwrap
import warnings

import _versus_layers
import _versus_saving
import _versus_training
from _harness import publish
from _versus_sides import Kprune, Tfmot

LONGEST = 64  # Characters of an error.


def cases(record):
    """Prints a row a case: what TFMOT did, and what kprune did."""
    found = [
        case
        for module in (_versus_training, _versus_layers, _versus_saving)
        for case in module.CASES
    ]
    sides = Tfmot(), Kprune()
    rows = [
        [case.__doc__.rstrip("."), *(outcome(case, side) for side in sides)]
        for case in found
    ]
    publish(
        "Against TFMOT: what happens when",
        ["case", *(side.name for side in sides)],
        rows,
        f"{len(rows)} cases, each run by the same function with TFMOT on tf_keras and "
        "with kprune on Keras 3. Zeros are those of the kernels of the stripped model, "
        "unless the case says otherwise; of an error the beginning is shown.",
        record,
    )
    return []


def outcome(case, side):
    """Runs a case, and returns what it says, or the beginning of the error."""
    side.keras.utils.set_random_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return case(side)
    except Exception as error:  # Whatever it is, it is what happened.
        return f"{type(error).__name__}: {_beginning(str(error))}"
    finally:
        side.keras.backend.clear_session()


def _beginning(text):
    """Returns the beginning of what an error says, without the traceback in it."""
    inner = re.findall(r"^\s*\w+Error: (.+)$", text, re.MULTILINE)
    of_graph = re.search(r"^(.+)\n\s*\[\[\{\{node", text, re.MULTILINE)
    said = inner[-1] if inner else of_graph[1] if of_graph else text.strip()
    line = said.splitlines()[0].replace("|", "/") if said else ""
    return textwrap.shorten(line, LONGEST, placeholder=" ...")
