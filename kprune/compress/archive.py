"""`save_archive` and `load_archive`: a Keras model in a `.kpz` file and back."""

import os

import numpy as np

from kprune import inspection, registry
from kprune.compress.architecture import full_config, pack_config, unpack_config
from kprune.compress.archivable import check_archivable
from kprune.compress.archive_report import ArchiveReport
from kprune.compress.building import build, give_values
from kprune.compress.container import (
    check_place,
    check_size,
    frame,
    largest_size,
    unframe,
    write_beside,
)
from kprune.compress.packing import ArchiveError, Writer
from kprune.compress.streams import read_arrays, write_arrays
from kprune.compress.trusted import check_config
from kprune.compress.values import as_bits, numpy_type
from kprune.surgery import stripped_for
from kprune.weight_access import as_array


def save_archive(model, path, *, coder="rans", float16=False):
    """Writes a model into one small file, for shipping and storage.

    Zeros cost next to nothing, and weights with few distinct values about the
    entropy of what distinguishes them. Nothing is lost: `kprune.load_archive` gives
    the same values bit for bit, except that a negative zero becomes a zero. The file
    is read again and compared before it takes its place.

    The optimizer and the compile arguments are not saved. What is frozen is saved as
    far as configs tell: a `Sequential` comes back trainable with its layers frozen,
    and within a subclassed model a layer is as the model's class makes it.

    Args:
        model: A built Keras 3 model. A model with masks or shared weights is stripped
            first, with a warning. It is not changed.
        path: String or path of the file to write, `model.kpz` for instance. A file
            that is there is replaced, of a link the file that it points to.
        coder: Name or object of a coder, or a list of them: then each stream is
            written with the one that makes it shortest. Defaults to `"rans"`, which
            needs no other package. `"huffman"`, `"range"` and `"brotli"` need
            `pip install 'kprune[archive]'`, also to load the file.
        float16: Bool, whether float32 weights are rounded to float16 first, codebooks
            included. Defaults to `False`; weights that are float16 values anyway take
            no more bytes than that.

    Returns:
        An `ArchiveReport`.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If the model is unbuilt or a coder unknown.
        ArchiveError: If a weight is NaN, the model cannot be made again from its
            config, a layer keeps something that is neither weight nor config or was
            quantized by Keras, or the file does not give the same model.
        ImportError: If a coder's package is not installed.
        FileNotFoundError: If the folder of `path` does not exist.
        IsADirectoryError: If `path` is a folder.

    Example:
    >>> import keras, tempfile
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = save_archive(model, folder + "/model.kpz")
    ...     loaded = load_archive(folder + "/model.kpz")
    >>> np.array_equal(model.layers[0].kernel, loaded.layers[0].kernel)
    True
    """
    path = os.path.abspath(os.fspath(path))
    check_place(path)
    coders = _resolve(coder)
    inspection.check_keras_model(model)
    inspection.check_built(model)
    model, notes = stripped_for("kprune.save_archive", model)
    check_archivable(model)
    weights = inspection.own_weights(model)
    arrays = {weight.path: _plain(weight, float16) for weight in weights}
    if len(arrays) < len(weights):
        arrays = {f"{i}/{w.path}": _plain(w, float16) for i, w in enumerate(weights)}
    writer = Writer()
    sizes = write_arrays(writer, arrays, coders)
    config = full_config(model)
    whole = frame(pack_config(config), writer)
    _write_and_compare(whole.data, path, config, list(arrays.values()))
    return ArchiveReport(
        model=model.name,
        path=path,
        parts=whole.sizes,
        arrays=tuple(sizes),
        weights=sum(array.size for array in arrays.values()),
        weight_bytes=sum(array.nbytes for array in arrays.values()),
        notes=notes + _size_note(config, arrays, len(whole.data)),
    )


def _resolve(coder):
    names = coder if isinstance(coder, (list, tuple)) else [coder]
    return [registry.get("coders", name) for name in names]


