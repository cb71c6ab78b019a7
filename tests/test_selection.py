"""Exact selection, against a stable sort."""

import ml_dtypes
import numpy as np
import pytest

from kprune.selection import keep_by_size, keep_largest, largest, streamed


def by_sorting(sources, keep):
    """The same by a stable sort of everything, which is slow and plain."""
    flat = np.concatenate([np.asarray(s[0 : len(s)], "float64") for s in sources])
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-flat, kind="stable")[:keep]] = True
    return np.split(mask, np.cumsum([len(s) for s in sources])[:-1])


def assert_as_by_sorting(sources, keep):
    masks = keep_largest(sources, keep)

    assert sum(map(np.count_nonzero, masks)) == keep
    for mask, expected in zip(masks, by_sorting(sources, keep), strict=True):
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, expected)


class Squares:
    """Scores computed on the slice that is asked for, as masks of weights are."""

    def __init__(self, values):
        self.values = values
        self.longest = 0

    def __len__(self):
        return len(self.values)

    def __getitem__(self, piece):
        part = self.values[piece]
        self.longest = max(self.longest, len(part))
        return part * part


@pytest.fixture(params=["direct", "streamed"])
def way(request, monkeypatch):
    """Both ways through the module, the second with small pieces and no spare room."""
    if request.param == "streamed":
        monkeypatch.setattr(largest, "_DIRECT", 0)
        monkeypatch.setattr(streamed, "_PIECE", 64)
        monkeypatch.setattr(streamed, "_RUNS", 16)
        monkeypatch.setattr(streamed, "_RUN", 8)
        monkeypatch.setattr(streamed, "_ROOM", 32)
    return request.param


