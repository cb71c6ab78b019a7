"""TensorFlow's TFLite converter, in each of its modes."""

import contextlib
import re
import warnings

import tensorflow as tf

from kprune.export.base import ExportError, quiet
from kprune.export.representative import cut_batches

QUANTIZATIONS = (None, "float16", "dynamic_range", "int8", "int16x8", "int4")
CALIBRATED = ("int8", "int16x8")


def convert(forward, quantization=None, rows=None, integer_io=False, batches=(None, 1)):
    """Converts a model, with an open batch if possible, else with a batch of 1.

    Args:
        forward: The model's `kprune.export.forward.Forward`.
        quantization: One of `QUANTIZATIONS`, `None` for float32; not `"int4"`, which
            the converter does not know, see `kprune.export.int4`.
        rows: Dict by input name of arrays of shape `(rows, ...)`, for the modes
            in `CALIBRATED`.
        integer_io: Bool, whether real inputs and outputs are integers too.
        batches: Tuple of ints or `None`, the batch sizes to try. A stateful model
            has one only.

    Returns:
        Bytes, the file, and the batch size it is bound to (`None` if any).

    Raises:
        ExportError: If the converter fails.

    Example:
    >>> import keras
    >>> from kprune.export.forward import Forward
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> content, batch = convert(Forward(model))
    >>> content[4:8], batch
    (b'TFL3', None)
    """
    with computing_in_float32(forward.model):
        for batch in batches if forward.fixed_batch is None else (None,):
            converter = _converter(forward, batch, quantization)
            if quantization in CALIBRATED:
                fed = cut_batches(rows, forward.fixed_batch or 1)
                _calibrate(converter, quantization, fed, integer_io)
            try:
                return _run(converter), batch or forward.fixed_batch
            except Exception as error:
                failure = error
    reason = _unknown_numbers(forward.model) or _reason(str(failure))
    raise refusal(forward, reason, quantization) from failure


def _converter(forward, batch, quantization):
    from tensorflow import lite

    module, signature = forward.module(batch)
    converter = lite.TFLiteConverter.from_concrete_functions([signature], module)
    if quantization is not None:
        converter.optimizations = {lite.Optimize.DEFAULT}
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter


def _calibrate(converter, quantization, batches, integer_io):
    from tensorflow import lite

    operators, dtype = {
        "int8": ("TFLITE_BUILTINS_INT8", tf.int8),
        "int16x8": (
            "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8",
            tf.int16,
        ),
    }[quantization]
    converter.target_spec.supported_ops = [lite.OpsSet[operators]]
    converter.representative_dataset = lambda: iter(batches)
    if integer_io:
        converter.inference_input_type = dtype
        converter.inference_output_type = dtype


def _run(converter):
    # Calibration runs an interpreter that announces its own removal.
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return converter.convert()


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


def refuse_loops(forward, contents, quantization):
    """Raises if a model has loops, on which calibration crashes the process.

    Args:
        forward: The model's `Forward`.
        contents: `kprune.litefile.Contents` of its float32 file.
        quantization: The mode wanted, one of `CALIBRATED`.

    Raises:
        ExportError: With what to do about it.
    """
    if contents.has_loops:
        reason = (
            "it has loops (recurrent layers), which TensorFlow's calibration cannot "
            "follow. Build it anew with unroll=True in its recurrent layers and "
            "new.set_weights(old.get_weights()), for sequences of a fixed length"
        )
        # The other of the two modes is no way out: both are calibrated.
        raise refusal(forward, reason, quantization, _ALTERNATIVES["int8"])


def refusal(forward, reason, quantization=None, alternative=None):
    """Returns the error that says why a model has no such file, and what else to do.

    Args:
        forward: The model's `Forward`.
        reason: String, a clause.
        quantization: One of `QUANTIZATIONS`.
        alternative: String, a sentence. Defaults to that of the mode.

    Returns:
        An `ExportError`.
    """
    if quantization is None:
        return ExportError(
            f"Model {forward.model.name!r} cannot become a TFLite file of built-in "
            f"operators: {reason}. Export it with formats=('saved_model',), or move "
            "what is in the way out of the model into your preprocessing."
        )
    return ExportError(
        f"Model {forward.model.name!r} cannot become a TFLite file with "
        f"quantization={quantization!r}: {reason}. "
        f"{alternative or _ALTERNATIVES[quantization]}"
    )


_ALTERNATIVES = {
    "float16": "Use kprune.TFLite() for float32 weights.",
    "dynamic_range": "Use kprune.TFLite('float16') for half the bytes of float32.",
    "int4": "Use kprune.TFLite('dynamic_range') for weights of eight bits.",
    "int8": "Use kprune.TFLite('dynamic_range'), which keeps int8 weights and "
    "computes in floating point where it must.",
    "int16x8": "Use kprune.TFLite('int8', ...), which knows more operators, or "
    "kprune.TFLite('dynamic_range').",
}


def _unknown_numbers(model):
    """Says which layers compute in numbers that LiteRT has few operators for."""
    found = model._flatten_layers(include_self=False)
    layers = {x.name: x for x in found if x.weights}
    wide = [n for n, x in layers.items() if x.compute_dtype == "float64"]
    if wide:
        return (
            f"{', '.join(wide)} compute in float64, for which LiteRT has few "
            "operators. Build the model anew with dtype='float32', and carry the "
            "weights over with new.set_weights(old.get_weights())"
        )
    whole = [n for n, x in layers.items() if getattr(x, "quantization_mode", None)]
    if whole:
        return (
            f"{', '.join(whole)} were quantized by Keras, with operators of its own. "
            "Export the model as it was before model.quantize, for example with "
            "kprune.TFLite('int8', representative_data=...)"
        )
    return ""


def _reason(message):
    """Says what is in the way, from the converter's message."""
    if "Empty min/max for tensor" in message:
        return "it has whole numbers (ids), for which this mode wants a range"
    found = re.findall(r"(?:TF Select|Custom) ops: (.*)", message)
    found += re.findall(r"'tf\.(\w+)' op", message)
    ops = sorted({op.strip() for line in found for op in line.split(",")})
    return f"it needs the ops {', '.join(ops)}" if ops else f"it fails with {message}"
