"""Recurrent layers: both ways of a sequence, and states that outlive a batch."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune.shrinking import shrink
from tests.channels.exactness import randomised
from tests.checks import pruned_at_once

X = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")


def both_ways(merge_mode="concat", units=8):
    """Makes a model whose backward units 2 to 7 are weak, and its layer."""
    inputs = keras.Input((6, 3))
    inner = layers.LSTM(units, return_sequences=True)
    both = layers.Bidirectional(inner, merge_mode=merge_mode, name="both")
    x = both(inputs)
    x = layers.Concatenate()(x) if merge_mode is None else x
    x = layers.Dense(10, name="hidden")(x)
    model = randomised(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    cell = both.backward_layer.cell
    weak = np.tile(np.arange(units) > 1, 4)
    cell.kernel.assign(np.where(weak, 0.01, 5) * np.asarray(cell.kernel))
    return model


@pytest.mark.parametrize("merge_mode", ["concat", None, "sum", "mul"])
@pytest.mark.parametrize("scope", ["layer_wise", "global"])
def test_both_ways_keep_as_many_units(merge_mode, scope):
    small, report = shrink(both_ways(merge_mode), 0.5, scope=scope, return_report=True)

    both = small.get_layer("both")
    width = both.forward_layer.units
    assert both.backward_layer.units == width < 8
    times = 2 if merge_mode in ("concat", None) else 1
    assert (report.layers[0].widths, report.layers[0].narrowed) == (
        (8 * times,),
        (width * times,),
    )
    assert small(X).shape == (4, 6, 2)


def test_masks_on_channels_keep_both_ways_equally_wide():
    pruned = kprune.prune(both_ways(), granularity="channel")
    kprune.Pruner(pruned, kprune.ConstantSchedule(0.5), scope="global").step()
    expected = np.asarray(pruned(X))

    small = shrink(pruned)

    both = small.get_layer("both")
    assert both.forward_layer.units == both.backward_layer.units < 8
    np.testing.assert_allclose(small(X), expected, atol=1e-5 * np.abs(expected).max())


def test_one_way_stays_as_wide_as_the_other_must():
    model = both_ways()
    back = model.get_layer("both").backward_layer.name

    small = shrink(model, 0.5, skip=back)

    assert small.get_layer("both").forward_layer.units == 8
    assert small.get_layer("hidden").units == 5
    records = kprune.why_not(model, skip=back).records
    assert "both: left out by `skip`" in map(str, records[0].reasons)


def stateful(kind):
    inputs = keras.Input(batch_shape=(4, 6, 3))
    x = STATEFUL[kind]()(layers.Dense(4, name="before")(inputs))
    x = layers.GlobalAveragePooling1D()(ops.reshape(x, (4, -1, x.shape[-1])))
    return randomised(keras.Model(inputs, layers.Dense(2, name="head")(x)))


def cells():
    return [layers.LSTMCell(6), layers.GRUCell(8)]


STATEFUL = {
    "LSTM": lambda: layers.LSTM(8, stateful=True),
    "GRU": lambda: layers.GRU(8, stateful=True, return_sequences=True),
    "cells": lambda: layers.RNN(cells(), stateful=True),
    "both ways": lambda: layers.Bidirectional(layers.SimpleRNN(8, stateful=True)),
}


def states_of(model):
    parts = [x for x in model._flatten_layers() if isinstance(x, layers.RNN)]
    return [np.array(s) for x in parts for s in keras.tree.flatten(x.states)]


@pytest.mark.parametrize("kind", STATEFUL)
def test_states_go_on_without_the_units_that_are_gone(kind):
    model = stateful(kind)
    model(X)
    before = states_of(model)

    small = shrink(model, 0.5)

    left = states_of(small)
    for whole, half in zip(before, left, strict=True):
        assert half.shape == (4, whole.shape[-1] // 2)
        assert half.any()
        assert all((column == whole.T).all(1).any() for column in half.T)
    for untouched, state in zip(before, states_of(model), strict=True):
        np.testing.assert_array_equal(untouched, state)


def test_a_convolution_with_states_keeps_those_of_its_filters():
    inputs = keras.Input(batch_shape=(2, 3, 5, 5, 2))
    x = layers.ConvLSTM2D(6, 3, stateful=True, name="reader")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    model(np.ones(inputs.shape))

    small = shrink(model, 0.5)

    before, left = states_of(model), states_of(small)
    assert [s.shape for s in left] == [(2, 3, 3, 3)] * 2
    assert np.isin(left, before).all()


def test_states_of_layers_that_keep_their_width_are_carried_over():
    model = stateful("LSTM")
    model(X)

    small = shrink(model, 0.5, skip=layers.LSTM)

    for ours, theirs in zip(states_of(small), states_of(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def with_some_masked():
    """Makes a model in which steps of one of two joined branches are masked."""
    words, numbers = keras.Input((6,), dtype="int32"), keras.Input((6, 3))
    x = layers.Embedding(9, 8, mask_zero=True, name="table")(words)
    x = layers.Dense(6, name="masked")(x)
    x = layers.Concatenate()([x, layers.Dense(10, name="free")(numbers)])
    x = layers.LSTM(4, name="reader")(x)
    return randomised(keras.Model([words, numbers], layers.Dense(2)(x)))


def test_a_branch_with_masked_steps_may_be_joined_with_another():
    pruned = pruned_at_once(with_some_masked(), granularity="channel")
    x = [np.tile([1, 2, 0, 3, 0, 0], (4, 1)), X]
    expected = np.asarray(pruned(x))

    small = shrink(pruned)

    assert [small.get_layer(n).units for n in ("masked", "free", "reader")] == [3, 5, 2]
    np.testing.assert_allclose(small(x), expected, atol=1e-5 * np.abs(expected).max())
