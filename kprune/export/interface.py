"""Names, nesting, shapes and types of what goes into a Keras model and comes out."""

import dataclasses
import itertools
import keyword
import re

import keras
import tensorflow as tf
from keras import tree
from keras.src.models import Functional

from kprune.export.base import ExportError


@dataclasses.dataclass
class InputStructure:
    """Arguments of a model: their nesting, and each tensor's shape, name, type.

    `dtypes` is `None` where only shapes were recorded.
    """

    template: tuple
    shapes: list
    names: list
    dtypes: list | None = None

    def specs(self, dtype, batch):
        """Returns the arguments' `tf.TensorSpec`s, nested as the model takes them.

        Args:
            dtype: String, the type of inputs that recorded none.
            batch: Int or `None`, the batch size.
        """
        dtypes = self.dtypes or [dtype] * len(self.shapes)
        flat = [
            tf.TensorSpec((batch, *shape[1:]), dtype, name)
            for shape, dtype, name in zip(self.shapes, dtypes, self.names, strict=True)
        ]
        return tree.pack_sequence_as(self.template, flat)


def input_structure(model):
    """Finds out what a model takes.

    Args:
        model: A built Keras model.

    Returns:
        `InputStructure`.

    Raises:
        ExportError: If shapes are unknown, or an input is sparse or ragged.

    Example:
    >>> model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.ReLU()])
    >>> input_structure(model).shapes
    [(None, 3)]
    """
    if (tensors := declared_inputs(model)) is not None:
        return _declared(tensors)
    recorded = getattr(model, "_build_shapes_dict", None)
    if not recorded:
        raise ExportError(
            f"The shapes of the inputs of {type(model).__name__} {model.name!r} are "
            "unknown: it is a subclassed model that was not called yet. Call it once "
            "on a batch of data, model(x), and export again."
        )
    return _recorded(recorded)


def declared_inputs(model):
    """Returns the inputs that a model declares.

    Args:
        model: A Keras model.

    Returns:
        Keras tensors, nested as the model takes them, or `None` for a model that is
        no graph.
    """
    if isinstance(model, keras.Sequential) and model.inputs:
        return model.inputs[0]
    return model.input if isinstance(model, Functional) else None


def _declared(tensors):
    flat = tree.flatten(tensors)
    for tensor in flat:
        if getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False):
            raise ExportError(
                f"Input {tensor.name!r} is sparse or ragged. Only dense inputs are "
                "exported: build the model on a dense keras.Input of that shape."
            )
    names = _names(tensors, [_producer(tensor) for tensor in flat], "input")
    template = (tree.map_structure(lambda tensor: 0, tensors),)
    shapes = [tuple(tensor.shape) for tensor in flat]
    return InputStructure(template, shapes, names, [t.dtype for t in flat])


def _recorded(shapes_by_argument):
    template = tree.map_shape_structure(lambda s: 0, tuple(shapes_by_argument.values()))
    names, several = [], len(template) > 1
    for key, argument in zip(shapes_by_argument, template, strict=True):
        name = {"input_shape": "inputs"}.get(key, key.removesuffix("_shape"))
        for path, _ in tree.flatten_with_path(argument):
            keyed = any(isinstance(part, str) for part in path)
            parts = path if keyed and not several else (name, *path)
            names.append("_".join(map(str, parts)))
    shapes = []
    tree.map_shape_structure(shapes.append, tuple(shapes_by_argument.values()))
    return InputStructure(template, shapes, _identifiers(names, "input"))


def output_names(model, outputs):
    """Names what a model returns.

    Args:
        model: A Keras model.
        outputs: What a call of it gave, with any nesting.

    Returns:
        List of strings, in flat order and without those of outputs that are `None`.
    """
    flat = tree.flatten(outputs)
    declared = tree.flatten(getattr(model, "outputs", None) or [])
    if len(declared) == len(flat):
        producers = [_producer(tensor) for tensor in declared]
    else:
        producers = [f"output_{i}" for i in range(len(flat))]
    names = _names(outputs, producers, "output")
    return [name for name, x in zip(names, flat, strict=True) if x is not None]


def _producer(tensor):
    return tensor._keras_history.operation.name


def _names(structure, producers, prefix):
    """Names each leaf by the keys above it, or by its producer if there are none."""
    names = []
    paths = (path for path, _ in tree.flatten_with_path(structure))
    for path, producer in zip(paths, producers, strict=True):
        keyed = any(isinstance(part, str) for part in path)
        names.append("_".join(map(str, path)) if keyed else producer)
    return _identifiers(names, prefix)


def _identifiers(names, prefix):
    """Returns names that signatures take, no two the same."""
    taken = []
    for name in names:
        name = re.sub(r"[^0-9A-Za-z_]", "_", name)
        if not name[:1].isalpha():
            name = f"{prefix}_{name.lstrip('_')}"
        # Signatures take inputs as arguments of a method.
        if keyword.iskeyword(name) or name == "self":
            name += "_"
        candidates = itertools.chain(
            [name], (f"{name}_{i}" for i in itertools.count(1))
        )
        taken.append(next(c for c in candidates if c not in taken))
    return taken
