"""What a copy of a Keras model takes over from the original.

Nothing here knows of pruning. `build_like` builds a copied layer or model, `copy_state`
carries weights and tables over, `copy_compilation` the compile arguments.
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
    with_assets = [pair for pair in parts if hasattr(pair[1], "load_assets")]
    if not with_assets:  # a folder for each layer would take longer than its copy
        return
    with tempfile.TemporaryDirectory() as folder:
        for new, old in with_assets:
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
