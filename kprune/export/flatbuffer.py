"""What is inside a TFLite file: operators, tensors, encodings, metadata.

A TFLite file is a FlatBuffer. `read` gives its content as plain data, constants
decoded into NumPy arrays whatever their encoding; `add_metadata` and
`read_metadata` keep JSON in it that runtimes skip.
"""

import dataclasses
import functools
import json
import os
import struct

import numpy as np

from kprune.export.lite_tensor import Tensor

_IDENTIFIER = b"TFL3"


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """A node of a TFLite file.

    Args:
        name: String, such as `"CONV_2D"`.
        inputs: Tuple of `Tensor`s; `None` for an optional one that is not there.
        outputs: Tuple of `Tensor`s.
    """

    name: str
    inputs: tuple
    outputs: tuple


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """What `read` found in a TFLite file.

    Args:
        inputs: Dict of `Tensor`s by name in the signature.
        outputs: Dict likewise.
        operators: Tuple of `Operator`s in order of execution, those of control
            flow bodies included.
        tensors: Tuple of all `Tensor`s.
    """

    inputs: dict
    outputs: dict
    operators: tuple
    tensors: tuple

    @property
    def constants(self):
        """The tensors whose values the file holds."""
        return tuple(tensor for tensor in self.tensors if tensor.is_constant)

    @property
    def float_operators(self):
        """Names of operators that compute with float32, in order, each once."""
        computing = [
            operator.name
            for operator in self.operators
            if operator.name not in ("QUANTIZE", "DEQUANTIZE")
            and any(
                tensor is not None and tensor.dtype == "float32"
                for tensor in (*operator.inputs, *operator.outputs)
            )
        ]
        return list(dict.fromkeys(computing))

    def step(self, name):
        """Returns the step that an output is rounded to, 0.0 if to none."""
        tensor = self.outputs[name]
        for operator in self.operators:
            if operator.name == "DEQUANTIZE" and operator.outputs[0] is tensor:
                tensor = operator.inputs[0]
        return float(tensor.scales[0]) if tensor.scales.size else 0.0


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
    return _guarded(_contents, source)


def read_metadata(source, name="kprune"):
    """Reads the JSON that `add_metadata` put into a TFLite file.

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
    ValueError: The content given is no TFLite file: ...
    """

    def entry(model):
        for metadata in model.metadata or ():
            if metadata.name == name.encode():
                return json.loads(bytes(model.buffers[metadata.buffer].data))
        return None

    return _guarded(entry, source)


def add_metadata(content, data, name="kprune"):
    """Puts JSON into a TFLite file, where runtimes skip it.

    Args:
        content: Bytes, the file.
        data: What JSON can hold, such as a dict of strings and numbers.
        name: String, the entry's name. Defaults to `"kprune"`. An entry of that
            name is replaced.

    Returns:
        Bytes, the new file.

    Raises:
        ValueError: If it is no TFLite file or is damaged.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    text = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    buffer = schema.BufferT(data=np.frombuffer(text, "uint8"))

    def packed(model):
        entries = {entry.name: entry for entry in model.metadata or ()}
        if name.encode() in entries:
            model.buffers[entries[name.encode()].buffer] = buffer
        else:
            model.buffers.append(buffer)
            entry = schema.MetadataT(name.encode(), len(model.buffers) - 1)
            model.metadata = [*entries.values(), entry]
        builder = flatbuffers.Builder(len(content))
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    return _guarded(packed, content)


def _guarded(function, source):
    """Applies a function to a file's object tree; what breaks is a ValueError."""
    from ai_edge_litert import schema_py_generated as schema

    label, content = "The content given", source
    if not isinstance(source, bytes):
        label = f"The file {os.fspath(source)!r}"
        with open(source, "rb") as file:
            content = file.read()
    if content[4:8] != _IDENTIFIER:
        raise ValueError(
            f"{label} is no TFLite file: bytes 4 to 8 are {content[4:8]!r}, expected "
            f"{_IDENTIFIER!r}. Pass the path of a .tflite file, or its bytes."
        )
    try:
        return function(schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)))
    except (struct.error, LookupError, TypeError, ValueError, MemoryError) as error:
        raise ValueError(
            f"{label} starts as a TFLite file does and is damaged further on "
            f"({type(error).__name__}: {error}). Copy or export it again."
        ) from error


def _contents(model):
    graphs = [
        [_tensor(tensor, model.buffers) for tensor in graph.tensors or ()]
        for graph in model.subgraphs
    ]
    codes = [
        _operator_names()[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes or ()
    ]
    operators = [
        Operator(
            codes[operator.opcodeIndex],
            _chosen(tensors, operator.inputs),
            _chosen(tensors, operator.outputs),
        )
        for graph, tensors in zip(model.subgraphs, graphs, strict=True)
        for operator in graph.operators or ()
    ]
    inputs, outputs = (
        {entry.name.decode(): graphs[0][entry.tensorIndex] for entry in entries or ()}
        for entries in _signature(model)
    )
    tensors = tuple(tensor for tensors in graphs for tensor in tensors)
    return Contents(inputs, outputs, tuple(operators), tensors)


def _signature(model):
    for signature in model.signatureDefs or ():
        if not signature.subgraphIndex:
            return signature.inputs, signature.outputs
    return (), ()


def _chosen(tensors, indices):
    indices = [] if indices is None else indices
    return tuple(None if index < 0 else tensors[index] for index in indices)


def _tensor(tensor, buffers):
    quantization = tensor.quantization
    scales = getattr(quantization, "scale", None)
    zero_points = getattr(quantization, "zeroPoint", None)
    open_shape = (
        tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    )
    stored = buffers[tensor.buffer].data
    return Tensor(
        name=(tensor.name or b"").decode(),
        shape=() if open_shape is None else tuple(map(int, open_shape)),
        dtype=_type_names()[tensor.type],
        scales=np.zeros(0, "float32") if scales is None else scales,
        zero_points=np.zeros(0, "int64") if zero_points is None else zero_points,
        axis=getattr(quantization, "quantizedDimension", 0),
        stored=None if stored is None or tensor.isVariable else stored,
        sparsity=tensor.sparsity,
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
