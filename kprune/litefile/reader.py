"""Reads TFLite files, which are FlatBuffers, into plain data."""

import functools
import json
import os

import numpy as np

from kprune.litefile.contents import Contents, Operator, Subgraph
from kprune.litefile.tensor import Tensor

IDENTIFIER = b"TFL3"
# In the order in which IF, WHILE and CALL_ONCE run them.
_SUBGRAPH_FIELDS = (
    "thenSubgraphIndex",
    "elseSubgraphIndex",
    "condSubgraphIndex",
    "bodySubgraphIndex",
    "initSubgraphIndex",
)


def read(source):
    """Reads a TFLite file.

    Args:
        source: Path of the file, or its content as bytes.

    Returns:
        The `Contents`.

    Raises:
        ValueError: If it is no TFLite file or is damaged.

    Example:
    >>> import keras
    >>> from kprune.export.conversion import convert
    >>> from kprune.export.forward import Forward
    >>> model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)])
    >>> content, _ = convert(Forward(model))
    >>> contents = read(content)
    >>> [operator.name for operator in contents.operators], list(contents.inputs)
    (['FULLY_CONNECTED'], ['x'])
    """
    return with_tables(source, _contents)


def read_metadata(source, name="kprune"):
    """Reads the JSON that `kprune.litefile.add_metadata` put into a TFLite file.

    Args:
        source: Path of the file, or its content as bytes.
        name: String, the entry's name. Defaults to `"kprune"`.

    Returns:
        The data, or `None` if the file has no such entry.

    Raises:
        ValueError: If it is no TFLite file or is damaged.

    Example:
    >>> read_metadata(b"RIFF....WAVE")
    Traceback (most recent call last):
    ...
    ValueError: The 12 bytes given are no TFLite file: ...
    """

    def entry(model):
        for metadata in model.metadata or ():
            if metadata.name == name.encode():
                return json.loads(bytes(model.buffers[metadata.buffer].data))
        return None

    return with_tables(source, entry)


def read_bytes(source):
    """Returns the bytes of what begins as a TFLite file does.

    Args:
        source: Path of the file, or its content as bytes.

    Returns:
        Bytes.

    Raises:
        ValueError: If it is no TFLite file.

    Example:
    >>> read_bytes(b"PK")
    Traceback (most recent call last):
    ...
    ValueError: The 2 bytes given are no TFLite file: ...
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        content = bytes(source)
    else:
        with open(source, "rb") as file:
            content = file.read()
    if content[4:8] != IDENTIFIER:
        raise ValueError(
            f"{_label(source)} are no TFLite file: expected {IDENTIFIER.decode()!r} at "
            f"byte 4, found {content[4:8]!r}. Pass the path of a .tflite file that "
            "kprune.export or the TFLite converter wrote, or its bytes."
        )
    return content


def with_tables(source, function):
    """Applies a function to the tables of a file, as TFLite's schema has them.

    Args:
        source: Path of the file, or its content as bytes.
        function: Function of a `ModelT` of the schema.

    Returns:
        What the function returns.

    Raises:
        ValueError: If it is no TFLite file, or whatever the function fails with.
    """
    from ai_edge_litert import schema_py_generated as schema

    content = read_bytes(source)
    try:
        return function(schema.ModelT.InitFromPackedBuf(content, 0))
    except Exception as error:  # the generated code fails in every way there is
        raise ValueError(
            f"{_label(source)} start as a TFLite file does, and it is damaged further "
            f"on ({type(error).__name__}: {error}). Copy or export it again."
        ) from error


def _label(source):
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"The {len(source):,} bytes given"
    path = os.fspath(source)
    return f"The {os.path.getsize(path):,} bytes of {path!r}"


def _contents(model):
    graphs = [
        tuple(_tensor(tensor, model.buffers) for tensor in graph.tensors or ())
        for graph in model.subgraphs
    ]
    subgraphs = tuple(
        Subgraph(
            tensors,
            tuple(_operator(op, tensors, model) for op in graph.operators or ()),
            _chosen(tensors, graph.inputs),
            _chosen(tensors, graph.outputs),
        )
        for graph, tensors in zip(model.subgraphs, graphs, strict=True)
    )
    inputs, outputs = (
        {entry.name.decode(): _at(graphs[0], entry.tensorIndex) for entry in entries}
        for entries in _signature(model)
    )
    return Contents(subgraphs, inputs, outputs)


def _signature(model):
    model.subgraphs[0]  # a file without a model is damaged
    for signature in model.signatureDefs or ():
        if not signature.subgraphIndex:
            return signature.inputs or (), signature.outputs or ()
    return (), ()


def _operator(operator, tensors, model):
    code = model.operatorCodes[operator.opcodeIndex]
    # Codes up to 126 stand in the older field, too, and in old files there only.
    name = _operator_names()[max(code.builtinCode, code.deprecatedBuiltinCode)]
    is_custom, options = name == "CUSTOM", operator.builtinOptions
    subgraphs = [getattr(options, f) for f in _SUBGRAPH_FIELDS if hasattr(options, f)]
    for index in subgraphs:
        _at(model.subgraphs, index)
    return Operator(
        code.customCode.decode() if is_custom else name,
        _chosen(tensors, operator.inputs),
        _chosen(tensors, operator.outputs),
        is_custom,
        tuple(subgraphs),
        options,
    )


def _chosen(tensors, indices):
    indices = () if indices is None else indices
    return tuple(None if index == -1 else _at(tensors, index) for index in indices)


def _at(items, index):
    if not 0 <= index < len(items):
        raise IndexError(f"index {index} of {len(items)}")
    return items[index]


def _tensor(tensor, buffers):
    quantization = tensor.quantization
    scales = getattr(quantization, "scale", None)
    zero_points = getattr(quantization, "zeroPoint", None)
    open_shape = (
        tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    )
    stored = _at(buffers, tensor.buffer).data
    is_computed = stored is None or not len(stored) or tensor.isVariable
    return Tensor(
        name=(tensor.name or b"").decode(),
        dtype=_type_names()[tensor.type],
        shape=() if open_shape is None else tuple(map(int, open_shape)),
        scales=np.zeros(0, "float32") if scales is None else scales,
        zero_points=np.zeros(0, "int64") if zero_points is None else zero_points,
        axis=getattr(quantization, "quantizedDimension", 0),
        stored=None if is_computed else stored,
        sparsity=tensor.sparsity,
        is_variable=bool(tensor.isVariable),
    )


@functools.cache
def _type_names():
    from ai_edge_litert.schema_py_generated import TensorType

    return {code: name.lower() for name, code in _constants(TensorType)}


@functools.cache
def _operator_names():
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return {code: name for name, code in _constants(BuiltinOperator)}


def _constants(enumeration):
    return [(k, v) for k, v in vars(enumeration).items() if isinstance(v, int)]
