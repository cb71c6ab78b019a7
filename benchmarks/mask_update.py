"""How long does one exact mask update take, and how much memory?

Compares kprune with TFMOT on a 4096 x 4096 kernel: the whole update, with
reading the weights, selection and assignment. Then kprune alone on 25 million
weights in 50 layers, ranked together and layer by layer.

    python benchmarks/mask_update.py [--record]
"""

import gc
import itertools
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from _criteria import criteria
from _harness import (
    interleaved,
    milliseconds,
    publish,
    ratio,
    read_options,
    resident,
    settle_frameworks,
)

keras, tf_keras, tfmot = settle_frameworks()

import tensorflow as tf  # noqa: E402

import kprune  # noqa: E402

SIDE = 4096
LAYERS, WIDTH = 50, 707


def schedule_arguments():
    return {"final_sparsity": 0.9, "begin_step": 0, "end_step": 1000, "frequency": 1}


def kprune_update(widths, scope="layer_wise", granularity="element"):
    """Returns a function that moves the clock on, and one that updates the masks."""
    layers = [keras.layers.Dense(w, use_bias=False) for w in widths[1:]]
    model = keras.Sequential([keras.Input((widths[0],)), *layers])
    model = kprune.prune(model, only=keras.layers.Dense, granularity=granularity)
    granularity = model.layers[0].granularity
    arguments = schedule_arguments()
    highest = granularity.reachable(widths[:2])
    arguments["final_sparsity"] = min(highest, arguments["final_sparsity"])
    pruner = kprune.Pruner(model, kprune.PolynomialSchedule(**arguments), scope=scope)
    steps = itertools.count(100, 5)
    return lambda: kprune.set_clock(model, next(steps)), pruner.step


def tfmot_update(side):
    """The same two functions for TFMOT, whose update is a graph."""
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.0, **schedule_arguments()
    )
    model = tf_keras.Sequential([tf_keras.layers.Dense(side, use_bias=False)])
    model.build((None, side))
    model = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
    layer = model.layers[0]
    steps = itertools.count(100, 5)

    @tf.function
    def update():
        layer.pruning_obj.conditional_mask_update()
        layer.pruning_obj.weight_mask_op()

    return lambda: layer.pruning_step.assign(next(steps)), update


def warm(move_clock, update):
    """Lets an update that is not timed go ahead of each.

    A machine that shares its memory takes back what a process has freed, while the
    other library has its turn of seconds. To get it again would be measured, and
    does not happen between the steps of a training.
    """

    def prepare():
        move_clock()
        update()
        move_clock()

    return prepare, update


def peak_memory(prepare, update):
    """Returns by how many MB the process grew at most during an update."""
    prepare()
    gc.collect()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # Resets the high mark.
    before = resident("VmRSS")
    update()
    return resident("VmHWM") - before


def single_kernel(rounds, record):
    subjects = {"kprune": kprune_update([SIDE, SIDE]), "TFMOT": tfmot_update(SIDE)}
    peaks = {}
    for name, (prepare, update) in subjects.items():
        if name == "TFMOT":  # The first call traces, and is no update.
            update()
        peaks[name] = peak_memory(prepare, update)
    times = interleaved({n: warm(*pair) for n, pair in subjects.items()}, rounds)
    publish(
        f"One mask update of a {SIDE} x {SIDE} kernel",
        ["library", "ms, median", "TFMOT takes", "extra memory at peak, MB"],
        [
            [n, milliseconds(t), ratio(times["TFMOT"], t), f"{peaks[n]:.0f}"]
            for n, t in times.items()
        ],
        f"Wall time with reads, selection and assignment, {rounds} rounds, the two in "
        "turns in one process, each update after one that is not timed, sparsity "
        "rising towards 0.9. In brackets the quartiles of the ratio. The kernel has "
        "64 MB, a bool mask 16 MB, TFMOT's mask 64 MB.",
        record,
    )


def many_layers(rounds, record):
    widths = [WIDTH] * (LAYERS + 1)
    subjects = {s: kprune_update(widths, s) for s in ("layer_wise", "global")}
    peaks = {name: peak_memory(*pair) for name, pair in subjects.items()}
    times = interleaved({n: warm(*pair) for n, pair in subjects.items()}, rounds)
    size = LAYERS * WIDTH * WIDTH / 1e6
    publish(
        f"One mask update of {size:.0f} million weights in {LAYERS} layers",
        ["scope", "ms, median", "against layer_wise", "extra memory at peak, MB"],
        [
            [n, milliseconds(t), ratio(t, times["layer_wise"]), f"{peaks[n]:.0f}"]
            for n, t in times.items()
        ],
        f"kprune alone, {rounds} rounds in turns. The weights have {4 * size:.0f} MB, "
        f"their masks {size:.0f} MB.",
        record,
    )


GRANULARITIES = {
    "element": "element",
    "Block(4, 1)": kprune.Block(4, 1),
    "Block(1, 4)": kprune.Block(1, 4),
    "Block(16, 16)": kprune.Block(16, 16),
    "NofM(2, 4)": kprune.NofM(2, 4),
    "channel": "channel",
}


def granularities(rounds, record):
    sizes = {f"{SIDE} x {SIDE}": [SIDE, SIDE], "25 million": [WIDTH] * (LAYERS + 1)}
    for title, widths in sizes.items():
        times = interleaved(
            {
                name: warm(*kprune_update(widths, granularity=granularity))
                for name, granularity in GRANULARITIES.items()
            },
            rounds,
        )
        publish(
            f"One mask update by granularity, {title} weights",
            ["granularity", "ms, median", "against element"],
            [
                [n, milliseconds(t), ratio(t, times["element"])]
                for n, t in times.items()
            ],
            f"Layer-wise, {rounds} rounds in turns, each update after one that is not "
            f"timed. The layers of the 25 million have {WIDTH} inputs, which neither 4 "
            "nor 16 divides. NofM rises to 0.5, the others to 0.9.",
            record,
        )


def main():
    options = read_options(__doc__, rounds={"type": int, "default": 7})
    keras.utils.set_random_seed(0)
    np.random.seed(0)
    single_kernel(options.rounds, options.record)
    many_layers(3 * options.rounds, options.record)
    granularities(options.rounds, options.record)
    criteria(LAYERS, WIDTH, options.rounds, options.record)


if __name__ == "__main__":
    main()
