"""Removal is exact for models that nobody thought of."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kprune.channels.numbers import KINDS
from kprune.channels.tracing import trace
from kprune.shrinking.removal import without
from tests.channels.exactness import assert_exact, choose, free_groups, randomised
from tests.channels.random_graphs import Builder
from tests.checks import computing_in


@pytest.fixture(autouse=True, scope="module")
def float64():
    """Lets rounding hide nothing: what is compared agrees to twelve places."""
    with computing_in("float64"):
        yield


def quick(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def prove(draw, seed, is_plain=False):
    """Builds a model, removes channels and compares; returns what was traced."""
    model = Builder(draw, is_plain).model(draw([3, 6, 9, 12]))
    randomised(model, seed)
    tracing = trace(model)
    for fraction in (0.3, 0.5):
        removed = choose(tracing, fraction, seed)
        small = without(model, tracing, removed)
        assert_exact(model, small, tracing, removed, tolerance=1e-9)
        assert (small.count_params() < model.count_params()) == removed.any()
    kinds = {r.kind for found in tracing.channels.reasons().values() for r in found}
    assert kinds <= set(KINDS)
    return tracing, kinds


def drawn(data):
    return lambda items: items[data.draw(st.integers(0, len(items) - 1))]


@quick(8)
@given(st.data(), st.integers(0, 99))
def test_removal_from_a_random_model_is_exact(data, seed):
    prove(drawn(data), seed)


@quick(3)
@given(st.data(), st.integers(0, 99))
def test_nothing_but_the_outputs_keeps_channels_of_a_plain_model(data, seed):
    tracing, kinds = prove(drawn(data), seed, is_plain=True)

    assert kinds <= {"output", "last"}
    assert free_groups(tracing).size


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_removal_from_one_of_many_random_models_is_exact(seed):
    generator = np.random.default_rng(seed)

    prove(lambda items: items[generator.integers(len(items))], seed)
