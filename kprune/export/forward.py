"""The inference pass of a Keras model, with names and shapes made explicit.

Every format starts from a `Forward`: it knows what goes in and what comes out,
calls the model without changing it, and traces it into a `tf.Module` that holds
what the trace reads and nothing else.
"""

import contextlib
import re

import keras
import numpy as np
import tensorflow as tf
from keras import tree
from keras.layers import InputLayer

from kprune.export.base import ExportError
from kprune.export.interface import input_structure, output_names

# In order of preference, for models that record the shapes of their inputs only.
_GUESSED_DTYPES = ("float32", "int32", "string")
_SCOPE = re.compile(r"[A-Za-z0-9_.\\/>-]*")


class Forward:
    """Calls a Keras model for inference, by named inputs and outputs.

    Input names are those of the `keras.Input`s, keys of dicts, or argument
    names of a subclassed model's `call`; output names are keys of dicts, names
    of the layers that give them, or `output_0`, `output_1`. Characters that a
    signature cannot hold become underscores.

    Args:
        model: A built Keras model.

    Attributes:
        kept: Dict of what formats found out about the model, by format. It lives as
            long as this export.

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
        self.kept = {}
        _check_layer_names(model)
        structure = input_structure(model)
        self.fixed_batch = _fixed_batch(model, structure)
        self._find_arguments(structure)
        self.output_names = output_names(model, self._trace().structured_outputs)

    def _find_arguments(self, structure):
        failures = []
        for dtype, batch, another in _attempts(structure, self.fixed_batch):
            self.arguments, self.fixed_batch = structure.specs(dtype, batch), batch
            self._traces = {}
            try:
                self._trace()
                self._trace(another)
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
    def outputs(self):
        """Dict of the outputs' `tf.TensorSpec`s by name."""
        return self.named(self._trace().structured_outputs)

    @property
    def compute_dtype(self):
        """The least precise type that any layer computes in, as a string."""
        found = {layer.compute_dtype for layer in self.model._flatten_layers()}
        return next((d for d in ("bfloat16", "float16") if d in found), "float32")

    def __call__(self, arrays, weights=None):
        """Runs the model; its state, such as seeds, does not move.

        Args:
            arrays: Dict of arrays by input name.
            weights: List of pairs, a variable of the model and the tensor to use in
                its place. Defaults to `None`, the model as it is.

        Returns:
            Dict of arrays by output name.
        """
        with keras.StatelessScope(state_mapping=weights):
            outputs = self.model(*self.pack(arrays), training=False)
        return {name: np.asarray(x) for name, x in self.named(outputs).items()}

    @contextlib.contextmanager
    def compiled(self):
        """Gives a function like this object that runs as `predict` does, compiled.

        Its calls move the state of a stateful model, which is put back on exit.
        """
        trace = self._trace()
        state = [(v, v.numpy()) for v in self.variables() if not v.trainable]

        def run(arrays):
            outputs = self.named(trace(*self.pack(arrays)))
            return {name: x.numpy() for name, x in outputs.items()}

        try:
            yield run
        finally:
            for variable, value in state:
                variable.assign(value)

    def pack(self, arrays):
        """Turns a dict of arrays by input name into the model's arguments."""
        flat = [tf.convert_to_tensor(arrays[s.name], s.dtype) for s in self.inputs]
        return tree.pack_sequence_as(self.arguments, flat)

    def named(self, outputs):
        """Turns what the model returns into a dict by output name."""
        present = [x for x in tree.flatten(outputs) if x is not None]
        return dict(zip(self.output_names, present, strict=True))

    def module(self, batch=None, handles=None):
        """Traces the model into a module ready to be saved or converted.

        Args:
            batch: Int, the batch size to bind the trace to. Defaults to `None`,
                any (for a stateful model, the one it was built with).
            handles: Dict of resource handles to be read in the place of those of
                the model's variables, by the `id` of the latter. Defaults to none.

        Returns:
            A `tf.Module` that tracks the variables and tables which the trace
            reads, each once, with a method `serve` that takes and returns what
            the model does, and the concrete function of the named signature.
        """
        handles = handles or {}
        trace = self._trace(batch)
        captured = [handles.get(id(tensor), tensor) for tensor in trace.captured_inputs]

        def serve(*arguments):
            # The trace itself: a second one would be written a second time.
            return trace._call_flat(tf.nest.flatten(arguments), captured)

        def serving_default(**arrays):
            return self.named(serve(*self.pack(arrays)))

        specs = self._specs(batch)
        module = tf.Module()
        module.state = [v for v in self.variables(batch) if id(v.handle) not in handles]
        module.tables = [table for _, table in self.tables(batch)]
        module.serve = tf.function(serve, input_signature=specs, autograph=False)
        named = {spec.name: spec for spec in tree.flatten(specs)}
        signature = tf.function(serving_default, autograph=False)
        return module, signature.get_concrete_function(**named)

    def variables(self, batch=None):
        """Lists the variables that a trace reads.

        Args:
            batch: See `module`.

        Returns:
            List of `tf.Variable`s, each once.
        """
        return list(self._trace(batch).graph.variables)

    def tables(self, batch=None):
        """Finds the lookup tables that a trace reads.

        Args:
            batch: See `module`.

        Returns:
            List of pairs, a layer and a table that is an attribute of it.
        """
        handles = {id(tensor) for tensor, _ in self._trace(batch).graph.captures}
        resources = (
            (layer, value)
            for layer in self.model._flatten_layers()
            for value in vars(layer).values()
            if isinstance(value, tf.saved_model.experimental.TrackableResource)
        )
        return [pair for pair in resources if id(pair[1].resource_handle) in handles]

    def _trace(self, batch=None):
        """Returns the model's traced call; one trace for each batch and dtype."""
        key = batch, self.compute_dtype
        if key not in self._traces:
            self._traces[key] = tf.function(
                lambda *arguments: self.model(*arguments, training=False),
                input_signature=self._specs(batch),
                autograph=False,
            ).get_concrete_function()
        return self._traces[key]

    def _specs(self, batch):
        if batch is None:
            return self.arguments
        return tree.map_structure(lambda s: _with_batch(s, batch), self.arguments)


