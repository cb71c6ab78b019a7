"""The TFLite format: one file for LiteRT, on phones and in small runtimes."""

import hashlib
import weakref

from kprune.export import conversion, devices, int4, interpreter
from kprune.export.base import Format, Written
from kprune.export.lite_content import make_content
from kprune.export.representative import (
    cut_batches,
    is_same_data,
    restored,
    take_rows,
)
from kprune.quantize import wrappers
from kprune.registry import register

_COMPARED_ROWS = 32
# Loose, for single values; `quantized` holds the sharp checks.
_TOLERANCES = {
    "aware": 0.05,
    "float16": 0.05,
    "dynamic_range": 0.25,
    "int8": 0.5,
    "int16x8": 0.25,
    "int4": 1.0,
}


@register("formats", key="tflite")
class TFLite(Format):
    """A TFLite file that needs the built-in operators alone.

    For LiteRT. A model of `kprune.quantize_aware` becomes the int8 file that it was
    trained for. Inputs and outputs have the names of the SavedModel's, through
    `interpreter.get_signature_runner()`. The batch size is open, but for models
    that the converter takes with a fixed one only, which is then 1. Models that
    compute in half precision are written to compute in float32, since LiteRT
    has few kernels for less.

    Pruned weights keep their zeros in every mode. The file's metadata holds
    kprune's version, the sparsity and a hash of the weights; see
    `kprune.litefile.read_metadata`.

    Args:
        quantization: String, what is rounded. Defaults to `None`, nothing.
            `"float16"`: weights, to half the bytes. `"dynamic_range"`: weights of
            1024 values or more to int8, a quarter of the bytes; activations while
            it runs. `"int8"`: weights and activations; needs
            `representative_data`. `"int16x8"`: the same with activations of 16
            bits, for models that int8 spoils; LiteRT has fewer operators for it.
            `"int4"`: weights of Dense and Conv layers to int4, an eighth of the
            bytes, those of DepthwiseConv and Conv2DTranspose to int8; they are
            decoded when the file is loaded, so that nothing is faster, and
            embeddings stay float32. It needs `pip install 'kprune[int4]'`.
        sparse: `"auto"`, `True` or `False`: whether zeros are left out of the
            file. Defaults to `"auto"`: in float32, where the result is smaller
            and proven to be right. `True` insists and raises where that fails.
        representative_data: Rows like those that the model will see, 256 of which
            are used: an array, a list or dict of arrays, a batched
            `tf.data.Dataset` or a `keras.utils.PyDataset`; targets are ignored.
            In modes that do not need it, files are compared on it.
        target: String, the runtime that the file must fit, or the export fails with
            what stands in the way. `"xnnpack"`: a float32 file that its sparse
            kernels run, see `kprune.check_xnnpack`. `"tflm"`: TensorFlow Lite
            Micro; a plain file with a batch of 1, see `kprune.check_tflm`.
            Defaults to `None`, LiteRT anywhere.
        integer_io: Bool, whether real inputs and outputs of `"int8"` and
            `"int16x8"` files are integers too, to be scaled by whoever runs them.
            Defaults to `False`.
        tolerance: Float above 0 or `None`, see `kprune.export.Format`. Defaults
            to 0.05 for `"float16"`, 0.5 for `"int8"`, 1.0 for `"int4"`, 0.25 for the
            others that round, each with a stricter limit on the mean over many
            rows, which a tolerance of your own replaces.

    Raises:
        ValueError: If options contradict each other.

    Example:
    >>> import keras, kprune, numpy, os, tempfile
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> data = numpy.random.default_rng(0).normal(size=(100, 3))
    >>> small = kprune.TFLite("int8", representative_data=data)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = kprune.export(model, folder, [kprune.TFLite(), small])
    ...     sorted(os.listdir(folder))
    ['export.json', 'model.tflite', 'model_int8.tflite']
    """

    def __init__(
        self,
        quantization=None,
        *,
        sparse="auto",
        representative_data=None,
        target=None,
        integer_io=False,
        tolerance=None,
    ):
        super().__init__(tolerance)
        self.quantization = quantization
        self.sparse = _as_choice(sparse)
        self.representative_data = representative_data
        self.target = target
        self.integer_io = integer_io
        devices.check_options(target, quantization, self.sparse)
        self._check_options()
        self.file = f"model_{quantization}.tflite" if quantization else "model.tflite"
        self._rows = weakref.WeakKeyDictionary()

    def _check_options(self):
        if self.quantization not in conversion.QUANTIZATIONS:
            raise ValueError(
                f"quantization is {self.quantization!r}, expected one of "
                f"{', '.join(map(repr, conversion.QUANTIZATIONS))}."
            )
        calibrated = self.quantization in conversion.CALIBRATED
        if calibrated and self.representative_data is None:
            raise ValueError(
                f"quantization={self.quantization!r} needs representative_data, to "
                "find the range of every activation. Pass a few hundred rows of the "
                "training data, or use 'dynamic_range', which needs none."
            )
        if self.integer_io and not calibrated:
            raise ValueError(
                f"integer_io=True with quantization={self.quantization!r}: only "
                "'int8' and 'int16x8' files have integers to give. Leave it out."
            )
        if self.sparse is True and self.quantization in ("dynamic_range", "int4"):
            raise ValueError(
                f"sparse=True with quantization={self.quantization!r}: LiteRT gives "
                "wrong numbers on such files or does not load them. Leave sparse out, "
                "a compressed archive makes the zeros small all the same, or use "
                "kprune.TFLite(sparse=True) for float32."
            )

    def get_config(self):
        """Returns all constructor arguments, by name."""
        return {
            "quantization": self.quantization,
            "sparse": self.sparse,
            "representative_data": self.representative_data,
            "target": self.target,
            "integer_io": self.integer_io,
            **super().get_config(),
        }

    @classmethod
    def from_config(cls, config):
        """Returns the object whose `get_config` gave `config`."""
        data = restored(config.get("representative_data"))
        return cls(**{**config, "representative_data": data})

    def __eq__(self, other):
        if type(other) is not type(self):
            return False
        mine, theirs = self.get_config(), other.get_config()
        data = mine.pop("representative_data"), theirs.pop("representative_data")
        return mine == theirs and is_same_data(*data)

    def __hash__(self):
        return hash((type(self), self.file, self.sparse, self.integer_io))

    def __repr__(self):
        left_out = {"sparse": "auto", "integer_io": False}
        config = self.get_config()
        if config["representative_data"] is not None:
            config["representative_data"] = ...
        shown = [f"{k}={v!r}" for k, v in config.items() if v != left_out.get(k)]
        return f"{type(self).__name__}({', '.join(shown)})"

    def check(self, forward):
        """Checks the options against the model; see `Format.check`."""
        if self.quantization == "int4":
            int4.check_installed()
        devices.check_model(self.target, forward.model)
        if wrappers(forward.model) and (self.quantization or self.sparse is True):
            raise ValueError(
                f"Model {forward.model.name!r} was trained for int8 by "
                f"kprune.quantize_aware, and the format asks for quantization="
                f"{self.quantization!r}, sparse={self.sparse!r}. Leave both out: its "
                "file is int8 as trained. For other modes pass "
                "kprune.dequantize(model)."
            )
        self.rows_for(forward)

    def inputs(self, forward):
        """Returns batches of `representative_data`; see `Format.inputs`."""
        rows = self.rows_for(forward)
        if rows is None:
            return None
        if forward.fixed_batch is not None:
            return cut_batches(rows, forward.fixed_batch)[:3]
        if self.target == "tflm":
            return cut_batches(rows, 1)[:_COMPARED_ROWS]
        several = {name: x[:_COMPARED_ROWS] for name, x in rows.items()}
        # A single row is for files that take no more. An output that is close to
        # zero on it would make any rounding look large, so others do without.
        looped = self.quantization not in conversion.CALIBRATED
        return [*cut_batches(rows, 1)[: 2 * looped], several]

    def default_tolerance(self, forward):
        """Returns the tolerance of the mode; see `Format.default_tolerance`."""
        default = super().default_tolerance(forward)
        if wrappers(forward.model):
            return max(default, _TOLERANCES["aware"])
        return max(default, _TOLERANCES.get(self.quantization, 0.0))

    def write(self, forward, path):
        """Writes the file; see `Format.write`."""
        content, notes = make_content(self, forward)
        with open(path, "wb") as file:
            file.write(content)
        # LiteRT believes what it reads: of 600 files with a flipped byte or without
        # their end it took 270, a third with other numbers, and three killed it.
        return Written(notes, sha256=hashlib.sha256(content).hexdigest())

    def load(self, path):
        """Loads the file with LiteRT's interpreter; see `Format.load`."""
        return interpreter.load(path)

    def rows_for(self, forward):
        """Returns the rows of `representative_data` that are used.

        Args:
            forward: The model's `Forward`.

        Returns:
            Dict of arrays by input name, the same one however often it is asked
            for; `None` without `representative_data`.
        """
        if self.representative_data is None:
            return None
        if forward not in self._rows:
            self._rows[forward] = take_rows(self.representative_data, forward)
        return self._rows[forward]


def _as_choice(sparse):
    """Returns `"auto"` or a bool, which 1 and NumPy's `True` are not."""
    if sparse not in ("auto", True, False):
        raise ValueError(f"sparse is {sparse!r}, expected 'auto', True or False.")
    return sparse if sparse == "auto" else bool(sparse)
