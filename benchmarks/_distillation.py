"""A teacher for MNIST: distorted images, and training on its answers."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from kprune import datasets

CLASSES = 10
COPIES = 10
DISTORTION = 0.5  # Of what the networks see; 1 is the teacher's.
HELD_OUT, TAUGHT = 10_000, 50_000
TEACHER = "teacher.keras"
EPOCH = 60_000  # Images, whatever the number of distorted copies.
TEMPERATURE = 3.0


@dataclasses.dataclass(frozen=True)
class Training:
    """How long and how fast a network is trained.

    Args:
        epochs: Int, of 60,000 images each.
        learning_rate: Float, at the beginning.
        weight_decay: Float, Adam's decoupled one; biases are spared.
        batch_size: Int.
    """

    epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int = 256

    @property
    def steps(self):
        return self.epochs * (EPOCH // self.batch_size)


TEACHING = Training(epochs=12, learning_rate=2e-3, weight_decay=0.05)


def load(validate):
    """Returns images and labels for training, and a pair of those for testing."""
    mnist = datasets.load("mnist")
    images, labels = _as_bytes(mnist.x_train), mnist.y_train
    if validate:
        held_out = images[-HELD_OUT:], labels[-HELD_OUT:]
        return images[:-HELD_OUT], labels[:-HELD_OUT], held_out
    return images, labels, (_as_bytes(mnist.x_test), mnist.y_test)


def _as_bytes(images):
    return np.round(images[..., 0] * 255).astype("uint8")


def lesson(images, labels, folder):
    """Returns distorted images, and what the teacher says of them.

    The teacher learns from the first 50,000 images only, so that one teacher serves
    for validation and for the final runs.
    """
    path = folder / TEACHER
    if path.exists():
        teacher = keras.models.load_model(path)
    else:
        teacher = train_teacher(images[:TAUGHT], labels[:TAUGHT])
        teacher.save(path)
    distorted_images = with_copies(images, DISTORTION, np.random.default_rng(1))
    return distorted_images, answers(teacher, distorted_images)


def distorted(images, strength, rng):
    """Returns images shifted, turned, scaled, sheared and bent a little.

    Args:
        images: uint8 array of shape `(examples, 28, 28)`.
        strength: Float; at 1 shifts go up to 2 pixels, angles up to 12 degrees,
            scales from 0.88 to 1.12, and the bending up to about 2 pixels.
        rng: NumPy generator.

    Returns:
        uint8 array of the same shape.
    """
    pieces = np.array_split(images, max(1, len(images) // 1000))
    return np.concatenate([_distort(piece, strength, rng) for piece in pieces])


def _distort(images, strength, rng):
    count, side = images.shape[:2]

    def uniform(limit):
        return rng.uniform(-limit * strength, limit * strength, (count, 1, 1))

    grid = np.arange(side) - (side - 1) / 2
    y, x = grid[None, :, None], grid[None, None, :]
    angle, shear = uniform(np.pi / 15), uniform(0.15)
    cos, sin = np.cos(angle), np.sin(angle)
    tall, wide = 1 + uniform(0.12), 1 + uniform(0.12)
    rows = tall * (cos * y + sin * x) + uniform(2)
    columns = wide * (cos * x - sin * y + shear * y) + uniform(2)
    # A coarse field of displacements, interpolated, bends the strokes smoothly.
    knots = np.maximum(0, 1 - abs(np.arange(6)[None] - np.arange(side)[:, None] / 5.4))
    field = rng.normal(0, 0.7 * strength, (2, count, 6, 6))
    where = np.stack([rows, columns]) + knots @ field @ knots.T + (side - 1) / 2
    return _sampled(images, *where.astype("float32"))


def _sampled(images, rows, columns):
    """Reads images between their pixels, bilinearly, with zeros around them."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1))).astype("float32")
    last = padded.shape[1] - 2
    rows, columns = np.clip(rows + 1, 0, last), np.clip(columns + 1, 0, last)
    top, left = rows.astype(int), columns.astype(int)
    below, right = rows - top, columns - left
    image = np.arange(len(images))[:, None, None]
    upper = padded[image, top, left] * (1 - right)
    upper += padded[image, top, left + 1] * right
    lower = padded[image, top + 1, left] * (1 - right)
    lower += padded[image, top + 1, left + 1] * right
    return np.round(upper * (1 - below) + lower * below).astype("uint8")


