"""Where in a model's graph ranges are needed.

Every value that an int8 operator reads or writes needs one range, and one only: a
second one between a convolution and its ReLU would keep the converter from making
them one operator, and one before a concatenation it would replace. So the graph is
walked once, and each layer is told which of its inputs and whether its outputs get one.
"""

import dataclasses

import keras

from kprune.cloning import is_graph
from kprune.quantize.rules import rule_for


@dataclasses.dataclass
class Call:
    """One use of a layer in a model's graph.

    Attributes:
        operation: The Keras layer, model or operation.
        inputs: List of the tensors that it reads, but for masks.
        outputs: List of the tensors that it gives.
    """

    operation: object
    inputs: list
    outputs: list


@dataclasses.dataclass
class Placement:
    """Where one layer gets ranges.

    Attributes:
        inputs: List of bools, for each of its inputs.
        output: Bool, for its output.
        uses: Int, how many times the layer is called for one call of the model.
    """

    inputs: list
    output: bool
    uses: int = 0


def calls(model):
    """Lists the uses of layers in a model's graph.

    Args:
        model: A built Sequential or Functional model.

    Returns:
        List of `Call`, each after those whose outputs it reads.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    >>> [call.operation.name for call in calls(model)]
    ['d']
    """
    found, seen = [], set()
    waiting = [(t, False) for t in reversed(model.outputs)]
    ends = {id(t) for t in model.inputs}
    while waiting:
        tensor, is_ready = waiting.pop()
        operation, index, _ = tensor._keras_history
        if id(tensor) in ends or (not is_ready and (operation, index) in seen):
            continue
        node = operation._inbound_nodes[index]
        if is_ready:
            inputs = [t for t in node.input_tensors if t.dtype != "bool"]
            found.append(Call(operation, inputs, node.output_tensors))
        else:
            seen.add((operation, index))
            waiting.append((tensor, True))
            waiting.extend((t, False) for t in reversed(node.input_tensors))
    return found


def nested_calls(model, parents=()):
    """Goes through the uses of layers in a model's graph and those nested in it.

    Args:
        model: A built Sequential or Functional model.
        parents: Tuple, the models around it. Defaults to none.

    Yields:
        Pairs of a `Call` and the tuple of the models around it within `model`.
    """
    for call in calls(model):
        if is_nested(call.operation):
            yield from nested_calls(call.operation, (*parents, call.operation))
        else:
            yield call, parents


def is_nested(operation):
    """Tells whether what a graph uses is a graph itself."""
    return isinstance(operation, keras.Model) and is_graph(operation)


def consumers(model):
    """Tells who reads each tensor of a model's graph.

    Args:
        model: A built Sequential or Functional model.

    Returns:
        Dict from the id of a tensor to a list of `Call`, and `None` for each place
        where it is an output of the model.
    """
    readers = {}
    for call in calls(model):
        for tensor in call.inputs:
            readers.setdefault(id(tensor), []).append(call)
    for tensor in model.outputs:
        readers.setdefault(id(tensor), []).append(None)
    return readers


def place_ranges(model, stays_float):
    """Decides which layers of a model get ranges, and where.

    Args:
        model: A built Sequential or Functional model, nested or not.
        stays_float: Function `(layer, parents)` that returns a bool, `True` for all
            that has no rule.

    Returns:
        Dict from the id of a layer to its `Placement`, for the layers that get one.
    """
    placements = {}
    _place(model, stays_float, (), [False] * len(model.inputs), placements)
    return placements


def _place(model, stays_float, parents, known, placements):
    """Walks one graph; returns for each output whether it has a range."""
    readers = consumers(model)
    ranged = {id(t) for t, k in zip(model.inputs, known, strict=True) if k}
    for call in calls(model):
        has_range = [id(t) in ranged for t in call.inputs]
        layer = call.operation
        if is_nested(layer):
            inner = (*parents, layer)
            given = _place(layer, stays_float, inner, has_range, placements)
        else:
            given = [False] * len(call.outputs)
            if not stays_float(layer, parents) and reads_floats(call):
                later = _is_ranged_later(
                    call, readers, lambda x: stays_float(x, parents)
                )
                given = [_place_one(call, has_range, later, placements)] * len(given)
        ranged |= {id(t) for t, g in zip(call.outputs, given, strict=True) if g}
    return [id(t) in ranged for t in model.outputs]


def _place_one(call, has_range, later, placements):
    """Notes the ranges of one use of a layer; returns whether its output has one."""
    rule = rule_for(call.operation)
    if rule.passes:
        return all(has_range)
    inputs, output = [not known for known in has_range], not later
    if rule.gathers:
        inputs, output = [False] * len(has_range), False
    other = placements.setdefault(id(call.operation), Placement(inputs, output))
    other.inputs = [a or b for a, b in zip(other.inputs, inputs, strict=True)]
    other.output = other.output or output
    other.uses += 1
    return True


def _is_ranged_later(call, readers, stays_float):
    """Tells whether the range of an output is that of what reads it.

    That is a ReLU that becomes one operator with the layer, or a concatenation.
    """
    rule, reader = rule_for(call.operation), _only_reader(call.outputs[0], readers)
    if reader is None or stays_float(reader.operation) or not reads_floats(reader):
        return False
    behind = rule_for(reader.operation)
    return (rule.fuses and behind.is_relu) or (behind.joins and rule.fixed is None)


def _only_reader(tensor, readers):
    """Returns the `Call` that alone reads a tensor, or `None`."""
    found = readers.get(id(tensor), [])
    if len(found) != 1 or found[0] is None or is_nested(found[0].operation):
        return None
    if isinstance(found[0].operation, keras.layers.Identity):
        return _only_reader(found[0].outputs[0], readers)
    return found[0]


def reads_floats(call):
    """Tells whether int8 can stand for what a layer reads.

    Args:
        call: A `Call`.

    Returns:
        Bool, `True` for numbers with a fraction, and for what is looked up in a table.
    """
    rule = rule_for(call.operation)
    looks_up = not isinstance(rule, str) and rule.gathers
    return looks_up or all("float" in tensor.dtype for tensor in call.inputs)
