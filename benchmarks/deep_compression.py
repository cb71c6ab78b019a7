"""How small does Deep Compression make a network for MNIST, everything counted?

Trains a teacher, then LeNet-300-100 and LeNet-5-Caffe on its answers, pruning them
on the way; shares their weights, codes them into a `.kpz` file, loads that file
again and measures its error on the test images. The recipes were chosen with
`--validate`, which trains on the first 50,000 images and tests on the last 10,000
training images; without it all 60,000 are for training, and the test images are
looked at once, when all is over.

    python benchmarks/deep_compression.py [--record] [--validate] [--seeds 0 1 2]
        [--model lenet_300_100 lenet_5_caffe] [--epochs 60] [--sparsity 0.96 0.98]
        [--keep folder]
"""

import dataclasses
import os
import pathlib
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from _distillation import (
    CLASSES,
    TEACHER,
    Training,
    distillation,
    error,
    fit,
    in_bfloat16,
    lesson,
    load,
)
from _harness import publish, read_options
from _networks import lenet_5_caffe

import kprune

BIAS_STEPS = 32


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one network is trained, pruned and shared.

    Args:
        build: Function that returns the network, whose outputs are logits.
        parameters: Int, how many it has.
        sparsity: Float, of all kernels together.
        bits: Dict from the name of a layer to the bits of its codebook.
        pruning: `Training` while the sparsity rises, and thereafter.
        sharing: `Training` of the codebooks.
    """

    build: callable
    parameters: int
    sparsity: float
    bits: dict
    pruning: Training
    sharing: Training


def lenet_300_100():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(name="pixels"),
            layers.Dense(300, activation="relu", name="fc1"),
            layers.Dense(100, activation="relu", name="fc2"),
            layers.Dense(CLASSES, name="fc3"),
        ],
        name="lenet_300_100",
    )


RECIPES = {
    "lenet_300_100": Recipe(
        build=lenet_300_100,
        parameters=266_610,
        sparsity=0.97,
        bits={"fc1": 3, "fc2": 3, "fc3": 4},
        pruning=Training(40, 3e-3, 0.2),
        sharing=Training(6, 6e-4, 0.05),
    ),
    "lenet_5_caffe": Recipe(
        build=lambda: lenet_5_caffe(keras),
        parameters=431_080,
        sparsity=0.99,
        bits={"conv1": 4, "conv2": 3, "fc1": 3, "fc2": 3},
        pruning=Training(36, 3e-3, 0.15),
        sharing=Training(4, 6e-4, 0.05),
    ),
}


def train_and_prune(recipe, data, seed):
    """Returns a network that was pruned while it learned, stripped of its masks."""
    keras.utils.set_random_seed(seed)
    model = kprune.prune(in_bfloat16(recipe.build))
    steps = recipe.pruning.steps
    schedule = kprune.PolynomialSchedule(
        recipe.sparsity, begin_step=steps // 10, end_step=steps * 6 // 10
    )
    pruning = kprune.PruningCallback(
        schedule, criterion="layer_adaptive", scope="global"
    )
    fit(model, recipe.pruning, data, distillation, callbacks=[pruning], seed=seed)
    plain = recipe.build()
    plain.set_weights(kprune.strip(model).get_weights())
    return without_idle_units(plain)


def without_idle_units(model):
    """Returns the same function with zeros wherever a unit does nothing.

    A unit that no weight enters is constant: what it adds goes into the biases
    behind it, and the weights that carry it become zeros, as do the weights and
    the bias of a unit that no weight leaves.
    """
    layers = [layer for layer in model.layers if layer.weights]
    kernels, biases = (list(part) for part in zip(*map(_arrays, layers), strict=True))
    for i in range(len(layers) - 1):
        constant = ~kernels[i].any(axis=tuple(range(kernels[i].ndim - 1)))
        after = kernels[i + 1].reshape(-1, len(constant), kernels[i + 1].shape[-1])
        sent = np.maximum(biases[i], 0) * constant
        biases[i + 1] = biases[i + 1] + np.einsum("sio,i->o", after, sent)
        after[:, constant] = 0
    for i in reversed(range(len(layers) - 1)):
        after = kernels[i + 1].reshape(-1, len(biases[i]), kernels[i + 1].shape[-1])
        unused = ~after.any(axis=(0, 2))
        kernels[i][..., unused] = 0
        biases[i][unused] = 0
    for layer, kernel, bias in zip(layers, kernels, biases, strict=True):
        layer.set_weights([kernel, bias])
    return model


def _arrays(layer):
    return [array.copy() for array in layer.get_weights()]


def share(model, recipe, data, seed):
    """Returns the network with few distinct values a kernel, tuned and rounded.

    Codebooks are rounded to float16, and biases to multiples of 1/32: they are few,
    and a file spends on each as much as on three weights otherwise.
    """
    shared = kprune.share_weights(model, recipe.bits)
    fit(shared, recipe.sharing, data, distillation, seed=seed)
    shared = kprune.strip(shared)
    for layer in (layer for layer in shared.layers if layer.weights):
        kernel, bias = layer.get_weights()
        bias = np.round(bias * BIAS_STEPS) / BIAS_STEPS
        layer.set_weights([kernel.astype("float16"), bias])
    return shared


def archived(model, path, coders):
    """Returns the bytes of a model's `.kpz` file, and the model read from it."""
    kprune.save_archive(model, path, coder=coders)
    return path.stat().st_size, kprune.load_archive(path)