DRAWS = {
    "distinct": lambda rng, n: rng.permutation(n).astype("float32"),
    "normal": lambda rng, n: rng.normal(size=n).astype("float32"),
    "few_levels": lambda rng, n: rng.integers(-2, 3, n).astype("float32"),
    "all_equal": lambda rng, n: np.full(n, 0.5, "float32"),
    "mostly_zero": lambda rng, n: (rng.random(n) * (rng.random(n) < 0.1)).astype("f4"),
    "mostly_removed": lambda rng, n: np.where(
        rng.random(n) < 0.9, -np.inf, rng.random(n)
    ).astype("float32"),
    "infinities": lambda rng, n: rng.choice([-np.inf, 0, np.inf], n).astype("float32"),
    "signed_zeros": lambda rng, n: rng.choice([-0.0, 0.0, 1.0], n).astype("float32"),
    "wide_range": lambda rng, n: np.exp(rng.uniform(-90, 80, n)).astype("float32"),
    "subnormal": lambda rng, n: (
        rng.integers(-9, 9, n).astype("int32").astype("f4") * np.float32(1e-45)
    ),
    "float16": lambda rng, n: rng.normal(size=n).astype("float16"),
    "bfloat16": lambda rng, n: rng.normal(size=n).astype(ml_dtypes.bfloat16),
    "float64": lambda rng, n: 1 + 1e-12 * rng.permutation(n),
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("seed", range(5))
def test_the_largest_are_kept_and_ties_go_to_the_lower_index(way, draw, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.choice([1, 2, 63, 64, 65, 128, 500], size=rng.integers(1, 5))
    sources = [DRAWS[draw](rng, n) for n in sizes]
    total = int(sizes.sum())

    for keep in {0, 1, total // 10, total // 2, total - 1, total}:
        assert_as_by_sorting(sources, keep)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_only_candidates_are_kept(way, draw, share):
    """As if the others scored less than all."""
    rng = np.random.default_rng(0)
    sources = [DRAWS[draw](rng, n) for n in (500, 1, 65, 200)]
    candidates = [rng.random(s.size) < share for s in sources]
    candidates[2] = None  # all of them
    allowed = [np.ones(65, bool) if c is None else c for c in candidates]
    flat = np.concatenate(sources).astype("float64")
    order = np.lexsort([-flat, ~np.concatenate(allowed)])
    total = int(np.count_nonzero(np.concatenate(allowed)))

    for keep in {0, 1, total // 10, total // 2, total - 1, total, 766}:
        masks = keep_largest(sources, keep, candidates)
        expected = np.zeros(766, bool)
        expected[order[: min(keep, total)]] = True
        np.testing.assert_array_equal(np.concatenate(masks), expected)


def test_three_small_sources_by_eye(way):
    sources = [np.float32([4, 1]), np.float32([4, -np.inf, 2]), np.float32([4])]

    masks = keep_largest(sources, 2)

    assert [m.tolist() for m in masks] == [[1, 0], [1, 0, 0], [0]]


@pytest.mark.parametrize("keep", [1, 63, 64, 65, 127, 128, 129, 255])
def test_ties_are_cut_anywhere_around_the_border_of_a_piece(way, keep):
    assert_as_by_sorting([np.ones(200, "float32"), np.ones(56, "float32")], keep)


def test_a_heavy_tie_at_the_threshold_between_others(way):
    rng = np.random.default_rng(0)
    scores = np.concatenate([np.full(700, 0.5), rng.random(300)]).astype("float32")

    for keep in (100, 150, 400, 840, 900):
        assert_as_by_sorting([rng.permutation(scores)], keep)


def test_empty_sources_and_no_sources(way):
    empty = np.empty(0, "float32")

    assert keep_largest([], 0) == []
    assert_as_by_sorting([empty, np.float32([2, 1, 3]), empty], 2)


@pytest.mark.parametrize("keep", [1, 300, 1000, 1999])
def test_a_sample_that_misses_costs_nothing_but_time(way, monkeypatch, keep):
    rng = np.random.default_rng(0)
    sources = [rng.normal(size=n).astype("float32") for n in (500, 500, 1000)]

    for wrong in ((-9, -8), (8, 9), (-np.inf, np.inf), (0.1, 0.1), (-np.inf, -9)):
        bracket = tuple(np.float32(x) for x in wrong)
        monkeypatch.setattr(streamed, "_sample_bracket", lambda *_, b=bracket: b)
        assert_as_by_sorting(sources, keep)


def test_scores_placed_to_deceive_the_sample(way):
    """Where the sample looks is large, the rest is small."""

    class Spy(Squares):
        def __getitem__(self, piece):
            self.seen[piece] = True
            return super().__getitem__(piece)

    spy = Spy(np.ones(4000, "float32"))
    spy.seen = np.zeros(4000, bool)
    streamed._sample_bracket(streamed._Field([spy], [None]), 0.5)
    rng = np.random.default_rng(1)
    scores = np.where(spy.seen, 9 + rng.random(4000), rng.random(4000))

    for keep in (10, 400, 2000, 3990):
        assert_as_by_sorting([scores.astype("float32")], keep)


def test_a_lazy_source_is_read_in_pieces_only(monkeypatch):
    monkeypatch.setattr(largest, "_DIRECT", 1000)
    monkeypatch.setattr(streamed, "_PIECE", 1 << 12)
    rng = np.random.default_rng(0)
    sources = [Squares(rng.normal(size=n).astype("f4")) for n in (50_001, 100, 4096)]

    assert_as_by_sorting(sources[::-1], 20_000)
    for source in sources:
        source.longest = 0
    keep_largest(sources, 20_000)

    assert max(source.longest for source in sources) <= 1 << 12


def test_layers_of_different_scale_ranked_together():
    rng = np.random.default_rng(0)
    scales = np.float32([1e-4, 1, 1e-2, 30, 1e-3])
    sources = [np.abs(rng.normal(size=200_000).astype("f4")) * s for s in scales]

    for keep in (1, 100_000, 390_000, 900_000):
        assert_as_by_sorting(sources, keep)


def test_the_choice_is_the_same_every_time_and_on_any_number_of_threads(monkeypatch):
    scores = np.random.default_rng(0).integers(0, 50, 900_000).astype("float32")
    first = keep_largest([scores], 123_456)[0]

    for threads in (1, 2, 7):
        monkeypatch.setattr(streamed, "_THREADS", threads)
        np.testing.assert_array_equal(keep_largest([scores], 123_456)[0], first)


def test_no_more_than_room_is_collected_for_long(monkeypatch):
    """A bracket around everything is narrowed before it is collected."""
    monkeypatch.setattr(largest, "_DIRECT", 0)
    monkeypatch.setattr(streamed, "_ROOM", 100)
    monkeypatch.setattr(streamed, "_PIECE", 50)
    everything = np.float32(-np.inf), np.float32(np.inf)
    monkeypatch.setattr(streamed, "_sample_bracket", lambda *_: everything)
    collected = []
    survey = streamed._survey

    def spy(*args):
        result = survey(*args)
        collected.append(result[-1])
        return result

    monkeypatch.setattr(streamed, "_survey", spy)
    rng = np.random.default_rng(0)
    sources = [rng.normal(size=90).astype("float32") for _ in range(40)]

    assert_as_by_sorting(sources, 1800)

    assert collected[0] is None
    assert collected[-1].size <= 100


@pytest.mark.parametrize("keep", [-1, 4])
def test_an_impossible_number_is_refused(keep):
    with pytest.raises(ValueError, match=f"keep={keep} must be from 0 to 3"):
        keep_largest([np.zeros(3, "float32")], keep)


# Units of unequal size


def by_size_one_after_another(sources, sizes, zeros, candidates, stay):
    """The same by a plain loop: remove the lowest while that comes nearer."""
    units = [
        (allowed[j], float(scores[j]), -i, -j, int(size[j]))
        for i, (scores, size, allowed) in enumerate(
            zip(sources, sizes, candidates, strict=True)
        )
        for j in range(len(scores))
    ]
    keep = [allowed.copy() for allowed in candidates]
    gone = sum(size for allowed, *_, size in units if not allowed)
    left = sum(1 for allowed, *_ in units if allowed)
    for _, _, i, j, size in sorted(unit for unit in units if unit[0]):
        if left <= stay or abs(gone + size - zeros) > abs(gone - zeros):
            break
        keep[-i][-j] = False
        gone, left = gone + size, left - 1
    return keep


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("seed", range(4))
def test_units_of_unequal_size_go_until_the_number_is_nearest(draw, seed):
    rng = np.random.default_rng(seed)
    numbers = rng.choice([1, 2, 65, 700], size=rng.integers(1, 4))
    sources = [DRAWS[draw](rng, n) for n in numbers]
    sizes = [rng.integers(1, 9, n) for n in numbers]
    candidates = [rng.random(n) < 0.8 for n in numbers]
    total = int(sum(s.sum() for s in sizes))

    for zeros in (0, 1, total // 3, total // 2, 9 * total // 10, total - 1, total):
        for stay in (0, 1):
            keep = keep_by_size(sources, sizes, zeros, candidates, stay=stay)
            expected = by_size_one_after_another(
                sources, sizes, zeros, candidates, stay
            )
            for mask, other in zip(keep, expected, strict=True):
                np.testing.assert_array_equal(mask, other)


def test_units_of_one_size_are_chosen_as_single_weights_are():
    rng = np.random.default_rng(0)
    sources = [rng.integers(0, 99, n).astype("float32") for n in (300, 1, 2000)]

    for kept in (1, 10, 1000, 2300):
        by_size = keep_by_size(sources, [4, 4, 4], zeros=4 * (2301 - kept))
        for mask, expected in zip(by_size, keep_largest(sources, kept), strict=True):
            np.testing.assert_array_equal(mask, expected)


def test_choice_by_size_leaves_its_inputs_alone():
    candidates = np.array([True, True, False])

    keep_by_size([np.float32([1, 2, 3])], [np.array([1, 2, 3])], 5, [candidates])

    np.testing.assert_array_equal(candidates, [True, True, False])
