import dataclasses
import re

import numpy as np
import pytest

from kprune import (
    Block,
    Channel,
    Criterion,
    Granularity,
    NofM,
    Scope,
    compute_mask,
    compute_masks,
)
from kprune.granularity import Units
from tests.checks import zeros_of


def by_sorting(scores, sparsity):
    """The same by a stable sort: of equal scores the lower index is kept."""
    flat = np.asarray(scores).reshape(-1)
    keep = flat.size - zeros_of(flat.size, sparsity)
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-flat, kind="stable")[:keep]] = True
    return mask.reshape(np.shape(scores))


def test_mask_keeps_the_largest_magnitudes():
    weights = np.array([[0.1, -0.9, 0.3], [-0.2, 0.5, 0.0]], "float32")

    (mask,) = compute_masks([weights], 0.5)

    np.testing.assert_array_equal(mask, [[0, 1, 1], [0, 1, 0]])


def test_of_equal_scores_the_lower_index_is_kept():
    mask = compute_mask(np.ones((2, 4), "float32"), sparsity=0.75)

    np.testing.assert_array_equal(mask, [[1, 1, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.33, 0.5, 0.75, 0.99, 0.999999])
@pytest.mark.parametrize("shape", [(1,), (1, 1), (7, 3), (2, 3, 4, 5), (65, 33)])
def test_count_and_choice_are_exact(shape, sparsity):
    scores = np.random.default_rng(0).integers(0, 9, shape).astype("float32")

    mask = compute_mask(scores, sparsity)

    assert mask.dtype == bool
    assert mask.size - mask.sum() == zeros_of(mask.size, sparsity)
    np.testing.assert_array_equal(mask, by_sorting(scores, sparsity))


@pytest.mark.parametrize("seed", range(3))
def test_masks_nest_as_sparsity_grows(seed):
    scores = np.random.default_rng(seed).normal(size=(20, 30))

    masks = [compute_mask(scores, s) for s in (0.2, 0.5, 0.9)]

    assert (masks[0] >= masks[1]).all()
    assert (masks[1] >= masks[2]).all()


@pytest.mark.parametrize("seed", range(3))
def test_permuting_distinct_scores_permutes_the_mask(seed):
    rng = np.random.default_rng(seed)
    scores, order = rng.normal(size=200), rng.permutation(200)

    np.testing.assert_array_equal(
        compute_mask(scores[order], 0.7), compute_mask(scores, 0.7)[order]
    )


@pytest.mark.parametrize("scope", ["layer_wise", "global"])
def test_what_was_removed_stays_removed(scope):
    weights = [np.array([9.0, 1.0, 2.0, 3.0]), np.array([8.0, 7.0])]
    masks = [np.array([False, True, True, True]), np.array([True, True])]

    first, second = compute_masks(weights, 0.5, masks=masks, scope=scope)

    assert not first[0]
    if scope == "layer_wise":
        np.testing.assert_array_equal(first, [0, 0, 1, 1])
        np.testing.assert_array_equal(second, [1, 0])
    else:
        np.testing.assert_array_equal(first, [0, 0, 0, 1])
        np.testing.assert_array_equal(second, [1, 1])


def test_lower_sparsity_does_not_bring_weights_back():
    mask = np.array([True, False, False, False])

    (new,) = compute_masks([np.array([1.0, 2.0, 3.0, 4.0])], 0.25, masks=[mask])

    np.testing.assert_array_equal(new, mask)


def test_criterion_may_be_a_function():
    (mask,) = compute_masks(
        [np.array([1.0, -4.0, 2.0, 3.0])], 0.5, criterion=lambda weight: weight
    )

    np.testing.assert_array_equal(mask, [0, 0, 1, 1])


@pytest.mark.parametrize("kind", ["int64", "uint8", "bool"])
def test_scores_may_be_whole_numbers(kind):
    scores = np.array([[3, 0], [1, 2]], kind)

    (mask,) = compute_masks([np.ones((2, 2))], 0.5, criterion=lambda weight: scores)

    np.testing.assert_array_equal(mask, by_sorting(scores.astype("float64"), 0.5))
    np.testing.assert_array_equal(compute_mask(scores, 0.5), mask)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones(2), r"shape \(2,\) and type float64"),
        (3.0, r"shape \(\) and type float64"),
        (np.ones((2, 3), "complex64"), r"shape \(2, 3\) and type complex64"),
        (None, r"shape \(\) and type object"),
    ],
)
@pytest.mark.parametrize("granularity", ["element", "channel"])
def test_scores_of_another_form_are_laid_to_the_criterion(granularity, scores, message):
    def mine(weight):
        return scores

    with pytest.raises(
        ValueError, match=f"<function .*mine.* gave scores of {message}"
    ):
        list(
            compute_masks(
                [np.ones((2, 3))], 0.5, criterion=mine, granularity=granularity
            )
        )


