"""Twins: models of one Keras made again in the other, layer for layer.

Nothing here knows which of the two Keras is the older one: both are modules with the
same `Input`, `Model`, `Sequential` and `Layer`.
"""

import collections
import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Call:
    """One use of a layer in the graph of a model of either Keras.

    Attributes:
        operation: The layer, model or operation.
        args: Its positional arguments, symbolic tensors among them.
        kwargs: Dict of its named arguments.
        output_tensors: List of symbolic tensors.
    """

    operation: object
    args: tuple
    kwargs: dict
    output_tensors: list

    def fill_in(self, values):
        """Returns the arguments with values in the place of symbolic tensors.

        Args:
            values: Dict from the id of a symbolic tensor to its value.

        Returns:
            Tuple of a tuple and a dict.
        """

        def filled(part):
            return values.get(id(part), part)

        return tf.nest.map_structure(filled, (tuple(self.args), dict(self.kwargs)))


@dataclasses.dataclass
class Twins:
    """Makes twins of models, and knows which layer is whose twin.

    Attributes:
        source: The module `keras` or `tf_keras`, whose models are given.
        target: The other one.
        calls_of: Function of a source model that lists its `Call`s in running order,
            nested models unopened.
        convert: Function of a source layer or operation that returns its twin: a
            target layer, or a function.
        adapt: Function `(operation, args, kwargs)` that returns the arguments of a call
            as the twin takes them.
        settle: Function of the outputs of a new graph, called before a model is made
            of it. Defaults to none.
        pairs: List of pairs, a source layer or model and its twin, the inner ones
            first.
    """

    source: object
    target: object
    calls_of: Callable
    convert: Callable
    adapt: Callable
    settle: Callable | None = None

    def __post_init__(self):
        self.pairs = []
        self._known = {}

    def of(self, operation):
        """Returns the twin of a layer, an operation or a model; one and the same."""
        if id(operation) not in self._known:
            is_model = isinstance(operation, self.source.Model)
            make = self._of_model if is_model else self.convert
            twin = self._known[id(operation)] = make(operation)
            self.pairs.append((operation, twin))
        return self._known[id(operation)]

    def _of_model(self, model):
        _check_names(model)
        name = as_name(model.name)
        if isinstance(model, self.source.Sequential):
            chain = self.target.Sequential(name=name)
            chain.add(self._input(model.inputs[0]))
            for layer in model.layers:
                chain.add(self.of(layer))
            return chain
        inputs = tf.nest.map_structure(self._input, model.input)
        values = by_id(model.inputs, inputs)
        for call in self.calls_of(model):
            found = self.call(call.operation, *call.fill_in(values))
            values |= by_id(call.output_tensors, found)
        outputs = tf.nest.map_structure(lambda tensor: values[id(tensor)], model.output)
        if self.settle:
            self.settle(outputs)
        return self.target.Model(inputs, outputs, name=name)

    def call(self, operation, args, kwargs):
        """Calls the twin of a layer."""
        args, kwargs = self.adapt(operation, args, kwargs)
        return self.of(operation)(*args, **kwargs)

    def _input(self, tensor):
        name = tensor._keras_history[0].name
        if not _is_dense(tensor):
            raise ValueError(
                f"The input {name!r} is sparse or ragged, which kprune.tfmot does not "
                "support. Build the model on a dense Input, with padding where lengths "
                "differ."
            )
        return self.target.Input(
            shape=tensor.shape[1:],
            batch_size=tensor.shape[0],
            dtype=tf.as_dtype(tensor.dtype).name,
            name=as_name(name),
        )

    def carry_state(self, ignore=()):
        """Gives all twins the weights and frozen flags of their originals.

        Args:
            ignore: Sequence of originals whose own state is not carried. Defaults to
                none.

        Returns:
            Dict from the id of a source variable to the variable of the twin.

        Raises:
            ValueError: If a layer and its twin don't hold the same variables.
        """
        variables, layers, ignored = {}, [], set(map(id, ignore))
        for layer, twin in reversed(self.pairs):  # the outer ones first
            if isinstance(twin, self.target.Model):
                twin.trainable = layer.trainable
            elif isinstance(twin, self.target.layers.Layer):
                layers.append((layer, twin))
        for layer, twin in layers:
            if id(layer) not in ignored:
                variables |= _carried(layer, twin)
        return variables


