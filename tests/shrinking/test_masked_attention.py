"""Masks on the places and the heads of attention, and the model without them."""

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune import whole_model
from tests.channels.exactness import outputs_of, random_inputs, randomised
from tests.checks import assert_plain, pruned_at_once

HALF = kprune.ConstantSchedule(0.5)


def multi_head(heads, places, **kwargs):
    """Returns attention with as many heads of keys as of queries."""
    return layers.MultiHeadAttention(heads, places, name="attention", **kwargs)


def grouped(heads, places, **kwargs):
    """Returns attention with two heads of queries for each of keys."""
    heads = 2 * heads, heads
    return layers.GroupQueryAttention(places, *heads, name="attention", **kwargs)


def around(attention, seed=0):
    """Returns a model with attention in a residual branch, all weights random."""
    inputs = keras.Input((5, 6))
    x = layers.Dense(8, name="before")(inputs)
    x = layers.Add()([x, attention(x, x)])
    model = keras.Model(inputs, layers.Dense(2, name="after")(x))
    return randomised(model, seed)


def assert_same(model, small):
    """Checks that two models put out the same for random inputs."""
    inputs = random_inputs(model)
    ((theirs,), (ours,)) = outputs_of(model, inputs), outputs_of(small, inputs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def kernels_of(layer):
    """Returns the arrays of an attention layer's kernels, by the projection."""
    names = ("query", "key", "value", "gate", "output")
    parts = {name: getattr(layer, f"_{name}_dense", None) for name in names}
    return {name: np.asarray(part._kernel) for name, part in parts.items() if part}


SHAPES = [(1, 4), (2, 4), (2, 16), (4, 8), (3, 2)]


@pytest.mark.parametrize("kind", [multi_head, grouped])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "seed",
    [pytest.param(s, marks=pytest.mark.slow if s else ()) for s in range(10)],
)
def test_places_that_are_masked_leave_no_zeros_and_change_nothing(kind, shape, seed):
    keras.utils.set_random_seed(seed)
    heads, places = shape
    pruned = pruned_at_once(around(kind(heads, places), seed), granularity="channel")

    small = kprune.shrink(pruned)

    assert_plain(small)
    assert_same(pruned, small)
    before, after = (m.get_layer("attention") for m in (kprune.strip(pruned), small))
    for name, kernel in kernels_of(after).items():
        assert kernel.all(), name
        assert kernel.size == kernels_of(before)[name].size // 4, name
    assert after._query_dense.kernel.shape[1:] == (
        before._query_dense.kernel.shape[1],
        places // 2,
    )


@pytest.mark.parametrize(
    "attention",
    [
        multi_head(2, 4, value_dim=6, use_gate=True),
        multi_head(2, 4, use_bias=False),
        grouped(2, 4, use_gate=True),
    ],
    ids=["gate", "no_bias", "grouped_gate"],
)
def test_options_of_attention_change_nothing_of_that(attention):
    pruned = pruned_at_once(around(attention), granularity="channel")

    small = kprune.shrink(pruned)

    assert_same(pruned, small)
    for name, kernel in kernels_of(small.get_layer("attention")).items():
        assert kernel.all(), name


def test_where_heads_have_one_place_each_heads_are_masked():
    pruned = pruned_at_once(around(multi_head(4, 1)), granularity="channel")

    small = kprune.shrink(pruned)

    assert small.get_layer("attention").num_heads == 2
    assert_same(pruned, small)


