"""Operators and tensors of a .tflite file, as far as targets ask for them."""

import dataclasses
import os

_IDENTIFIER = b"TFL3"
# Bits of one element; strings, resources and variants have no size of their own.
_BITS = {
    "FLOAT32": 32,
    "FLOAT16": 16,
    "BFLOAT16": 16,
    "INT32": 32,
    "UINT32": 32,
    "UINT8": 8,
    "INT8": 8,
    "BOOL": 8,
    "INT16": 16,
    "UINT16": 16,
    "INT64": 64,
    "UINT64": 64,
    "FLOAT64": 64,
    "COMPLEX64": 64,
    "COMPLEX128": 128,
    "INT4": 4,
    "UINT4": 4,
    "INT2": 2,
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a subgraph.

    Attributes:
        name: String.
        type: String, such as `"INT8"`.
        shape: Tuple of int; 1 stands where a dimension is open.
        open_axes: Tuple of int, the dimensions that are open.
        is_constant: Bool, whether the file holds its values.
        is_variable: Bool, whether it keeps its value from call to call.
        is_sparse: Bool, whether its values are stored in a sparse encoding.
    """

    name: str
    type: str
    shape: tuple
    open_axes: tuple = ()
    is_constant: bool = False
    is_variable: bool = False
    is_sparse: bool = False

    @property
    def bytes(self):
        """Int, the size of its values, stored densely."""
        bits = _BITS.get(self.type, 0)
        for size in self.shape:
            bits *= size
        return (bits + 7) // 8


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator of a subgraph.

    Attributes:
        name: String, such as `"CONV_2D"`; of a custom operator, its own name.
        is_custom: Bool.
        inputs: Tuple of int, indices of tensors; -1 for one left out.
        outputs: Tuple of int.
        subgraphs: Tuple of int, the subgraphs that it runs.
        options: The table of options in TFLite's schema, or `None`.
    """

    name: str
    is_custom: bool
    inputs: tuple
    outputs: tuple
    subgraphs: tuple = ()
    options: object = None


@dataclasses.dataclass(frozen=True)
class Subgraph:
    """One subgraph; that with index 0 is the model.

    Attributes:
        tensors: List of `Tensor`.
        operators: List of `Operator`, in running order.
        inputs: Tuple of int, indices of tensors.
        outputs: Tuple of int.
    """

    tensors: list
    operators: list
    inputs: tuple
    outputs: tuple


def read_bytes(path_or_bytes, purpose):
    """Returns the content of a .tflite file.

    Args:
        path_or_bytes: String, path or bytes.
        purpose: String, the function called, for errors.

    Returns:
        Bytes.

    Raises:
        ValueError: If they do not begin as a TFLite file does.

    Example:
    >>> read_bytes(b"PK", "check_tflm")
    Traceback (most recent call last):
        ...
    ValueError: check_tflm got 2 bytes that are no TFLite file: expected 'TFL3' at ...
    """
    if isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        content, origin = bytes(path_or_bytes), "bytes"
    else:
        path = os.fspath(path_or_bytes)
        with open(path, "rb") as file:
            content, origin = file.read(), f"bytes, read from {path!r},"
    if content[4:8] != _IDENTIFIER:
        raise ValueError(
            f"{purpose} got {len(content)} {origin} that are no TFLite file: expected "
            "'TFL3' at byte 4. Pass a file that kprune.export or the TFLite converter "
            "wrote, or its content."
        )
    return content


def read_subgraphs(content):
    """Reads the subgraphs of a TFLite file.

    Args:
        content: Bytes, see `read_bytes`.

    Returns:
        List of `Subgraph`.

    Raises:
        ValueError: If the file is damaged.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        reader = _Reader(schema, model)
        subgraphs = [reader.subgraph(graph) for graph in model.subgraphs]
        _check_indices(subgraphs)
        return subgraphs
    except Exception as error:
        raise ValueError(
            f"The TFLite file of {len(content)} bytes is damaged: {error!r}. Export it "
            "again."
        ) from error


def _check_indices(subgraphs):
    """Raises an `IndexError` for a tensor or subgraph that is not in the file."""
    subgraphs[0]
    for graph in subgraphs:
        for operator in graph.operators:
            for index in (*operator.inputs, *operator.outputs):
                if index != -1:  # an input left out
                    _at(graph.tensors, index)
            for index in operator.subgraphs:
                _at(subgraphs, index)
        for index in (*graph.inputs, *graph.outputs):
            _at(graph.tensors, index)


def _at(items, index):
    if not 0 <= index < len(items):
        raise IndexError(f"index {index} of {len(items)}")


class _Reader:
    def __init__(self, schema, model):
        self._schema, self._model = schema, model
        self._types = _names(schema.TensorType)
        self._operators = _names(schema.BuiltinOperator)

    def subgraph(self, graph):
        return Subgraph(
            [self._tensor(tensor) for tensor in graph.tensors],
            [self._operator(op) for op in graph.operators or ()],
            _ints(graph.inputs),
            _ints(graph.outputs),
        )

    def _tensor(self, tensor):
        signature = _ints(tensor.shapeSignature)
        buffer = self._model.buffers[tensor.buffer]
        return Tensor(
            tensor.name.decode(),
            self._types[tensor.type],
            _ints(tensor.shape),
            tuple(axis for axis, size in enumerate(signature) if size < 0),
            # Buffers of more than 2 GB stand behind the flatbuffer, at an offset.
            bool(buffer.data is not None and len(buffer.data)) or buffer.offset > 1,
            bool(tensor.isVariable),
            tensor.sparsity is not None,
        )

    def _operator(self, operator):
        code = self._model.operatorCodes[operator.opcodeIndex]
        # Codes up to 126 stand in the older field, too, and in old files there only.
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        is_custom = number == self._schema.BuiltinOperator.CUSTOM
        name = code.customCode.decode() if is_custom else self._operators[number]
        subgraphs = tuple(
            getattr(operator.builtinOptions, field)
            for field in _SUBGRAPH_FIELDS
            if hasattr(operator.builtinOptions, field)
        )
        return Operator(
            name,
            is_custom,
            _ints(operator.inputs),
            _ints(operator.outputs),
            subgraphs,
            operator.builtinOptions,
        )


# In the order in which IF, WHILE and CALL_ONCE run them.
_SUBGRAPH_FIELDS = (
    "thenSubgraphIndex",
    "elseSubgraphIndex",
    "condSubgraphIndex",
    "bodySubgraphIndex",
    "initSubgraphIndex",
)


def _names(enumeration):
    return {v: name for name, v in vars(enumeration).items() if isinstance(v, int)}


def _ints(values):
    return () if values is None else tuple(int(value) for value in values)
