"""The TFLite format: one file for LiteRT, on phones and in small runtimes."""

import contextlib
import re

import numpy as np

from kprune.export.base import ExportError, Format, quiet
from kprune.registry import register

_BATCH_NOTE = (
    "batch fixed to 1: the converter cannot leave it open for this model "
    "(recurrent layers); run rows one after another"
)
_FLOAT_NOTE = "computes in float32 (the Keras model in {dtype})"


@register("formats", key="tflite")
class TFLite(Format):
    """A float32 TFLite file that needs the built-in operators alone.

    For LiteRT. Inputs and outputs have the names of the SavedModel's, through
    `interpreter.get_signature_runner()`. The batch size is open, but for models
    that the converter takes with a fixed one only, which is then 1. Models that
    compute in half precision are written to compute in float32, since LiteRT
    has few kernels for less.

    Args:
        tolerance: Float above 0 or `None`, see `kprune.export.Format`.

    Example:
    >>> import keras, kprune, os, tempfile
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = kprune.export(model, folder, [kprune.TFLite()])
    ...     sorted(os.listdir(folder))
    ['export.json', 'model.tflite']
    """

    file = "model.tflite"

    def write(self, forward, path):
        """Writes the file; see `Format.write`."""
        if tables := forward.tables():
            layers = ", ".join(repr(layer.name) for layer, _ in tables)
            raise _refusal(forward, f"it looks words or numbers up, in {layers}")
        notes = []
        if forward.compute_dtype != "float32":
            notes.append(_FLOAT_NOTE.format(dtype=forward.compute_dtype))
        with computing_in_float32(forward.model):
            content, batch = _convert_somehow(forward)
        if batch == 1:
            notes.append(_BATCH_NOTE)
        with open(path, "wb") as file:
            file.write(content)
        return notes

    def load(self, path):
        """Loads the file with LiteRT's interpreter; see `Format.load`."""
        from ai_edge_litert.interpreter import Interpreter

        with quiet():
            interpreter = Interpreter(model_path=path)
            runner = interpreter.get_signature_runner()
        details = runner.get_input_details()

        def run(inputs):
            with quiet():
                outputs = runner(**{name: inputs[name] for name in details})
            return {name: np.copy(x) for name, x in outputs.items()}

        shapes = [detail["shape_signature"] for detail in details.values()]
        return run, None if shapes[0][0] == -1 else int(shapes[0][0])


@contextlib.contextmanager
def computing_in_float32(model):
    """Lets the layers of a half-precision model compute in float32, for a while.

    Weights of such models are float32 already; only the casts go. The policies
    are put back on exit.

    Args:
        model: A Keras model.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.layers.Dense(2, dtype="mixed_float16")])
    >>> with computing_in_float32(model):
    ...     model.layers[0].compute_dtype
    'float32'
    >>> model.layers[0].compute_dtype
    'float16'
    """
    policies = [(layer, layer.dtype_policy) for layer in model._flatten_layers()]
    halved = [p for p in policies if p[0].compute_dtype in ("float16", "bfloat16")]
    try:
        for layer, _ in halved:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in policies:
            if layer.dtype_policy is not policy:
                layer.dtype_policy = policy


def _convert_somehow(forward):
    """Converts with an open batch if possible, else with a batch of 1."""
    from tensorflow.lite.python.convert_phase import ConverterError

    batches = (None, 1) if forward.fixed_batch is None else (None,)
    for batch in batches:
        try:
            return _convert(forward, batch), batch
        except ConverterError as error:
            failure = error
    raise _refusal(forward, _missing_ops(str(failure))) from failure


def _convert(forward, batch):
    from tensorflow import lite

    module, signature = forward.module(batch)
    converter = lite.TFLiteConverter.from_concrete_functions([signature], module)
    with quiet():
        return converter.convert()


def _refusal(forward, reason):
    return ExportError(
        f"Model {forward.model.name!r} cannot become a TFLite file of built-in "
        f"operators: {reason}. Export it with formats=('saved_model',), or move what "
        "is in the way out of the model into your preprocessing."
    )


def _missing_ops(message):
    """Says which ops LiteRT lacks, from the converter's message."""
    found = re.findall(r"(?:TF Select|Custom) ops: (.*)", message)
    found += re.findall(r"'tf\.(\w+)' op", message)
    ops = sorted({op.strip() for line in found for op in line.split(",")})
    return f"it needs the ops {', '.join(ops)}" if ops else f"it fails with {message}"
