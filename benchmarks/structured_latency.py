"""How much faster is a TFLite file once half of the channels are removed?

Narrows ResNet-20, MobileNetV2 and an MLP with `kprune.shrink` to half their widths,
exports them whole and narrowed, in float32 and in int8, and times all files of a
network in turns, on one thread.

    python benchmarks/structured_latency.py [--record] [--rounds 200]
        [--only resnet_20 mobilenet_v2 mlp]
"""

import os
import pathlib
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from _harness import interleaved, milliseconds, publish, ratio, read_options
from _networks import resnet_20
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import kprune
from kprune.shrinking import shrink

EXAMPLES = 32
CALLS = 3  # A timed turn is this many, one behind the other.
FORMATS = {
    "float32": lambda rows: kprune.TFLite(sparse=False),
    # Random weights suffer from it more than trained ones; here only speed counts.
    "int8": lambda rows: kprune.TFLite("int8", representative_data=rows, tolerance=1.0),
}
COLUMNS = "network", "file", "multiply-adds, M", "bytes", "ms", "faster", "in CPU time"
NOTE = (
    "Each line: whole, then narrowed by `kprune.shrink(model, sparsity=0.5, "
    "scope='layer_wise', round_to=8)`. One example, one thread, `ai_edge_litert`, all "
    "files of a network in turns, {rounds} of {calls} calls; milliseconds are medians "
    "a call, `faster` is the median over turns, and its quartiles; the last column is "
    "the same with the thread's CPU time, to which other work on the machine adds "
    "little. Weights are random, with statistics of the batch normalizations taken "
    "from random examples."
)


def mobilenet_v2():
    return keras.applications.MobileNetV2(
        (224, 224, 3), weights=None, classifier_activation=None
    )


def mlp():
    hidden = [layers.Dense(2048, activation="relu") for _ in range(2)]
    return keras.Sequential(
        [keras.Input((784,)), *hidden, layers.Dense(10)], name="mlp"
    )


MODELS = {
    "resnet_20": lambda: resnet_20(keras),
    "mobilenet_v2": mobilenet_v2,
    "mlp": mlp,
}


def calibrated(model, rows):
    """Returns a model whose batch normalizations know what passes through them."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0  # the statistics become those of the next batch
    model(rows, training=True)
    return model


def one_turn(path, row, spent):
    """Returns a function that runs a file some times on one example.

    Args:
        path: Path of the file.
        row: float32 array, a batch of one.
        spent: List. Each turn appends its seconds of CPU time, which others on the
            machine don't add to.
    """
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row)
    interpreter.invoke()

    def run():
        begin = time.thread_time()
        for _ in range(CALLS):
            interpreter.invoke()
        spent.append(time.thread_time() - begin)

    return run


def rows_of(name, rounds, folder):
    """Returns the table's rows for one network."""
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    shape = (EXAMPLES, *model.input_shape[1:])
    rows = np.random.default_rng(0).normal(size=shape).astype("float32")
    model = calibrated(model, rows)
    small, report = shrink(
        model, 0.5, scope="layer_wise", round_to=8, return_report=True
    )
    files = {}
    for which, network in (("whole", model), ("narrowed", calibrated(small, rows))):
        made = [make(rows) for make in FORMATS.values()]
        kprune.export(network, folder / which, made)
        for kind, format in zip(FORMATS, made, strict=True):
            files[f"{kind}, {which}"] = folder / which / format.file
    spent = {key: [] for key in files}
    turns = {key: one_turn(path, rows[:1], spent[key]) for key, path in files.items()}
    times = interleaved(turns, rounds)
    macs = " to ".join(f"{n / 1e6:.1f}" for n in report.macs)
    for kind in FORMATS:
        pair = [f"{kind}, {which}" for which in ("whole", "narrowed")]
        whole, narrowed = (times[key] / CALLS for key in pair)
        whole_cpu, narrowed_cpu = (np.array(spent[key]) for key in pair)
        yield [
            name,
            kind,
            macs,
            " to ".join(f"{files[key].stat().st_size:,}" for key in pair),
            f"{milliseconds(whole)} to {milliseconds(narrowed)}",
            ratio(whole, narrowed),
            ratio(whole_cpu, narrowed_cpu),
        ]


def main():
    options = read_options(
        __doc__,
        rounds={"type": int, "default": 200},
        only={"nargs": "+", "choices": MODELS, "default": list(MODELS)},
    )
    rows = []
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            rows += rows_of(name, options.rounds, pathlib.Path(folder))
    note = NOTE.format(rounds=options.rounds, calls=CALLS)
    publish("Files with half of the channels", COLUMNS, rows, note, options.record)


if __name__ == "__main__":
    main()
