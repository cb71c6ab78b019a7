"""Is a network from which channels were removed better than a small one trained so?

Trains LeNet-5-Caffe on MNIST and removes channels, step by step with training in
between, until 158,000 multiply-adds are left; and a small ResNet on CIFAR-10, down to
half of its own: in one step after half of the epochs, or by masks that rise while it
trains, these also at a quarter of the width. Either is compared with the same widths
trained from fresh weights for as many epochs as were spent on it in all. The recipes
were chosen with `--validate`, which trains without the last of the training images and
tests on these; without it the test images are looked at once a stage.

    python benchmarks/structured.py [--record] [--validate] [--seeds 0 1 2]
        [--only lenet_5_caffe resnet_8 resnet_8_masked thin_resnet_8_masked]
        [--keep results.jsonl]
"""

import argparse
import json
import os
import pathlib
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from _harness import publish
from _structured import RECIPES
from keras import layers

import kprune
from kprune import datasets
from kprune.shrinking import shrink
from kprune.shrinking.costs import costs_of


class Images(keras.utils.PyDataset):
    """Training images in an order, with shifts and mirroring that a seed decides.

    Args:
        images: float32 array of shape `(examples, height, width, channels)`.
        labels: Int array.
        recipe: `Recipe`.
        seed: Int.
    """

    def __init__(self, images, labels, recipe, seed):
        super().__init__()
        shift = recipe.shift
        self._images = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
        self._labels, self._recipe = labels, recipe
        self._random = np.random.default_rng(seed)
        self.on_epoch_begin()

    def __len__(self):
        return len(self._labels) // self._recipe.batch_size

    def on_epoch_begin(self):
        """Shuffles."""
        self._order = self._random.permutation(len(self._labels))

    def __getitem__(self, index):
        """Returns a batch of images and labels."""
        size = self._recipe.batch_size
        chosen = self._order[index * size : (index + 1) * size]
        places = self._random.integers(0, 2 * self._recipe.shift + 1, (size, 2))
        side = self._images.shape[1] - 2 * self._recipe.shift
        rows, columns = (p[:, None] + np.arange(side) for p in places.T)
        if self._recipe.mirrored:
            is_mirrored = self._random.random(size) < 0.5
            columns[is_mirrored] = columns[is_mirrored, ::-1]
        images = self._images[chosen[:, None, None], rows[:, :, None], columns[:, None]]
        return images, self._labels[chosen]


def load(recipe, validate):
    """Returns pairs of images and labels, for training and for testing."""
    data = datasets.load(recipe.data)
    mean, deviation = data.x_train.mean((0, 1, 2)), data.x_train.std((0, 1, 2))
    train = (data.x_train - mean) / deviation, data.y_train
    if not validate:
        return train, ((data.x_test - mean) / deviation, data.y_test)
    end = len(data.y_train) - recipe.held_out
    return tuple(part[:end] for part in train), tuple(part[end:] for part in train)


def fit(model, recipe, train, epochs, learning_rate, seed, callbacks=()):
    """Trains a model, while the learning rate falls to 0 along a cosine.

    Args:
        model: A Keras model that gives logits.
        recipe: `Recipe`.
        train: Pair of images and labels.
        epochs: Int.
        learning_rate: Float, at the beginning.
        seed: Int, of the order, the shifts and the mirroring.
        callbacks: Keras callbacks. Defaults to none.
    """
    steps = epochs * (len(train[0]) // recipe.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(recipe.optimizer(rate), loss)
    images = Images(*train, recipe, seed)
    model.fit(
        images, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    )


def narrowed_while_training(recipe, train, seed):
    """Trains a model whose masks rise, and removes what they hide."""
    keras.utils.set_random_seed(seed)
    model = kprune.prune(recipe.build(), granularity="channel")
    masking, steps = recipe.masking, len(train[0]) // recipe.batch_size
    schedule = kprune.PolynomialSchedule(
        masking.sparsity,
        masking.begin * steps,
        masking.end * steps,
        frequency=steps // 4,
    )
    pruning = kprune.PruningCallback(schedule, **masking.pruning)
    first = recipe.first
    fit(model, recipe, train, first.epochs, first.learning_rate, seed, [pruning])
    return shrink(model)


def stages(recipe, train, test, seed):
    """Yields the records of one run: whole, narrowed in one way, from scratch."""

    def record(stage, model):
        classes = model.predict(test[0], batch_size=1000, verbose=0).argmax(-1)
        costs = costs_of(model)
        return {
            "stage": stage,
            "error": 100 * float(np.mean(classes != test[1])),
            "macs": costs.macs,
            "parameters": model.count_params(),
            "widths": widths(model),
        }

    keras.utils.set_random_seed(seed)
    model = recipe.build()
    fit(model, recipe, train, recipe.first.epochs, recipe.first.learning_rate, seed)
    yield record("whole", model)
    whole = costs_of(model).macs
    for number, phase in enumerate(recipe.then, 1):
        most = phase.macs * whole if phase.macs < 1 else phase.macs
        model = shrink(model, macs=most / costs_of(model).macs, **recipe.shrinking)
        if number == len(recipe.then):
            yield record("narrowed", model)
        order = seed + 1000 * number
        fit(model, recipe, train, phase.epochs, phase.learning_rate, order)
    if recipe.masking:
        model = narrowed_while_training(recipe, train, seed)
        yield record("narrowed while training", model)
    else:
        yield record("narrowed and trained on", model)
    if not recipe.from_scratch:
        return
    keras.utils.set_random_seed(seed)
    scratch = keras.models.clone_model(model)
    fit(scratch, recipe, train, recipe.epochs, recipe.first.learning_rate, seed)
    yield record("same widths from scratch", scratch)


def widths(model):
    """Returns the widths of the convolutions and Dense layers, as in `"20-50-500"`."""
    made = {layers.Conv2D: "filters", layers.Dense: "units"}
    of = [getattr(x, made[type(x)]) for x in model.layers if type(x) in made]
    return "-".join(map(str, of[:-1]))


def run(name, seed, validate, path):
    """Returns the records of one run, from the file if it is there already."""
    recipe = RECIPES[name]
    key = {"network": name, "seed": seed, "validate": validate, "how": told(name)}
    lines = path.read_text().splitlines() if path.exists() else []
    found = [r for r in map(json.loads, lines) if key.items() <= r.items()]
    if found:
        return found
    for record in stages(recipe, *load(recipe, validate), seed):
        found.append(key | record)
        print(name, seed, *record.values(), sep=" | ", flush=True)
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in found)
    return found


