"""Copies of whole models in which other layers stand where theirs stood.

Nothing here knows of pruning. New layers come from `copier.py`, what they take over
is carried by `cloning.py`.
"""

import functools

import keras

from kprune import cloning
from kprune.copier import CannotCopyError, Copier


class Chain(list):
    """Layers, one behind the other, that stand where one layer stood."""

    def __call__(self, inputs):
        """Returns what the last layer makes of what the others made."""
        for layer in self:
            inputs = layer(inputs)
        return inputs


def copy_operation(operation):
    """Makes a Keras operation, as `x + y` leaves one in a graph, like another.

    Args:
        operation: A Keras operation that is no layer.

    Returns:
        An operation of the same class, arguments and name.
    """
    return type(operation).from_config(operation.get_config())


def unchanged(layer, parents, copier):
    """Makes the stand-in of a layer that stays as it is, for `rebuilt`.

    Args:
        layer: A Keras layer.
        parents: Not used.
        copier: The `Copier` of its model.

    Returns:
        Tuple of the new layer and a function without arguments.
    """
    new = copier.copy(layer)
    return new, lambda: cloning.copy_state(layer, new)


def shape_of(tensor):
    """Returns the shape of an input that stays as it is, for `rebuilt`."""
    return tensor.shape


def rebuilt(
    model,
    convert=unchanged,
    convert_operation=copy_operation,
    input_shape=shape_of,
):
    """Makes a model of the same graph, class, name and inputs from stand-ins.

    Nested models that are graphs, too, are made again in turn. Any other is a layer
    like others, and so is `model` itself if it is no graph. Where a call of the graph
    takes a variable of a layer, the new one takes that of the stand-in; variables that
    belong to no layer are the same in both.

    Args:
        model: A Keras model. It is not changed.
        convert: Function `(layer, parents, copier)` that returns the stand-in of a
            layer, or a `Chain` of them, and a function without arguments that, once
            all is built, carries the layer's state over. Called once a layer, however
            often the graph uses it. `parents` is the tuple of the models around the
            layer within `model`, `None` for `model` itself; `copier` is the `Copier`
            of the model. Defaults to a copy.
        convert_operation: Function `(operation)` that returns what is called in the
            place of a Keras operation that is no layer. Defaults to a copy.
        input_shape: Function `(tensor)` that returns the shape, with the batch, of
            an input of the model or of one within it. Defaults to its own.

    Returns:
        A model with the state of the stand-ins and the compile arguments of `model`.

    Raises:
        CannotCopyError: If a layer can't be made again from its config, or if a call
            takes a variable of a layer that its stand-in does not have.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    >>> twin = rebuilt(model)
    >>> [layer.name for layer in twin.layers], twin.layers[0] is model.layers[0]
    (['d'], False)
    """
    copier, finishing = Copier(model), []

    def stand_in(layer, parents):
        new, carry_over = convert(layer, parents, copier)
        finishing.append(carry_over)
        return new

    with model.distribute_strategy.scope():
        if cloning.is_graph(model):
            graphs = _Graphs(model, stand_in, convert_operation, input_shape)
            new = graphs.rebuild(model)
        else:
            new = stand_in(model, None)
        for carry_over in finishing:
            carry_over()
        cloning.copy_compilation(model, new)
    return new


class _Graphs:
    """Graphs in the making: a model and those within it; see `rebuilt`."""

    def __init__(self, model, convert, convert_operation, input_shape):
        self._model = model
        self._convert = convert
        self._convert_operation = convert_operation
        self._input_shape = input_shape
        self._stand_ins = {}

    def rebuild(self, model, parents=()):
        """Makes the graph of a model from stand-ins."""

        def stand_in(operation):
            return self._stand_in(operation, parents)

        if isinstance(model, keras.Sequential):
            new = type(model)(name=model.name)
            for tensor in getattr(model, "inputs", ()):
                new.add(self._input(tensor))
            for layer in model.layers:
                converted = stand_in(layer)
                for part in converted if isinstance(converted, Chain) else [converted]:
                    new.add(part)
        else:
            # A plain view of the same graph: the public clone_model would otherwise
            # carry over a compile config that may not be serialisable.
            view = keras.Model(model.input, model.output)
            inputs = keras.tree.map_structure(self._input, model.input)
            clone = keras.models.clone_model(
                view,
                input_tensors=inputs,
                clone_function=stand_in,
                call_function=self._call,
            )
            new = type(model)(clone.input, clone.output, name=model.name)
        if not model.trainable:
            new.trainable = False
        return new

    def _stand_in(self, operation, parents):
        if id(operation) not in self._stand_ins:
            if not isinstance(operation, keras.Layer):
                new = self._convert_operation(operation)
            elif cloning.is_graph(operation):
                new = self.rebuild(operation, (*parents, operation))
            else:
                new = self._convert(operation, parents)
            self._stand_ins[id(operation)] = new
        return self._stand_ins[id(operation)]

    def _call(self, operation, *args, **kwargs):
        """Calls what stands in for an operation, with the new model's variables."""
        args, kwargs = keras.tree.map_structure(self._counterpart, (args, kwargs))
        return operation(*args, **kwargs)

    def _counterpart(self, argument):
        """Returns the variable in the place of one of the model; all else as it is."""
        is_variable = isinstance(argument, keras.Variable)
        if not is_variable or id(argument) not in self._owners:
            return argument
        layer, parents = self._owners[id(argument)]
        new = self._stand_in(layer, parents)
        if not isinstance(new, Chain):
            cloning.build_like(layer, new)  # the graph may come to it later
        ours, theirs = _variables(new), _variables(layer)
        if [v.name for v in ours] != [v.name for v in theirs]:
            raise CannotCopyError(
                f"{argument.path!r} of the layer {layer.name!r} goes straight into "
                f"another call of the model {self._model.name!r}, and what stands in "
                f"the layer's place holds {[v.name for v in ours]} instead of "
                f"{[v.name for v in theirs]}."
            )
        return next(v for v, old in zip(ours, theirs, strict=True) if old is argument)

    @functools.cached_property
    def _owners(self):
        """Dict from the id of each variable to its layer and the models around it."""
        return {
            id(variable): (layer, parents)
            for layer, parents in _layers_within(self._model)
            for variable in _variables(layer)
        }

    def _input(self, tensor):
        layer = tensor._keras_history.operation
        return keras.Input(
            batch_shape=self._input_shape(tensor),
            dtype=tensor.dtype,
            sparse=tensor.sparse,
            ragged=tensor.ragged,
            name=layer.name,
            optional=layer.optional,
        )


def _layers_within(model, parents=()):
    """Yields the layers of a graph and of those within it, with the models around."""
    for layer in model.layers:
        if cloning.is_graph(layer):
            yield from _layers_within(layer, (*parents, layer))
        else:
            yield layer, parents


def _variables(layer):
    """Lists the variables of a layer, without what a wrapper holds beside them."""
    if isinstance(layer, Chain):
        return [variable for part in layer for variable in _variables(part)]
    while isinstance(layer, keras.layers.Wrapper):
        layer = layer.layer
    return layer.variables
