"""Counts the work of all calls of a graph."""

import math

import keras
from keras import layers, tree
from keras.src.ops import core
from keras.src.ops import numpy as operations

from kprune.channels.rules.common import types_of
from kprune.multiply_adds.base import Shape, Use, Work, work_of


def works(graph, shape_of_value=None, shape_of_weight=None):
    """Returns the work of each call of a graph for one example.

    No model is built for shapes other than the graph's: those of a model that is to
    be narrowed can be asked for before it is there.

    Args:
        graph: A `LayerGraph`.
        shape_of_value: Function of a value's number that returns its shape, a tuple
            of int or `None`. Defaults to the graph's own shapes.
        shape_of_weight: Function of a Keras variable that returns its shape.
            Defaults to its own.

    Returns:
        List of `Work`, or `None` where it is not known, one for each of
        `graph.calls`: operations without a rule, subclassed models, open sizes,
        quantized kernels. What has no multiply-adds worth counting, such as
        activations, normalization and the rows that an embedding looks up, does none.

    Example:
    >>> import keras
    >>> from kprune.layer_graph import read_graph
    >>> model = keras.Sequential([keras.Input((5, 3)), keras.layers.Dense(4)])
    >>> [work.macs() for work in works(read_graph(model))]
    [60]
    """
    shape_of_weight = shape_of_weight or (lambda variable: tuple(variable.shape))
    shapes, examples = shapes_of_one(graph, shape_of_value)
    shapes = {number: Shape(sizes) for number, sizes in shapes.items()}

    def of_weight(argument):
        is_weight = isinstance(argument, keras.Variable)
        return Shape(tuple(shape_of_weight(argument))) if is_weight else argument

    found = []
    for call in graph.calls:
        arguments = call.arguments([shapes[number] for number in call.inputs])
        arguments = tree.map_structure(of_weight, arguments)
        outputs = [shapes[number] for number in call.outputs]
        work = work_of(call.operation, Use(arguments, outputs, shape_of_weight))
        found.append(work and _share(work, examples))
    return found


def shapes_of_one(graph, shape_of_value=None):
    """Returns the shapes of all values for one example.

    Args:
        graph: A `LayerGraph`.
        shape_of_value: As for `works`.

    Returns:
        Tuple of a dict from value to its shape, sizes that are still open `None`,
        and the number of examples that these are for: 1 but where the inputs are of
        a batch whose size is given.

    Example:
    >>> import keras
    >>> from kprune.layer_graph import read_graph
    >>> inputs = keras.Input((4, 6, 3))
    >>> rows = keras.ops.reshape(inputs, (-1, 6, 3))  # one batch of rows
    >>> shapes_of_one(read_graph(keras.Model(inputs, rows)))
    ({0: (1, 4, 6, 3), 1: (4, 6, 3)}, 1)
    """
    shape_of_value = shape_of_value or graph.shapes.__getitem__
    shapes = {number: tuple(shape_of_value(number)) for number in graph.shapes}
    batches = {shapes[number][:1] for number in graph.inputs}
    if len(batches) == 1 and None not in (batch := batches.pop()) and batch:
        return shapes, batch[0]
    rows = dict.fromkeys(graph.inputs, 1)
    for call in graph.calls:
        given = [rows[number] for number in call.inputs]
        made = [given[0] if given else 1] * len(call.outputs)
        if isinstance(call.operation, operations.Reshape):
            made = [_moved(*given, shapes[call.inputs[0]], shapes[call.outputs[0]])]
        elif isinstance(call.operation, _JOINING):
            made = _joined(call, given)
        rows.update(zip(call.outputs, made, strict=True))
    return {n: (rows[n], *shape[1:]) if shape else () for n, shape in shapes.items()}, 1


def _moved(rows, before, after):
    """Returns the size of the first axis once other axes have been moved there."""
    if None in (rows, *before[1:], *after[1:]):
        return rows if before[1:] == after[1:] else None
    size = rows * math.prod(before[1:])
    return None if size % math.prod(after[1:]) else size // math.prod(after[1:])


# What may put something beside a batch, or take a part of it.
_NAMES = "ArraySplit Concatenate GetItem Pad Repeat Split Stack Take Tile Vsplit Vstack"
_JOINING = (
    layers.Concatenate,
    *types_of({operations: _NAMES, core: "Slice Unstack"}),
)


def _joined(call, rows):
    """Returns how many rows for each example a call puts out, or `None`, as a list.

    Rows are so many for each example if twice as many examples make twice as many.
    """
    unknown = [None] * len(call.outputs)
    if None in rows:
        return unknown
    try:
        some, twice = (_first_sizes(call, rows, n * _SOME) for n in (1, 2))
    except ValueError:  # not for every number of examples, as a split in seven
        return unknown
    return [
        size // _SOME if size and size % _SOME == 0 and double == 2 * size else None
        for size, double in zip(some, twice, strict=True)
    ]


_SOME = 60  # can be cut into equal parts in many ways


def _first_sizes(call, rows, examples):
    """Returns the sizes of the first axes of what a call makes of some examples."""
    tensors = call.node.input_tensors
    given = [
        keras.KerasTensor([row * examples, *x.shape[1:]][: len(x.shape)], x.dtype)
        for row, x in zip(rows, tensors, strict=True)
    ]
    args, kwargs = call.arguments(given)
    made = tree.flatten(call.operation.compute_output_spec(*args, **kwargs))
    return [(*tensor.shape, None)[0] for tensor in made]


def _share(work, examples):
    kernels = ((kernel, times // examples) for kernel, times in work.kernels)
    return Work(tuple(kernels), work.products // examples)