def _attempts(structure, fixed_batch):
    """Yields the type, the batch size to try, and another one that has to do, too.

    A declared batch is opened if the model does not need it, as where it is reshaped
    to, which tracing for an open one does not show.
    """
    if structure.dtypes is None:
        yield from ((dtype, fixed_batch, None) for dtype in _GUESSED_DTYPES)
        return
    declared = structure.shapes[0][0]
    if declared != fixed_batch:
        yield None, None, declared + 1
    yield None, declared, None


def _check_layer_names(model):
    """Raises if TensorFlow takes a layer's name for no scope of a graph.

    Before anything is traced: a call that fails there leaves the scopes around it
    open, so that weights made later have strange paths. Inputs have no scope.
    """
    layers = (x for x in model._flatten_layers() if not isinstance(x, InputLayer))
    wrong = [x.name for x in layers if not _SCOPE.fullmatch(x.name)]
    if wrong:
        raise ExportError(
            f"Model {model.name!r} has layers named {', '.join(map(repr, wrong))}. "
            "TensorFlow traces names of letters a to z, digits, '_', '.', '-' and '>' "
            "alone. Rename them: layer.name = ... before exporting, or name=... "
            "where the model is built."
        )


def _fixed_batch(model, structure):
    stateful = any(getattr(x, "stateful", False) for x in model._flatten_layers())
    return structure.shapes[0][0] if stateful else None


def _with_batch(spec, batch):
    return tf.TensorSpec((batch, *spec.shape[1:]), spec.dtype, spec.name)
