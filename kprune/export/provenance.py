"""Where a file came from: the version that wrote it, and the weights it was given."""

import hashlib
from importlib import metadata

import numpy as np

from kprune import inspection


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
    digest = hashlib.sha256()
    for weight in inspection.own_weights(model):
        array = np.ascontiguousarray(weight)
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