def stages(name, recipe, data, test, seed, folder):
    """Trains and compresses a network, and measures it after each stage.

    The errors are those of the models read from the files.

    Returns:
        List of table rows, one a stage.
    """
    rows = []

    def measure(stage, model, coders):
        path = folder / f"{name} {recipe.sparsity} seed {seed} {stage}.kpz"
        size, loaded = archived(model, path, coders)
        kept = sum(int(np.count_nonzero(array)) for array in loaded.get_weights())
        numbers = [f"{kept:,}", f"{size:,}", f"{4 * recipe.parameters / size:.0f}x"]
        numbers.append(f"{error(loaded, *test):.2f}")
        rows.append([name, f"{recipe.sparsity:.2%}", str(seed), stage, *numbers])
        print(*rows[-1], sep=" | ", flush=True)

    pruned = train_and_prune(recipe, data, seed)
    measure("pruned", pruned, "huffman")
    shared = share(pruned, recipe, data, seed)
    measure("shared, Huffman", shared, "huffman")
    measure("shared, best coders", shared, ["rans", "range", "brotli", "huffman"])
    return rows


COLUMNS = "network", "sparsity", "seed", "stage", "nonzeros", "bytes", "smaller"
NOTE = (
    "MNIST, all stages run from nothing with one recipe a network, chosen with "
    "`--validate`. Everything in a file is counted (header, architecture, positions, "
    "indices, codebooks, tables, biases), and each error is that of the model read "
    "from the file. `pruned` keeps float32 values; `shared` has 8 values a kernel, 16 "
    "in the smallest, and rounded biases; its best coders are chosen stream by stream. "
    "Training: {epochs}, of 60,000 distorted images each (ten copies, made once), on "
    "the answers of a convolutional teacher that saw 50,000 of the training images "
    "and has an error of {teacher:.2f} % itself."
)


def main():
    arguments = read_options(
        __doc__,
        validate={"action": "store_true", "help": "spare the test set"},
        model={"nargs": "+", "choices": RECIPES, "default": list(RECIPES)},
        seeds={"nargs": "+", "type": int, "default": [0, 1, 2]},
        epochs={"type": int, "help": "instead of the recipe's"},
        sparsity={"nargs": "+", "type": float, "help": "for a curve"},
        keep={"help": "folder for teacher and files, used again"},
    )
    with tempfile.TemporaryDirectory() as temporary:
        run(arguments, pathlib.Path(arguments.keep or temporary))


def run(arguments, folder):
    folder.mkdir(parents=True, exist_ok=True)
    images, labels, test = load(arguments.validate)
    data = lesson(images, labels, folder)
    recipes = {name: adapted(RECIPES[name], arguments) for name in arguments.model}
    rows = []
    for name, recipe in recipes.items():
        for sparsity in arguments.sparsity or [recipe.sparsity]:
            recipe = dataclasses.replace(recipe, sparsity=sparsity)
            for seed in arguments.seeds:
                rows += stages(name, recipe, data, test, seed, folder)
    epochs = ", ".join(
        f"{name} {recipe.pruning.epochs} + {recipe.sharing.epochs} epochs"
        for name, recipe in recipes.items()
    )
    teacher = error(keras.models.load_model(folder / TEACHER), *test)
    tested = "error, % of held-out" if arguments.validate else "test error, %"
    publish(
        section(arguments),
        [*COLUMNS, tested],
        rows,
        NOTE.format(epochs=epochs, teacher=teacher),
        arguments.record,
    )


def section(arguments):
    """Returns the heading under which a run is recorded; no run hides another."""
    heading = "Deep Compression"
    if arguments.sparsity:
        heading += ", trade-off of " + ", ".join(arguments.model)
    return heading + (" (validation)" if arguments.validate else "")


def adapted(recipe, arguments):
    """Returns a recipe with the number of epochs that was asked for."""
    if arguments.epochs is None:
        return recipe
    pruning = dataclasses.replace(recipe.pruning, epochs=arguments.epochs)
    return dataclasses.replace(recipe, pruning=pruning)


if __name__ == "__main__":
    main()
