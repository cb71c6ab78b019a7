"""How long does it take to follow a model's channels, and to remove half of them?

Two tables over models of `keras.applications`. The first times what comes before any
removal, for the largest models: `trace`, which follows the channels, and the whole of
`kprune.why_not`. The second removes half the channels and compares that with what
Keras needs for a plain copy, `clone_model` and `set_weights`: the removal alone, and
the whole of `kprune.shrink`, which also follows the channels, ranks them, and runs
both models on two random examples to compare them.

    python benchmarks/shrinking.py [--rounds 5] [--record]
"""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from _harness import interleaved, publish, ratio, read_options

import kprune
from kprune import registry
from kprune.channels.tracing import trace
from kprune.shrinking.choice import Chooser
from kprune.shrinking.groups import families_of
from kprune.shrinking.removal import without

LARGEST = (
    "NASNetLarge",
    "EfficientNetV2L",
    "EfficientNetB7",
    "InceptionResNetV2",
    "DenseNet201",
    "ResNet152V2",
)
COPIED = ("MobileNetV2", "ResNet50", "DenseNet121", "NASNetMobile", "EfficientNetB0")


def build(name):
    """Makes a model of its own image size, with weights at random."""
    keras.backend.clear_session()
    gc.collect()
    return getattr(keras.applications, name)(weights=None)


def following(name, rounds):
    """Returns the row of one model: its size, and how long each step takes."""
    model = build(name)
    times = interleaved(
        {"trace": lambda: trace(model), "why_not": lambda: kprune.why_not(model)},
        rounds,
    )
    channels = len(trace(model).channels.groups()) - 1
    sizes = [f"{model.count_params() / 1e6:.1f}", f"{len(model.layers):,}"]
    return [name, *sizes, f"{channels:,}", *map(seconds, times.values())]


def half_of(tracing):
    """Chooses half the channels of each family at random, a bool array by channel."""
    groups = tracing.channels.groups()
    families = [f for f in families_of(tracing) if len(f.groups) > 1]
    scores = np.random.default_rng(0).random(groups.max() + 1)
    chooser = Chooser(families, scores, registry.get("scopes", "layer_wise"))
    return np.isin(groups, chooser(0.5))


def copied(model):
    """Makes a plain copy, as Keras does."""
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def removing(name, rounds):
    """Returns the row of one model: a copy, the removal, and all of `shrink`."""
    model = build(name)
    tracing = trace(model)
    removed = half_of(tracing)
    subjects = {
        "copy": lambda: copied(model),
        "removal": lambda: without(model, tracing, removed),
        "shrink": lambda: kprune.shrink(model, sparsity=0.5),
    }
    for subject in subjects.values():  # the first one of a process is slower
        subject()
    times = interleaved(subjects, rounds)
    ratios = [ratio(times[key], times["copy"]) for key in ("removal", "shrink")]
    removal, shrink = (seconds(times[key]) for key in ("removal", "shrink"))
    return [name, seconds(times["copy"]), removal, ratios[0], shrink, ratios[1]]


def seconds(times):
    """Gives the median."""
    return f"{np.median(times):.2f}"


def main():
    options = read_options(__doc__, rounds={"type": int, "default": 5})
    publish(
        "Channels followed through the largest models",
        ["model", "million parameters", "layers", "channels", "trace, s", "why_not, s"],
        [following(name, options.rounds) for name in LARGEST],
        f"Medians of {options.rounds} rounds, in turns. `why_not` includes the trace.",
        options.record,
    )
    publish(
        "Half the channels removed, against a plain copy",
        ["model", "copy, s", "removal, s", "of a copy", "shrink, s", "of a copy"],
        [removing(name, options.rounds) for name in COPIED],
        f"Medians of {options.rounds} rounds in turns, after one that is not counted; "
        "ratios with quartiles. A copy is `clone_model` and `set_weights`; `shrink` "
        "follows the channels, ranks and removes them, and compares both models on "
        "two random examples.",
        options.record,
    )


if __name__ == "__main__":
    main()
