"""Attention of several heads, each over vectors of one size."""

import math

import numpy as np
from keras import layers

from kprune.channels.numbers import NONE
from kprune.channels.rules.base import ChannelRule
from kprune.channels.rules.common import bound_arguments, keep_masks
from kprune.channels.rules.einsum import project, read_equation
from kprune.channels.value import Value
from kprune.registry import register


class AttentionRule(ChannelRule):
    """Base of the rules for attention.

    One channel is a head, one a place in the vectors that are compared, one a place in
    those that are summed up; each is gone from all that have it. Queries and keys
    compare as before without places where both are zero, but for the division by the
    root of their number, which the queries' weights make up for.
    """

    known = None  # the layer type

    def trace(self, layer, inputs, tracer):
        """Ends channels at the projections, and makes those of what comes out."""
        given = self._given(layer, inputs, tracer)
        if given is None:
            return None
        context, made = self.attend(layer, *given, tracer)
        dense = layer._output_dense
        ids, _ = project(dense, context, tracer, made)
        result = read_equation(dense, len(context.shape)).result
        at = {axis: ids[one] for axis, one in enumerate(result) if one in ids}
        outputs = [Value.of_axes(tracer.shape(), at, silent=True)]
        if len(tracer.call.outputs) > 1:
            outputs.append(self._scores(context, tracer))
        return outputs

    def _scores(self, context, tracer):
        """Returns the scores, `(batch, heads, queries, keys)`."""
        heads = context.along(-2)
        if len(context.shape) != 4:  # their shape is not what Keras says it is
            for one in heads:
                tracer.fix(one, "unknown", "scores of more axes are put out")
            heads = []
        return Value.of_axes(tracer.shape(1), {1: heads})

    def attend(self, layer, query, key, value, tracer):
        """Follows channels through the projections of what goes in.

        Returns:
            Tuple of the `Value` that the heads make, `(..., heads, places)`, and of
            the channels that come out, or `None` for new ones.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `attend`.")

    def rescaled(self, layer, variable, array, narrowed):
        """Corrects the queries for the root of the number of places."""
        dense = layer._query_dense
        if variable is not dense._kernel and variable is not dense.bias:
            return array
        factor = math.sqrt(narrowed.weight(dense._kernel)[-1] / dense._kernel.shape[-1])
        return array * np.asarray(factor, array.dtype)

    def _given(self, layer, inputs, tracer):
        """Returns queries, keys and values; channels of masks stay."""
        if type(layer)._compute_attention is not self.known._compute_attention:
            return None
        bound = bound_arguments(layer, inputs, tracer)
        bound.setdefault("key", bound.get("value"))
        given = [bound.pop(name, None) for name in ("query", "key", "value")]
        if not all(isinstance(one, Value) for one in given):
            return None
        keep_masks(bound, tracer)
        for one in given:
            tracer.pin_alone(one, -1, "attention is taken over them")
        return given


_SCORES = {
    kind._calculate_scores for kind in (layers.Attention, layers.AdditiveAttention)
}


class PlainAttentionRule(ChannelRule):
    """Compares tensors as they come, and sums up others."""

    def trace(self, layer, inputs, tracer):
        """Ties what is compared, and lets through what is summed up."""
        arguments = bound_arguments(layer, inputs, tracer)
        given = arguments.pop("inputs")
        is_known = type(layer)._calculate_scores in _SCORES
        if not is_known or not all(isinstance(one, Value) for one in given):
            return None
        keep_masks(arguments, tracer)
        query, value, key = given if len(given) > 2 else (*given, given[1])
        ids, keys, values = (
            tracer.pin_alone(one, -1, "attention is taken over them")
            for one in (query, key, value)
        )
        width = query.shape[-1:]
        tracer.unify(Value.of_axes(width, {0: ids}), Value.of_axes(width, {0: keys}))
        if layer.scale is not None and len(layer.scale.shape):
            tracer.hold(layer.scale, {0: ids})
        elif not self._is_zero(layer, query, key):
            text = "compared by a layer without weights for them"
            tracer.fix(np.concatenate([[NONE], *ids, *keys]), "partner", text)
        made = Value.of_axes(tracer.shape(), {-1: values}, value.silent)
        return [
            made,
            *map(Value, map(tracer.shape, range(1, len(tracer.call.outputs)))),
        ]

    def _is_zero(self, layer, query, key):
        """Tells whether what is gone adds zero to the scores."""
        is_product = type(layer) is layers.Attention and layer.score_mode == "dot"
        return (any if is_product else all)([query.silent, key.silent])


for _kind in (layers.Attention, layers.AdditiveAttention):
    register("channel_rules", _kind)(PlainAttentionRule)


def _context(query, heads, places, ids):
    return Value.of_axes((*query.shape[:-1], heads, places), ids, silent=True)


@register("channel_rules", layers.MultiHeadAttention)
class MultiHeadAttentionRule(AttentionRule):
    """Compares vectors of `key_dim` numbers, and sums up those of `value_dim`."""

    known = layers.MultiHeadAttention

    def attend(self, layer, query, key, value, tracer):
        """Makes heads, and places of keys and of values."""
        heads, places = self._project(layer._query_dense, query, tracer)
        self._project(layer._key_dense, key, tracer, heads, places)
        _, sums = self._project(layer._value_dense, value, tracer, heads)
        if layer._use_gate:
            self._project(layer._gate_dense, query, tracer, heads, sums)
        ids = {-2: heads, -1: sums}
        return _context(query, layer.num_heads, layer.value_dim, ids), None

    def _project(self, dense, value, tracer, *made):
        """Returns the channels of heads and of places that a projection has."""
        letters = read_equation(dense, len(value.shape)).kernel[-2:]
        ids, _ = project(dense, value, tracer, dict(zip(letters, made, strict=False)))
        return [ids[one] for one in letters]

    def config(self, layer, narrowed):
        """Changes the numbers of heads and places, and the size of what comes out."""
        width, heads, places = narrowed.weight(layer._query_dense._kernel)
        output = narrowed.weight(layer._output_dense._kernel)[2:]
        is_as_query = layer._output_shape is None and output == (width,)
        return {
            "num_heads": heads,
            "key_dim": places,
            "value_dim": narrowed.weight(layer._value_dense._kernel)[-1],
            "output_shape": None if is_as_query else output,
        }


@register("channel_rules", layers.GroupQueryAttention)
class GroupQueryAttentionRule(AttentionRule):
    """Compares several heads of queries with each head of keys.

    Heads of queries go with their head of keys, or one of each head of keys. Keys and
    values have one size; what comes out, and the values' input, is as wide as the
    queries' input.
    """

    known = layers.GroupQueryAttention

    def attend(self, layer, query, key, value, tracer):
        """Makes heads of keys, heads of queries for each, and places."""
        ids, _ = project(layer._key_dense, key, tracer)
        shared, places = ids["v"], ids["h"]
        number, repeats = layer.num_key_value_heads, layer.num_repeats
        heads = [np.repeat(one, repeats) for one in shared]
        heads += [np.tile(one, number) for one in tracer.new(repeats)]
        of_keys, made = {"v": shared, "h": places}, {"u": heads, "h": places}
        values, _ = project(layer._value_dense, value, tracer, of_keys)
        ids, _ = project(layer._query_dense, query, tracer, made)
        width = query.shape[-1:]
        left, right = (Value.of_axes(width, {0: one["m"]}) for one in (values, ids))
        tracer.unify(left, right)
        if layer.use_gate:
            project(layer._gate_dense, query, tracer, made)
        at = {-2: ids["u"], -1: ids["h"]}
        context = _context(query, layer.num_query_heads, layer.head_dim, at)
        return context, {"m": ids["m"]}

    def config(self, layer, narrowed):
        """Changes the numbers of heads and places."""
        _, heads, places = narrowed.weight(layer._query_dense._kernel)
        return {
            "head_dim": places,
            "num_query_heads": heads,
            "num_key_value_heads": narrowed.weight(layer._key_dense._kernel)[1],
        }
