import gzip
import os
import struct

import keras
import numpy as np
import pytest

from kprune import datasets

needs_data = pytest.mark.skipif(
    not os.environ.get("KPRUNE_DATA"), reason="KPRUNE_DATA names no folder"
)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype="uint8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KPRUNE_DATA", str(tmp_path))
    return tmp_path


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_cifar_batch(path, colours, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    red, green, blue = np.moveaxis(colours, -1, 0)
    planes = np.stack([green, red - green, blue - green], 1)
    delta = np.diff(planes, axis=-1, prepend=np.zeros_like(planes[..., :1]))
    np.savez(path, delta=delta, labels=labels)


def test_digits_are_floats_in_the_unit_interval_with_a_channel_axis():
    data = datasets.load("digits")

    assert data.x_train.dtype == "float32"
    assert data.x_train.shape == (1437, 8, 8, 1)
    assert data.x_test.shape == (360, 8, 8, 1)
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)


def test_digits_split_holds_each_class_in_both_parts_and_never_moves():
    first, second = datasets.load("digits"), datasets.load("digits")

    np.testing.assert_array_equal(first.x_test, second.x_test)
    assert np.bincount(first.y_train).min() > 100
    assert np.bincount(first.y_test).min() > 20


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no data set 'minst'.*'mnist'"):
        datasets.load("minst")


def test_mnist_is_read_from_the_folder(folder, images):
    (folder / "mnist").mkdir()
    labels = np.arange(6, dtype="uint8")
    arrays = dict(x_train=images[:4], y_train=labels[:4])
    arrays |= dict(x_test=images[4:], y_test=labels[4:])
    np.savez(folder / "mnist" / "mnist.npz", **arrays)

    data = datasets.load("mnist")

    np.testing.assert_allclose(data.x_test[..., 0] * 255, images[4:], rtol=1e-6)
    np.testing.assert_array_equal(data.y_train, [0, 1, 2, 3])
    assert data.y_train.dtype == "int64"


def test_fashion_mnist_is_read_from_the_published_files(folder, images):
    files = folder / "keras" / "datasets" / "fashion-mnist"
    labels = np.arange(6, dtype="uint8")
    for split, part in ("train", slice(4)), ("t10k", slice(4, 6)):
        write_idx(files / f"{split}-images-idx3-ubyte.gz", images[part])
        write_idx(files / f"{split}-labels-idx1-ubyte.gz", labels[part])

    data = datasets.load("fashion_mnist")

    np.testing.assert_allclose(data.x_train[..., 0] * 255, images[:4], rtol=1e-6)
    np.testing.assert_array_equal(data.y_test, [4, 5])


def test_cifar_differences_are_decoded_to_the_colours_they_came_from(folder):
    colours = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype="uint8")
    labels = np.array([7, 0, 2], dtype="uint8")
    for name, part in ("data_batch_1", slice(2)), ("test_batch", slice(2, 3)):
        write_cifar_batch(folder / f"cifar10/{name}.npz", colours[part], labels[part])

    data = datasets.load("cifar10")

    np.testing.assert_allclose(data.x_train * 255, colours[:2], rtol=1e-6)
    np.testing.assert_allclose(data.x_test * 255, colours[2:], rtol=1e-6)
    np.testing.assert_array_equal(data.y_train, [7, 0])


def test_cifar_takes_every_batch_that_is_there_in_order(folder):
    colours = np.zeros((1, 32, 32, 3), dtype="uint8")
    for label, name in enumerate(["data_batch_1", "data_batch_2", "test_batch"]):
        write_cifar_batch(folder / f"cifar10/{name}.npz", colours, [label])

    data = datasets.load("cifar10")

    np.testing.assert_array_equal(data.y_train, [0, 1])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "mnist.npz"),
        ("fashion_mnist", "train-images-idx3-ubyte.gz"),
        ("cifar10", "data_batch_1.npz"),
    ],
)
def test_missing_file_is_named_with_the_remedy(folder, name, file):
    with pytest.raises(FileNotFoundError, match=f"{file}.*unset KPRUNE_DATA"):
        datasets.load(name)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "mnist/mnist.npz"),
        ("fashion_mnist", "keras/datasets/fashion-mnist/train-images-idx3-ubyte.gz"),
        ("cifar10", "cifar10/data_batch_1.npz"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut off"])
def test_broken_file_is_named(folder, name, file, content):
    path = folder / file
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    with pytest.raises(OSError, match=f"{path.name}' is no .*Fetch it again"):
        datasets.load(name)


def test_without_folder_the_data_comes_from_keras(monkeypatch, images):
    labels = np.arange(6)[:, np.newaxis]
    monkeypatch.delenv("KPRUNE_DATA", raising=False)
    monkeypatch.setattr(
        keras.datasets.mnist, "load_data", lambda: ((images, labels),) * 2
    )

    data = datasets.load("mnist")

    assert data.x_train.shape == (6, 28, 28, 1)
    np.testing.assert_array_equal(data.y_train, np.arange(6))


def test_failed_download_says_what_to_do(monkeypatch):
    def load_data():
        raise Exception("URL fetch failure on somewhere: None -- no route")

    monkeypatch.delenv("KPRUNE_DATA", raising=False)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", load_data)

    with pytest.raises(OSError, match="download the data set 'cifar10'.*KPRUNE_DATA"):
        datasets.load("cifar10")


@needs_data
@pytest.mark.parametrize(
    ("name", "shape", "mean"),
    [
        ("mnist", (28, 28, 1), 0.1325),
        ("fashion_mnist", (28, 28, 1), 0.2868),
        ("cifar10", (32, 32, 3), 0.4766),
    ],
)
def test_real_data_has_the_published_shape_and_brightness(name, shape, mean):
    data = datasets.load(name)

    assert data.x_test.shape == (10000, *shape)
    assert np.bincount(data.y_test).min() >= 892
    assert data.x_test.mean() == pytest.approx(mean, abs=5e-4)
