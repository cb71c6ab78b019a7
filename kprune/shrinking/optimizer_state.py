"""What an optimizer remembers, cut down along with the weights."""

import keras
import numpy as np

from kprune.channels.rules import rule_of
from kprune.inspection import own_weights
from kprune.optimizer_slots import entries_of, plain_optimizer
from kprune.shrinking.removal import Narrowed
from kprune.weight_access import as_array


def carry_over(source, traced, small, tracing, removed):
    """Lets the optimizer of a small model go on where that of the model stands.

    Momentums, velocities and the like lose what belongs to channels that are gone;
    moving averages are treated like the weights that they are of. The number of
    steps, the learning rate and the scale of the loss are taken as they are.

    Where a layer takes other weights to do the same with fewer channels, `c` times
    those that it had, gradients are `1 / c` of what they were, and what an optimizer
    remembers of them becomes what it would have been. Its steps are not: one as long
    as before moves a weight that was 1 by as much as one that is now `c`.

    Optimizers that look at weights as a whole go on with what is left: the size of a
    step follows the shape of a weight in `Muon`, and its mean square in `Adafactor`.
    Of `Adafactor`'s rows and columns of squared gradients those are made that have
    the products that they had.

    Args:
        source: The model that was trained, with masks or without. It is not changed.
        traced: The model whose channels were followed: `source`, or what it became
            without masks.
        small: The model without some of its channels. Its optimizer is changed.
        tracing: `Tracing` of `traced`.
        removed: Bool array, by channel: which of them are gone.

    Raises:
        ValueError: If one of the models is not compiled, or if the optimizer keeps
            something of which it is not known what it belongs to.
    """
    old, new = _optimizer(source), _optimizer(small)
    if not old.built:
        return
    cut = _Cut(source, traced, small, tracing, removed)
    with small.distribute_strategy.scope():
        new.build([cut.partner(variable) for variable in old._trainable_variables])
    owners = _owners(old)
    for ours, theirs in _pairs(old, new):
        owner, power = owners.get(id(ours), (None, 0))
        value = cut.array(owner, as_array(ours), power)
        if tuple(value.shape) == tuple(theirs.shape):
            theirs.assign(value)
        elif owner is None or not _is_factored(old, owner):
            raise ValueError(
                f"The optimizer {type(old).__name__} keeps {ours.path!r} of shape "
                f"{tuple(ours.shape)}, and the small model's has the shape "
                f"{tuple(theirs.shape)} there: what of it belongs to the removed "
                "channels is not known. Leave `keep_optimizer` out; the optimizer "
                "then begins anew."
            )
    _carry_factors(old, new, cut)


def _optimizer(model):
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(
            f"keep_optimizer=True, but the model {model.name!r} has no optimizer: it "
            "is not compiled, or was compiled in a way of its own. Call `compile` on "
            "it before, or leave `keep_optimizer` out."
        )
    return optimizer


class _Cut:
    """What is left of arrays that lie beside weights.

    Args: as for `carry_over`.
    """

    def __init__(self, source, traced, small, tracing, removed):
        self._narrowed = Narrowed(tracing, removed)
        self._tracing = tracing
        self._traced, self._partners = {}, {}
        lists = own_weights(source), traced.weights, small.weights
        for weight, of_traced, partner in zip(*lists, strict=True):
            self._traced[id(weight)] = of_traced
            self._partners[id(weight)] = partner

    def partner(self, weight):
        """Returns the weight of the small model that is made of one."""
        return self._partners[id(weight)]

    def array(self, weight, array, power=0):
        """Returns what is left of an array.

        Args:
            weight: The weight of `source` whose shape it has; if it has another one,
                or if this is `None`, it is returned as it is.
            array: Array.
            power: Int, how it changes if the weight is multiplied by a number; see
                `_power`.
        """
        if weight is None or tuple(array.shape) != tuple(weight.shape):
            return array
        traced = self._traced[id(weight)]
        array = self._narrowed.array(traced, array)
        known = self._tracing.weights.get(id(traced))
        rule = known and rule_of(known.layer)
        if not rule or not power:
            return array
        factor = rule.rescaled(known.layer, traced, np.ones_like(array), self._narrowed)
        return array * factor**power


