"""Rewrites the padding of strided convolutions so that sparse kernels take it."""

import collections

import keras
from keras import layers

from kprune import cloning, inspection
from kprune.copier import Copier
from kprune.layer_graph import nodes_of
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
    rewriting = _Rewriting(plain_model(model, "rewrite_padding"))
    for line in rewriting.changes if print_fn is not None else ():
        print_fn(line)
    return rewriting.model


class _Rewriting:
    """One run over a model: new layers, then their weights."""

    def __init__(self, model):
        self._copier = Copier(model)
        self._taken = {layer.name for layer in model._flatten_layers()}
        self._uses = collections.Counter(map(id, _operations(model, set())))
        self._stand_ins, self._needs, self._one_sided = {}, {}, {}
        self._copies, self.changes = [], []
        self.model = self._rewritten(model)
        for old, new in self._copies:
            cloning.build_like(old, new)
            cloning.copy_state(old, new)
        cloning.copy_compilation(model, self.model)

    def _rewritten(self, model):
        self._find_one_sided(model)
        if isinstance(model, keras.Sequential):
            new = type(model)(name=model.name)
            new.add(_same_input(model.inputs[0]))
            for layer in model.layers:
                for part in self._with_padding(layer):
                    new.add(part)
        else:
            view = keras.Model(model.input, model.output)
            clone = keras.models.clone_model(
                view,
                input_tensors=keras.tree.map_structure(_same_input, model.input),
                clone_function=self._stand_in,
                call_function=self._call,
            )
            new = type(model)(clone.input, clone.output, name=model.name)
        if not model.trainable:
            new.trainable = False
        return new

    def _stand_in(self, operation):
        if id(operation) not in self._stand_ins:
            if not isinstance(operation, keras.Layer):
                new = type(operation).from_config(operation.get_config())
            elif isinstance(operation, keras.Model) and cloning.is_graph(operation):
                new = self._rewritten(operation)
            else:
                new = self._copier.copy(operation)
                self._copies.append((operation, new))
                self._change(operation, new)
            self._stand_ins[id(operation)] = new
        return self._stand_ins[id(operation)]

    def _change(self, layer, new):
        if is_convolution(layer) and _is_lopsided(layer):
            new.padding = "valid"
            zeros = tuple(k // 2 for k in layer.kernel_size)
            self._needs[id(new)] = zeros, layer.name
        elif id(layer) in self._one_sided:
            new.padding, consumer = self._one_sided[id(layer)]
            self.changes.append(
                f"{layer.name}: padding {_sides(layer.padding)} in front of "
                f"{consumer!r} is now {_sides(new.padding)}"
            )

    def _with_padding(self, layer):
        """Lists the stand-in of a layer, behind a new padding if it needs one."""
        new = self._stand_in(layer)
        return [*self._new_padding(new), new]

    def _new_padding(self, new):
        if id(new) not in self._needs:
            return []
        zeros, name = self._needs[id(new)]
        pad = layers.ZeroPadding2D(zeros, name=self._free_name(f"{name}_pad"))
        self.changes.append(
            f"{name}: padding 'same' with stride 2 is now 'valid' behind "
            f"{pad.name!r}, {_count(zeros)} a side"
        )
        return [pad]

    def _call(self, new, *args, **kwargs):
        for pad in self._new_padding(new):
            if args:
                args = (pad(args[0]), *args[1:])
            else:
                kwargs["inputs"] = pad(kwargs["inputs"])
        return new(*args, **kwargs)

    def _free_name(self, name):
        candidate, number = name, 1
        while candidate in self._taken:
            number += 1
            candidate = f"{name}_{number}"
        self._taken.add(candidate)
        return candidate

    def _find_one_sided(self, model):
        """Notes which `ZeroPadding2D` serve one strided convolution, and its needs."""
        nodes = nodes_of(model)
        consumers = collections.defaultdict(list)
        for node in nodes:
            for tensor in node.input_tensors:
                consumers[id(tensor)].append(node.operation)
        for tensor in keras.tree.flatten(model.outputs):
            consumers[id(tensor)].append(model)
        for node in nodes:
            layer, users = node.operation, consumers[id(node.output_tensors[0])]
            is_used_once = len(users) == self._uses[id(layer)] == 1
            if isinstance(layer, layers.ZeroPadding2D) and is_used_once:
                wanted = _equal_padding(node, users[0])
                if wanted is not None:
                    self._one_sided[id(layer)] = wanted, users[0].name


def _operations(model, opened):
    """Yields the operation of each node of a model, nested models opened once."""
    for node in nodes_of(model):
        operation = node.operation
        yield operation
        is_model = isinstance(operation, keras.Model) and cloning.is_graph(operation)
        if is_model and id(operation) not in opened:
            opened.add(id(operation))
            yield from _operations(operation, opened)


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


def _same_input(tensor):
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        name=tensor._keras_history.operation.name,
    )
