"""How small is a packed SavedModel, and does a call cost more?

Exports LeNet-300-100, a perceptron of 1.86 million weights and MobileNetV2, random
weights at 90 % zeros, plain and in every packing. Then times calls of the plain
and of the lossless file in turns, and how long it takes to load them.

    python benchmarks/packed_saved_model.py [--record] [--only lenet_300_100 ...]
"""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from _harness import interleaved, milliseconds, publish, ratio, read_options

import kprune

SPARSITY = 0.9
PACKINGS = (None, "lossless", "fp16", "codebook8", "codebook4")
BATCHES = (1, 32)


def perceptron(*widths):
    layers = [keras.layers.Dense(width, activation="relu") for width in widths]
    return keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10)])


# Name: model, and rounds of the timing.
CASES = {
    "lenet_300_100": (lambda: perceptron(300, 100), 2000),
    "mlp_1024_1024": (lambda: perceptron(1024, 1024), 1000),
    "mobilenet_v2": (lambda: keras.applications.MobileNetV2(weights=None), 60),
}


def pruned(model):
    """Sets the smallest weights of every kernel to zero."""
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            array = weight.numpy()
            threshold = np.quantile(np.abs(array), SPARSITY)
            weight.assign(np.where(np.abs(array) > threshold, array, 0))
    return model


def exported(model, folder):
    """Writes a file for each packing; returns the record of each."""
    return {
        packing: kprune.export(
            model, os.path.join(folder, str(packing)), kprune.SavedModel(packing)
        ).records[0]
        for packing in PACKINGS
    }


def size_rows(name, records):
    for packing, record in records.items():
        weights = record.bytes - record.overhead_bytes
        yield [
            name,
            packing or "plain",
            f"{record.bytes:,}",
            f"{weights:,}",
            f"{record.bound:,}",
            f"{weights / record.bound:.3f}",
            f"{record.overhead_bytes:,}",
            f"{records[None].bytes / record.bytes:.1f}x",
        ]


def latency_rows(name, records, rounds):
    def caller(path, batch):
        loaded = tf.saved_model.load(path)
        signature = loaded.signatures["serving_default"]
        ((key, spec),) = signature.structured_input_signature[1].items()
        inputs = {key: tf.random.normal((batch, *spec.shape[1:]), seed=0)}
        for _ in range(3):
            signature(**inputs)
        # The loaded object owns the weights and has to live as long.
        return lambda: loaded.signatures["serving_default"](**inputs)

    paths = {kind: records[kind].path for kind in (None, "lossless")}
    loads = interleaved(
        {kind: lambda p=path: tf.saved_model.load(p) for kind, path in paths.items()}, 5
    )
    for batch in BATCHES:
        calls = {kind: caller(path, batch) for kind, path in paths.items()}
        count = max(20, rounds // batch)
        times = interleaved(calls, count)
        yield [
            f"{name}, batch {batch}",
            milliseconds(times[None]),
            milliseconds(times["lossless"]),
            ratio(times["lossless"], times[None]),
            milliseconds(loads[None]),
            milliseconds(loads["lossless"]),
            f"{count}",
        ]


def main():
    only = {"nargs": "+", "choices": CASES, "default": list(CASES)}
    arguments = read_options(__doc__, only=only)
    keras.utils.set_random_seed(0)
    sizes, latencies = [], []
    for name in arguments.only:
        make, rounds = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            records = exported(pruned(make()), folder)
            sizes += size_rows(name, records)
            latencies += latency_rows(name, records, rounds)
    publish(
        "Packed SavedModel: size",
        [
            "model",
            "file",
            "bytes",
            "weights",
            "bound",
            "weights / bound",
            "graph",
            "smaller than plain",
        ],
        sizes,
        "Bytes on disk, uncompressed. 90 % of each kernel is zero, values are those of "
        "Keras' initializers. The bound is nonzeros times 32, 16, 8 or 4 bits plus the "
        "entropy of the mask, and what stays dense; for the plain file, its weights. "
        "Lossless values are compressed, so that their weights come out below it. The "
        "graph is everything that is no weight: operations, signatures, index.",
        arguments.record,
    )
    publish(
        "Packed SavedModel: a call",
        [
            "model",
            "plain, ms",
            "lossless, ms",
            "lossless against plain",
            "load plain, ms",
            "load lossless, ms",
            "rounds",
        ],
        latencies,
        "Calls of `serving_default`, the two files in turns in one process. Ratios are "
        "medians over rounds, in brackets the quartiles.",
        arguments.record,
    )


if __name__ == "__main__":
    main()
