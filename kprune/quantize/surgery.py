"""`quantize_aware`: from a plain Keras model to one that learns to compute in int8."""

import dataclasses
import glob

import keras
import numpy as np

from kprune import cloning
from kprune.copier import with_activation
from kprune.inspection import check_keras_model, is_pruned
from kprune.layer_choice import Selection
from kprune.quantize.floats import FloatLayers
from kprune.quantize.fold import fold_batch_normalization, foldable, last_kernel
from kprune.quantize.operators import layers_for_operators
from kprune.quantize.plan import place_ranges
from kprune.quantize.rules import rule_for
from kprune.quantize.separable import split_separable
from kprune.quantize.structure import count_clusters, is_rounded, is_sparse
from kprune.quantize.wrapper import QuantizationWrapper, wrappers
from kprune.rebuilding import rebuilt, unchanged
from kprune.surgery import stripped
from kprune.weight_access import as_array

_KINDS = ("sparsity", "clusters")


def quantize_aware(model, *, preserve=None, only=None, skip=None):
    """Makes a copy of a model that learns to compute in int8.

    Train the copy with `fit`, a few epochs at a tenth of the learning rate, and
    convert what `finish` makes of it: the TFLite file needs no representative data
    and computes what the copy does. Kernels have one scale for each output channel
    (dense layers, embeddings, transposed and 1-D convolutions one in all), activations
    one for each tensor, learned as moving averages while it trains.

    Batch normalization is folded first, a separable convolution is taken apart into
    a depthwise and a pointwise one, and operators such as `x + y` become layers. In
    clustered kernels all channels share one scale, so that the int8 kernel has no
    more distinct values than the float one.

    A layer that has no form in int8 (recurrent layers, attention, `LayerNormalization`,
    layers of your own) stays in float between rounded neighbours. A warning says
    which and why, unless `skip` names it; `kprune.summary` lists them all.

    Args:
        model: A built Sequential or Functional model, nested or not. It is not
            changed. Masks of a pruned model are taken off, its zeros stay.
        preserve: `"sparsity"`, zeros stay zeros (PQAT), `"clusters"`, equal weights
            of a kernel stay equal (CQAT; weights that are zero are a cluster like any
            other, which may leave zero), both in a list (PCQAT), or an empty list.
            Defaults to what there is: zeros in any kernel, clusters in those that
            have at most 255 values, unless these are the steps of int8, as in what
            `dequantize` returns, or one value throughout. A kernel of nothing but
            zeros, as new heads may have, is free to learn in any case; that of an
            `identity` initializer is not, unless the list is empty.
        only: Layers to quantize: a name, a glob pattern, a layer, a layer class, a
            function of a layer that returns a bool, or a list of these. Defaults to
            all.
        skip: Layers to leave in float, likewise. Defaults to none. The converter
            rounds the weights of one all the same, without training, where TFLite has
            an int8 form of it and all its inputs and outputs are rounded.

    Returns:
        A model with the same layer names, inputs and compile arguments, whose layers
        are `QuantizationWrapper`s; `NAME_depthwise` is the first half of a separable
        convolution.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the model is subclassed or not built, if no layer has a form in
            int8, if `only` or `skip` matches nothing, or if there is nothing of what
            is to be preserved.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    >>> quantize_aware(model).layers[0].name
    'd'

    Reference:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", CVPR 2018.
    """
    check_keras_model(model)
    _check_graph(model)
    _check_plain(model)
    kinds = _kinds(preserve)
    selection = Selection(_by_name(only), _by_name(skip))
    plain = layers_for_operators(stripped(model) if is_pruned(model) else model)
    selection.check(plain)
    asked = preserve is not None
    _check_clusters_survive(plain, kinds, asked)
    stays_float = FloatLayers(plain, selection)
    folded = split_separable(fold_batch_normalization(plain), stays_float)
    stays_float.check(folded)
    placements = place_ranges(folded, stays_float)
    result = rebuilt(folded, _Wrapping(placements, kinds, asked).stand_in)
    _check_preserved(result, preserve, kinds)
    return result


@dataclasses.dataclass(frozen=True)
class _Wrapping:
    """How the layers of one model are wrapped."""

    placements: dict
    kinds: tuple
    asked: bool

    def stand_in(self, layer, parents, copier):
        placement = self.placements.get(id(layer))
        if placement is None:
            return unchanged(layer, parents, copier)
        return self._wrapped(layer, placement, copier)

    def _wrapped(self, layer, placement, copier):
        rule = rule_for(layer)
        new = with_activation(layer, None) if rule.activation else copier.copy(layer)
        kernel = as_array(getattr(layer, rule.kernel)) if rule.kernel else np.zeros(0)
        wrapper = QuantizationWrapper(
            new,
            activation=layer.activation if rule.activation else None,
            inputs=placement.inputs,
            output=placement.output,
            masked="sparsity" in self.kinds and is_sparse(kernel),
            clusters=_clusters(kernel, self.kinds, self.asked),
            uses=placement.uses,
        )

        def finish():
            cloning.copy_state(layer, new)
            wrapper.capture()

        return wrapper, finish


def _clusters(kernel, kinds, asked):
    """Counts the clusters to keep; steps of int8 only if the user asked for them."""
    wanted = "clusters" in kinds and (asked or not is_rounded(kernel))
    return count_clusters(kernel) if wanted else 0


def _kinds(preserve):
    kinds = _KINDS if preserve is None else preserve
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise ValueError(
            f"preserve got {unknown[0]!r}. Expected 'sparsity', 'clusters' or a list "
            "of these."
        )
    return kinds


def _by_name(entries):
    """Replaces layers, of which the new model has copies, by their names."""
    if entries is None:
        return None
    listed = entries if isinstance(entries, (list, tuple, set)) else [entries]
    return [glob.escape(e.name) if isinstance(e, keras.Layer) else e for e in listed]


def _check_graph(model):
    if not cloning.is_graph(model):
        raise ValueError(
            f"The model {model.name!r} ({type(model).__name__}) is subclassed, so that "
            "its code, not its layers, says what is computed between them. Build it "
            "as a Functional model: keras.Model(inputs, outputs)."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built. Begin it with "
            "keras.Input(shape), and train it first."
        )


def _check_plain(model):
    if wrappers(model):
        raise ValueError(
            f"The model {model.name!r} is quantization-aware already. Train it on, or "
            "pass `kprune.dequantize(model)` to begin anew."
        )


def _check_clusters_survive(model, kinds, asked):
    for layer, norm in foldable(model):
        if _clusters(as_array(last_kernel(layer)), kinds, asked):
            raise ValueError(
                f"The kernel of {layer.name!r} is clustered, and folding {norm.name!r} "
                "into it would give every channel values of its own. Call "
                "`model = kprune.fold_batch_normalization(model)` first and cluster "
                "that, or leave 'clusters' out of `preserve`."
            )


def _check_preserved(model, preserve, kinds):
    if preserve is None:
        return
    found = {
        "sparsity": any(wrapper.masked for wrapper in wrappers(model)),
        "clusters": any(wrapper.clusters for wrapper in wrappers(model)),
    }
    for kind in kinds:
        if not found[kind]:
            raise ValueError(
                f"preserve asks for {kind!r}, but no kernel of {model.name!r} that is "
                "quantized has any. Prune or cluster the model first, or leave it out."
            )
