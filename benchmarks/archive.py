"""How large is a `.kpz` archive, against the entropy, and how fast is it read?

Models with random weights, 90 % of them zero and the rest shared by k-means in 4 or 5
bits, so that the entropy of masks and indices is as in a trained model of that kind.

    python benchmarks/archive.py [--record]
"""

import os
import pathlib
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from _harness import interleaved, publish, read_options
from keras import layers
from sklearn.cluster import KMeans

import kprune
from kprune.compress import load_archive, save_archive
from kprune.registry import keys

SPARSITY = 0.9
MILLIONS = 10


def mlp(*widths):
    inputs = keras.Input((widths[0],))
    hidden = [layers.Dense(width, activation="relu") for width in widths[1:-1]]
    return keras.Sequential([inputs, *hidden, layers.Dense(widths[-1])])


MODELS = {
    "LeNet-300-100": lambda: mlp(784, 300, 100, 10),
    "MLP, 1.86M": lambda: mlp(784, 1024, 1024, 10),
    "MobileNetV2": lambda: keras.applications.MobileNetV2(weights=None),
}


def prune_and_share(model, bits):
    """Prunes a model's large kernels by magnitude, and shares what is left."""
    for weight in model.weights:
        values = np.asarray(weight)
        if values.ndim > 1 and values.size >= 1000:
            mask = kprune.compute_mask(values, SPARSITY)
            weight.assign(shared(values * mask, bits))
    return model


def shared(values, bits):
    kept = values[values != 0]
    # As many clusters as there are for the smallest kernels.
    clusters = min((1 << bits) - 1, len(np.unique(kept)))
    sample = np.random.default_rng(0).choice(kept, min(len(kept), 20_000))
    means = KMeans(clusters, n_init=1, random_state=0).fit(sample[:, None])
    centroids = np.sort(means.cluster_centers_.ravel()).astype("float32")
    nearest = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)
    return np.where(values == 0, 0, centroids[nearest])


def sizes(folder, record):
    rows = []
    for name, build in MODELS.items():
        for bits in (4, 5):
            model = prune_and_share(build(), bits)
            for coder in keys("coders"):
                rows.append([name, str(bits), coder, *row(model, coder, folder)])
    publish(
        "Archives against the entropy",
        ["model", "bits", "coder", "coded, bytes", "entropy, bytes", "coded / entropy"]
        + ["codebooks", "biases and others", "architecture", "header", "file, bytes"],
        rows,
        "Random weights of Keras' initializers, every kernel of 1,000 weights or more "
        f"pruned by magnitude to {SPARSITY:.0%} zeros and shared by k-means. Coded are "
        "positions of nonzeros, indices and code tables; the entropy is that of "
        "independent mask elements and indices, array by array, without tables. "
        "`raw` has a fixed number of bits a symbol, as in Han et al. before Huffman. "
        "Others are BatchNormalization's statistics and kernels left dense.",
        record,
    )


def row(model, coder, folder):
    report = save_archive(model, folder / "model.kpz", coder=coder)
    bound = sum(report.bounds.values())
    parts = [
        f"{report.parts.get(part, 0):,}"
        for part in ("codebooks", "values", "architecture", "header")
    ]
    coded = report.coded_bytes
    ratio = f"{coded / bound:.4f}"
    return [f"{coded:,}", f"{bound:,.0f}", ratio, *parts, f"{report.bytes:,}"]


def speed(folder, rounds, record):
    model = prune_and_share(mlp(2500, 2000, 2500), 5)
    names = [name for name in keys("coders") if name != "brotli"]
    seconds = {}
    for name in names:
        begin = time.perf_counter()
        save_archive(model, folder / f"{name}.kpz", coder=name)
        seconds[name] = time.perf_counter() - begin
    subjects = {
        name: (lambda path=folder / f"{name}.kpz": load_archive(path)) for name in names
    }
    times = interleaved(subjects, rounds)
    publish(
        f"Reading {MILLIONS} million weights from an archive",
        ["coder", "load_archive, s", "save_archive, s"],
        [[n, f"{np.median(t):.2f}", f"{seconds[n]:.2f}"] for n, t in times.items()],
        f"An MLP 2500-2000-2500 at {SPARSITY:.0%}, 5 bits, from the file to a Keras "
        f"model; median of {rounds} rounds in turns. Saving reads the file back and "
        "compares it.",
        record,
    )


def main():
    options = read_options(__doc__, rounds={"type": int, "default": 5})
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        speed(folder, options.rounds, options.record)
        sizes(folder, options.record)


if __name__ == "__main__":
    main()
