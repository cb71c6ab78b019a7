"""What do TFMOT and kprune do with the same models, side by side?

TFMOT prunes on tf_keras, kprune on Keras 3: the same architectures, the same first
weights, the same data in the same order, in turns in one run. Measured are steps,
updates of the masks, variables and memory, files, what happens in cases where TFMOT
is known to fail, and the accuracy at each sparsity.

    python benchmarks/versus_tfmot.py [--record] [--figure versus_tfmot.png]
        [--only costs updates files cases accuracy] [--network lenet_300_100 ...]
        [--rounds 7] [--seeds 0 1 2] [--epochs 20] [--images 20000]
        [--keep results.jsonl] [--workers 4]
"""

import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import _versus_costs
from _figures import FIGURE, draw
from _harness import read_options
from _kept import OPTIONS, kept_in
from _versus_accuracy import accuracies
from _versus_cases import cases
from _versus_files import files
from training_overhead import CASES


def accuracy(options):
    with kept_in(options.keep) as path:
        return accuracies(
            options.seeds,
            options.epochs,
            options.images,
            path,
            options.workers,
            options.record,
        )


# Each prints a table, and returns the panels of the figure that belong to it. The
# trainings on all cores come last.
PARTS = {
    "costs": lambda o: _versus_costs.training(o.network, o.rounds, o.record),
    "updates": lambda o: _versus_costs.updates(o.rounds, o.record),
    "files": lambda o: files(min(3, o.rounds), o.record),
    "cases": lambda o: cases(o.record),
    "accuracy": accuracy,
}


def main():
    options = read_options(
        __doc__,
        only={"nargs": "+", "choices": PARTS, "default": list(PARTS)},
        network={"nargs": "+", "choices": CASES, "default": list(CASES)},
        rounds={"type": int, "default": 7},
        seeds={"nargs": "+", "type": int, "default": [0, 1, 2]},
        epochs={"type": int, "default": 20},
        images={"type": int, "default": 20_000},
        **FIGURE,
        **OPTIONS,
    )
    # Every round of `costs` ends before its schedule does: kprune says so.
    warnings.filterwarnings("ignore", message="The run is too short")
    warnings.filterwarnings("ignore", message="Training ended at step")
    panels = [
        panel
        for name in PARTS
        if name in options.only
        for panel in PARTS[name](options)
    ]
    if options.figure and panels:
        draw(panels, options.figure)


if __name__ == "__main__":
    main()
