"""How much memory a process needs that builds a model and trains some steps.

    python benchmarks/_versus_memory.py kprune mlp_2048_2048

prints MB. All four frameworks are imported whichever is asked for, so that the
difference between two processes is that of the models and their training.
"""

import gc
import subprocess
import sys

import numpy as np
from _harness import resident
from training_overhead import CASES, FRAMEWORKS, built, examples, trainer

STEPS, FREQUENCY = 20, 5


def peak(framework, network):
    """Trains some steps, and returns the most memory that this process held, in MB."""
    make, batch, *_ = CASES[network]
    window = {"begin_step": 0, "end_step": STEPS, "frequency": FREQUENCY}
    model, callbacks = built(framework, make, window)
    gc.collect()  # The model that was given to the library.
    trainer(model, callbacks, batch, examples(model, STEPS * batch))()
    return resident("VmHWM")


def peaks(network, rounds):
    """Runs a process for each framework, in turns.

    Args:
        network: String, a key of `CASES`.
        rounds: Int, how often each.

    Returns:
        Dict from framework to the median of its peaks in MB.
    """
    found = {framework: [] for framework in FRAMEWORKS}
    for _ in range(rounds):
        for framework, megabytes in found.items():
            command = [sys.executable, __file__, framework, network]
            process = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            megabytes.append(float(process.stdout))
    return {framework: np.median(megabytes) for framework, megabytes in found.items()}


if __name__ == "__main__":
    print(peak(*sys.argv[1:]))
