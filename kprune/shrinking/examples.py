"""A few examples that a model is run on: those that were given, or random ones."""

import keras
import numpy as np
from keras import layers

from kprune.calibration import CalibrationData


def first_of(model, data):
    """Returns the inputs of a few examples, as the model takes them.

    Args:
        model: The model.
        data: What `CalibrationData` takes.
    """
    x, _, _ = next(iter(CalibrationData(data, model, labels=False)))
    rows = 2 if model.inputs[0].shape[0] is None else None
    return keras.tree.map_structure(lambda array: array[:rows], x)


def made_up(model, graph, open_size):
    """Returns random inputs of a model, of its input structure.

    Args:
        model: The model.
        graph: Its `LayerGraph`.
        open_size: Int, what is taken for sizes that are not known.
    """
    random = np.random.default_rng(0)
    numbers = dict(zip(map(id, model.inputs), graph.inputs, strict=True))
    is_chain = isinstance(model, keras.Sequential)

    def drawn(tensor):
        shape = (tensor.shape[0] or 2, *(n or open_size for n in tensor.shape[1:]))
        rows = _vocabulary(graph, numbers[id(tensor)])
        return _random(shape, tensor.dtype, rows, random)

    structure = model.inputs[0] if is_chain else model.input
    return keras.tree.map_structure(drawn, structure)


def _random(shape, dtype, vocabulary, random):
    if dtype == "string":
        return random.integers(0, 10, shape).astype(str)
    if dtype == "bool":
        return random.random(shape) < 0.5
    if vocabulary is not None:
        return random.integers(0, vocabulary, shape).astype(dtype)
    if "int" in dtype:
        highest = 255 if dtype == "uint8" else 1  # an image, or who knows
        return random.integers(0, highest + 1, shape).astype(dtype)
    return random.normal(size=shape).astype("float32").astype(dtype)


def _vocabulary(graph, number):
    """Returns the number of rows of the embedding that an input goes to, or `None`."""
    found, coming, consumers = [], [number], graph.consumers()
    while coming:
        for call in consumers[coming.pop()]:
            operation = call.operation
            if isinstance(operation, layers.Embedding):
                found.append(operation.input_dim)
            elif not getattr(operation, "weights", None):
                coming += call.outputs
    return min(found, default=None)