COLUMNS = "network", "stage", "multiply-adds", "parameters", "widths"
COSTS = "macs", "parameters"
NOTE = (
    "Errors, multiply-adds and parameters are means of {seeds} seeds, whose errors "
    "follow in brackets; widths are those of the first. {recipes} Every training sees "
    "images shifted at random (those of CIFAR-10 mirrored, too) in batches of 128, "
    "while the learning rate falls to 0 along a cosine. From scratch means fresh "
    "weights, and as many epochs as all phases together, in one cosine."
)


def table_rows(name, records):
    """Returns the rows of one network, a row a stage."""
    for stage in dict.fromkeys(record["stage"] for record in records):
        of_stage = [record for record in records if record["stage"] == stage]
        errors = [record["error"] for record in of_stage]
        yield [
            name,
            stage,
            *(f"{np.mean([r[k] for r in of_stage]):,.0f}" for k in COSTS),
            of_stage[0]["widths"],
            f"{np.mean(errors):.2f} ({', '.join(f'{e:.2f}' for e in errors)})",
        ]


def told(name):
    """Returns what a recipe does in words."""
    recipe = RECIPES[name]
    if recipe.masking:
        return (
            f"{name}: {recipe.epochs} epochs of {recipe.data}, with a learning rate "
            f"from {recipe.first.learning_rate}; from epoch {recipe.masking.begin} to "
            f"{recipe.masking.end} `kprune.PruningCallback` masks channels up to "
            f"{recipe.masking.sparsity:.1%}, {recipe.masking.pruning}, which "
            "`kprune.shrink` removes at the end; whole is a training without masks."
        )
    targets = [f"{p.macs:.0%}" if p.macs < 1 else f"{p.macs:,}" for p in recipe.then]
    phases = recipe.first, *recipe.then
    epochs = " + ".join(str(phase.epochs) for phase in phases)
    rates = ", ".join(str(phase.learning_rate) for phase in phases)
    return (
        f"{name}: {epochs} epochs of {recipe.data}, with learning rates from {rates}; "
        f"between them brought to {', '.join(targets)} multiply-adds by "
        f"`kprune.shrink` with {recipe.shrinking}."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write RESULTS.md")
    parser.add_argument("--validate", action="store_true", help="spare the test set")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--keep", help="file of results, which are not made again")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(arguments.keep or f"{folder}/results.jsonl")
        for name in arguments.only:
            runs = [run(name, s, arguments.validate, path) for s in arguments.seeds]
            rows += table_rows(name, [record for run in runs for record in run])
    recipes = " ".join(map(told, arguments.only))
    held_out = "held-out" if arguments.validate else "test"
    publish(
        "Channels removed" + (" (validation)" if arguments.validate else ""),
        [*COLUMNS, f"{held_out} error, % (seeds)"],
        rows,
        NOTE.format(seeds=len(arguments.seeds), recipes=recipes),
        arguments.record,
    )


if __name__ == "__main__":
    main()