def test_queries_and_keys_lose_the_places_where_both_are_smallest():
    model = around(multi_head(2, 4))
    attention = model.get_layer("attention")
    sizes = {
        "query": [[1, 3, 9, 6], [3, 3, 1, 6]],  # by place 2, 3, 5 and 6
        "key": [[5, 1, 4, 1], [5, 1, 4, 11]],  # 5, 1, 4 and 6
        "value": [[1, 9, 2, 8], [1, 2, 3, 1]],  # 1, 5.5, 2.5 and 4.5
    }
    for name, by_head in sizes.items():
        kernel = getattr(attention, f"_{name}_dense")._kernel
        kernel.assign(np.broadcast_to(by_head, kernel.shape))

    pruned = pruned_at_once(model, granularity="channel")

    found = kprune.strip(pruned).get_layer("attention")
    kept = {name: kernel.any(0) for name, kernel in kernels_of(found).items()}
    for name, places in {
        "query": [False, False, True, True],  # together 3.5, 2, 4.5 and 6
        "key": [False, False, True, True],
        "value": [False, True, False, True],
    }.items():
        np.testing.assert_array_equal(kept[name], [places] * 2)
        bias = getattr(found, f"_{name}_dense").bias
        np.testing.assert_array_equal(np.asarray(bias) != 0, [places] * 2)
    output = kernels_of(found)["output"].any(-1)
    np.testing.assert_array_equal(output, [[False, True, False, True]] * 2)


@pytest.mark.parametrize("kind", [multi_head, grouped])
def test_no_attention_loses_all_its_places_to_other_layers(kind):
    model = around(kind(2, 4))
    for variable in model.get_layer("attention").weights:
        variable.assign(variable / 1000)

    pruned = kprune.prune(model, granularity="channel")
    schedule = kprune.ConstantSchedule(0.6)
    kprune.Pruner(pruned, schedule, scope="global").step()

    for entry in whole_model.masked_weights(pruned):
        assert entry.mask.numpy().any()
    small = kprune.shrink(pruned)
    assert small.get_layer("attention")._query_dense.kernel.shape[-1] == 1
    assert_same(pruned, small)


@pytest.mark.parametrize("kind", [multi_head, grouped])
def test_what_was_masked_while_the_model_trained_is_removed(kind):
    model = kprune.prune(around(kind(2, 8, dropout=0.1)), granularity="channel")
    model.compile("adam", "mse", run_eagerly=True)
    generator = np.random.default_rng(0)
    x, y = (generator.normal(size=(16, 5, width)) for width in (6, 2))

    callbacks = [kprune.PruningCallback(0.5)]
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=callbacks)

    small = kprune.shrink(model)
    assert small.get_layer("attention")._query_dense.kernel.shape[-1] == 4
    assert_same(model, small)


def test_places_of_outputs_with_two_axes_go_from_all_lines():
    inputs = keras.Input((5, 6))
    x = layers.EinsumDense("btc,chp->bthp", (None, 3, 4), bias_axes="hp")(inputs)
    outputs = layers.EinsumDense("bthp,hpo->bto", (None, 2))(x)
    model = randomised(keras.Model(inputs, outputs))

    pruned = pruned_at_once(model, granularity="channel")

    small = kprune.shrink(pruned)
    assert small.layers[1].kernel.shape == (6, 3, 2)
    assert np.asarray(small.layers[1].kernel).all()
    assert_same(pruned, small)


@pytest.mark.parametrize("kind", [multi_head, grouped])
@pytest.mark.parametrize("use_bias", [True, False])
def test_heads_that_are_masked_are_removed_though_their_biases_are_left(kind, use_bias):
    model = around(kind(4, 3, use_bias=use_bias))
    pruned = pruned_at_once(model, granularity="attention_head", only="attention")

    small = kprune.shrink(pruned)

    assert small.get_layer("attention")._key_dense.kernel.shape == (8, 2, 3)
    assert small.get_layer("before").units == 8
    assert_same(pruned, small)


def test_heads_whose_scores_the_model_puts_out_stay():
    inputs = keras.Input((5, 6))
    attention = multi_head(4, 3)
    x, scores = attention(inputs, inputs, return_attention_scores=True)
    x = layers.Dense(8, name="before")(x)
    model = randomised(keras.Model(inputs, [layers.Dense(2)(x), scores]))
    pruned = pruned_at_once(model, granularity="attention_head", only="attention")

    with pytest.raises(kprune.ShrinkError, match="No channels of the model"):
        kprune.shrink(pruned)
