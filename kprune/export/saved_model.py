"""The SavedModel format: a folder that TensorFlow and TensorFlow Serving load."""

import dataclasses
import functools
import math
import os
import shutil
import tempfile

import tensorflow as tf
from tensorflow import saved_model

from kprune.export.base import ExportError, Format, Written, quiet
from kprune.export.endpoints import DEFAULT, check_signatures, serving_module
from kprune.export.loaded_model import LoadedModel, compare_content, state_kept
from kprune.export.packed_module import Decoder
from kprune.export.packing import PACKINGS, pack
from kprune.export.provenance import files_sha256
from kprune.export.report import file_bytes
from kprune.export.samples import draw_samples
from kprune.export.saved_content import Content, bytes_of
from kprune.export.verify import verify
from kprune.registry import register

# What each encoding in use adds to it.
_DECODER_BYTES = 14_000
_STAYS_PLAIN = (
    "written plain: packing, which shrinks large weights with zeros, saves nothing here"
)
_LARGER_THAN_PLAIN = (
    "{packed:,} bytes, where the plain file of kprune.SavedModel(packed=None) takes "
    "{plain:,}: the weights are too small for what decodes them"
)
_NEEDS_TENSORFLOW = (
    "decoded by TensorFlow when it is loaded; tools that read the variables from the "
    "folder themselves, and loading in the scope of a MirroredStrategy, need the plain "
    "file of kprune.SavedModel(packed=None)"
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
    do what they do in a plain file. Zeros of either sign become zero; every other
    value keeps every bit, unless it is rounded as asked for. Loading takes a little
    longer, and the memory of the packed bytes beside that of the weights. Converters
    that load the file with TensorFlow take it, TFLite's among them; tools that read
    the variables from the folder themselves need a plain one, and so does loading in
    the scope of a `tf.distribute.MirroredStrategy`. A loaded file can be trained
    further; saved again, it holds all of its weights plain beside the packed ones.

    The file is compared bit for bit with what was to be stored: weights, lookup
    tables, and the folder's bytes between writing and loading.

    Args:
        packed: What becomes of the values that are not zero. `"lossless"` keeps
            them. `"fp16"` rounds them to float16, `"codebook8"` and
            `"codebook4"` to the nearest of 256 or 16 values that a weight shares,
            found by k-means; weights without zeros are then packed too, vectors
            such as biases keep every bit, and the file is compared with the model
            of the rounded weights. `None` writes a plain file. Defaults to
            `"auto"`, the smaller one of lossless and plain.
        tolerance: Float above 0 or `None`, see `kprune.export.Format`.
        signatures: Dict of what is served beside the model, from a name to the name
            of a layer (or a list of names) whose outputs are given, or to a function
            that takes the model and returns a `keras.Model` of its layers. The name
            becomes a signature, and a method of the loaded object. Inputs that the
            outputs do not depend on are left out. All share one copy of the weights;
            each adds its operations to the graph. Defaults to `None`, the model alone.

    Raises:
        TypeError: If a signature is given as something else.
        ValueError: If `packed` is none of these, or a signature has no name that
            can be served. `kprune.export` raises it for layers that are not there.

    Example:
    >>> import keras, kprune, tempfile
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = kprune.export(model, folder, [kprune.SavedModel()])
    ...     loaded = tf.saved_model.load(folder + "/saved_model")
    ...     loaded.serve(tf.ones((4, 3))).shape
    TensorShape([4, 2])

    What comes before the last layer, and the number of the largest output:

    >>> def largest(model):
    ...     return keras.Model(model.inputs, keras.ops.argmax(model.outputs[0], -1))
    >>> format = kprune.SavedModel(signatures={"hidden": "relu", "top": largest})
    >>> layers = [keras.layers.ReLU(name="relu"), keras.layers.Dense(2)]
    >>> model = keras.Sequential([keras.Input((3,)), *layers])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = kprune.export(model, folder, format)
    ...     sorted(tf.saved_model.load(folder + "/saved_model").signatures)
    ['hidden', 'serving_default', 'top']

    Reference:
        Han, Mao and Dally, "Deep Compression", ICLR 2016.
    """

    file = "saved_model"

    def __init__(self, packed="auto", tolerance=None, signatures=None):
        super().__init__(tolerance)
        if packed not in ("auto", None, *PACKINGS):
            raise ValueError(
                f"packed is {packed!r}, expected 'auto', None (a plain file) or one of "
                f"{', '.join(map(repr, PACKINGS))}."
            )
        if signatures is not None:
            check_signatures(signatures)
        self.packed = packed
        self.signatures = signatures

    def get_config(self):
        return {
            "packed": self.packed,
            "signatures": self.signatures,
            **super().get_config(),
        }

    def check(self, forward):
        """Builds the models of the signatures; see `Format.check`."""
        self._content(forward)

    def write(self, forward, path):
        """Writes the folder; see `Format.write`."""
        _check_path(path)
        content = self._content(forward)
        dense = bytes_of(content.variables)

        def save_plain(path):
            _save(forward, *serving_module(content.endpoints), path)

        written = None
        if content.packed:
            written = self._write_packed(forward, content, path)
            # A plain file is never smaller than its weights.
            if file_bytes(path) >= dense:
                written = self._or_plain(written, path, save_plain)
        else:
            save_plain(path)
        if written is None:
            notes = (_STAYS_PLAIN,) if self.packed else ()
            written = Written(notes, dense, file_bytes(path) - dense)
        return dataclasses.replace(written, sha256=files_sha256(path))

    def _write_packed(self, forward, content, path):
        variables, arrays = zip(*content.packed, strict=True)
        streams = pack(arrays, _DECODER_BYTES)
        decoder = Decoder(streams, [v.value.trainable for v in variables])
        handles = {
            id(variable.value.handle): weight.handle
            for variable, weight in zip(variables, decoder.weights, strict=True)
        }
        module, signatures = serving_module(content.endpoints, handles)
        module.decoder, module.streams = decoder, decoder.streams
        module.weights, module.is_decoded = decoder.weights, decoder.is_decoded
        _save(forward, module, signatures, path)
        stored = sum(len(weight.stream) for weight in streams)
        return Written(
            notes=(
                f"{len(arrays)} weights packed ({self._packing}); plain, all weights "
                f"take {bytes_of(content.variables):,} bytes",
                *_vanished(content, self._packing),
                _NEEDS_TENSORFLOW,
            ),
            bound=math.ceil(content.bound),
            overhead_bytes=file_bytes(path) - stored - bytes_of(content.plain),
        )

    def _or_plain(self, written, path, save_plain):
        """Compares with a plain file, and takes it if it is smaller and allowed.

        Graphs differ by more than can be said beforehand.
        """
        with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as scratch:
            plain = os.path.join(scratch, "plain")
            save_plain(plain)
            sizes = {"packed": file_bytes(path), "plain": file_bytes(plain)}
            if sizes["packed"] < sizes["plain"]:
                return written
            if self.packed != "auto":
                note = _LARGER_THAN_PLAIN.format(**sizes)
                return dataclasses.replace(written, notes=(*written.notes, note))
            shutil.rmtree(path)
            os.rename(plain, path)
            return None

    @property
    def _packing(self):
        return "lossless" if self.packed == "auto" else self.packed

    def _content(self, forward):
        if self not in forward.kept:
            forward.kept[self] = Content(forward, self.signatures or {}, self._packing)
        content = forward.kept[self]
        content.refresh()
        return content

    def reference(self, forward):
        """Returns the model, or the model of the weights as rounded."""
        return self._reference(self._content(forward), forward)

    def _reference(self, content, endpoint):
        if self._packing in (None, "lossless"):
            return endpoint
        weights = [(variable, tf.constant(array)) for variable, array in content.packed]
        return functools.partial(endpoint, weights=weights)

    def load(self, path):
        """Loads the folder with `tf.saved_model.load`; see `Format.load`."""
        with quiet():
            run = LoadedModel(saved_model.load(path))
        return run, run.batch

    def examine(self, forward, run, label):
        """Compares weights, tables and the other signatures; see `Format.examine`."""
        content = self._content(forward)
        compare_content(run.loaded, content, label)
        others = [name for name in content.endpoints if name != DEFAULT]
        differences = [self._difference(content, run, name, label) for name in others]
        return max(differences, default=0.0)

    def _difference(self, content, run, name, label):
        endpoint = content.endpoints[name]
        reference = self._reference(content, endpoint)
        samples = [(x, reference(x)) for x, _ in draw_samples(endpoint)]
        tolerance = self.tolerance or self.default_tolerance(endpoint)
        part = LoadedModel(run.loaded, name)
        label = f"signature {name!r} of {label}"
        with state_kept(run.loaded):
            return verify(part, part.batch, samples, tolerance, label)


def _vanished(content, packing):
    if counts := content.vanished:
        yield (
            f"{sum(counts.values()):,} weights that were not zero are too small for "
            f"{packing} and became zero, in {', '.join(counts)}"
        )


def _save(forward, module, signatures, path):
    options = saved_model.SaveOptions(experimental_custom_gradients=False)
    with quiet():
        try:
            saved_model.save(module, path, signatures, options)
        except AssertionError as error:
            raise ExportError(
                f"Model {forward.model.name!r} reads a TensorFlow resource that is "
                "no variable and no lookup table held as an attribute of a layer, "
                "so a SavedModel would not contain it. Make it an attribute of "
                f"its layer. TensorFlow says: {error}"
            ) from error


def _check_path(path):
    patterns = sorted(({"[", "\\"} - {os.sep}) & set(path))
    if patterns:
        raise ExportError(
            f"A SavedModel does not load from {path!r}: TensorFlow reads "
            f"{' and '.join(patterns)} in a path as part of a pattern. Pass a folder "
            "without them."
        )
