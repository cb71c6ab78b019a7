"""What is left of the accuracy at each sparsity, with either library."""

import dataclasses
import itertools

import numpy as np
from _figures import Panel
from _harness import publish, settle_frameworks
from _kept import all_results
from _methods import Run, accuracy_of, mean_and_deviation, network, shown

SPARSITIES = (0.5, 0.8, 0.9, 0.95)
TASKS = {"small_cnn": "fashion_mnist", "resnet_8": "cifar10"}
# What stands in the tables: the method of a run, and that of its plain baseline.
LIBRARIES = {
    "kprune, global": ("magnitude, global", "dense"),
    "kprune, layer-wise": ("magnitude, layer-wise", "dense"),
    "TFMOT": ("TFMOT", "TFMOT"),
}
WINDOW = (0.1, 0.6)
SAME = 1e-4


@dataclasses.dataclass(frozen=True)
class PartialRun(Run):
    """A run on the first images of the training set.

    Args:
        images: Int, how many of them.
    """

    images: int


def accuracy_of_part(run):
    """Returns accuracy and sparsity of a `PartialRun`."""
    return accuracy_of(run, run.images)


def accuracies(seeds, epochs, images, path, workers, record):
    """Prints the accuracies, and returns a panel for each network.

    Args:
        seeds: List of ints.
        epochs: Int.
        images: Int, how many training images.
        path: Path of the file of results that need not be made again.
        workers: Int, how many processes train.
        record: Bool.
    """
    methods = {pair[0] for pair in LIBRARIES.values()}
    plain = {pair[1] for pair in LIBRARIES.values()}
    pairs = [(method, 0.0) for method in sorted(plain)]
    pairs += itertools.product(sorted(methods), SPARSITIES)
    runs = [
        PartialRun(data, name, *pair, seed, epochs, WINDOW, False, images)
        for seed in seeds
        for name, data in TASKS.items()
        for pair in pairs
    ]
    apart = {run: _apart(run) for run in runs if run.method == "dense"}
    results = all_results(runs, accuracy_of_part, path, workers)
    publish(
        "Against TFMOT: accuracy",
        ["network", "library", "plain", *(f"{s:.0%}" for s in SPARSITIES), "zeros"],
        [
            [f"{name}, {data}", library, *_cells(results, data, name, library)]
            for name, data in TASKS.items()
            for library in LIBRARIES
        ],
        f"Test accuracy in percent, mean over {len(seeds)} seeds and standard "
        f"deviation between them. {epochs} epochs of {images:,} training images in "
        "batches of 128, with Adam and a cosine decay; the same first weights (before "
        f"training, outputs differ by at most {max(apart.values()):.0e}), the same "
        f"batches in the same order, sparsity rises from {WINDOW[0]:.0%} to "
        f"{WINDOW[1]:.0%} of the steps in about 30 updates. Plain: unpruned, with "
        "tf_keras and with Keras 3. Zeros: the least share of all kernels at "
        f"{SPARSITIES[-1]:.0%}.",
        record,
    )
    return [_panel(results, data, name) for name, data in TASKS.items()]


def _apart(run):
    """Returns how far the outputs of the two frameworks are apart before training."""
    models = [network(run, framework) for framework in settle_frameworks()[:2]]
    rng = np.random.default_rng(0)
    x = rng.random((8, *models[0].input_shape[1:]), dtype="float32")
    ours, theirs = (model.predict(x, verbose=0) for model in models)
    difference = float(abs(ours - theirs).max())
    if difference > SAME:
        raise RuntimeError(
            f"The networks {run.network!r} do not start alike: outputs differ by "
            f"{difference}. See that both list their weights in the same order."
        )
    return difference


def _cells(results, data, name, library):
    pruned, plain = LIBRARIES[library]
    yield shown(*mean_and_deviation(results, data, name, plain, 0.0))
    for sparsity in SPARSITIES:
        yield shown(*mean_and_deviation(results, data, name, pruned, sparsity))
    reached = [
        zeros
        for run, (_, zeros) in results.items()
        if (run.network, run.method, run.sparsity) == (name, pruned, SPARSITIES[-1])
    ]
    yield f"{min(reached):.2%}"


def _panel(results, data, name):
    return Panel(
        title=f"Accuracy, {name} on {data}",
        x="sparsity, %",
        y="accuracy, %",
        series={
            library: [
                mean_and_deviation(results, data, name, pruned, sparsity)
                for sparsity in SPARSITIES
            ]
            for library, (pruned, _) in LIBRARIES.items()
        },
        places=[100 * sparsity for sparsity in SPARSITIES],
    )
