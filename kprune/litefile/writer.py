"""Writes TFLite files anew, with something added or replaced."""

import json

import numpy as np

from kprune.litefile.reader import IDENTIFIER, with_tables


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
    from ai_edge_litert import schema_py_generated as schema

    text = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()

    def extended(model):
        entries = {entry.name: entry for entry in model.metadata or ()}
        if name.encode() in entries:
            model.buffers[entries[name.encode()].buffer] = _buffer(text)
        else:
            model.buffers.append(_buffer(text))
            entry = schema.MetadataT(name.encode(), len(model.buffers) - 1)
            model.metadata = [*entries.values(), entry]
        return packed(model)

    return with_tables(content, extended)


def replace_constants(content, arrays):
    """Gives constants of a TFLite file other values.

    Args:
        content: Bytes, the file.
        arrays: Dict from pairs of int, subgraph and tensor, to arrays of the
            tensors' types and shapes.

    Returns:
        Bytes, the new file.

    Raises:
        ValueError: If it is no TFLite file or is damaged.
    """

    def replaced(model):
        for (graph, index), array in arrays.items():
            # Tensors may share a buffer: the others keep the old one.
            model.buffers.append(_buffer(array.tobytes()))
            model.subgraphs[graph].tensors[index].buffer = len(model.buffers) - 1
        return packed(model)

    return with_tables(content, replaced)


def _buffer(content):
    from ai_edge_litert.schema_py_generated import BufferT

    return BufferT(data=np.frombuffer(content, "uint8"))


def packed(model):
    """Returns the bytes of a file with the tables given, a `ModelT` of the schema."""
    import flatbuffers

    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())
