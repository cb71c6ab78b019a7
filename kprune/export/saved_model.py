"""The SavedModel format: a folder that TensorFlow and TensorFlow Serving load."""

import functools
import math
import os
import shutil
import tempfile

import keras
import numpy as np
import tensorflow as tf
from tensorflow import saved_model

from kprune import inspection
from kprune.export.base import ExportError, Format, Written, quiet
from kprune.export.packed_module import packed_module
from kprune.export.packing import PACKINGS, bound_bytes, pack, rounded
from kprune.registry import register

_FLOATS = ("float16", "bfloat16", "float32", "float64")
# A packed weight takes some four hundred bytes more of the graph than a plain one.
_LEAST_SAVING = 1024
# What each encoding in use adds to it.
_DECODER_BYTES = 10_000
_STAYS_PLAIN = (
    "written plain: packing, which shrinks large weights with zeros, saves nothing here"
)
_NOT_FOR_CONVERTERS = (
    "runs in TensorFlow and TensorFlow Serving; converters (TFLite's among them) read "
    "the plain file of kprune.SavedModel(packed=None)"
)


@register("formats")
class SavedModel(Format):
    """A SavedModel that holds each weight once and nothing of training.

    For TensorFlow Serving, or a Python process that has TensorFlow and neither
    Keras code of yours nor kprune. The signature `serving_default` has named
    inputs and outputs and takes any batch size; `loaded.serve(x)` takes and
    returns what the Keras model does. Lookup tables of preprocessing layers
    are part of the file.

    A packed file stores large weights that have zeros as positions and values,
    compressed, and decodes them by stock operations when it is loaded, once: calls
    do what they do in a plain file. Converters, such as TFLite's, look for weights
    in places where a packed file has none, and need a plain one.

    Args:
        packed: What becomes of the values that are not zero. `"lossless"` keeps
            every bit. `"fp16"` rounds them to float16, `"codebook8"` and
            `"codebook4"` to the nearest of 256 or 16 values that a weight shares,
            found by k-means; weights without zeros are then packed too, vectors
            such as biases keep every bit, and the file is compared with the model
            of the rounded weights. `None` writes a plain file. Defaults to
            `"auto"`, the smaller one of lossless and plain.
        tolerance: Float above 0 or `None`, see `kprune.export.Format`.

    Raises:
        ValueError: If `packed` is none of these.

    Example:
    >>> import kprune, tempfile
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = kprune.export(model, folder, [kprune.SavedModel()])
    ...     loaded = tf.saved_model.load(folder + "/saved_model")
    ...     loaded.serve(tf.ones((4, 3))).shape
    TensorShape([4, 2])

    Reference:
        Han, Mao and Dally, "Deep Compression", ICLR 2016.
    """

    file = "saved_model"

    def __init__(self, packed="auto", tolerance=None):
        super().__init__(tolerance)
        if packed not in ("auto", None, *PACKINGS):
            raise ValueError(
                f"packed is {packed!r}, expected 'auto', None (a plain file) or one of "
                f"{', '.join(map(repr, PACKINGS))}."
            )
        self.packed = packed

    def get_config(self):
        return {"packed": self.packed, **super().get_config()}

    def write(self, forward, path):
        """Writes the folder; see `Format.write`."""
        plain, signature = forward.module()
        dense = _bytes_of(plain.state)
        save_plain = functools.partial(_save, forward, plain, signature)
        stored = self._stored(forward)
        if stored:
            written = self._write_packed(forward, path, plain, stored)
            # A plain file is never smaller than its weights.
            is_smaller = self.packed != "auto" or _size(path) < dense
            if is_smaller or not _replaced_by_smaller(path, save_plain):
                return written
        else:
            save_plain(path)
        notes = (_STAYS_PLAIN,) if self.packed else ()
        return Written(notes, bound=dense, overhead_bytes=_size(path) - dense)

    def _write_packed(self, forward, path, plain, stored):
        streams = pack([array for _, array in stored], _DECODER_BYTES)
        weights = [
            (variable.value, packed)
            for (variable, _), packed in zip(stored, streams, strict=True)
        ]
        module, signature = packed_module(forward, plain, weights)
        _save(forward, module, signature, path)
        dense = _bytes_of(module.state)
        packed_bytes = sum(len(packed.stream) for packed in streams)
        bound = sum(bound_bytes(a, self._packing_of(a)) for _, a in stored)
        return Written(
            notes=(
                f"{len(weights)} weights packed ({self._packing}); plain, all weights "
                f"take {_bytes_of(plain.state):,} bytes",
                _NOT_FOR_CONVERTERS,
            ),
            bound=dense + math.ceil(bound),
            overhead_bytes=_size(path) - dense - packed_bytes,
        )

    @property
    def _packing(self):
        return "lossless" if self.packed == "auto" else self.packed

    def _stored(self, forward):
        """Lists the Keras variables to be packed, each with the array to store."""
        if self.packed is None:
            return []
        read = {id(variable) for variable in forward.module()[0].state}
        stored = []
        for variable in inspection.own_weights(forward.model):
            if variable.dtype not in _FLOATS or id(variable.value) not in read:
                continue
            array = np.asarray(variable.value)
            packing = self._packing_of(array)
            if array.nbytes - bound_bytes(array, packing) >= _LEAST_SAVING:
                stored.append((variable, self._rounded(variable.path, array, packing)))
        return stored

    def _packing_of(self, array):
        return self._packing if array.ndim > 1 else "lossless"

    def _rounded(self, path, array, packing):
        result = rounded(array, packing)
        if packing != "lossless" and not np.isfinite(result).all():
            raise ExportError(
                f"Weight {path!r} has values up to {np.max(np.abs(array)):.3g}, which "
                f"packed={self.packed!r} cannot hold. Use packed='lossless'."
            )
        return result

    def reference(self, forward):
        """Returns the model, or the model of the weights as rounded."""
        if self._packing in (None, "lossless"):
            return forward
        stored = [(v, tf.constant(array)) for v, array in self._stored(forward)]

        def with_rounded_weights(arrays):
            with keras.StatelessScope(state_mapping=stored):
                outputs = forward.model(*forward._pack(arrays), training=False)
            return {name: np.asarray(x) for name, x in forward._named(outputs).items()}

        return with_rounded_weights

    def load(self, path):
        """Loads the folder with `tf.saved_model.load`; see `Format.load`."""
        with quiet():
            loaded = saved_model.load(path)
        signature = loaded.signatures["serving_default"]

        def run(inputs):
            tensors = {name: tf.constant(x) for name, x in inputs.items()}
            # `loaded` owns the variables and has to live as long as `run`.
            outputs = loaded.signatures["serving_default"](**tensors)
            return {name: x.numpy() for name, x in outputs.items()}

        specs = signature.structured_input_signature[1].values()
        return run, next(iter(specs)).shape[0]


def _save(forward, module, signature, path):
    options = saved_model.SaveOptions(experimental_custom_gradients=False)
    with quiet():
        try:
            saved_model.save(module, path, signature, options)
        except AssertionError as error:
            raise ExportError(
                f"Model {forward.model.name!r} reads a TensorFlow resource that is "
                "no variable and no lookup table held as an attribute of a layer, "
                "so a SavedModel would not contain it. Make it an attribute of "
                f"its layer. TensorFlow says: {error}"
            ) from error


def _replaced_by_smaller(path, save):
    """Saves a second folder, and keeps the smaller; tells whether that is the second.

    Graphs differ by more than can be said beforehand.
    """
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as scratch:
        second = os.path.join(scratch, "second")
        save(second)
        if _size(path) < _size(second):
            return False
        shutil.rmtree(path)
        os.rename(second, path)
        return True


def _bytes_of(variables):
    return sum(v.shape.num_elements() * v.dtype.size for v in variables)


def _size(path):
    files = (os.path.join(root, f) for root, _, names in os.walk(path) for f in names)
    return sum(map(os.path.getsize, files))
