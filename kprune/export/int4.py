"""TFLite files whose weights have four bits, through ai-edge-quantizer.

The library rounds the weights of a float file channel by channel, symmetrically
around zero. They are decoded when the file is loaded, and the operators compute in
float32. So the file has to give what a float file with the rounded weights gives,
which is how it is proven. LiteRT 2.3 and `tf.lite.Interpreter` of TensorFlow 2.21 run
such files alike.

The library also rounds in blocks of 32 weights and more. That is left out: LiteRT 2.3
refuses to load a block of zeros, and pruned kernels are full of them.
"""

import importlib.util

import numpy as np

from kprune import litefile
from kprune.export import interpreter
from kprune.export.base import ExportError, quiet
from kprune.export.verify import verify

_PACKAGE = "ai_edge_quantizer"
_IN_FOUR_BITS = ("FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL", "EMBEDDING_LOOKUP")
_IN_EIGHT_BITS = ("DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE")
# Both files compute in float32, with sums in another order.
_TOLERANCE = 1e-4
_FEWEST_VALUES = 256


def check_installed():
    """Raises unless the library is there.

    Raises:
        ImportError: With the command that installs it.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise ImportError(
            "kprune.TFLite('int4') needs the package 'ai-edge-quantizer': "
            "pip install 'kprune[int4]'. Without it, 'dynamic_range' has weights of "
            "eight bits."
        )


def round_weights(plain):
    """Rounds the weights of a file to int4, to int8 where LiteRT has no int4 for them.

    Args:
        plain: Bytes, a float32 TFLite file.

    Returns:
        Bytes, the new file.

    Raises:
        ImportError: If ai-edge-quantizer is missing.
    """
    check_installed()
    from ai_edge_quantizer import quantizer

    with quiet():
        rounding = quantizer.Quantizer(plain)
        for names, bits in ((_IN_FOUR_BITS, 4), (_IN_EIGHT_BITS, 8)):
            for name in names:
                rounding.add_weight_only_config(".*", name, bits)
        result = rounding.quantize(enable_progress_report=False)
    return bytes(result.quantized_model)


def check_rounding(content, plain, inputs):
    """Compares a file with the float file that has the same rounded weights.

    Args:
        content: Bytes, what `round_weights` gave.
        plain: Bytes, what it was given.
        inputs: List of dicts of arrays by input name, to compare the files on.

    Raises:
        ExportError: If they differ by more than the order of sums explains.
    """
    reference, _ = interpreter.load(_with_rounded_constants(content, plain))
    run, batch = interpreter.load(content)
    inputs = [x for x in inputs if batch in (None, len(next(iter(x.values()))))]
    samples = [(arrays, reference(arrays)) for arrays in inputs]
    verify(run, batch, samples, _TOLERANCE, "the TFLite file of int4 weights")


def _with_rounded_constants(content, plain):
    """Returns the float file with the values that the constants of the other have."""
    graphs = zip(
        litefile.read(plain).subgraphs, litefile.read(content).subgraphs, strict=True
    )
    arrays = {}
    for number, (before, after) in enumerate(graphs):
        # The library keeps the tensors in place and adds its own behind them.
        pairs = zip(before.tensors, after.tensors, strict=False)
        for index, (exact, rounded) in enumerate(pairs):
            if (exact.name, exact.shape) != (rounded.name, rounded.shape):
                raise ExportError(
                    f"ai-edge-quantizer put {rounded.name!r} where {exact.name!r} was, "
                    "so that its file cannot be proven. Use kprune.TFLite("
                    "'dynamic_range'), and report the versions of both packages."
                )
            if rounded.is_constant and rounded.scales.size:
                arrays[number, index] = rounded.real_values().astype("float32")
    return litefile.replace_constants(plain, arrays)


def left_in_float(contents):
    """Lists the weights that stayed float32, for lack of a rounded kind.

    Args:
        contents: `kprune.litefile.Contents` of the file.

    Returns:
        List of strings, operator names, each once: those with float32 constants of
        two or more dimensions and 256 values or more.
    """
    names = [
        operator.name
        for operator in contents.operators
        for tensor in filter(None, operator.inputs)
        if tensor.is_constant and tensor.dtype == "float32" and len(tensor.shape) > 1
        if np.prod(tensor.shape) >= _FEWEST_VALUES
    ]
    return list(dict.fromkeys(names))