def _parts(optimizer):
    """Lists the optimizers that an optimizer consists of, itself included."""
    inner = plain_optimizer(optimizer)
    parts = [optimizer] if inner is optimizer else [optimizer, inner]
    return parts + getattr(inner, "optimizers", [])


def _owners(optimizer):
    """Returns what belongs to which weight.

    Returns:
        Dict from the id of a variable of an optimizer to a tuple of the weight and of
        what `_power` says of it.
    """
    return {
        id(slot): (weight, _power(part, name))
        for part in _parts(optimizer)
        for weight in getattr(part, "_trainable_variables", ())
        for name, slot in entries_of(part, weight).items()
    }


# What is made of gradients, and of their squares.
_GRADIENTS = (
    *("momentums", "_momentums", "_m", "_u", "_linears"),
    *("_average_gradients", "_accumulated_gradients"),
)
_SQUARES = (
    *("_velocities", "_velocity_hats", "adam_velocities", "_v"),
    *("_accumulators", "_accumulated_grads"),
)
# Slots that are something else than their names say.
_OTHERS = {
    (keras.optimizers.ScheduleFreeAdamW, "_momentums"): 1,
    (keras.optimizers.RMSprop, "_momentums"): 0,  # of steps
}


def _power(optimizer, name):
    """Returns how a slot changes if its weight is multiplied by a number.

    Args:
        optimizer: The Keras optimizer.
        name: String, the name of its list of slots.

    Returns:
        Int, the power of the number that the slot is multiplied by: 1 for values of
        the weight, -1 for gradients, -2 for squares of them, 0 for all that stays.
    """
    others = {
        own: n for (kind, own), n in _OTHERS.items() if isinstance(optimizer, kind)
    }
    if name in others:
        return others[name]
    if name == "_model_variables_moving_average":
        return 1
    return -1 if name in _GRADIENTS else -2 if name in _SQUARES else 0


def _pairs(old, new):
    """Pairs the variables of two optimizers of one kind."""
    found = list(zip(old.variables, new.variables, strict=True))
    # Some keep a number of which Keras does not know (Nadam's product).
    for ours, theirs in zip(_parts(old), _parts(new), strict=True):
        known = {id(variable) for variable in ours.variables}
        found += [
            (value, vars(theirs)[name])
            for name, value in vars(ours).items()
            if isinstance(value, keras.Variable) and id(value) not in known
        ]
    return found


def _factored(optimizer):
    """Lists pairs of an `Adafactor` and a weight it has rows and columns of."""
    return [
        (part, weight)
        for part in _parts(optimizer)
        if isinstance(part, keras.optimizers.Adafactor)
        for weight in part._trainable_variables
        if len(weight.shape) > 1
    ]


def _is_factored(optimizer, weight):
    return any(weight is one for _, one in _factored(optimizer))


def _carry_factors(old, new, cut):
    """Gives `Adafactor` the rows and columns of what is left of their products."""
    for (ours, weight), (theirs, partner) in zip(
        _factored(old), _factored(new), strict=True
    ):
        rows, columns = _factors(ours, weight)
        rows, columns = as_array(rows), as_array(columns)
        mean = rows.mean(-1, keepdims=True, dtype="float64")
        scale = rows / (mean + (mean == 0))
        left = cut.array(weight, scale[..., None] * columns[..., None, :], power=-2)
        for variable, axis in zip(_factors(theirs, partner), (-1, -2), strict=True):
            variable.assign(left.mean(axis))


def _factors(optimizer, weight):
    entries = entries_of(optimizer, weight)
    return entries["_r"], entries["_c"]
