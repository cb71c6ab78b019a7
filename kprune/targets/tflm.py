"""Checks a .tflite file against what TensorFlow Lite Micro can run."""

import collections
import dataclasses

from kprune.litefile import read, read_bytes
from kprune.targets.arena import ArenaPlan, plan_arena
from kprune.targets.findings import Finding, table

# What MicroMutableOpResolver (tensorflow/lite/micro/micro_mutable_op_resolver.h in
# tensorflow/tflite-micro) has an Add function for.
_BUILTIN_OPERATORS = """
ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL
BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION
CONV_2D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV
DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR
FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL
HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
LOG_SOFTMAX LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAX_POOL_2D MAXIMUM MEAN
MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE
REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR
RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX
SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE
SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV
UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
BUILTIN_OPERATORS = frozenset(_BUILTIN_OPERATORS.split())
CUSTOM_OPERATORS = frozenset(
    ("CIRCULAR_BUFFER", "TFLM_DECODE", "TFLite_Detection_PostProcess", "ethos-u")
)
# Operators whose kernels want weights of the type of the activations, with the place
# of the weights among the inputs.
_WEIGHTS_AT = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "BATCH_MATMUL": 1,
    "SVDF": 1,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 2,  # those at 1 are optional
}
# The types that kernels take for the output and the first inputs, where files that
# kprune.export writes may hold others. CAST reports success without them.
_CASTABLE = "bool int8 int16 int32 uint32 float32"
_NUMBERS = "int8 int16 int32 float32"
_GATHER = ("int8 float32", "int8 float32", "int32")
_ARG_MAX = ("int32", "int8 float32")
_COMPARED = ("bool", "bool int8 int32 int64 float32")
_REALS = ("int8 int16 float32",)
_TYPES = {
    "CAST": (_CASTABLE, _CASTABLE),
    "GATHER": _GATHER,
    "GATHER_ND": _GATHER,
    "EMBEDDING_LOOKUP": ("int8 float32", "int32", "int8 float32"),
    "ARG_MAX": _ARG_MAX,
    "ARG_MIN": _ARG_MAX,
    "ADD": (_NUMBERS,),
    "SUB": (_NUMBERS,),
    "MUL": (_NUMBERS,),
    "PAD": (_NUMBERS,),
    "SLICE": (f"bool {_NUMBERS}",),
    "STRIDED_SLICE": (f"bool {_NUMBERS}",),
    "SUM": _REALS,
    "REDUCE_MAX": _REALS,
    "ABS": _REALS,
    "NEG": _REALS,
    "FLOOR_DIV": ("float32",),
    "FLOOR_MOD": ("float32",),
    "EQUAL": _COMPARED,
    "NOT_EQUAL": _COMPARED,
    "LESS": _COMPARED,
    "LESS_EQUAL": _COMPARED,
    "GREATER": _COMPARED,
    "GREATER_EQUAL": _COMPARED,
}
_TAKE_INT4 = frozenset(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"))
_UNSUPPORTED_TYPES = frozenset(
    ("float16", "bfloat16", "float64", "complex64", "complex128", "string", "variant")
    + ("uint4", "int2")
)
_INT8 = "write it as full int8, or as plain float32"


@dataclasses.dataclass(frozen=True)
class TflmCheck:
    """Whether TensorFlow Lite Micro runs a file, and with how much memory.

    True if nothing stands in the way; printed, a table.

    Attributes:
        findings: Tuple of `Finding`.
        operators: Dict from operator name to how often it occurs, for the
            resolver of the program.
        bytes: Int, the size of the file, which lies in flash.
        arena: The `ArenaPlan` of the activations.
        notes: Tuple of strings, what to know.
    """

    findings: tuple
    operators: dict
    bytes: int
    arena: ArenaPlan
    notes: tuple

    @property
    def arena_bytes(self):
        """Int, what the activations take in the arena."""
        return self.arena.planned_bytes

    def __bool__(self):
        return not self.findings

    def __str__(self):
        verdict = "runs" if self else "does not run"
        operators = ", ".join(f"{name} x{n}" for name, n in self.operators.items())
        title = (
            f"the file of {self.bytes:,} bytes {verdict} in TensorFlow Lite Micro\n"
            f"activations: {self.arena_bytes:,} bytes in the arena, at least "
            f"{self.arena.peak_bytes:,} alive at once\n"
            f"operators: {operators}"
        )
        rows = [(f.where, f.problem, f.remedy) for f in self.findings]
        return table(title, ("where", "in the way", "change"), rows, self.notes)


def check_tflm(path_or_bytes):
    """Checks a .tflite file for microcontrollers and plans its arena.

    Looked for are operators that TensorFlow Lite Micro has no kernel for, sparse
    tensors, which it would read as dense ones, float16 and other types that it
    does not know, types that kernels such as that of CAST leave out, weights of
    another type than the activations (dynamic range quantization) and shapes that
    are open beyond the batch.

    Args:
        path_or_bytes: String, path or bytes: a .tflite file.

    Returns:
        A `TflmCheck`, true if nothing stands in the way.

    Raises:
        ValueError: If this is no TFLite file, or a damaged one.

    Example:
    >>> import keras, kprune, tempfile
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = kprune.export(model, folder, "tflite")
    ...     check = check_tflm(report.records[0].path)
    >>> bool(check), check.operators, check.arena_bytes
    (True, {'FULLY_CONNECTED': 1}, 32)

    Reference:
        `MicroMutableOpResolver` and the kernels of tensorflow/tflite-micro.
    """
    content = read_bytes(path_or_bytes)
    contents = read(content)
    counts = collections.Counter(operator.name for operator in contents.operators)
    return TflmCheck(
        tuple(dict.fromkeys(_findings(contents))),
        dict(sorted(counts.items())),
        len(content),
        plan_arena(contents.subgraphs),
        tuple(_notes(contents.subgraphs[0])),
    )


def _findings(contents):
    for operator in contents.operators:
        yield from _of_operator(operator)
        yield from _of_types(operator)
        yield from _of_weights(operator)
    for tensor in contents.tensors:
        yield from _of_tensor(tensor)


def _of_operator(operator):
    known = CUSTOM_OPERATORS if operator.is_custom else BUILTIN_OPERATORS
    if operator.name in known:
        return
    if operator.name == "DENSIFY":
        yield Finding(
            "DENSIFY",
            "expands sparse weights; TensorFlow Lite Micro has no such operator",
            "kprune.TFLite(sparse=False)",
        )
    elif operator.is_custom:
        yield Finding(
            operator.name,
            "a custom operator that TensorFlow Lite Micro does not bring",
            "build the model of other layers, or register a kernel of your own",
        )
    else:
        yield Finding(
            operator.name,
            "TensorFlow Lite Micro has no kernel for this operator",
            "build the model of other layers",
        )


def _of_types(operator):
    tensors = operator.outputs[:1] + operator.inputs
    for tensor, types in zip(tensors, _TYPES.get(operator.name, ()), strict=False):
        if tensor is not None and tensor.dtype not in types.split():
            yield Finding(
                operator.name,
                f"its kernel takes no {tensor.dtype}, as in {tensor.name!r}; expected "
                f"{types.replace(' ', ', ')}",
                "one of these as dtype of keras.Input, or in keras.ops.cast",
            )


def _of_weights(operator):
    place = _WEIGHTS_AT.get(operator.name)
    if place is None:
        return
    # The activations are the last input of a transposed convolution.
    data = 2 if operator.name == "TRANSPOSE_CONV" else 0
    inputs = dict(enumerate(operator.inputs))
    weights, activations = inputs.get(place), inputs.get(data)
    if weights is None or activations is None:
        yield Finding(
            operator.name,
            "an input that its kernel reads is left out",
            "the file is damaged: export it again",
        )
    elif activations.dtype == "float32" and weights.dtype in ("int8", "int4", "uint8"):
        yield Finding(
            operator.name,
            f"float activations and {weights.dtype} weights in {weights.name!r} "
            "(dynamic range quantization)",
            _INT8,
        )
    elif weights.dtype == "int4" and operator.name not in _TAKE_INT4:
        yield Finding(
            operator.name,
            f"its kernel takes no int4 weights, as in {weights.name!r}",
            "8-bit weights here",
        )


def _of_tensor(tensor):
    if tensor.is_sparse:
        yield Finding(
            tensor.name,
            "stored as a sparse tensor; its bytes would be read as dense weights",
            "kprune.TFLite(sparse=False)",
        )
    if tensor.dtype in _UNSUPPORTED_TYPES:
        yield Finding(
            tensor.name, f"is of type {tensor.dtype}, which has no kernels", _INT8
        )
    if any(tensor.open_axes) and not tensor.is_constant:
        axes = ", ".join(map(str, filter(None, tensor.open_axes)))
        yield Finding(
            tensor.name,
            f"its shape is open in dimension {axes}; memory is planned once, for "
            "fixed shapes",
            "give keras.Input all sizes",
        )


def _notes(main):
    if any(0 in tensor.open_axes for tensor in main.inputs):
        yield (
            "the batch size is open in the file; TensorFlow Lite Micro takes the 1 "
            "that stands for it, one row a call"
        )
    yield (
        "the arena also holds the interpreter's own structures, scratch buffers of "
        "kernels and variables: read interpreter.arena_used_bytes() on the device"
    )
    yield "zeros make nothing faster here: the kernels are dense"