def _is_dense(tensor):
    """Tells whether a symbolic tensor of either Keras is neither sparse nor ragged."""
    if hasattr(tensor, "type_spec"):
        return isinstance(tensor.type_spec, tf.TensorSpec)
    return not (tensor.sparse or tensor.ragged)


def as_name(name):
    """Returns a name that both Keras allow: Keras 3 has no slashes in it.

    Example:
    >>> as_name("conv1/bn")
    'conv1_bn'
    """
    return name.replace("/", "_")


def _check_names(model):
    """Refuses layers whose names differ by a slash alone."""
    names = collections.defaultdict(list)
    for layer in model.layers:
        names[as_name(layer.name)].append(repr(layer.name))
    for name, same in names.items():
        if len(same) > 1:
            raise ValueError(
                f"The layers {' and '.join(same)} of the model {model.name!r} would "
                f"have one name, {name!r}, since Keras 3 allows no slashes in names. "
                "Rename one: `layer._name = ...`."
            )


def by_id(tensors, values):
    """Returns a dict from the ids of symbolic tensors to values, structures of both."""
    pairs = zip(tf.nest.flatten(tensors), tf.nest.flatten(values), strict=True)
    return {id(tensor): value for tensor, value in pairs}


def _carried(layer, twin):
    """Carries over what one layer holds; see `Twins.carry_state`."""
    parts, parts_of_twin = (dict(_parts_with_state(one)) for one in (layer, twin))
    shapes, shapes_of_twin = _shapes(parts), _shapes(parts_of_twin)
    if shapes != shapes_of_twin:
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) holds variables of "
            f"shapes {shapes}; made again as {type(twin).__module__}."
            f"{type(twin).__name__} it holds {shapes_of_twin}. Replace the layer, or "
            "pass a class of your own in `custom_objects` that holds the same."
        )
    variables = {}
    for path, part in parts.items():
        new = parts_of_twin[path]
        if new.trainable != part.trainable:
            new.trainable = part.trainable
        pairs = zip(_own_variables(part), _own_variables(new), strict=True)
        for value, variable in pairs:
            variable.assign(value.numpy())
            variables[id(value)] = variable
        if hasattr(new, "finalize_state"):  # some values are derived from weights
            new.finalize_state()
    return variables


def _parts_with_state(layer, path="", seen=()):
    """Yields a layer and its parts that hold variables, each with its path.

    Parts are named by the attributes that hold them, the same in both Keras.
    """
    if not path or _own_variables(layer):
        yield path, layer
    seen = {*seen, id(layer)}
    # How a model holds its layers differs.
    is_model = hasattr(layer, "layers")
    for name, value in ({"layers": layer.layers} if is_model else vars(layer)).items():
        held = value if isinstance(value, (list, tuple)) else [value]
        for place, part in enumerate(held):
            is_layer = hasattr(part, "_flatten_layers") and id(part) not in seen
            if is_layer and not name.startswith(_BOOKKEEPING):
                yield from _parts_with_state(part, f"{path}{name}.{place}/", seen)


# Attributes in which Keras and TensorFlow keep lists of what others hold.
_BOOKKEEPING = ("_layers", "_self_", "_inbound", "_outbound", "_obj_", "_tracker")


def _shapes(parts):
    """Returns the shapes of the variables of parts, by their paths."""
    return {
        path: [tuple(variable.shape) for variable in _own_variables(part)]
        for path, part in parts.items()
    }


def _own_variables(layer):
    """Lists the variables of a layer itself, without those of its parts."""
    if isinstance(layer, keras.Layer):
        return [*layer._trainable_variables, *layer._non_trainable_variables]
    if hasattr(layer, "lookup_table"):
        return []  # what it has learnt of words is in its config
    own = [*layer._trainable_weights, *layer._non_trainable_weights]
    return [variable for variable in own if isinstance(variable, tf.Variable)]
