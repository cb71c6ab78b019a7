"""How a tf_keras model is compiled, said in Keras 3, and how far its optimizer is."""

import inspect
import warnings

import keras
import tensorflow as tf
from keras import ops, saving

from kprune.copier import in_short
from kprune.tfmot.keras_2 import import_tf_keras


def compile_like(old, new, variables, custom_objects):
    """Compiles a Keras 3 model as a tf_keras model is compiled.

    Optimizers, losses and metrics are looked up by name in `custom_objects`, then among
    Keras' own. Where something is not found, the model is left uncompiled, with a
    warning. The optimizer goes on with its moments; where these don't come over whole,
    it begins anew, with a warning.

    Args:
        old: The tf_keras model. Nothing happens if it is not compiled.
        new: The Keras 3 model. It is changed.
        variables: Dict from the id of each variable of `old` to that of `new`.
        custom_objects: Dict from the names of classes and functions to those.
    """
    if not old._is_compiled:
        return
    try:
        with saving.custom_object_scope(custom_objects):
            new.compile(**_arguments(old))
        new.optimizer.build(new.trainable_variables)
    except Exception as error:  # any that a constructor thinks of
        warnings.warn(
            f"The model {old.name!r} is compiled with something that is not "
            f"translated: {in_short(error)} The new model is therefore not compiled: "
            "pass functions and classes of your own in `custom_objects`, by their "
            "names, or call `compile` on it.",
            stacklevel=3,
        )
        return
    inner = [getattr(m.optimizer, "inner_optimizer", m.optimizer) for m in (old, new)]
    try:
        _carry_moments(*inner, old, variables)
    except _NotCarriedError as error:
        warnings.warn(
            f"The optimizer {type(inner[0]).__name__} begins anew: {error}",
            stacklevel=3,
        )


class _NotCarriedError(Exception):
    """The reason why an optimizer can't go on where one of tf_keras was."""


def _carry_moments(old, new, model, variables):
    """Gives an optimizer all the state of one of tf_keras, or none.

    Both keep their moments in lists of the same names, an entry a variable, and what
    all variables share, such as the number of steps, in attributes of the same names.
    """
    if not old.iterations.numpy():
        return
    trained = model.trainable_variables
    _check_built_for(old, len(trained))
    pairs = []
    for name in vars(new).keys() - set(_LISTS_OF_ALL):
        found = getattr(new, name)
        theirs = getattr(old, name, getattr(old, name.lstrip("_"), None))
        if isinstance(found, keras.Variable) and isinstance(theirs, tf.Variable):
            pairs.append((found, theirs))
        elif _is_moments(found) and _has_entries(theirs, len(found)):
            for variable in trained:
                ours = new._get_variable_index(variables[id(variable)])
                place = old._index_dict[old._var_key(variable)]
                pairs.append((found[ours], theirs[place]))
    _check_all_carried(new, [variable for variable, _ in pairs])
    for variable, value in pairs:
        variable.assign(value.numpy())


def _check_built_for(old, count):
    if not hasattr(old, "_index_dict"):
        raise _NotCarriedError(
            "a legacy optimizer of tf_keras keeps its moments in another way."
        )
    if len(old._index_dict) != count:
        raise _NotCarriedError(
            f"it has moments for {len(old._index_dict)} weights, while {count} are to "
            "be trained now. A layer was frozen or unfrozen without a new `compile`."
        )


def _check_all_carried(new, carried):
    known = {id(variable) for variable in carried}
    missing = [repr(v.name) for v in new.variables if id(v) not in known]
    if missing:
        raise _NotCarriedError(
            f"Keras 3 keeps {', '.join(missing)} of it, which the optimizer of "
            "tf_keras has not under that name."
        )


_LISTS_OF_ALL = ("_variables", "_trainable_variables")


def _is_moments(value):
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    return is_list and all(isinstance(part, keras.Variable) for part in value)


def _has_entries(theirs, count):
    return isinstance(theirs, (list, tuple)) and len(theirs) == count


def _arguments(old):
    given = old._get_compile_args()
    return {
        "optimizer": _optimizer(old.optimizer),
        "loss": _each(given["loss"], "losses"),
        "metrics": _each(given["metrics"], "metrics"),
        "weighted_metrics": _each(given["weighted_metrics"], "metrics"),
        "loss_weights": given["loss_weights"],
        "run_eagerly": bool(old._run_eagerly),
        "steps_per_execution": int(old._steps_per_execution.numpy()),
        "jit_compile": "auto" if old._jit_compile is None else old._jit_compile,
    }


