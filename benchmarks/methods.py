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
        [--figure methods.png]
"""

import itertools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from _figures import FIGURE, Panel, draw
from _harness import publish, read_options
from _kept import OPTIONS, all_results, kept_in
from _methods import METHODS, Run, accuracy_of, mean_and_deviation, shown

DATA = ("mnist", "fashion_mnist")
NETWORKS = ("lenet_300_100", "small_cnn")
ALL = (*METHODS, "TFMOT")


def main():
    arguments = read_options(
        __doc__,
        validate={"action": "store_true", "help": "spare the test set"},
        data={"nargs": "+", "choices": DATA, "default": DATA},
        network={"nargs": "+", "choices": NETWORKS, "default": NETWORKS},
        method={"nargs": "+", "choices": ALL, "default": ALL},
        sparsity={"nargs": "+", "type": float, "default": [0.8, 0.9, 0.95, 0.98]},
        seeds={"nargs": "+", "type": int, "default": range(5)},
        epochs={"type": int, "default": 10},
        window={"nargs": 2, "type": float, "default": (0.1, 0.6)},
        **FIGURE,
        **OPTIONS,
    )
    with kept_in(arguments.keep) as path:
        runs = runs_of(arguments)
        results = all_results(runs, accuracy_of, path, arguments.workers)
    pairs = list(itertools.product(arguments.data, arguments.network))
    for data, network in pairs:
        show(data, network, results, arguments)
    if arguments.figure:
        panels = [panel(data, network, results, arguments) for data, network in pairs]
        draw(panels, arguments.figure)


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
        return shown(*mean_and_deviation(results, data, network, method, sparsity))

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


def panel(data, network, results, arguments):
    """Returns the plot of one network on one data set, a line a method."""

    def error(method, sparsity):
        mean, deviation = mean_and_deviation(results, data, network, method, sparsity)
        return 100 - mean, deviation

    return Panel(
        title=f"{network} on {data}",
        x="sparsity, %",
        y="error, % (100 - accuracy)",
        places=[100 * sparsity for sparsity in arguments.sparsity],
        series={
            method: [error(method, sparsity) for sparsity in arguments.sparsity]
            for method in arguments.method
        },
        log=True,
    )


if __name__ == "__main__":
    main()