def with_copies(images, strength, rng):
    """Returns the images and distorted copies of them, one set after another."""
    copies = [distorted(images, strength, rng) for _ in range(COPIES)]
    return np.concatenate([images, *copies])


def batches(images, targets, batch_size, seed):
    """Returns an endless `tf.data.Dataset` of images in [0, 1] with their targets.

    Args:
        images: uint8 array from `with_copies`.
        targets: float32 array of shape `(len(images), classes)`.
        batch_size: Int.
        seed: Int, of the order.
    """
    images, targets = tf.constant(images), tf.constant(targets)

    def read(index):
        x = tf.cast(tf.gather(images, index), "float32") / 255
        return x[..., None], tf.gather(targets, index)

    index = tf.data.Dataset.range(len(images))
    index = index.shuffle(len(images), seed=seed).repeat().batch(batch_size)
    return index.map(read).prefetch(4)


def fit(model, training, data, loss, *, callbacks=(), seed=0):
    """Trains a model, while the learning rate falls to 0 along a cosine.

    Args:
        model: A Keras model that gives logits.
        training: A `Training`.
        data: Pair of images, from `with_copies`, and targets.
        loss: Function of targets and logits.
        callbacks: Keras callbacks. Defaults to none.
        seed: Int, of the order of the images.
    """
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(training.learning_rate, training.steps),
        weight_decay=training.weight_decay,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, loss, metrics=["categorical_accuracy"])
    model.fit(
        batches(*data, training.batch_size, seed),
        epochs=training.epochs,
        steps_per_epoch=training.steps // training.epochs,
        shuffle=False,
        callbacks=[*callbacks, _Progress()],
        verbose=0,
    )


class _Progress(keras.callbacks.Callback):
    """Prints a line now and then, since a run takes minutes."""

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % 5 == 0:
            numbers = ", ".join(f"{k} {v:.4f}" for k, v in logs.items())
            print(f"  epoch {epoch + 1}: {numbers}", flush=True)


def in_bfloat16(build):
    """Builds a network that trains in mixed precision, here in half the time."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return build()
    finally:
        keras.config.set_dtype_policy("float32")


def train_teacher(images, labels):
    """Returns a small convolutional network, trained on strongly distorted images."""
    model = in_bfloat16(_teacher_network)
    targets = np.eye(CLASSES, dtype="float32")[np.tile(labels, COPIES + 1)]
    data = with_copies(images, 1.0, np.random.default_rng(0)), targets
    fit(model, TEACHING, data, keras.losses.CategoricalCrossentropy(from_logits=True))
    return model


def _teacher_network():
    layers = keras.layers
    parts = [keras.Input((28, 28, 1))]
    for filters in (32, 48, 64):
        parts += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("relu"),
        ]
        if filters < 64:
            parts.append(layers.MaxPooling2D())
    parts += [
        layers.Flatten(),
        layers.Dropout(0.4),
        layers.Dense(128, activation="relu"),
        layers.Dropout(0.4),
        layers.Dense(CLASSES),
    ]
    return keras.Sequential(parts, name="teacher")


def answers(teacher, images):
    """Returns the teacher's logits, with the mean over the classes taken off."""
    x = tf.data.Dataset.from_tensor_slices(images).batch(1000)
    x = x.map(lambda piece: tf.cast(piece, "float32")[..., None] / 255)
    logits = teacher.predict(x, verbose=0).astype("float32")
    return logits - logits.mean(-1, keepdims=True)


def distillation(teacher_logits, logits):
    """Cross-entropy to the teacher's softened answers, Hinton et al., 2015."""
    soft = keras.ops.softmax(teacher_logits / TEMPERATURE)
    return TEMPERATURE * keras.losses.categorical_crossentropy(
        soft, logits / TEMPERATURE, from_logits=True
    )


def error(model, images, labels):
    """Returns the percentage of images that a model gets wrong."""
    x = images[..., None].astype("float32") / 255
    logits = model.predict(x, batch_size=1000, verbose=0)
    return 100 * float(np.mean(logits.argmax(-1) != labels))
