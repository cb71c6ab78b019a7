"""What pruning costs with either library: steps, updates, variables and memory."""

import dataclasses

import numpy as np
from _figures import Panel
from _harness import interleaved, milliseconds, publish, ratio
from _versus_memory import FREQUENCY, STEPS, peaks
from mask_update import kprune_update, tfmot_update, warm
from training_overhead import CASES, keras, subjects, variables

SIDES = (256, 1024, 2048, 4096)
PAIRS = {"kprune": "Keras 3", "TFMOT": "tf_keras"}


@dataclasses.dataclass
class Costs:
    """What was measured of one network.

    Args:
        times: Dict from framework to seconds of each round.
        steps: Int, how many steps a round had.
        variables: Dict from framework to bytes.
        peaks: Dict from framework to MB.
    """

    times: dict
    steps: int
    variables: dict
    peaks: dict

    def step_of(self, library):
        """Returns how much longer a step takes than that of the plain framework."""
        return np.median(self.times[library] / self.times[PAIRS[library]])

    def growth_of(self, library):
        """Returns by what factor the variables grow."""
        return self.variables[library] / self.variables[PAIRS[library]]

    def memory_of(self, library):
        """Returns how many MB more a process needs."""
        return self.peaks[library] - self.peaks[PAIRS[library]]


def training(networks, rounds, record):
    """Prints what training costs, and returns the panels of it."""
    costs = {name: _costs(name, rounds) for name in networks}
    publish(
        "Against TFMOT: what training costs",
        ["network", "library", "plain, ms a step", "step", "variables", "memory, MB"],
        [
            [
                name,
                library,
                milliseconds(found.times[plain] / found.steps),
                ratio(found.times[library], found.times[plain]),
                f"{found.growth_of(library):.3f}x",
                f"{found.memory_of(library):+.0f}",
            ]
            for name, found in costs.items()
            for library, plain in PAIRS.items()
        ],
        "kprune against plain Keras 3, TFMOT against plain tf_keras, all four in turns "
        "in one process; masks are updated every 100 steps of `fit` with Adam, "
        "sparsity rises towards 0.8. Ratios of steps are medians over rounds, in "
        "brackets the quartiles. Variables: bytes of all variables of the model, the "
        "optimizer's not counted. Memory: the most that a process of its own held, "
        f"median of {_processes(rounds)}, less that of the plain framework, over "
        f"{STEPS} steps with an update every {FREQUENCY}.",
        record,
    )
    return [
        _panel("Training step", "times a plain step", costs, Costs.step_of, 1),
        _panel(
            "Variables of the model", "times the plain model", costs, Costs.growth_of, 1
        ),
        _panel("Memory of a process", "MB more than plain", costs, Costs.memory_of, 0),
    ]


def _costs(name, rounds):
    make, batch, (steps, most), _ = CASES[name]
    rounds = min(rounds, most)
    times = interleaved(subjects(make, batch, 100, steps, rounds), rounds)
    keras.utils.clear_session(free_memory=True)
    return Costs(times, steps, variables(make), peaks(name, _processes(rounds)))


def _processes(rounds):
    return min(3, rounds)


def _panel(title, y, costs, value, level):
    return Panel(
        title=title,
        x="",
        y=y,
        series={
            library: [value(found, library) for found in costs.values()]
            for library in PAIRS
        },
        places=["\n".join(name.rsplit("_", 1)) for name in costs],
        level=level,
    )


def updates(rounds, record):
    """Prints how long one update of the masks takes, and returns the panel of it."""
    times = {side: _update_times(side, rounds) for side in SIDES}
    publish(
        "Against TFMOT: one mask update",
        ["weights", "kprune, ms", "TFMOT, ms", "TFMOT takes"],
        [
            [
                f"{side} x {side}",
                milliseconds(found["kprune"]),
                milliseconds(found["TFMOT"]),
                ratio(found["TFMOT"], found["kprune"]),
            ]
            for side, found in times.items()
        ],
        "Wall time of one update of one kernel with reads, selection and assignment, "
        f"median of {rounds} rounds, the two in turns in one process, each after one "
        "that is not timed, sparsity rising towards 0.9. In brackets the quartiles of "
        "the ratio.",
        record,
    )
    series = {
        library: [1e3 * np.median(found[library]) for found in times.values()]
        for library in PAIRS
    }
    sides = [f"{side} x {side}" for side in SIDES]
    return [Panel("One mask update", "", "ms", series, sides, log=True)]


def _update_times(side, rounds):
    pairs = {"kprune": kprune_update([side, side]), "TFMOT": tfmot_update(side)}
    pairs["TFMOT"][1]()  # The first call traces.
    times = interleaved({n: warm(*pair) for n, pair in pairs.items()}, rounds)
    keras.utils.clear_session(free_memory=True)
    return times
