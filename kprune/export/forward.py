"""The inference pass of a Keras model, with names and shapes made explicit.

Every format starts from a `Forward`: it knows what goes in and what comes out,
calls the model without changing it, and traces it into a `tf.Module` that holds
what the trace reads and nothing else.
"""

import dataclasses
import itertools
import keyword
import re

import keras
import numpy as np
import tensorflow as tf
from keras import tree
from keras.src.models import Functional

from kprune.export.base import ExportError

# In order of preference, for models that record the shapes of their inputs only.
_GUESSED_DTYPES = ("float32", "int32", "string")


class Forward:
    """Calls a Keras model for inference, by named inputs and outputs.

    Input names are those of the `keras.Input`s, keys of dicts, or argument
    names of a subclassed model's `call`; output names are keys of dicts, names
    of the layers that give them, or `output_0`, `output_1`. Characters that a
    signature cannot hold become underscores.

    Args:
        model: A built Keras model.

    Raises:
        ExportError: If the shapes of the inputs are unknown, or the model
            cannot be traced.

    Example:
    >>> inputs = keras.Input((3,), name="image")
    >>> outputs = keras.layers.Dense(2, name="logits")(inputs)
    >>> forward = Forward(keras.Model(inputs, outputs))
    >>> forward({"image": np.zeros((1, 3), "float32")})
    {'logits': array([[0., 0.]], dtype=float32)}
    """

    def __init__(self, model):
        self.model = model
        structure = _input_structure(model)
        self.fixed_batch = _fixed_batch(model, structure)
        self._find_arguments(structure)
        self.output_names = _output_names(model, self._serve().structured_outputs)

    def _find_arguments(self, structure):
        failures = []
        for dtype in _GUESSED_DTYPES if structure.dtypes is None else (None,):
            self.arguments = structure.specs(dtype, self.fixed_batch)
            self._traces = {}
            try:
                self._serve()
            except Exception as error:
                failures.append(error)
            else:
                return
        raise ExportError(
            f"Model {self.model.name!r} could not be traced for inputs of shape "
            f"{', '.join(str(spec.shape) for spec in self.inputs)}: {failures[0]}\nIts "
            "`call` has to work on symbolic tensors, for any batch size, and to take "
            "all inputs as one tensor, list or dict."
        ) from failures[0]

    @property
    def inputs(self):
        """The inputs' `tf.TensorSpec`s, in flat order."""
        return tree.flatten(self.arguments)

    @property
    def compute_dtype(self):
        """The least precise type that any layer computes in, as a string."""
        found = {layer.compute_dtype for layer in self.model._flatten_layers()}
        return next((d for d in ("bfloat16", "float16") if d in found), "float32")

    def __call__(self, arrays):
        """Runs the model as it is; its state, such as seeds, does not move.

        Args:
            arrays: Dict of arrays by input name.

        Returns:
            Dict of arrays by output name.
        """
        with keras.StatelessScope():
            outputs = self.model(*self._pack(arrays), training=False)
        return {name: np.asarray(x) for name, x in self._named(outputs).items()}

    def module(self, batch=None):
        """Traces the model into a module ready to be saved or converted.

        Args:
            batch: Int, the batch size to bind the trace to. Defaults to `None`,
                any (for a stateful model, the one it was built with).

        Returns:
            A `tf.Module` that tracks the variables and tables which the trace
            reads, each once, with a method `serve` that takes and returns what
            the model does, and the concrete function of the named signature.
        """
        module = tf.Module()
        module.state = list(self._serve(batch).graph.variables)
        module.serve = self._traces[batch, self.compute_dtype]
        module.tables = [table for _, table in self.tables(batch)]

        def serving_default(**arrays):
            return self._named(module.serve(*self._pack(arrays)))

        specs = {s.name: s for s in tree.flatten(self._specs(batch))}
        signature = tf.function(serving_default, autograph=False)
        return module, signature.get_concrete_function(**specs)

    def _serve(self, batch=None):
        """Returns the model's traced call; one trace for each batch and dtype."""
        key = batch, self.compute_dtype
        if key not in self._traces:
            self._traces[key] = tf.function(
                lambda *arguments: self.model(*arguments, training=False),
                input_signature=self._specs(batch),
                autograph=False,
            )
        return self._traces[key].get_concrete_function()

    def tables(self, batch=None):
        """Finds the lookup tables that a trace reads.

        Args:
            batch: See `module`.

        Returns:
            List of pairs, a layer and a table that is an attribute of it.
        """
        handles = {id(tensor) for tensor, _ in self._serve(batch).graph.captures}
        resources = (
            (layer, value)
            for layer in self.model._flatten_layers()
            for value in vars(layer).values()
            if isinstance(value, tf.saved_model.experimental.TrackableResource)
        )
        return [pair for pair in resources if id(pair[1].resource_handle) in handles]

    def _specs(self, batch):
        if batch is None:
            return self.arguments
        return tree.map_structure(lambda s: _with_batch(s, batch), self.arguments)

    def _pack(self, arrays):
        flat = [tf.convert_to_tensor(arrays[s.name], s.dtype) for s in self.inputs]
        return tree.pack_sequence_as(self.arguments, flat)

    def _named(self, outputs):
        present = [x for x in tree.flatten(outputs) if x is not None]
        return dict(zip(self.output_names, present, strict=True))


@dataclasses.dataclass
class _InputStructure:
    """Arguments of a model: their nesting, and each tensor's shape, name, type.

    `dtypes` is `None` where only shapes were recorded.
    """

    template: tuple
    shapes: list
    names: list
    dtypes: list | None = None

    def specs(self, dtype, batch):
        dtypes = self.dtypes or [dtype] * len(self.shapes)
        flat = [
            tf.TensorSpec((batch, *shape[1:]), dtype, name)
            for shape, dtype, name in zip(self.shapes, dtypes, self.names, strict=True)
        ]
        return tree.pack_sequence_as(self.template, flat)


def _input_structure(model):
    if isinstance(model, keras.Sequential) and model.inputs:
        return _declared(model.inputs[0])
    if isinstance(model, Functional):
        return _declared(model.input)
    recorded = getattr(model, "_build_shapes_dict", None)
    if not recorded:
        raise ExportError(
            f"The shapes of the inputs of {type(model).__name__} {model.name!r} are "
            "unknown: it is a subclassed model that was not called yet. Call it once "
            "on a batch of data, model(x), and export again."
        )
    return _recorded(recorded)


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
    return _InputStructure(template, shapes, names, [t.dtype for t in flat])


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
    return _InputStructure(template, shapes, _identifiers(names, "input"))


def _fixed_batch(model, structure):
    stateful = any(getattr(x, "stateful", False) for x in model._flatten_layers())
    return structure.shapes[0][0] if stateful else None


def _with_batch(spec, batch):
    return tf.TensorSpec((batch, *spec.shape[1:]), spec.dtype, spec.name)


def _output_names(model, outputs):
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
        if keyword.iskeyword(name):
            name += "_"
        candidates = itertools.chain(
            [name], (f"{name}_{i}" for i in itertools.count(1))
        )
        taken.append(next(c for c in candidates if c not in taken))
    return taken
