"""`why_not`: which channels of a model can't be removed, and for which reasons."""

import keras

from kprune.channels.numbers import Reason
from kprune.channels.rules.base import missing_rule
from kprune.channels.tracing import trace
from kprune.delegation import DelegatingWrapper
from kprune.prunable import find_weights
from kprune.shrinking.groups import families_of, protect
from kprune.shrinking.plain import check_model, without_masks
from kprune.shrinking.report import Stuck, WhyNot
from kprune.variants import other_kernels


def why_not(model, *, only=None, skip=None, exact=True):
    """Says which channels `kprune.shrink` can't remove from a model, and why.

    Args:
        model: A built Functional or Sequential model, pruned or not. It is not
            changed.
        only: As for `kprune.shrink`.
        skip: Likewise.
        exact: Likewise.

    Returns:
        `WhyNot`; printed, it is a table.

    Raises:
        TypeError: If `model` is no Keras 3 model, or a subclassed one.
        ValueError: If it is not built.

    Example:
    >>> import keras, kprune
    >>> body = [keras.Input((4,)), keras.layers.Dense(8, name="hidden")]
    >>> model = keras.Sequential([*body, keras.layers.Dense(3, name="classes")])
    >>> for record in kprune.why_not(model).records:
    ...     print(record.layers, record.stuck, *record.reasons)
    ['classes'] 3 outputs: the model returns them
    """
    check_model(model)
    model, only, skip = without_masks(model, only, skip)
    tracing = trace(model, exact)
    protect(model, tracing, only, skip)
    return WhyNot(model.name, stuck_in(tracing, families_of(tracing)))


def stuck_in(tracing, families):
    """Lists what can't be removed.

    Args:
        tracing: `Tracing`.
        families: List of `Family`, those of the tracing.

    Returns:
        List of `Stuck`: families, then layers nobody knows the channels of.
    """
    found = [
        Stuck(f.layers, len(f.axes[0].units), _number_stuck(f), f.reasons)
        for f in families
        if len(f.stuck)
    ]
    return found + list(_unknown(tracing))


def _number_stuck(family):
    free = set(family.groups.tolist())
    return sum(group not in free for group in family.axes[0].units.tolist())


def _unknown(tracing):
    """Yields layers with kernels of which no channel is known."""
    for call in reversed(tracing.graph.first_calls().values()):
        layer = call.operation
        if isinstance(layer, keras.Layer) and _has_unknown_kernels(layer, tracing):
            text = missing_rule(layer)
            if isinstance(layer, DelegatingWrapper):
                text += ": shrink before it is wrapped"
            yield Stuck([call.name], 0, 0, [Reason("unknown", call.name, text)])


def _has_unknown_kernels(layer, tracing):
    kernels = [weight.variable for weight in find_weights(layer) if not weight.reason]
    if not kernels:
        return other_kernels(layer) is not None
    return not any(id(variable) in tracing.weights for variable in kernels)
