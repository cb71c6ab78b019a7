"""What the benchmarks share: interleaved timing, tables and RESULTS.md."""

import argparse
import importlib.metadata
import os
import pathlib
import platform
import shlex
import sys
import time

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

RESULTS = pathlib.Path(__file__).with_name("RESULTS.md")
PACKAGES = ("tensorflow", "keras", "tf_keras", "tensorflow-model-optimization", "numpy")
TITLE = "# Benchmark results\n\nEach script writes its own section with `--record`.\n"


def read_options(doc, **options):
    """Reads the command line of a benchmark: `--record`, and options of its own.

    Args:
        doc: String, the script's docstring; its first line is the description.
        **options: Dict of what `add_argument` takes, for each option.

    Returns:
        Namespace with `record` and the options.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write RESULTS.md")
    for name, settings in options.items():
        parser.add_argument(f"--{name}", **settings)
    return parser.parse_args()


def interleaved(subjects, rounds):
    """Times functions in turns, so that a noisy machine treats them alike.

    Args:
        subjects: Dict from name to a function without arguments, or to a pair of
            them, of which the first prepares and is not timed.
        rounds: Int, how often each is timed.

    Returns:
        Dict from name to an array of `rounds` wall times in seconds.
    """
    times = {name: [] for name in subjects}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(subjects)):
            subject = subjects[name]
            if isinstance(subject, tuple):
                prepare, subject = subject
                prepare()
            begin = time.perf_counter()
            subject()
            times[name].append(time.perf_counter() - begin)
    return {name: np.array(seconds) for name, seconds in times.items()}


def ratio(seconds, base):
    """Says by what factor one took longer: median over rounds, and the quartiles."""
    low, median, high = np.percentile(seconds / base, [25, 50, 75])
    return f"{median:.2f}x ({low:.2f} to {high:.2f})"


def milliseconds(seconds):
    """Gives the median of times in seconds, in ms."""
    return f"{1e3 * np.median(seconds):,.2f}"


def resident(field):
    """Returns the memory of this process in MB.

    Args:
        field: `"VmRSS"` for that of now, `"VmHWM"` for the most there was.
    """
    status = pathlib.Path("/proc/self/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def settle_frameworks():
    """Imports Keras 3, TFMOT and tf_keras in the one order in which all work.

    Returns:
        The modules keras, tf_keras and tensorflow_model_optimization.
    """
    import keras
    import tensorflow as tf

    # TFMOT turns tf.keras into tf_keras unless that name was looked up before.
    assert tf.keras.__version__ == keras.__version__
    import tensorflow_model_optimization as tfmot
    import tf_keras

    # What it does that with, which processes that are started from here would inherit.
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    return keras, tf_keras, tfmot


def publish(section, columns, rows, note, record):
    """Prints a table, and writes it into its section of RESULTS.md if asked to.

    Args:
        section: String, the heading.
        columns: List of strings.
        rows: List of lists of strings.
        note: String, what was measured and how.
        record: Bool.
    """
    table = Table(*columns, title=section, caption=note, box=box.MARKDOWN)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if record:
        lines = [columns, ["---"] * len(columns), *rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        _replace(section, f"{body}\n\n{note}\n\n{_circumstances()}")


def _circumstances():
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in PACKAGES)
    command = shlex.join(["python", f"benchmarks/{pathlib.Path(sys.argv[0]).name}"])
    return (
        f"Machine: {os.cpu_count()} cores, {_processor()}, load "
        f"{os.getloadavg()[0]:.1f}. Python {platform.python_version()}, {versions}. "
        f"{time.strftime('%Y-%m-%d')}, `{command} {shlex.join(sys.argv[1:])}`."
    )


def _processor():
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _replace(section, body):
    text = RESULTS.read_text() if RESULTS.exists() else TITLE
    head, *parts = text.split("\n## ")
    sections = dict(part.split("\n", 1) for part in parts)
    sections[section] = f"\n{body}\n"
    joined = "".join(f"\n## {n}\n\n{b.strip()}\n" for n, b in sections.items())
    RESULTS.write_text(f"{head.rstrip()}\n{joined}")
