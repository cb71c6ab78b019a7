"""Trainings on several processes, whose results are kept in a file."""

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import tempfile

# For `read_options`.
OPTIONS = {
    "keep": {"help": "file of results, which are not made again"},
    "workers": {"type": int, "default": os.cpu_count()},
}


@contextlib.contextmanager
def kept_in(keep):
    """Yields the path that `--keep` named, or one that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(keep or f"{folder}/results.jsonl")


def all_results(runs, measure, path, workers):
    """Makes what the file does not know yet, on processes of one thread each.

    Args:
        runs: List of frozen dataclass objects that JSON can hold, each the key of
            its result.
        measure: Function of a run, importable, whose result JSON can hold.
        path: Path of the file, which gets a line a result.
        workers: Int, how many processes.

    Returns:
        Dict from each run to its result.
    """
    known = {}
    if path.exists():
        for line in path.read_text().splitlines():
            key, result = json.loads(line)
            known[json.dumps(key)] = result
    missing = [run for run in runs if _key(run) not in known]
    context = multiprocessing.get_context("spawn")
    with (
        # New processes now and then: TensorFlow keeps a part of each model.
        context.Pool(workers, _one_thread, maxtasksperchild=10) as pool,
        path.open("a") as file,
    ):
        outcomes = pool.imap_unordered(functools.partial(_outcome, measure), missing)
        for run, result in outcomes:
            known[_key(run)] = result
            print(json.dumps([dataclasses.asdict(run), result]), file=file)
            file.flush()
            print(f"{len(known)}: {run.method} {run.sparsity} {result}", flush=True)
    return {run: known[_key(run)] for run in runs}


def _outcome(measure, run):
    return run, measure(run)


def _key(run):
    return json.dumps(dataclasses.asdict(run))


def _one_thread():
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
