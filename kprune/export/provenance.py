"""Where a file came from: the version that wrote it, and the weights it was given."""

import hashlib
import os
from importlib import metadata

import numpy as np

from kprune import inspection
from kprune.export.report import files_under


def kprune_version():
    """Returns the installed version, or `"unknown"` where kprune is not installed."""
    try:
        return metadata.version("kprune")
    except metadata.PackageNotFoundError:
        return "unknown"


def describe(model):
    """Describes a model for the metadata of a file made from it.

    Args:
        model: A built Keras model.

    Returns:
        Dict that JSON can hold: `kprune_version`; `sparsity`, the fraction of zeros
        over all weights; `source_sha256`, see `weights_sha256`.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> _ = model.layers[0].kernel.assign([[1.0], [0.0], [0.0]])
    >>> describe(model)["sparsity"]
    0.75
    """
    weights = [np.asarray(weight) for weight in inspection.own_weights(model)]
    size = sum(weight.size for weight in weights)
    zeros = size - sum(int(np.count_nonzero(weight)) for weight in weights)
    return {
        "kprune_version": kprune_version(),
        "sparsity": round(zeros / size, 6) if size else 0.0,
        "source_sha256": weights_sha256(model),
    }


def weights_sha256(model):
    """Returns a hash of a model's weights, to tell which model a file was made from.

    Names do not count, since Keras numbers them anew in every process.

    Args:
        model: A built Keras model.

    Returns:
        String of 64 hexadecimal digits: the SHA-256 over type, shape and bytes of
        each weight, in the model's order.
    """
    return arrays_sha256(inspection.own_weights(model))


def arrays_sha256(arrays):
    """Returns a hash over type, shape and bytes of each array, in their order.

    Args:
        arrays: List of arrays or Keras variables.

    Returns:
        String of 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def files_sha256(path):
    """Returns a hash of a file, or of all files under a folder and their names.

    Args:
        path: String, a file or folder.

    Returns:
        String of 64 hexadecimal digits: of a file its SHA-256, of a folder the SHA-256
        of a list of names and hashes.

    Example:
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     files_sha256(file.name)[:8]
    'e3b0c442'
    """
    digests = {}
    for name in files_under(path):
        with open(name, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        digests[os.path.relpath(name, path)] = digest
    if not os.path.isdir(path):
        return digest
    lines = (f"{name}\n{digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
