"""What a TFLite file must be for the device it is made for."""

from kprune.export.base import ExportError
from kprune.targets import check_tflm, check_xnnpack

TARGETS = ("xnnpack", "tflm")
_WEIGHTS_ALONE = ("float16", "dynamic_range", "int4")
_XNNPACK_NOTE = (
    "meets the conditions of XNNPACK's sparse kernels, which are on where the "
    "processor has no AVX (ARM, WebAssembly)"
)
_TFLM_NOTE = (
    "runs in TensorFlow Lite Micro: {bytes:,} bytes in flash, {arena:,} of activations "
    "in the arena, operators {operators}; kprune.write_c_array makes the C array"
)


def check_options(target, quantization, sparse):
    """Checks the options of a format against its target.

    Args:
        target: `None` or one of `TARGETS`.
        quantization: As in `kprune.TFLite`.
        sparse: As in `kprune.TFLite`.

    Raises:
        ValueError: If they contradict each other.

    Example:
    >>> check_options("tflm", "int8", "auto")
    """
    if target not in (None, *TARGETS):
        raise ValueError(
            f"target is {target!r}, expected None or one of "
            f"{', '.join(map(repr, TARGETS))}."
        )
    if target == "xnnpack" and (quantization is not None or sparse is False):
        raise ValueError(
            f"target='xnnpack' with quantization={quantization!r} and sparse={sparse!r}"
            ": its sparse kernels are for float32 files whose zeros are left out. "
            "Leave quantization and sparse out."
        )
    if target == "tflm" and (sparse is True or quantization in _WEIGHTS_ALONE):
        raise ValueError(
            f"target='tflm' with quantization={quantization!r} and sparse={sparse!r}: "
            "TensorFlow Lite Micro reads neither sparse tensors nor weights that are "
            "rounded while activations are not. "
            "Leave sparse out, and use quantization='int8' or None."
        )


def check_model(target, model):
    """Checks a model against the conditions of a target, before anything is written.

    Args:
        target: `None` or one of `TARGETS`.
        model: The Keras model, trained.

    Raises:
        ValueError: If a condition is not met.
    """
    if target != "xnnpack":
        return
    check = check_xnnpack(model)
    if not check or check.to_be_trained:
        raise ValueError(
            f"Model {model.name!r} does not qualify for target='xnnpack':\n{check}\n"
            "Leave the target out to write the file all the same."
        )


def check_file(target, model, content):
    """Checks a file against the conditions of a target.

    Args:
        target: `None` or one of `TARGETS`.
        model: The Keras model, for messages.
        content: Bytes, the file.

    Returns:
        List of strings, what the report should say.

    Raises:
        ExportError: If the target cannot run the file.
    """
    if target == "xnnpack":
        return [_XNNPACK_NOTE]
    if target is None:
        return []
    check = check_tflm(content)
    if not check:
        raise ExportError(
            f"The TFLite file of model {model.name!r} does not run in TensorFlow Lite "
            f"Micro:\n{check}"
        )
    operators = ", ".join(check.operators)
    return [
        _TFLM_NOTE.format(
            bytes=check.bytes, arena=check.arena_bytes, operators=operators
        )
    ]
