"""Copies of Keras models that share nothing with the original.

Nothing here knows of pruning. `rebuild` makes a second model of the same graph
from stand-ins for the layers (see `copier.py` for those), `copy_state` carries weights
and tables over, `copy_compilation` the compile arguments.
"""

import inspect
import tempfile
import warnings

import keras
from keras import saving
from keras.src.models import Functional

from kprune.copier import CannotCopyError, in_short, without_unknown_arguments


def is_graph(model):
    """Tells whether a model is fully described by its graph of layers.

    Args:
        model: A layer or model.

    Returns:
        Bool, `True` for Sequential and Functional models and for subclasses of
        them that keep their constructors and configs. Other subclasses are code
        that only their own class can repeat.

    Example:
    >>> is_graph(keras.Sequential([keras.layers.Dense(2)]))
    True
    """
    if isinstance(model, keras.Sequential):
        return _inherits(model, keras.Sequential, "__init__", "get_config")
    if not isinstance(model, Functional):
        return False
    arguments = inspect.getfullargspec(type(model).__init__).args
    expected = inspect.getfullargspec(Functional.__init__).args
    return _inherits(model, Functional, "get_config") and arguments == expected


def _inherits(model, base, *methods):
    return all(getattr(type(model), m) is getattr(base, m) for m in methods)


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


def _shape_of(tensor):
    return tensor.shape


def rebuild(model, convert, convert_operation=copy_operation, shape_of=_shape_of):
    """Makes a model of the same graph, class, name and inputs from stand-ins.

    Args:
        model: A model for which `is_graph` holds. It is not changed.
        convert: Function `(layer, parents)` that returns the stand-in for a
            layer, or a `Chain` of them; `parents` is the tuple of models around it
            within `model`. Called once a layer, however often the graph uses it.
            Nested models of the same kind are rebuilt in turn and not passed to it.
        convert_operation: Function `(operation)` that returns what is called in the
            place of a Keras operation that is no layer. Defaults to a copy.
        shape_of: Function `(tensor)` that returns the shape of an input, with the
            batch, of the model or of one within it. Defaults to its own.

    Returns:
        An uncompiled model; weights are those of the stand-ins.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    >>> from kprune.copier import Copier
    >>> copier = Copier(model)
    >>> twin = rebuild(model, lambda layer, parents: copier.copy(layer))
    >>> [layer.name for layer in twin.layers], twin.layers[0] is model.layers[0]
    (['d'], False)
    """
    by_type = convert, convert_operation, shape_of
    return _rebuild(model, by_type, parents=(), stand_ins={})


def _rebuild(model, by_type, parents, stand_ins):
    convert, convert_operation, shape_of = by_type

    def stand_in(operation):
        if id(operation) not in stand_ins:
            if not isinstance(operation, keras.Layer):
                new = convert_operation(operation)
            elif is_graph(operation):
                inner = (*parents, operation)
                new = _rebuild(operation, by_type, inner, stand_ins)
            else:
                new = convert(operation, parents)
            stand_ins[id(operation)] = new
        return stand_ins[id(operation)]

    if isinstance(model, keras.Sequential):
        new = type(model)(name=model.name)
        for tensor in getattr(model, "inputs", ()):
            new.add(_same_input(tensor, shape_of))
        for layer in model.layers:
            converted = stand_in(layer)
            for part in converted if isinstance(converted, Chain) else [converted]:
                new.add(part)
    else:
        # A plain view of the same graph: the public clone_model would otherwise
        # carry over a compile config that may not be serialisable.
        view = keras.Model(model.input, model.output)
        inputs = keras.tree.map_structure(
            lambda tensor: _same_input(tensor, shape_of), model.input
        )
        clone = keras.models.clone_model(
            view, input_tensors=inputs, clone_function=stand_in
        )
        new = type(model)(clone.input, clone.output, name=model.name)
    if not model.trainable:
        new.trainable = False
    return new