@pytest.mark.parametrize("sparsity", [90, 1.0, -0.2, np.nan, "0.5", None, True])
def test_what_is_no_sparsity_is_refused(sparsity):
    message = re.escape(f"sparsity={sparsity!r} must be a number in [0, 1)")

    with pytest.raises(ValueError, match=message):
        compute_mask(np.ones(4), sparsity)
    with pytest.raises(ValueError, match=message):
        list(compute_masks([np.ones(4)], sparsity))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(bad):
    weights = [np.ones(3), np.array([[1.0, bad], [bad, 2.0]])]

    with pytest.raises(ValueError, match=r"weight 'd/k' of shape \(2, 2\) h"):
        list(compute_masks(weights, 0.5, names=["a", "d/k"]))


def test_large_finite_weights_are_no_infinity():
    weights = np.array([1e30, -3e38, 2.0, 1.0], "float32")  # squares overflow

    (mask,) = compute_masks([weights], 0.5)

    np.testing.assert_array_equal(mask, [1, 1, 0, 0])


def test_inputs_are_not_changed():
    weights, mask = np.array([1.0, -2.0, 3.0]), np.array([True, True, False])
    before = weights.copy(), mask.copy()

    list(compute_masks([weights], 0.5, masks=[mask]))

    np.testing.assert_array_equal(weights, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_precision_of_the_weight_does_not_matter(dtype):
    weights = np.random.default_rng(0).normal(size=(30, 30)).astype(dtype)

    (mask,) = compute_masks([weights], 0.6)

    np.testing.assert_array_equal(mask, by_sorting(np.abs(weights), 0.6))


class Weighted(Criterion):
    elementwise = True
    requires = ("factor",)

    def __call__(self, weight, factor):
        return np.abs(weight) * factor


@pytest.mark.parametrize("granularity", ["element", Block(4, 1), NofM(2, 4)], ids=repr)
def test_a_turned_weight_is_pruned_like_one_that_lies_straight(granularity):
    rng = np.random.default_rng(0)
    weights = [
        rng.normal(size=(30, 40)).T,
        rng.normal(size=(5, 6, 7)).transpose(2, 0, 1),
    ]
    evidence = [{"factor": rng.random(w.T.shape).T} for w in weights]
    masks = [rng.random(w.T.shape).T < 0.9 for w in weights]

    turned, straight = (
        list(
            compute_masks(
                change(weights),
                0.5,
                criterion=Weighted(),
                granularity=granularity,
                masks=change(masks),
                evidence=[
                    {"factor": f} for f in change([e["factor"] for e in evidence])
                ],
            )
        )
        for change in (list, lambda arrays: [a.copy(order="C") for a in arrays])
    )

    for one, other in zip(turned, straight, strict=True):
        np.testing.assert_array_equal(one, other)
        assert not one.all()


class Columns(Granularity):
    """Whole columns, scored as told."""

    def __init__(self, score):
        self.score = score

    def units(self, scores, mask=None):
        def expand(keep):
            return np.broadcast_to(keep, scores.shape).copy()

        return Units(self.score(scores), expand, len(scores))


@pytest.mark.parametrize(
    "score",
    [
        lambda x: x.sum(0),
        lambda x: x.sum(0) - x.sum(0).mean(),
        lambda x: -1 / x.sum(0),
        lambda x: np.log(x).mean(0),
    ],
    ids=["sum", "centred", "negative", "logarithm"],
)
def test_units_may_have_scores_of_any_sign(score):
    weight = np.tile(np.float32([3, 1, 6, 2, 5, 4]), (4, 1)) / 10
    columns = Columns(score)

    (none,) = compute_masks([weight], 0.0, granularity=columns, masks=[weight > 0])
    (half,) = compute_masks([weight], 0.5, granularity=columns, masks=[none])
    (more,) = compute_masks([weight], 4 / 6, granularity=columns, masks=[half])

    assert none.all()
    np.testing.assert_array_equal(half, np.tile([0, 0, 1, 0, 1, 1], (4, 1)))
    np.testing.assert_array_equal(more, np.tile([0, 0, 1, 0, 1, 0], (4, 1)))


@pytest.mark.parametrize("units", [1, 2, 3, 8, 9])
def test_a_unit_is_left_if_one_of_its_weights_is(units):
    mask = np.random.default_rng(units).random((2, units)) < 0.4

    kept = Columns(lambda x: x.sum(0)).units(mask.astype("f4")).kept(mask)

    np.testing.assert_array_equal(kept, mask.any(axis=0))


@pytest.mark.parametrize(
    "result", [lambda keep: keep[None, :], lambda keep: np.ones((2, 3))]
)
def test_a_granularity_with_a_wrong_mask_is_named(result):
    class Wrong(Columns):
        def units(self, scores, mask=None):
            return dataclasses.replace(super().units(scores), expand=result)

    wrong = Wrong(lambda x: x.sum(0))

    with pytest.raises(ValueError, match="Wrong.* gave a mask of shape"):
        list(compute_masks([np.ones((2, 3), "float32")], 0.5, granularity=wrong))


def test_a_scope_that_ignores_what_was_removed_does_not_bring_it_back():
    class Everything(Scope):
        def __call__(self, contenders, sparsity):
            return [np.ones(len(contender.scores), bool) for contender in contenders]

    present = np.array([True, False, True])

    (mask,) = compute_masks(
        [np.float32([1, 2, 3])], 0.5, scope=Everything(), masks=[present]
    )

    assert mask.tolist() == present.tolist()


@pytest.mark.parametrize("scope", ["layer_wise", "global"])
@pytest.mark.parametrize("masks", [None, [np.array([True, False, True, False])]])
def test_bad_weights_are_found_also_where_nothing_more_is_removed(scope, masks):
    weight = np.array([np.nan, 0, 1, 0], "float32")

    with pytest.raises(ValueError, match="NaN or infinite"):
        sparsity = 0.0 if masks is None else 0.5
        list(compute_masks([weight], sparsity, scope=scope, masks=masks))


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize(
    "granularity", ["element", Block(4, 1), NofM(2, 4), Channel(-1), Channel(-2)]
)
def test_scores_of_whole_channels_rank_channels_and_nothing_else(axis, granularity):
    class OfChannels(Criterion):
        def __call__(self, weight):
            return np.broadcast_to(weight.mean(axis=-3 - axis, keepdims=True), (4, 4))

    OfChannels.axis = axis
    weight = np.arange(16.0).reshape(4, 4)

    masks = compute_masks(
        [weight], 0.5, criterion=OfChannels(), granularity=granularity
    )

    if granularity == Channel(axis):
        kept = np.array([False, False, True, True])
        expected = np.broadcast_to(kept if axis == -1 else kept[:, None], (4, 4))
        np.testing.assert_array_equal(next(masks), expected)
    else:
        with pytest.raises(ValueError, match=rf"Channel\({axis}\)"):
            next(masks)
