"""Is a network from which channels were removed better than a small one trained so?

Trains a network, removes channels step by step with training in between, and compares
what is left with the same small architecture, trained from fresh weights for as many
epochs as all phases together: LeNet-5-Caffe on MNIST, brought to 158,000 multiply-adds,
and a small ResNet on CIFAR-10, brought to half of its own. The recipes were chosen
with `--validate`, which trains without the last of the training images and tests on
these; without it the test images are looked at once, when a network is finished.

    python benchmarks/structured.py [--record] [--validate] [--seeds 0 1 2]
        [--only mnist cifar10] [--keep results.jsonl]
"""

import argparse
import dataclasses
import json
import os
import pathlib
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from _harness import publish
from keras import layers

from kprune import datasets
from kprune.shrinking import shrink
from kprune.shrinking.costs import costs_of

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Phase:
    """Removal of channels, and the training thereafter.

    Args:
        epochs: Int.
        learning_rate: Float at the beginning; it falls to 0 along a cosine.
        macs: Int or float, what may be left of the multiply-adds, or which part of
            them; `None` where nothing is removed.
    """

    epochs: int
    learning_rate: float
    macs: float = None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one network is trained and narrowed.

    Args:
        data: String, what `kprune.datasets.load` knows.
        held_out: Int, how many training images `--validate` tests on.
        build: Function that returns the network, whose outputs are logits.
        optimizer: Function of a learning rate or schedule.
        first: `Phase`, the training of the whole network.
        then: Tuple of `Phase`.
        shrinking: Dict, the other arguments of `kprune.shrink`.
        shift: Int, by how many pixels training images move at most.
        mirrored: Bool, whether half of them are.
        batch_size: Int.
    """

    data: str
    held_out: int
    build: callable
    optimizer: callable
    first: Phase
    then: tuple
    shrinking: dict
    shift: int
    mirrored: bool = False
    batch_size: int = 128

    @property
    def epochs(self):
        """Int, of all phases together."""
        return self.first.epochs + sum(phase.epochs for phase in self.then)


def lenet_5_caffe():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(20, 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(50, 5, activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Flatten(name="features"),
            layers.Dense(500, activation="relu", name="fc1"),
            layers.Dense(CLASSES, name="fc2"),
        ],
        name="lenet_5_caffe",
    )


def resnet_8():
    """Returns a network whose first convolution halves the sides, which saves time."""
    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(_convolved(inputs, 16, strides=2))
    for filters in (16, 32, 64):
        strides = 1 if filters == 16 else 2
        y = layers.ReLU()(_convolved(x, filters, strides))
        y = _convolved(y, filters)
        if strides == 2:
            x = _convolved(x, filters, strides, size=1)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x), name="resnet_8")


def _convolved(x, filters, strides=1, size=3):
    arguments = {"strides": strides, "padding": "same", "use_bias": False}
    x = layers.Conv2D(filters, size, **arguments)(x)
    return layers.BatchNormalization()(x)


def _adam(rate):
    return keras.optimizers.AdamW(rate, weight_decay=0.05)


def _momentum(rate):
    return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-3)


RECIPES = {
    "lenet_5_caffe": Recipe(
        data="mnist",
        held_out=10_000,
        build=lenet_5_caffe,
        optimizer=_adam,
        first=Phase(5, 2e-3),
        then=(
            Phase(1, 2e-3, 0.5),
            Phase(1, 2e-3, 0.25),
            Phase(1, 2e-3, 0.13),
            Phase(8, 4e-3, 158_000),
        ),
        shrinking={"criterion": "l1", "scope": "layer_wise"},
        shift=2,
    ),
    "resnet_8": Recipe(
        data="cifar10",
        held_out=4_000,
        build=resnet_8,
        optimizer=_momentum,
        first=Phase(12, 0.1),
        then=(Phase(6, 0.05, 0.5),),
        shrinking={"criterion": "l1", "scope": "layer_wise"},
        shift=4,
        mirrored=True,
    ),
}


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


def fit(model, recipe, train, epochs, learning_rate, seed):
    steps = epochs * (len(train[0]) // recipe.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(recipe.optimizer(rate), loss)
    images = Images(*train, recipe, seed)
    model.fit(images, epochs=epochs, shuffle=False, verbose=0)


def stages(recipe, train, test, seed):
    """Yields the records of one run: whole, narrowed before and after, from scratch."""

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
    yield record("narrowed and trained on", model)
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
NOTE = (
    "Mean, and each seed in its turn; {seeds} seeds, in which multiply-adds and "
    "parameters are means, too, and widths those of the first. {recipes} Every stage "
    "sees images shifted at random (and mirrored, CIFAR-10), batches of 128, and a "
    "learning rate that falls to 0 along a cosine in every phase. From scratch means "
    "the architecture that was left, fresh weights, and as many epochs as all phases "
    "together, in one cosine."
)


def table_rows(name, records):
    """Returns the rows of one network, a row a stage."""
    for stage in dict.fromkeys(record["stage"] for record in records):
        of_stage = [record for record in records if record["stage"] == stage]
        errors = [record["error"] for record in of_stage]
        yield [
            name,
            stage,
            *(f"{np.mean([r[k] for r in of_stage]):,.0f}" for k in COLUMNS_OF_COSTS),
            of_stage[0]["widths"],
            f"{np.mean(errors):.2f} ({', '.join(f'{e:.2f}' for e in errors)})",
        ]


COLUMNS_OF_COSTS = "macs", "parameters"


def told(name):
    """Returns what a recipe does in words."""
    recipe = RECIPES[name]
    targets = [
        f"{p.macs:.0%} of the multiply-adds" if p.macs < 1 else f"{p.macs:,}"
        for p in recipe.then
    ]
    phases = recipe.first, *recipe.then
    epochs = " + ".join(str(phase.epochs) for phase in phases)
    rates = ", ".join(str(phase.learning_rate) for phase in phases)
    return (
        f"{name}: {epochs} epochs of {recipe.data}, at learning rates from {rates}; "
        f"between them brought to "
        f"{', '.join(targets)} by `kprune.shrink` with {recipe.shrinking}."
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
