"""Dense layers whose sums an equation describes."""

import dataclasses

from keras import layers

from kprune.channels.rules.activation import activate
from kprune.channels.rules.base import ChannelRule
from kprune.channels.rules.common import pin_each
from kprune.channels.value import Value
from kprune.registry import register


@dataclasses.dataclass(frozen=True)
class Equation:
    """The letters of the axes in an `EinsumDense`.

    Attributes:
        given: String, a letter for each axis of the input, and a digit for each that
            the layer's equation leaves out.
        kernel: String, a letter for each axis of the kernel.
        result: String, a letter or digit for each axis of the output.
        bias: String, a letter for each axis of the bias, `.` for those of size 1.
    """

    given: str
    kernel: str
    result: str
    bias: str


def read_equation(layer, rank):
    """Reads the equation of an `EinsumDense`.

    Args:
        layer: The layer.
        rank: Int, of its input.

    Returns:
        `Equation`.

    Example:
    >>> layer = layers.EinsumDense("...x,xyz->...yz", (64, 2), bias_axes="y")
    >>> read_equation(layer, rank=3)
    Equation(given='01x', kernel='xyz', result='01yz', bias='y.')
    """
    terms, result = layer.equation.replace(" ", "").split("->")
    given, kernel = terms.split(",")
    digits = "0123456789"[: rank - len(given.replace("...", ""))]
    given, result = given.replace("...", digits), result.replace("...", digits)
    wanted = layer.bias_axes or ""
    first = min((result.index(one) for one in wanted), default=len(result))
    bias = "".join(one if one in wanted else "." for one in result[first:])
    return Equation(given, kernel, result, bias)


def project(layer, value, tracer, made=None):
    """Follows channels through the weights of an `EinsumDense`.

    Args:
        layer: The layer, on its own or within another.
        value: `Value` that goes in.
        tracer: `Tracer`.
        made: Dict from a letter to the list of arrays of channels along the axis
            that it stands for. Defaults to new ones for all letters of the kernel
            that the input doesn't have.

    Returns:
        Tuple of a dict from each letter of the weights to its list of arrays, and of
        the input's other maps.
    """
    equation = read_equation(layer, len(value.shape))
    axes = {
        one: axis
        for axis, one in enumerate(equation.given)
        if one in equation.kernel + equation.bias
    }
    pinned, through = pin_each(value, axes.values(), tracer)
    ids = {one: pinned[axis] for one, axis in axes.items()} | (made or {})
    for one, size in zip(equation.kernel, layer._kernel.shape, strict=True):
        if one not in ids:
            ids[one] = tracer.new(size)
    held = _hold(layer._kernel, equation.kernel, equation.result, ids, tracer)
    ids |= {one: held.along(axis) for axis, one in enumerate(equation.kernel)}
    _hold(layer.bias, equation.bias, equation.result, ids, tracer)
    return ids, through


def _hold(variable, letters, result, ids, tracer):
    by_axis = {axis: ids[one] for axis, one in enumerate(letters) if one != "."}
    makes = tuple(axis for axis in by_axis if letters[axis] in result)
    return tracer.hold(variable, by_axis, makes=makes)


@register("channel_rules", layers.EinsumDense)
class EinsumDenseRule(ChannelRule):
    """Sums over the letters that the result doesn't have."""

    def trace(self, layer, inputs, tracer):
        """Makes one channel a place of each letter that the input doesn't have."""
        (value,) = inputs
        equation = read_equation(layer, len(value.shape))
        if len(set(equation.given)) < len(equation.given):
            return None  # takes a diagonal
        ids, through = project(layer, value, tracer)
        through = _moved(through, equation, tracer)
        at = {a: ids[one] for a, one in enumerate(equation.result) if one in ids}
        made = Value.of_axes(tracer.shape(), at)
        silent = not through or (value.silent and layer.bias is None)
        for one in (equation.result[axis] for axis in at if at[axis]):
            # A bias without this letter stays; so does a sum without it.
            has_bias = layer.bias is None or one in equation.bias
            silent &= has_bias and (value.silent or one in equation.kernel)
        # Sizes that the layer's arguments name are the same at all of its calls.
        tracer.same_at_all_calls(layer, [Value(made.shape, through)])
        made = Value(made.shape, made.maps + through, silent)
        return [activate(made, layer.activation, tracer)]

    def config(self, layer, narrowed):
        """Changes the sizes that are given."""
        equation = read_equation(layer, layer.input_spec.ndim)
        sizes = dict(zip(equation.kernel, narrowed.weight(layer._kernel), strict=True))
        if layer.bias is not None:
            bias = narrowed.weight(layer.bias)
            sizes |= dict(zip(equation.bias, bias, strict=True))
        given = layer.partial_output_shape
        is_left = layer.equation.strip().startswith("...")
        first = len(equation.result) - len(given) if is_left else 1
        new = [
            size if size is None else _size(layer, sizes, equation, axis, narrowed)
            for axis, size in enumerate(given, first)
        ]
        return {"output_shape": tuple(new)}


def _size(layer, sizes, equation, axis, narrowed):
    letter = equation.result[axis]
    return sizes[letter] if letter in sizes else narrowed.output_of(layer)[axis]


def _moved(maps, equation, tracer):
    """Brings maps of the input's axes into the order of the output's."""
    rest = [a for a, one in enumerate(equation.given) if one not in equation.result]
    order = [equation.given.index(o) for o in equation.result if o in equation.given]
    found = []
    for array in maps:
        if any(array.shape[axis] > 1 for axis in rest):
            tracer.fix(array, "mixed", "summed up by a layer without weights for them")
            continue
        shape = iter(array.transpose(order + rest).shape)
        shape = [next(shape) if o in equation.given else 1 for o in equation.result]
        found.append(array.transpose(order + rest).reshape(shape))
    return tuple(found)
