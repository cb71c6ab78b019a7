"""Does a pruned network keep its accuracy in every format, and how large is it?

Trains LeNet-300-100 and a small convolutional network on MNIST and Fashion-MNIST,
prunes 90 % of their weights on the way, exports them in every format there is, and
measures every file on the 10,000 test images in its own runtime.

    python benchmarks/formats.py [--record] [--only lenet_300_100 small_cnn]
        [--data mnist fashion_mnist] [--epochs 8]
"""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from _harness import publish, read_options
from keras import layers

import kprune
from kprune import datasets

SPARSITY = 0.9
BATCH = 128
COLUMNS = (
    "model",
    "format",
    "bytes",
    "gzipped",
    "weights / bound",
    "accuracy",
    "points against Keras",
    "max difference",
)
NOTE = (
    "{sparsity:.0%} of all kernels together are zero; {epochs} epochs of Adam, seed "
    "0. Accuracy on the 10,000 test images, each file in its runtime. Points are "
    "percentage points of accuracy. The largest difference of a logit is that on the "
    "inputs of the verification: for TFLite against the Keras model, for rounded "
    "SavedModels against the model with the rounded weights. Weights are bytes "
    "without the graph, the bound is nonzeros times their bits plus the entropy of "
    "the mask. int8 and int16x8 are calibrated on 256 training images."
)


def lenet_300_100():
    hidden = [layers.Dense(units, activation="relu") for units in (300, 100)]
    return keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Flatten(), *hidden, layers.Dense(10)]
    )


def small_cnn():
    stack = [keras.Input((28, 28, 1))]
    for filters in (16, 32):
        stack += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
        ]
    stack += [layers.Flatten(), layers.Dropout(0.3), layers.Dense(128, "relu")]
    return keras.Sequential([*stack, layers.Dropout(0.3), layers.Dense(10)])


MODELS = {"lenet_300_100": lenet_300_100, "small_cnn": small_cnn}
# Name: the format, given training images to calibrate on.
FORMATS = {
    "SavedModel, plain": lambda rows: kprune.SavedModel(packed=None),
    "SavedModel, lossless": lambda rows: kprune.SavedModel(packed="lossless"),
    "SavedModel, fp16": lambda rows: kprune.SavedModel(packed="fp16"),
    "SavedModel, codebook8": lambda rows: kprune.SavedModel(packed="codebook8"),
    "SavedModel, codebook4": lambda rows: kprune.SavedModel(packed="codebook4"),
    "TFLite, float32, plain": lambda rows: kprune.TFLite(sparse=False),
    "TFLite, float32, zeros left out": lambda rows: kprune.TFLite(sparse=True),
    "TFLite, float16": lambda rows: kprune.TFLite("float16"),
    "TFLite, dynamic_range": lambda rows: kprune.TFLite("dynamic_range"),
    "TFLite, int8": lambda rows: kprune.TFLite("int8", representative_data=rows),
    "TFLite, int16x8": lambda rows: kprune.TFLite("int16x8", representative_data=rows),
    "TFLite, int4": lambda rows: kprune.TFLite("int4"),
    "archive (.kpz)": lambda rows: "archive",
}


def trained(build, data, epochs):
    """Returns a stripped model, pruned between a tenth and a half of the steps."""
    keras.utils.set_random_seed(0)
    model = kprune.prune(build())
    steps = epochs * (len(data.x_train) // BATCH)
    schedule = kprune.PolynomialSchedule(SPARSITY, steps // 10, steps // 2)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(
        data.x_train,
        data.y_train,
        batch_size=BATCH,
        epochs=epochs,
        verbose=2,
        callbacks=[kprune.PruningCallback(schedule, scope="global")],
    )
    return kprune.strip(model)


def rows_of(title, model, data):
    for name, make in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            report = kprune.export(
                model, folder, make(data.x_train), data=(data.x_test, data.y_test)
            )
        (record,) = report.records
        yield [
            f"{title}, Keras {report.accuracy:.2%}",
            name,
            f"{record.bytes:,}",
            f"{record.gzip_bytes:,}",
            _share_of_bound(record),
            f"{record.accuracy:.2%}",
            f"{100 * (record.accuracy - report.accuracy):+.2f}",
            f"{record.max_difference:.1e}",
        ]


def _share_of_bound(record):
    if record.bound is None:
        return "-"
    return f"{(record.bytes - record.overhead_bytes) / record.bound:.3f}"


def main():
    arguments = read_options(
        __doc__,
        only={"nargs": "+", "choices": MODELS, "default": list(MODELS)},
        data={"nargs": "+", "default": ["mnist", "fashion_mnist"]},
        epochs={"type": int, "default": 8},
    )
    rows = []
    for name in arguments.data:
        data = datasets.load(name)
        for build in map(MODELS.get, arguments.only):
            model = trained(build, data, arguments.epochs)
            rows += rows_of(f"{build.__name__}, {name}", model, data)
    publish(
        "Accuracy and size in every format",
        list(COLUMNS),
        rows,
        NOTE.format(sparsity=SPARSITY, epochs=arguments.epochs),
        arguments.record,
    )


if __name__ == "__main__":
    main()
