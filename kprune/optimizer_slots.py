"""What an optimizer remembers of a weight, and how it forgets.

Keras names no such thing as a slot. It keeps lists, one entry a trained variable:
`_momentums` of Adam, accumulated gradients, moving averages.
"""

import keras
import numpy as np

from kprune.weight_access import as_array, write


def plain_optimizer(optimizer):
    """Returns the optimizer without the one that scales the loss around it."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def slots_of(optimizer, variable):
    """Returns the variables that an optimizer keeps beside a trained one.

    Args:
        optimizer: A Keras optimizer.
        variable: A Keras variable.

    Returns:
        Dict from a name to a Keras variable of the same shape; empty if the
        optimizer does not train the variable, or has not begun.

    Example:
    >>> optimizer, variable = keras.optimizers.Adam(), keras.Variable(np.ones((2, 3)))
    >>> optimizer.build([variable])
    >>> list(slots_of(optimizer, variable))
    ['_momentums', '_velocities']
    """
    return {
        name: slot
        for name, slot in entries_of(optimizer, variable).items()
        if slot.shape == variable.shape
    }


def entries_of(optimizer, variable):
    """Returns all that an optimizer keeps beside a trained variable, of any shape.

    Args:
        optimizer: A Keras optimizer.
        variable: A Keras variable.

    Returns:
        Dict from a name to a Keras variable; empty as for `slots_of`.
    """
    optimizer = plain_optimizer(optimizer)
    index = _index_of(optimizer, variable)
    if index is None:
        return {}
    count = len(optimizer._trainable_variables)
    lists = {
        name: part[index]
        for name, part in vars(optimizer).items()
        if isinstance(part, list) and len(part) == count and name not in _NO_SLOTS
    }
    return {n: slot for n, slot in lists.items() if isinstance(slot, keras.Variable)}


_NO_SLOTS = ("_trainable_variables", "_variables")


def average_of(variable, optimizer):
    """Returns the moving average that an optimizer keeps of a variable.

    Args:
        variable: A Keras variable.
        optimizer: A Keras optimizer or `None`.

    Returns:
        A Keras variable, or `None` if there is no such average (yet).
    """
    optimizer = plain_optimizer(optimizer)
    if not getattr(optimizer, "use_ema", False):
        return None
    index = _index_of(optimizer, variable)
    return None if index is None else optimizer._model_variables_moving_average[index]


def _index_of(optimizer, variable):
    """Returns the place of a variable in the lists of an optimizer, or `None`."""
    if optimizer is None or not optimizer.built:
        return None
    return optimizer._trainable_variables_indices.get(optimizer._var_key(variable))


def clean(optimizer, variable, where):
    """Lets an optimizer forget some elements of a weight.

    Args:
        optimizer: A Keras optimizer. What it keeps of them is set to what it begins
            with.
        variable: The Keras variable of the weight.
        where: Bool array of its shape, `True` for the elements to forget.
    """
    slots = slots_of(optimizer, variable)
    if not slots or not where.any():
        return
    initial = initial_slots(optimizer, len(variable.shape))
    for name, slot in slots.items():
        value = as_array(slot)
        # Muon chooses by the weight's name which slots it has; those are zeros.
        begin = as_array(initial[name]).reshape(-1)[0] if name in initial else 0
        write(slot, np.where(where, begin, value).astype(value.dtype))


def made_anew(optimizer):
    """Returns an optimizer of the same configuration that has not begun.

    Args:
        optimizer: A Keras optimizer.

    Raises:
        ValueError: If its configuration does not hold all that its class needs.
    """
    optimizer = plain_optimizer(optimizer)
    try:
        return type(optimizer).from_config(optimizer.get_config())
    except Exception as error:
        raise ValueError(
            f"What the optimizer {type(optimizer).__name__} begins with can't be "
            f"found out, since it can't be made from its config: {error}. Let its "
            "`get_config` return every argument of its constructor, and register "
            "classes of your own that it holds."
        ) from error


def initial_slots(optimizer, rank):
    """Returns the slots of an optimizer that has not taken a step yet.

    Args:
        optimizer: A Keras optimizer.
        rank: Int, of the one weight that it is to train.

    Returns:
        Dict as `slots_of` gives it, of variables of one element.

    Raises:
        ValueError: If the optimizer can't be made anew from its configuration.
    """
    fresh = made_anew(optimizer)
    variable = keras.Variable(np.zeros((1,) * rank, "float32"))
    fresh.build([variable])
    return slots_of(fresh, variable)


def restart(optimizer, iterations):
    """Lets an optimizer begin anew, at the learning rate that it has now.

    Args:
        optimizer: A Keras optimizer. Momentum and the like are set to what it begins
            with, moving averages to the present weights.
        iterations: Int, the step that it is to count from; a learning rate that
            follows a schedule goes back there.
    """
    optimizer = plain_optimizer(optimizer)
    if not optimizer.built:
        return
    fresh = made_anew(optimizer)
    fresh.build(optimizer._trainable_variables)
    for variable, begin in zip(optimizer.variables, fresh.variables, strict=True):
        variable.assign(begin)
    optimizer._iterations.assign(iterations)
    if optimizer.use_ema:
        averages = optimizer._model_variables_moving_average
        for average, variable in zip(
            averages, optimizer._trainable_variables, strict=True
        ):
            if average is not None:
                average.assign(variable)
