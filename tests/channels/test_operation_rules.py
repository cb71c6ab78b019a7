"""Every operation with a rule: zeroed channels against removed ones, and the widths."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kprune.channels.rules import elementwise, reductions, unary
from kprune.channels.rules.blocks import BlocksRule
from kprune.channels.rules.products import ContractionRule
from kprune.channels.tracing import trace
from kprune.registry import keys
from kprune.shrinking.removal import without
from tests.channels.exactness import (
    assert_exact,
    assert_saved,
    choose,
    randomised,
)
from tests.channels.operation_rule_cases import CASES, dense, unary_operation

TABLES = (elementwise.COMBINING, reductions.STATISTICS, reductions.SUMS, unary.UNARY)


def model_of(case):
    """Makes the model of a case."""
    has_batch = case.shape[0] == 4
    inputs = keras.Input(batch_shape=case.shape if has_batch else (None, *case.shape))
    return randomised(keras.Model(inputs, case.body(inputs)))


def halved(model, fraction=0.5):
    """Removes channels, checks that this is exact, and returns what is left."""
    tracing = trace(model)
    removed = choose(tracing, fraction)
    small = without(model, tracing, removed)
    assert_exact(model, small, tracing, removed)
    return tracing, small


def widths(model):
    """Returns the number of channels that each layer with a kernel puts out."""
    return {x.name: x.kernel.shape[-1] for x in model.layers if hasattr(x, "kernel")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_left_of_an_operation_is_exact(case):
    model = model_of(case)

    tracing, small = halved(model)

    left = widths(small)
    assert {name: left[name] for name in case.widths} == case.widths
    reasons = sum(tracing.channels.reasons().values(), [])
    assert {reason.kind for reason in reasons} - {"output"} == case.reasons


SAVED = {
    "slice in steps",
    "constant of the channels' axis",
    "taken in rows",
    "block",
    "rolled back",
    "repeated by numbers",
    "split at",
    "reshaped",
}


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name in SAVED], ids=lambda case: case.name
)
def test_what_stands_in_for_an_operation_is_saved_and_narrowed_again(case, tmp_path):
    _, small = halved(model_of(case))

    loaded = assert_saved(small, tmp_path)

    halved(loaded)


def left_of(kinds, body, shape=(6, 5)):
    """Halves a model with a branch for each operation, and returns their widths.

    Args:
        kinds: List of types.
        body: Function of such a type and the channels of its own dense layer.
        shape: Tuple of ints, of the input.

    Returns:
        Dict from operation to the channels that its layer is left with.
    """
    inputs = keras.Input(shape)
    outputs = []
    for kind in kinds:
        result = ops.cast(body(kind, dense(inputs, kind.__name__)), "float32")
        outputs.append(dense(result, f"{kind.__name__}_end", 2))
    _, small = halved(randomised(keras.Model(inputs, outputs)))
    return {kind: small.get_layer(kind.__name__).units for kind in kinds}


@pytest.mark.slow
def test_operations_on_one_element_are_exact():
    left = left_of(unary.UNARY, lambda kind, x: unary_operation(kind)(x))

    assert set(left.values()) == {4}


def test_an_operation_on_one_element_is_summed_up_only_if_it_keeps_zero():
    functions = {kind: unary_operation(kind) for kind in unary.UNARY}
    zero = np.zeros((1, 1), "float32")

    left = left_of(
        unary.UNARY,
        lambda kind, x: ops.sum(functions[kind](x), -1, keepdims=True),
    )

    assert left == {k: 8 if np.any(f(zero)) else 4 for k, f in functions.items()}


def test_operations_on_two_tensors_tie_their_channels():
    kinds = [k for k in elementwise.COMBINING if not k.__name__.startswith("Bit")]

    def combine(kind, x):
        # Behind a sigmoid no number is outside of what the operation takes.
        other = dense(x[:, :, ::-1] * 0.5, f"{kind.__name__}_other")
        return kind()(ops.sigmoid(x), ops.sigmoid(other))

    assert set(left_of(kinds, combine).values()) == {4}


@pytest.mark.parametrize("axis", [1, 2])
def test_statistics_keep_only_the_channels_that_they_are_taken_of(axis):
    left = left_of(reductions.STATISTICS, lambda kind, x: kind(axis=axis)(x))

    assert set(left.values()) == {4 if axis == 1 else 8}


def test_sums_let_channels_go_that_are_zero():
    left = left_of(reductions.SUMS, lambda kind, x: kind(axis=2)(x))

    assert set(left.values()) == {4}


def test_sums_keep_channels_that_are_not_zero():
    left = left_of(reductions.SUMS, lambda kind, x: kind(axis=2)(ops.sigmoid(x)))

    assert set(left.values()) == {8}


def test_every_operation_with_a_rule_has_a_case():
    proven = {case.kind for case in CASES}.union(*TABLES)
    ours = {k for k in keys("channel_rules") if k.__module__.startswith("keras.")}

    assert {k for k in ours if not issubclass(k, layers.Layer)} - proven == set()


@pytest.mark.parametrize(
    ("base", "method", "arguments"),
    [
        (ContractionRule, "terms", (None, [2, 2])),
        (BlocksRule, "moved", (np.arange(4), 4, None)),
    ],
)
def test_the_base_class_names_a_rule_that_lacks_a_method(base, method, arguments):
    half = type("Half", (base,), {})

    with pytest.raises(NotImplementedError, match=f"Half defines no `{method}`"):
        getattr(half(), method)(*arguments)
