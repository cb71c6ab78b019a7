"""What the rules of several kinds of layers share."""

import inspect

from keras import saving, tree

from kprune.channels.numbers import Reason
from kprune.channels.value import Value


def channel_axis(layer, rank):
    """Returns the axis of a layer's channels in a tensor of a rank."""
    is_first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if is_first else rank - 1


def without_masks(inputs, tracer):
    """Returns the tensor that a layer works on, of which masks say what counts.

    Args:
        inputs: List of `Value`, the tensor and perhaps its mask. Channels of the mask
            stay.
        tracer: `Tracer`.
    """
    value, *masks = inputs
    keep_masks(masks, tracer)
    return value


def bound_arguments(layer, inputs, tracer):
    """Returns the arguments of the present call of a layer, those that are not `None`.

    Args:
        layer: The layer.
        inputs: List of `Value`, which stand for the tensors among them.
        tracer: `Tracer`.

    Returns:
        Dict from the name of an argument to it.
    """
    args, kwargs = tracer.call.arguments(inputs)
    bound = inspect.signature(type(layer).call).bind(layer, *args, **kwargs).arguments
    return {name: one for name, one in bound.items() if one is not None}


def keep_masks(arguments, tracer):
    """Lets the channels of whatever is left in a call's arguments stay."""
    for mask in tree.flatten(arguments):
        if isinstance(mask, Value):
            tracer.fix(mask.ids(), "mixed", "used as a mask")


def tie_lines(lines, tracer):
    """Lets the channels of each line go together, or stay if one place has none.

    Args:
        lines: Int array of rank 2.
        tracer: `Tracer`.
    """
    text = "meets places that can't be removed"
    tracer.channels.tie_lines(lines, Reason("partner", tracer.call.name, text))


def pin_each(value, axes, tracer):
    """Lets the channels of a tensor lie along one of some axes each.

    Args:
        value: `Value`.
        axes: Sequence of int. Of channels along several of them the last counts.
        tracer: `Tracer`.

    Returns:
        Tuple of a dict from axis to the list of arrays along it, and a tuple of the
        maps that lie along none of the axes.
    """
    rank = len(value.shape)
    pinned, through = {axis % rank: [] for axis in axes}, []
    for array in value.maps:
        own = [axis for axis in value.axes(array) if axis in pinned]
        if own:
            alone = Value(value.shape, (array,))
            pinned[own[-1]] += tracer.pin(alone, own[-1])
        else:
            through.append(array)
    return pinned, tuple(through)


def narrowed_part(layer, changes):
    """Returns the config of a layer within another, with some changes.

    Args:
        layer: The inner layer.
        changes: Dict, a part of its own config.

    Returns:
        Dict as of `keras.saving.serialize_keras_object`, without the shapes that the
        layer was built with.
    """
    whole = _without_shapes(saving.serialize_keras_object(layer))
    return {**whole, "config": {**whole["config"], **changes}}


def _without_shapes(config):
    if isinstance(config, dict):
        kept = {name: config[name] for name in config if name != "build_config"}
        return {name: _without_shapes(part) for name, part in kept.items()}
    if isinstance(config, list):
        return [_without_shapes(part) for part in config]
    return config


def is_narrowed(layer, narrowed):
    """Tells whether any weight of a layer gets smaller."""
    return any(narrowed.weight(v) != tuple(v.shape) for v in layer.variables)


def types_of(names):
    """Lists operations by their names, those that this Keras has.

    Args:
        names: Dict from module to a string of names.

    Example:
    >>> from keras.src.ops import nn
    >>> [kind.__name__ for kind in types_of({nn: "Relu Unheard"})]
    ['Relu']
    """
    pairs = ((m, name) for m, text in names.items() for name in text.split())
    return [getattr(m, name) for m, name in pairs if hasattr(m, name)]
