import numpy as np
import pytest

from kprune import Global, LayerWise, Scope
from kprune.scopes import Contender, zeros_wanted

SCORES = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0]), np.array([5.0])]
ALL = [None, None, None]


def kept(scope, sparsity, scores=SCORES, candidates=ALL):
    contenders = [Contender(*c) for c in zip(scores, candidates, strict=True)]
    return [k.astype(int).tolist() for k in scope(contenders, sparsity)]


@pytest.mark.parametrize(
    ("sparsity", "size", "expected"),
    [
        (0.0, 10, 0),
        (0.25, 10, 3),  # 2.5 is rounded up
        (0.5, 3, 2),
        (0.75, 64, 48),
        (0.9, 1, 0),
        (0.999, 10, 9),  # all but one
        (0.1, 4, 0),
    ],
)
def test_count_of_zeros(sparsity, size, expected):
    assert zeros_wanted(sparsity, size) == expected


def test_layer_wise_gives_each_weight_the_same_sparsity():
    assert kept(LayerWise(), 0.5) == [[0, 0, 1, 1], [0, 1], [1]]


def test_layer_wise_leaves_at_least_one_in_each():
    assert kept(LayerWise(), 0.99) == [[0, 0, 0, 1], [0, 1], [1]]


def test_global_ranks_all_weights_together():
    assert kept(Global(), 4 / 7) == [[0, 0, 0, 0], [1, 1], [1]]
    assert kept(Global(), 1 / 7) == [[0, 1, 1, 1], [1, 1], [1]]


def test_global_leaves_at_least_one_in_all():
    assert kept(Global(), 0.99) == [[0, 0, 0, 0], [0, 1], [0]]


@pytest.mark.parametrize("scope", [LayerWise(), Global()])
def test_removed_units_are_not_brought_back(scope):
    scores = [np.array([9.0, 2.0, 9.0, 4.0]), np.array([10.0, 9.0])]
    candidates = [np.array([False, True, False, True]), np.array([True, False])]

    assert kept(scope, 0.0, scores, candidates) == [[0, 1, 0, 1], [1, 0]]


def test_base_class_names_the_subclass_that_lacks_a_call():
    class Half(Scope):
        pass

    with pytest.raises(NotImplementedError, match="Half defines no `__call__`"):
        Half()([], 0.5)
