import numpy as np
import pytest

import kprune
from kprune.granularity import base


def kept_in_groups(mask, m, axis=-2):
    """How many of each group are left, for the whole groups and for the last."""
    mask = np.moveaxis(mask, axis, -1)
    whole = mask.shape[-1] - mask.shape[-1] % m
    groups = mask[..., :whole].reshape(*mask.shape[:-1], -1, m)
    return groups.sum(-1), mask[..., whole:].sum(-1)


def test_two_of_four_consecutive_inputs_stay():
    scores = np.array([[1, 8], [2, 7], [3, 6], [4, 5], [4, 1], [1, 2], [2, 3], [3, 4]])

    mask = kprune.compute_mask(scores / 1.0, 0.5, granularity=kprune.NofM(2, 4))

    np.testing.assert_array_equal(
        mask.T, [[0, 0, 1, 1, 1, 0, 0, 1], [1, 1, 0, 0, 0, 0, 1, 1]]
    )


def test_groups_may_run_along_the_outputs():
    scores = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1]])

    mask = kprune.compute_mask(scores, 0.75, granularity=kprune.NofM(1, 4, axis=-1))

    np.testing.assert_array_equal(mask, [[0, 0, 0, 1], [1, 0, 0, 0]])


def test_of_equal_scores_the_lower_index_stays():
    mask = kprune.compute_mask(np.ones((4, 1)), 0.5, granularity=kprune.NofM(2, 4))

    np.testing.assert_array_equal(mask.T, [[1, 1, 0, 0]])


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("shape", [(8, 8), (3, 3, 8, 16), (16, 24)])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2), (3, 8)])
def test_a_group_keeps_its_best(shape, n, m, axis):
    scores = np.random.default_rng(0).normal(size=shape).astype("float32")

    mask = kprune.compute_mask(scores, 1 - n / m, granularity=kprune.NofM(n, m, axis))

    lines = np.moveaxis(scores, axis, -1)
    groups = lines.reshape(*lines.shape[:-1], -1, m)
    best = (-groups).argsort(-1).argsort(-1) < n
    expected = np.moveaxis(best.reshape(lines.shape), -1, axis)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("size", range(1, 14))
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 5)])
def test_a_smaller_last_group_keeps_its_share_rounded_up(size, n, m):
    scores = np.random.default_rng(size).normal(size=(2, size, 3))

    mask = kprune.compute_mask(scores, 1 - n / m, granularity=kprune.NofM(n, m))

    whole, rest = kept_in_groups(mask, m)
    assert (whole == n).all()
    np.testing.assert_array_equal(rest, -(-(size % m) * n // m))


def test_a_schedule_goes_in_steps_and_each_mask_lies_in_the_one_before():
    rng = np.random.default_rng(0)
    weight, mask = rng.normal(size=(3, 10, 6)), None
    seen = []

    for sparsity in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
        weight = weight + 0.3 * rng.normal(size=weight.shape)
        before = np.ones(weight.shape, bool) if mask is None else mask
        (mask,) = kprune.compute_masks(
            [weight], sparsity, granularity=kprune.NofM(2, 4), masks=[before]
        )
        whole, rest = kept_in_groups(mask, 4)
        seen.append((*np.unique(whole), *np.unique(rest)))
        assert (before >= mask).all()

    # 4:4, 3:4, 2:4; of the last two inputs 2, 2, 1.
    assert seen == [(4, 2), (4, 2), (3, 2), (3, 2), (2, 1), (2, 1)]


def test_what_another_mask_has_removed_ranks_last_and_stays_removed():
    scores = np.array([[9.0], [8], [1], [2]])
    mask = np.array([[False], [True], [True], [True]])

    (new,) = kprune.compute_masks(
        [scores], 0.5, granularity=kprune.NofM(2, 4), masks=[mask]
    )
    (one,) = kprune.compute_masks(
        [scores],
        0.5,
        granularity=kprune.NofM(2, 4),
        masks=[np.array([[False], [False], [True], [False]])],
    )

    np.testing.assert_array_equal(new.T, [[0, 1, 0, 1]])
    np.testing.assert_array_equal(one.T, [[0, 0, 1, 0]])


def test_ranks_that_a_mask_has_left_are_known():
    units = kprune.NofM(2, 4).units(np.array([[4.0], [3], [2], [1]]))

    kept = units.kept(np.array([[True], [False], [True], [False]]))

    np.testing.assert_array_equal(kept, [1, 0, 1, 0])


def ranks_one_by_one(scores, mask, m):
    """The same along the last axis, by sorting one group after the other."""
    ranks = np.zeros(scores.shape, int)
    for line in np.ndindex(scores.shape[:-1]):
        for begin in range(0, scores.shape[-1], m):
            places = [(*line, i) for i in range(begin, scores.shape[-1])][:m]
            # What is removed ranks last, by its index alone.
            order = sorted(places, key=lambda p: (-scores[p] if mask[p] else 9, p))
            for number, place in enumerate(order):
                ranks[place] = number * m // len(places)
    return ranks


@pytest.mark.parametrize("band", [24, 1 << 20])
@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize(
    "shape", [(1, 1), (9, 7), (8, 12), (3, 2, 10, 5), (1, 1, 6, 6)]
)
@pytest.mark.parametrize("m", [2, 4, 5, 9])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_units_are_the_ranks_within_a_group(dtype, m, shape, axis, band, monkeypatch):
    monkeypatch.setattr(base, "_BAND", band)
    rng = np.random.default_rng(m)
    scores = rng.integers(-3, 4, shape).astype(dtype)  # with many ties
    mask = rng.random(shape) < 0.6

    for present in (None, mask):
        units = kprune.NofM(1, m, axis).units(scores, present)

        known = np.ones(shape, bool) if present is None else present
        lines = (np.moveaxis(a, axis, -1) for a in (scores, known))
        ranks = np.moveaxis(ranks_one_by_one(*lines, m), -1, axis)
        for keep in (np.arange(m) < 1, rng.random(m) < 0.5, np.ones(m, bool)):
            np.testing.assert_array_equal(units.expand(keep), keep[ranks])
        left = np.bincount(ranks[mask], minlength=m) > 0
        np.testing.assert_array_equal(units.kept(mask), left)


@pytest.mark.parametrize("scope", ["global", kprune.Global()])
def test_layers_cannot_be_ranked_together(scope):
    with pytest.raises(ValueError, match=r"NofM.* each layer by itself, such as"):
        list(
            kprune.compute_masks(
                [np.ones((4, 4))], 0.5, granularity=kprune.NofM(), scope=scope
            )
        )


@pytest.mark.parametrize(("n", "m"), [(4, 4), (0, 4), (3, 2), (1.0, 2), (1, 256)])
def test_numbers_that_leave_no_pattern_are_refused(n, m):
    with pytest.raises(ValueError, match="1 <= n < m <= 255"):
        kprune.NofM(n, m)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 3)])
def test_reachable_is_the_share_that_is_removed(n, m):
    assert kprune.NofM(n, m).reachable((5, 5)) == pytest.approx((m - n) / m)
