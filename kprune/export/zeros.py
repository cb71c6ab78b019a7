"""TFLite files that leave zeros out, where such a file is right and smaller.

The encoder belongs to TensorFlow's converter and is marked experimental. What it
writes is often wrong, so that nothing of it is kept before it has been compared
with the plain file: the constants bit by bit, then the outputs. A few kinds are
never run at all, since their kernels read memory that is not theirs.
"""

import numpy as np

from kprune import litefile
from kprune.export import interpreter
from kprune.export.base import ExportError, quiet
from kprune.export.verify import verify

NOTHING_TO_ENCODE = "no kernel or matrix in it has 30 % zeros or more"
# The encoder leaves weights with fewer zeros alone, and those of other ranks.
_LEAST_SPARSITY = 0.3
_RANKS = (2, 4)
# Types of weights and activations for which LiteRT has a kernel that reads blocks.
_BLOCK_KERNELS = {("float32", "float32"), ("int8", "int8")}
# Sums in another order for floats; a step of the output or two for integers.
_TOLERANCES = {None: 1e-5, "float16": 1e-5, "int8": 0.02, "int16x8": 1e-3}


def encode_zeros(plain):
    """Runs the encoder of TensorFlow's converter, whatever comes out of it.

    Args:
        plain: Bytes, a TFLite file.

    Returns:
        Bytes, the file with sparse tensors.
    """
    from tensorflow.lite.python.convert import mlir_sparsify

    with quiet():
        return mlir_sparsify(plain)


def proven_encoding(plain, quantization, inputs):
    """Encodes the zeros of a file if the result is smaller and proven to be right.

    Args:
        plain: Bytes, a TFLite file.
        quantization: The mode it was converted in.
        inputs: Function of no arguments that returns a list of dicts of arrays by
            input name, to compare the files on.

    Returns:
        The new file's bytes and an empty string, or `None` and the reason.
    """
    if not any(map(_is_encodable, litefile.read(plain).constants)):
        return None, NOTHING_TO_ENCODE
    try:
        encoded = encode_zeros(plain)
        contents = litefile.read(encoded)
    except Exception as error:
        return None, f"the encoder fails with {error}"
    reason = (
        _missing_kernel(contents)
        or _too_large(encoded, plain)
        or _changed_weight(contents, litefile.read(plain))
        or _changed_answer(encoded, plain, _TOLERANCES[quantization], inputs())
    )
    return (None, reason) if reason else (encoded, "")


def _is_encodable(constant):
    if len(constant.shape) not in _RANKS or constant.dtype.startswith("int32"):
        return False
    values = constant.values()
    return values.size and np.mean(values == 0) >= _LEAST_SPARSITY


def _missing_kernel(contents):
    """Names what LiteRT would read in blocks without a kernel for the type.

    Seen with TensorFlow 2.21 and LiteRT 2.3: half-precision weights give NaN,
    int8 weights with float32 or int16 activations give wrong numbers, in silence.
    """
    for operator in contents.operators:
        sparse = [t for t in operator.inputs if t is not None and t.is_sparse]
        for weight in sparse if operator.name != "DENSIFY" else ():
            types = weight.dtype, operator.inputs[0].dtype
            if types not in _BLOCK_KERNELS:
                return (
                    f"LiteRT would run {operator.name} on blocks of {types[0]} "
                    f"weights and {types[1]} inputs, and give wrong numbers"
                )
    return None


def _too_large(encoded, plain):
    if len(encoded) < len(plain):
        return None
    return (
        f"with them the file would have {len(encoded):,} bytes, without {len(plain):,}"
    )


def _changed_weight(contents, plain):
    known = {_fingerprint(constant) for constant in plain.constants}
    changed = [
        constant.name
        for constant in contents.constants
        if constant.is_sparse and _fingerprint(constant) not in known
    ]
    return f"the encoder changed the values of {', '.join(changed)}" * bool(changed)


def _fingerprint(constant):
    values = constant.values()
    values[values == 0] = 0  # a masked negative weight is -0.0, and may become 0.0
    return constant.dtype, constant.shape, values.tobytes()


def _changed_answer(encoded, plain, tolerance, inputs):
    reference, _ = interpreter.load(plain)
    try:
        run, batch = interpreter.load(encoded)
    except Exception as error:
        return f"LiteRT does not load the result: {_first_line(error)}"
    inputs = [x for x in inputs if batch in (None, len(next(iter(x.values()))))]
    samples = [(arrays, reference(arrays)) for arrays in inputs]
    try:
        verify(run, batch, samples, tolerance, "the file with encoded zeros")
    except ExportError as error:
        return _first_line(error)
    return None


def _first_line(error):
    return str(error).splitlines()[0]
