"""Rewrites the padding of strided convolutions so that sparse kernels take it."""

import collections

import keras
from keras import layers

from kprune import cloning, inspection
from kprune.layer_graph import nodes_of
from kprune.rebuilding import Chain, rebuilt, unchanged
from kprune.targets.plain import plain_model
from kprune.targets.xnnpack_rules import is_convolution


def rewrite_padding(model, *, print_fn=print):
    """Makes a copy of a model whose stride-2 kernels have equal padding on all sides.

    With `padding="same"` and stride 2, TensorFlow puts more zeros behind an image of
    even size than in front of it; `keras.applications` does so by `ZeroPadding2D`.
    XNNPACK's sparse kernels need the same number on all sides (see
    `kprune.check_xnnpack`). Each such convolution gets a `ZeroPadding2D` of half
    its kernel and `padding="valid"`; a one-sided `ZeroPadding2D` becomes an equal one.
    Shapes stay as they are.

    Use it on the untrained model. Images of odd size see no difference. Those of
    even size are sampled one pixel off at each such layer, so that a trained model
    has to be measured again, and trained a little more if that costs accuracy.

    Args:
        model: A built Functional or Sequential model without masks. It is not
            changed.
        print_fn: Function of a string that is called with one line a change, or
            `None`. Defaults to `print`.

    Returns:
        A model with the same layers, names, weights and compile arguments, and a
        `ZeroPadding2D` named `"<layer>_pad"` in front of each changed convolution.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If its graph cannot be read, or it holds masks.

    Example:
    >>> model = keras.Sequential(
    ...     [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, 2, "same", name="stem")]
    ... )
    >>> new = rewrite_padding(model)
    stem: padding 'same' with stride 2 is now 'valid' behind 'stem_pad', 1 zero a side
    >>> [layer.name for layer in new.layers], new.output_shape
    (['stem_pad', 'stem'], (None, 4, 4, 4))
    """
    inspection.check_keras_model(model)
    if inspection.is_pruned(model):
        raise ValueError(
            f"rewrite_padding got {model.name!r}, which is pruned. Rewrite the plain "
            "model and prune that, or pass kprune.strip(model)."
        )
    plain = plain_model(model, "rewrite_padding")
    rewriting = _Rewriting(plain)
    new = rebuilt(plain, rewriting.convert)
    for line in rewriting.changes if print_fn is not None else ():
        print_fn(line)
    return new


class _Rewriting:
    """What one run over a model changes."""

    def __init__(self, model):
        self._taken = {layer.name for layer in model._flatten_layers()}
        self._one_sided = dict(_one_sided(_graphs(model).values()))
        self.changes = []

    def convert(self, layer, parents, copier):
        """Makes the stand-in of a layer, behind a new padding if it needs one."""
        new, carry_over = unchanged(layer, parents, copier)
        if is_convolution(layer) and _is_lopsided(layer):
            new.padding = "valid"
            return Chain([self._padding_before(layer), new]), carry_over
        if id(layer) in self._one_sided:
            new.padding, consumer = self._one_sided[id(layer)]
            self.changes.append(
                f"{layer.name}: padding {_sides(layer.padding)} in front of "
                f"{consumer!r} is now {_sides(new.padding)}"
            )
        return new, carry_over

    def _padding_before(self, layer):
        zeros = tuple(k // 2 for k in layer.kernel_size)
        pad = layers.ZeroPadding2D(zeros, name=self._free_name(f"{layer.name}_pad"))
        self.changes.append(
            f"{layer.name}: padding 'same' with stride 2 is now 'valid' behind "
            f"{pad.name!r}, {_count(zeros)} a side"
        )
        return pad

    def _free_name(self, name):
        candidate, number = name, 1
        while candidate in self._taken:
            number += 1
            candidate = f"{name}_{number}"
        self._taken.add(candidate)
        return candidate


def _graphs(model):
    """Returns a model and those within it that are graphs, each once, by their ids."""
    found = {id(model): model}
    for node in nodes_of(model):
        part = node.operation
        is_new = isinstance(part, keras.Model) and id(part) not in found
        if is_new and cloning.is_graph(part):
            found |= _graphs(part)
    return found


def _one_sided(graphs):
    """Yields the id of each `ZeroPadding2D` to change, with its padding and consumer.

    It serves one strided convolution alone.
    """
    uses = collections.Counter(id(n.operation) for g in graphs for n in nodes_of(g))
    for graph in graphs:
        consumers = _consumers(graph)
        for node in nodes_of(graph):
            layer, users = node.operation, consumers[id(node.output_tensors[0])]
            is_used_once = len(users) == uses[id(layer)] == 1
            if isinstance(layer, layers.ZeroPadding2D) and is_used_once:
                wanted = _equal_padding(node, users[0])
                if wanted is not None:
                    yield id(layer), (wanted, users[0].name)


def _consumers(graph):
    """Returns what reads each tensor, by its id; what is returned, the model reads."""
    found = collections.defaultdict(list)
    for node in nodes_of(graph):
        for tensor in node.input_tensors:
            found[id(tensor)].append(node.operation)
    for tensor in keras.tree.flatten(graph.outputs):
        found[id(tensor)].append(graph)
    return found


def _is_lopsided(layer):
    return (
        layer.padding == "same"
        and tuple(layer.strides) == (2, 2)
        and layer.data_format == "channels_last"
        and max(layer.kernel_size) > 1
        and all(k % 2 for k in layer.kernel_size)
    )


def _equal_padding(node, layer):
    """Returns the padding to use instead, or `None` where none gives the same shape."""
    padding = node.operation.padding
    if not is_convolution(layer) or layer.padding != "valid":
        return None
    if tuple(layer.strides) != (2, 2) or layer.data_format != "channels_last":
        return None
    wanted = tuple((k // 2, k // 2) for k in layer.kernel_size)
    sizes = node.input_tensors[0].shape[1:3]
    for size, kernel, old, new in zip(
        sizes, layer.kernel_size, padding, wanted, strict=True
    ):
        one_sided = (new[0] - 1, new[1])
        if kernel % 2 == 0 or old not in (one_sided, new):
            return None
        if size is None or (size + sum(old) - kernel) // 2 != (size - 1) // 2:
            return None
    return wanted if wanted != padding else None


def _sides(padding):
    (top, bottom), (left, right) = padding
    return f"top {top}, bottom {bottom}, left {left}, right {right}"


def _count(zeros):
    return "1 zero" if set(zeros) == {1} else f"{' x '.join(map(str, zeros))} zeros"
