"""Do the methods do what their papers say, and how do they stand beside TFMOT?

Trains LeNet-300-100 and a small CNN on MNIST and Fashion-MNIST with every method,
each with the same budget of epochs, the same first weights and batches, and shows
the accuracy at each sparsity: the mean over seeds, and their standard deviation.
Methods, windows and epochs were chosen with `--validate`, which tests on the last
10,000 training images; without it the test images are looked at once a run.

    python benchmarks/methods.py [--record] [--validate] [--seeds 0 1 2 3 4]
        [--data mnist fashion_mnist] [--network lenet_300_100 small_cnn]
        [--method ...] [--sparsity 0.8 0.9 0.95 0.98] [--epochs 10]
        [--window 0.1 0.6] [--keep results.jsonl] [--workers 4]
"""

import argparse
import concurrent.futures
import dataclasses
import itertools
import json
import multiprocessing
import os
import pathlib
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from _harness import publish
from _methods import METHODS, NETWORKS, Run, accuracy_of

DATA = ("mnist", "fashion_mnist")
ALL = (*METHODS, "TFMOT")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write RESULTS.md")
    parser.add_argument("--validate", action="store_true", help="spare the test set")
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--method", nargs="+", choices=ALL, default=ALL)
    parser.add_argument(
        "--sparsity", nargs="+", type=float, default=[0.8, 0.9, 0.95, 0.98]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--window", nargs=2, type=float, default=(0.1, 0.6))
    parser.add_argument("--keep", help="file of results, which are not made again")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(arguments.keep or f"{folder}/results.jsonl")
        results = all_results(runs_of(arguments), path, arguments.workers)
    for data, network in itertools.product(arguments.data, arguments.network):
        show(data, network, results, arguments)


def runs_of(arguments):
    """Lists the runs that are asked for; a dense one for each seed."""
    pairs = [("dense", 0.0), *itertools.product(arguments.method, arguments.sparsity)]
    return [
        Run(
            data,
            network,
            method,
            sparsity,
            seed,
            arguments.epochs,
            tuple(arguments.window),
            arguments.validate,
        )
        for seed in arguments.seeds
        for data in arguments.data
        for network in arguments.network
        for method, sparsity in pairs
    ]


def all_results(runs, path, workers):
    """Trains what the file does not know yet, on several processes.

    Returns:
        Dict from `Run` to its accuracy in percent and its sparsity.
    """
    known = {}
    if path.exists():
        for line in path.read_text().splitlines():
            run, result = json.loads(line)
            known[Run(**{**run, "window": tuple(run["window"])})] = result
    missing = [run for run in runs if run not in known]
    context = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(workers, context, _one_thread) as pool,
        path.open("a") as file,
    ):
        waiting = {pool.submit(accuracy_of, run): run for run in missing}
        for done in concurrent.futures.as_completed(waiting):
            run = waiting[done]
            known[run] = done.result()
            print(json.dumps([dataclasses.asdict(run), known[run]]), file=file)
            file.flush()
            print(f"{len(known)}: {run.method} {run.sparsity} {known[run]}", flush=True)
    return {run: known[run] for run in runs}


def _one_thread():
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


NOTE = (
    "Accuracy in percent, mean over {seeds} seeds and standard deviation between them. "
    "{epochs} epochs of batches of 128 with Adam and a cosine decay for every method, "
    "the same first weights and the same batches; gradual methods raise the sparsity "
    "from {begin:.0%} to {end:.0%} of the steps in about 30 updates; SNIP and RigL "
    "have theirs from the first step on. Dense: {dense}."
)


def show(data, network, results, arguments):
    """Prints the table of one network on one data set."""

    def cell(method, sparsity):
        found = [
            accuracy
            for run, (accuracy, _) in results.items()
            if (run.data, run.network, run.method, run.sparsity)
            == (data, network, method, sparsity)
        ]
        return f"{np.mean(found):.2f} ± {np.std(found, ddof=len(found) > 1):.2f}"

    begin, end = arguments.window
    publish(
        f"Methods, {network} on {data}" + (" (validation)" * arguments.validate),
        ["method", *(f"{sparsity:.0%}" for sparsity in arguments.sparsity)],
        [[m, *(cell(m, s) for s in arguments.sparsity)] for m in arguments.method],
        NOTE.format(
            seeds=len(arguments.seeds),
            epochs=arguments.epochs,
            begin=begin,
            end=end,
            dense=cell("dense", 0.0),
        ),
        arguments.record,
    )


if __name__ == "__main__":
    main()
