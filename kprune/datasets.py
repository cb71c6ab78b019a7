"""The data sets that the demo, the notebooks and the benchmarks use.

`"digits"` comes with scikit-learn and needs no network. The others are read from
the folder that the environment variable `KPRUNE_DATA` names, and from what Keras
has cached or can download where it is not set. In that folder, `mnist/mnist.npz`
has the members that Keras' own file has, `keras/datasets/fashion-mnist/` holds
the four published files, and `cifar10/` holds one `.npz` file a batch.
"""

import contextlib
import dataclasses
import gzip
import os
import pathlib
import zipfile

import keras
import numpy as np

_CLASSES = {
    "digits": tuple("0123456789"),
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    "cifar10": (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
}
_DIGITS_TEST = 360
_CIFAR_BATCHES = 5


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images, split into training and test data.

    Args:
        name: String, the name it was loaded by.
        x_train: float32 array of shape `(examples, height, width, channels)`,
            values in [0, 1].
        y_train: int64 array of shape `(examples,)`, indices into `classes`.
        x_test: Like `x_train`, the examples that no training sees.
        y_test: Like `y_train`.
        classes: Tuple of strings, the name of each class.

    Example:
    >>> data = load("digits")
    >>> data.x_test.shape, data.y_test.shape, len(data.classes)
    ((360, 8, 8, 1), (360,), 10)
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]


def names():
    """Returns the names that `load` knows.

    Returns:
        List of strings.

    Example:
    >>> names()
    ['digits', 'mnist', 'fashion_mnist', 'cifar10']
    """
    return list(_CLASSES)


def load(name):
    """Returns a data set as float32 images in [0, 1] with a channel axis.

    CIFAR-10 from `KPRUNE_DATA` has as many training images as the folder has
    batches, 10,000 each; the test images are complete.

    Args:
        name: String, one of `names()`.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If the name is unknown.
        OSError: If the data cannot be had, with what to do about it.

    Example:
    >>> data = load("digits")
    >>> data.x_train.shape, float(data.x_train.min()), float(data.x_train.max())
    ((1437, 8, 8, 1), 0.0, 1.0)
    """
    if name not in _CLASSES:
        raise ValueError(
            f"There is no data set {name!r}. Choose one of "
            f"{', '.join(map(repr, _CLASSES))}."
        )
    train, test = _digits() if name == "digits" else _read(name)
    return Dataset(name, *_as_float(*train), *_as_float(*test), _CLASSES[name])


def _as_float(images, labels):
    scale = 16 if images.dtype.kind == "f" else 255
    images = np.divide(images, scale, dtype="float32")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    return images, labels.reshape(-1).astype("int64")


def _digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = digits.images, digits.target
    # The file is ordered by writer, so its tail alone would be no fair test.
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:_DIGITS_TEST], order[_DIGITS_TEST:]
    return (images[train], labels[train]), (images[test], labels[test])


def _read(name):
    folder = os.environ.get("KPRUNE_DATA")
    if not folder:
        return _from_keras(name)
    readers = {"mnist": _mnist, "fashion_mnist": _fashion_mnist, "cifar10": _cifar10}
    return readers[name](pathlib.Path(folder))


def _from_keras(name):
    try:
        return getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a plain Exception when offline.
        raise OSError(
            f"Keras could neither find nor download the data set {name!r} ({error}). "
            "Connect to the network, set KPRUNE_DATA to a folder that holds it, or "
            "use 'digits', which needs no download."
        ) from error


def _existing(path):
    if not path.is_file():
        raise FileNotFoundError(
            f"KPRUNE_DATA is set, but there is no file {str(path)!r}. Put it there, "
            "name another folder, or unset KPRUNE_DATA to let Keras download."
        )
    return path


@contextlib.contextmanager
def _reading(path, kind, *errors):
    """Says what to do about a file that is not what it should be."""
    try:
        yield
    except (ValueError, EOFError, *errors) as error:
        raise OSError(
            f"{str(path)!r} is no {kind} ({error}). Fetch it again, or name another "
            "folder in KPRUNE_DATA."
        ) from error


def _arrays(path, *members):
    kind = f"file with the arrays {', '.join(members)}"
    with (
        _reading(path, kind, KeyError, zipfile.BadZipFile),
        _existing(path).open("rb") as file,
        np.load(file) as arrays,
    ):
        return [arrays[member] for member in members]


def _mnist(folder):
    members = "x_train", "y_train", "x_test", "y_test"
    x_train, y_train, x_test, y_test = _arrays(folder / "mnist" / "mnist.npz", *members)
    return (x_train, y_train), (x_test, y_test)


def _fashion_mnist(folder):
    folder = folder / "keras" / "datasets" / "fashion-mnist"
    return tuple(
        (
            _idx(folder / f"{split}-images-idx3-ubyte.gz"),
            _idx(folder / f"{split}-labels-idx1-ubyte.gz"),
        )
        for split in ("train", "t10k")
    )


def _idx(path):
    """Reads a gzipped IDX file of bytes: magic number, big-endian sizes, values."""
    with _reading(path, "gzipped IDX file", IndexError, gzip.BadGzipFile):
        with gzip.open(_existing(path)) as file:
            content = file.read()
        rank = content[3]
        shape = np.frombuffer(content, ">i4", count=rank, offset=4)
        return np.frombuffer(content, "uint8", offset=4 + 4 * rank).reshape(shape)


def _cifar10(folder):
    folder = folder / "cifar10"
    first, *others = (
        folder / f"data_batch_{i}.npz" for i in range(1, _CIFAR_BATCHES + 1)
    )
    paths = [first, *(path for path in others if path.is_file())]
    batches = [_cifar_batch(path) for path in paths]
    train = tuple(np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return train, _cifar_batch(folder / "test_batch.npz")


def _cifar_batch(path):
    delta, labels = _arrays(path, "delta", "labels")
    # Axes (image, plane, row, column); the planes are G, R - G and B - G, and each
    # pixel is stored as its difference from the left neighbour, modulo 256.
    planes = np.cumsum(delta, axis=-1, dtype="uint8")
    green = planes[:, 0]
    return np.stack([planes[:, 1] + green, green, planes[:, 2] + green], -1), labels