def _optimizer(old):
    if hasattr(old, "inner_optimizer"):
        old = old.inner_optimizer  # Keras 3 scales losses by itself
    config = old.get_config()
    if config.pop("decay", 0):
        raise ValueError(
            "a legacy optimizer's `decay` is a schedule in Keras 3, "
            "`keras.optimizers.schedules.InverseTimeDecay`."
        )
    for key in ("is_legacy_optimizer", "jit_compile"):
        config.pop(key, None)
    config["learning_rate"] = _rate(config["learning_rate"])
    return _made(keras.optimizers, type(old).__name__, config)


def _rate(rate):
    if not isinstance(rate, dict):
        return float(rate)
    schedules = keras.optimizers.schedules
    return _made(schedules, rate["class_name"], rate["config"])


def _each(given, kind):
    """Translates a structure of losses or of metrics."""
    return tf.nest.map_structure(lambda part: _translated(part, kind), given)


def _translated(part, kind):
    """Returns what does in Keras 3 what a loss or a metric does, as it is called there.

    Args:
        part: Object, function or name, as `compile` takes it, or `None`.
        kind: `"losses"` or `"metrics"`.
    """
    module, short = getattr(keras, kind), str(part).lower()
    if part is None or short in ("accuracy", "acc"):
        return part  # Keras 3, too, chooses the one that fits the outputs
    if short in ("crossentropy", "ce"):
        return keras.metrics.MeanMetricWrapper(crossentropy, name=part)
    if isinstance(part, str) or inspect.isfunction(part):
        return _named(part, kind)
    if type(part).__name__ == "MeanMetricWrapper":
        function = _found(module, part._fn.__name__)
        return module.MeanMetricWrapper(function, name=part.name, **part._fn_kwargs)
    config = part.get_config()
    config.pop("fn", None)
    if config.get("reduction") == "auto":
        config["reduction"] = "sum_over_batch_size"
    return _made(module, type(part).__name__, config)


def _named(part, kind):
    """Translates a function, or a name; tf_keras knows what that means to it."""
    name = getattr(part, "__name__", part)
    own = saving.get_registered_object(name)
    if own is not None:
        return own() if isinstance(own, type) else own
    with tf.Graph().as_default():  # names without numbers, as in a new process
        meant = getattr(import_tf_keras(), kind).get(part)
    if isinstance(meant, str):
        raise ValueError(f"tf_keras.{kind} has no {name}.")
    if not inspect.isfunction(meant):
        return _translated(meant, kind)
    module = getattr(keras, kind)
    function = getattr(module, meant.__name__, None)
    if function is None:
        module.get(name)  # raises an error now, not in `fit`
        return name
    if kind == "losses":
        return meant.__name__
    return module.MeanMetricWrapper(function, name=name)


@saving.register_keras_serializable("kprune", "keras_2_crossentropy")
def crossentropy(truth, found):
    """Computes the crossentropy that fits the shapes, as a metric of Keras 2 does.

    Keras 3 knows no metric of this name.

    Args:
        truth: Tensor of labels: of numbers of classes, of a vector of all classes, or
            for two classes of 0 and 1.
        found: Tensor of probabilities.

    Example:
    >>> crossentropy(keras.ops.array([[1]]), keras.ops.array([[0.5, 0.5]])).numpy()
    array([0.6931472], dtype=float32)
    """
    if found.shape[-1] == 1:
        truth = ops.reshape(truth, ops.shape(found))
        return keras.losses.binary_crossentropy(truth, found)
    if len(truth.shape) < len(found.shape) or truth.shape[-1] == 1:
        return keras.losses.sparse_categorical_crossentropy(truth, found)
    return keras.losses.categorical_crossentropy(truth, found)


def _made(module, name, config):
    found = _found(module, name)
    if config.get("name", "") is None:
        del config["name"]
    return found(**config)


def _found(module, name):
    """Returns the class or function of a name; the user's goes before Keras' own."""
    found = saving.get_registered_object(name) or getattr(module, name, None)
    if found is None:
        raise ValueError(f"{module.__name__} has no {name}.")
    return found