def _plain(weight, float16):
    """Returns a weight's values; rounded if asked for, and without negative zeros."""
    array = as_array(weight).copy()
    if float16 and array.dtype == np.float32:
        with np.errstate(over="ignore"):
            half = array.astype(np.float16).astype(np.float32)
        array = np.where(np.isfinite(half), half, array)
    if array.dtype.kind not in "iub":
        array[array == 0] = 0
    return array


def _write_and_compare(data, path, config, arrays):
    """Writes a file that takes its place only if it gives the same model."""
    path = os.path.realpath(path)  # A link goes on pointing to it.
    beside = write_beside(path, data)
    try:
        difference = _difference(load_archive(beside, max_bytes=_ANY), config, arrays)
        if difference:
            raise ArchiveError(
                f"The model made again from the config of {config['class_name']} "
                f"{config['config'].get('name')!r} is another one: {difference}. See "
                "that every class of yours returns all constructor arguments from "
                "`get_config`."
            )
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.remove(beside)


_ANY = 1 << 62


def _size_note(config, arrays, file_bytes):
    """Says so if the file cannot be loaded without `max_bytes`."""
    specs = [(array.shape, array.dtype) for array in arrays.values()]
    try:
        check_config(config, largest_size(file_bytes))
        check_size(specs, file_bytes)
    except ArchiveError as error:
        return (f"load it with `max_bytes`, since otherwise: {error}",)
    return ()


def _difference(model, config, arrays):
    """Says in what a loaded model differs from the one saved; empty if in nothing."""
    weights = inspection.own_weights(model)
    for weight, array in zip(weights, arrays, strict=True):
        value = np.asarray(weight)
        if not np.array_equal(as_bits(value.ravel()), as_bits(array.ravel())):
            return f"its weight {weight.path} has other values"
    return _first_difference(full_config(model), config, "config")


def _first_difference(one, other, path):
    if isinstance(one, dict) and isinstance(other, dict) and set(one) == set(other):
        pairs = [(key, one[key], other[key]) for key in one]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = list(zip(range(len(one)), one, other, strict=True))
    else:
        is_same = one == other or (one != one and other != other)  # NaN
        return "" if is_same else f"its {path} is {one!r:.80}, not {other!r:.80}"
    found = (_first_difference(x, y, f"{path}[{key!r}]") for key, x, y in pairs)
    return next(filter(None, found), "")


def load_archive(path, *, max_bytes=None):
    """Reads a model that `kprune.save_archive` has written.

    The file need not be trusted. It runs no code: layers are those of Keras, or
    classes that you have registered with Keras before. What it asks for is checked
    before memory is taken.

    Args:
        path: String or path of the file.
        max_bytes: Int, the most that the weights may take in memory, and the largest
            size that a layer may name. Defaults to `None`: weights of 64 MiB and 2000
            times the size of the file at 16 bytes each or their own size, whatever is
            more, and sizes to about a million (2**20) and 16 times the size of the
            file.

    Returns:
        A built Keras model, not compiled, its weights bit for bit those saved.

    Raises:
        ArchiveError: If the file is damaged, no archive, or asks for what it must not.
        OSError: If it cannot be read.

    Example:
    >>> load_archive(__file__)
    Traceback (most recent call last):
    kprune.compress.packing.ArchiveError: The file begins with b..., so ...
    """
    with open(path, "rb") as file:
        data = file.read()
    return _model_of(data, max_bytes)


def _model_of(data, max_bytes):
    architecture, reader = unframe(data)
    largest = largest_size(len(data), max_bytes)
    model = build(unpack_config(architecture, largest, max_bytes or 0), largest)
    weights = inspection.own_weights(model)
    specs = [(tuple(w.shape), numpy_type(w.dtype)) for w in weights]
    check_size(specs, len(data), max_bytes)
    arrays = read_arrays(reader, specs)
    reader.finish()
    give_values(model, arrays)
    return model