def _same_input(tensor, shape_of):
    layer = tensor._keras_history.operation
    return keras.Input(
        batch_shape=shape_of(tensor),
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        ragged=tensor.ragged,
        name=layer.name,
        optional=layer.optional,
    )


def build_like(source, target):
    """Builds a copied layer or subclassed model as the original was built.

    Args:
        source: A built layer or model.
        target: Its copy. It is changed.

    Raises:
        CannotCopyError: If the way it was built is not on record.
    """
    if all(part.built for part in target._flatten_layers()):
        return
    try:
        target.build_from_config(source.get_build_config())
        target.built = True
    except Exception as error:
        raise CannotCopyError(
            f"{source.name!r} ({type(source).__name__}) can't be built again as the "
            f"original was: {in_short(error)}"
        ) from error


def _itself(variable):
    return variable


def copy_state(source, target, ignore=(), value_of=_itself):
    """Carries weights, seeds, frozen flags, lookup tables and names over.

    Args:
        source: A layer or model.
        target: One of the same structure, built. It is changed.
        ignore: Sequence of sublayers of `source` that `target` does not have.
        value_of: Function that returns what is assigned for a variable of `source`.
            Defaults to the variable.

    Raises:
        CannotCopyError: If the two do not hold the same variables.
    """
    ignore = [part for layer in ignore for part in layer._flatten_layers()]
    ignored = {id(v) for layer in ignore for v in layer.variables}
    ours = target.variables
    theirs = [v for v in source.variables if id(v) not in ignored]
    values = [value_of(v) for v in theirs]
    if [tuple(v.shape) for v in ours] != [tuple(v.shape) for v in values]:
        raise CannotCopyError(
            f"{source.name!r} ({type(source).__name__}) made again from its config "
            f"holds {len(ours)} variables of shapes {[v.shape for v in ours]}; the "
            f"original holds {len(theirs)} of shapes {[v.shape for v in values]}."
        )
    for new, value in zip(ours, values, strict=True):
        new.assign(value)
    theirs_parts = [p for p in source._flatten_layers() if p not in ignore]
    parts = list(zip(target._flatten_layers(), theirs_parts, strict=True))
    for new, old in parts:
        new.name = old.name  # sublayers that a constructor made have automatic ones
        if new.trainable != old.trainable:
            new.trainable = old.trainable
    _copy_tables(parts)
    for new, old in zip(ours, theirs, strict=True):
        if new.trainable != old.trainable:
            new.trainable = old.trainable


def _copy_tables(parts):
    """Carries over what preprocessing layers learn, in the ways files do."""
    for new, old in parts:
        if hasattr(old, "finalize_state"):  # some values are derived from weights
            values = {}
            old.save_own_variables(values)
            new.load_own_variables(values)
    with tempfile.TemporaryDirectory() as folder:
        for new, old in parts:
            if hasattr(old, "load_assets"):
                old.save_assets(folder)
                new.load_assets(folder)


def copy_compilation(source, target):
    """Compiles `target` as `source` was compiled, with a fresh optimizer state.

    Args:
        source: A model. Nothing happens if it is not compiled, or if its class
            compiles in its own way (then `compile` is the user's to call).
        target: A model of the same inputs and outputs. It is changed.
    """
    if not source.compiled or type(source).compile is not keras.Model.compile:
        return
    try:
        arguments = keras.tree.map_structure(_fresh, source._compile_config.config)
    except Exception as error:
        warnings.warn(
            f"The model {source.name!r} is compiled with an object that can't be made "
            f"again from its config: {in_short(error)} The new model is therefore "
            "not compiled; call `compile` on it.",
            stacklevel=2,
        )
        return
    target.compile(**arguments)


def _fresh(part):
    """Copies what holds variables; strings, functions and losses are stateless."""
    if isinstance(part, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        with saving.custom_object_scope({type(part).__name__: type(part)}):
            config = without_unknown_arguments(type(part), part.get_config())
            return type(part).from_config(config)
    return part
