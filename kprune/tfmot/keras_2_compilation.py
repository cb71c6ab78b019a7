"""How a tf_keras model is compiled, said in Keras 3, and how far its optimizer is."""

import inspect
import warnings

import keras
import tensorflow as tf

from kprune.copier import in_short


def compile_like(old, new, variables, custom_objects):
    """Compiles a Keras 3 model as a tf_keras model is compiled.

    Optimizers, losses and metrics are Keras' own classes of the same names; others are
    looked up in `custom_objects`. Where something is not found, the model is left
    uncompiled, with a warning. The optimizer goes on with its moments.

    Args:
        old: The tf_keras model. Nothing happens if it is not compiled.
        new: The Keras 3 model. It is changed.
        variables: Dict from the id of each variable of `old` to that of `new`.
        custom_objects: Dict from the names of classes and functions to those.
    """
    if not old._is_compiled:
        return
    try:
        with keras.saving.custom_object_scope(custom_objects):
            new.compile(**_arguments(old))
        new.optimizer.build(new.trainable_variables)
    except Exception as error:  # any that a constructor thinks of
        warnings.warn(
            f"The model {old.name!r} is compiled with something that is not "
            f"translated: {in_short(error)} The new model is therefore not compiled; "
            "call `compile` on it.",
            stacklevel=3,
        )
        return
    inner = [getattr(m.optimizer, "inner_optimizer", m.optimizer) for m in (old, new)]
    if int(inner[0].iterations) and not _carry_moments(*inner, old, variables):
        warnings.warn(
            f"The moments of the optimizer {type(inner[0]).__name__} are kept in "
            "another way in Keras 3. It begins anew.",
            stacklevel=3,
        )


def _carry_moments(old, new, model, variables):
    """Gives an optimizer the state of one of tf_keras; returns whether it could.

    Both keep their moments in lists of the same names, an entry a variable.
    """
    trained = model.trainable_variables
    moments = {name: found for name, found in vars(new).items() if _is_moments(found)}
    moments = {k: v for k, v in moments.items() if k not in _LISTS_OF_ALL and v}
    theirs = {name: getattr(old, name, ()) for name in moments}
    lengths = {len(found) for found in [*moments.values(), *theirs.values()]}
    if not hasattr(old, "_index_dict") or lengths - {len(trained)}:
        return False
    for variable in trained:
        place = old._index_dict[old._var_key(variable)]
        ours = new._get_variable_index(variables[id(variable)])
        for name, found in moments.items():
            found[ours].assign(theirs[name][place].numpy())
    new.iterations.assign(old.iterations.numpy())
    return True


_LISTS_OF_ALL = ("_variables", "_trainable_variables")


def _is_moments(value):
    is_list = isinstance(value, (list, tuple))
    return is_list and all(isinstance(part, keras.Variable) for part in value)


def _arguments(old):
    given = old._get_compile_args()
    return {
        "optimizer": _optimizer(old.optimizer),
        "loss": _each(given["loss"], keras.losses),
        "metrics": _each(given["metrics"], keras.metrics),
        "weighted_metrics": _each(given["weighted_metrics"], keras.metrics),
        "loss_weights": given["loss_weights"],
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


def _each(given, module):
    """Translates a structure of losses or of metrics."""
    return tf.nest.map_structure(lambda part: _translated(part, module), given)


def _translated(part, module):
    if type(part).__name__ == "MeanMetricWrapper":
        part = part._fn
    if inspect.isfunction(part):
        part = part.__name__
    if part is None or part in _SHORT:
        return part
    if isinstance(part, str):
        module.get(part)  # raises an error now, not in `fit`
        return part
    config = part.get_config()
    config.pop("fn", None)
    if config.get("reduction") == "auto":
        config["reduction"] = "sum_over_batch_size"
    return _made(module, type(part).__name__, config)


# Names that stand for a metric which fits the outputs.
_SHORT = ("accuracy", "acc", "crossentropy", "ce")


def _made(module, name, config):
    found = getattr(module, name, None) or keras.saving.get_registered_object(name)
    if found is None:
        raise ValueError(f"{module.__name__} has no {name}.")
    if config.get("name", "") is None:
        del config["name"]
    return found(**config)
