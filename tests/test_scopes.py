import itertools
import math

import keras
import numpy as np
import pytest

import kprune
from kprune import (
    ERK,
    ErdosRenyi,
    Global,
    LayerWise,
    NofM,
    PerLayer,
    Scope,
    Sparing,
    Threshold,
)
from kprune.scopes import Contender, zeros_wanted

SCORES = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0]), np.array([5.0])]
ALL = [None, None, None]


def kept(scope, sparsity, scores=SCORES, candidates=ALL):
    contenders = [Contender(*c) for c in zip(scores, candidates, strict=True)]
    return [k.astype(int).tolist() for k in scope(contenders, sparsity)]


def of_shapes(shapes, **arguments):
    """Contenders of some shapes with random scores, named `a`, `b`, ..."""
    rng = np.random.default_rng(0)
    return [
        Contender(rng.random(math.prod(s)), shape=s, name=f"{n}/kernel", **arguments)
        for n, s in zip("abcdefgh", shapes, strict=False)
    ]


def numbers_kept(scope, contenders, sparsity):
    return [np.count_nonzero(keep) for keep in scope(contenders, sparsity)]


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


# What all scopes have in common


UNEQUAL = [
    Contender(np.arange(20.0), None, np.tile([4, 1], 10), (50,), "a/kernel"),
    Contender(np.arange(30.0), None, 3, (90,), "b/kernel"),
    Contender(np.arange(10.0), None, np.repeat([1, 6], 5), (35,), "c/kernel"),
]


@pytest.mark.parametrize(
    ("scope", "border"),
    [
        (LayerWise(), 3 + 1.5 + 3),  # half of a unit in each weight
        (ErdosRenyi(), 3),
        (ERK(), 3),
        (Global(), 3),
        (Global(0.1, 0.9), 3),
        (Sparing("erk", first=0.3, last=0.4), 3),
    ],
)
@pytest.mark.parametrize("sparsity", [0.2, 0.35, 0.5, 0.66])
def test_units_of_unequal_size_are_exact_to_half_of_those_at_the_border(
    scope, border, sparsity
):
    keep = list(scope(UNEQUAL, sparsity))

    zeros = sum(c.weights_in(~k) for c, k in zip(UNEQUAL, keep, strict=True))
    assert abs(zeros - sparsity * 175) <= border + 0.5


@pytest.mark.parametrize(
    "scope",
    [LayerWise(), ErdosRenyi(), ERK(), Global(0.1, 0.95), Sparing("global")],
)
def test_what_is_removed_stays_removed_as_sparsity_grows(scope):
    contenders = of_shapes([(3, 3, 2, 8), (3, 3, 8, 8), (20, 30), (30, 4)])
    rng = np.random.default_rng(1)

    for sparsity in np.linspace(0.05, 0.7, 14):
        before = [c.candidates for c in contenders]
        keep = list(scope(contenders, sparsity))
        for contender, own, old in zip(contenders, keep, before, strict=True):
            assert old is None or not (own & ~old).any()
            contender.candidates = own
            contender.scores = rng.random(own.size)

        left = sum(map(np.count_nonzero, keep))
        border = 2 if isinstance(scope, LayerWise) else 0.5
        assert abs(1440 * (1 - sparsity) - left) <= border + 1e-6


@pytest.mark.parametrize(
    "scope", [LayerWise(), Global(), Global(0.1, 0.95), PerLayer({"*": 0.7})]
)
@pytest.mark.parametrize("seed", range(3))
def test_masks_nest_as_sparsity_grows(scope, seed):
    rng = np.random.default_rng(seed)
    scores = [rng.integers(0, 30, n) / 10 for n in (17, 200, 60)]
    before = [np.ones(s.size, bool) for s in scores]

    for sparsity in np.linspace(0, 0.7, 30):
        keep = list(scope([Contender(s, name="a/kernel") for s in scores], sparsity))
        for own, old in zip(keep, before, strict=True):
            assert (old >= own).all()
        before = keep


@pytest.mark.parametrize("scope", [LayerWise(), Global(), ErdosRenyi(), ERK()])
def test_removed_units_are_not_brought_back(scope):
    scores = [np.array([9.0, 2.0, 9.0, 4.0]), np.array([10.0, 9.0])]
    candidates = [np.array([False, True, False, True]), np.array([True, False])]

    assert kept(scope, 0.0, scores, candidates) == [[0, 1, 0, 1], [1, 0]]


def test_base_class_names_the_subclass_that_lacks_a_call():
    class Half(Scope):
        pass

    with pytest.raises(NotImplementedError, match="Half defines no `__call__`"):
        Half()([], 0.5)


@pytest.mark.parametrize("scope", [LayerWise(), ErdosRenyi(), ERK()])
def test_what_a_granularity_can_not_reach_is_refused_with_what_it_can(scope):
    contenders = of_shapes([(4, 4), (8, 6)], reachable=0.5)

    scope.check(contenders, 0.5)
    with pytest.raises(
        ValueError,
        match="0.6 can't be reached .* only 0.5 over all .* 'a/kernel' 0.5, 'b/ker",
    ):
        scope.check(contenders, 0.6)


# Layer-wise


def test_layer_wise_gives_each_weight_the_same_sparsity():
    assert kept(LayerWise(), 0.5) == [[0, 0, 1, 1], [0, 1], [1]]


def test_layer_wise_leaves_at_least_one_in_each():
    assert kept(LayerWise(), 0.99) == [[0, 0, 0, 1], [0, 1], [1]]


def test_layer_wise_lets_others_make_up_for_a_weight_at_its_limit():
    contenders = of_shapes([(100,), (100,), (200,)])
    contenders[1].reachable = 0.2

    assert numbers_kept(LayerWise(), contenders, 0.1) == [90, 90, 180]
    # 200 are to go: 20 there, 180 of the other 300.
    assert numbers_kept(LayerWise(), contenders, 0.5) == [40, 80, 80]


def densities_of_evci(shapes, sparsity, kernel_sides):
    """The loop of the paper's code: one layer after another is made dense."""
    dense = set()
    while True:
        divisor, to_keep, raw = 0.0, 0.0, {}
        for i, shape in enumerate(shapes):
            size = math.prod(shape)
            if i in dense:
                to_keep -= sparsity * size
            else:
                to_keep += (1 - sparsity) * size
                sides = sum(shape) if kernel_sides else shape[-2] + shape[-1]
                product = size if kernel_sides else shape[-2] * shape[-1]
                raw[i] = sides / product
                divisor += raw[i] * size
        factor = to_keep / divisor
        largest = max(raw.values())
        if factor * largest <= 1:
            return [1.0 if i in dense else factor * raw[i] for i in range(len(shapes))]
        dense |= {i for i in raw if raw[i] == largest}


LENET = [(5, 5, 1, 20), (5, 5, 20, 50), (800, 500), (500, 10)]
NARROW = [(3, 3, 3, 8), (3, 3, 8, 8), (1, 1, 8, 16), (144, 64), (64, 2)]


@pytest.mark.parametrize("shapes", [LENET, NARROW])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("scope", [ErdosRenyi(), ERK()])
def test_densities_are_those_of_the_papers_loop(scope, shapes, sparsity):
    contenders = of_shapes(shapes)

    numbers = numbers_kept(scope, contenders, sparsity)

    expected = densities_of_evci(shapes, sparsity, isinstance(scope, ERK))
    sizes = [math.prod(shape) for shape in shapes]
    total = sum(sizes)
    assert sum(numbers) == total - zeros_wanted(sparsity, total)
    for number, size, density in zip(numbers, sizes, expected, strict=True):
        assert abs(number - density * size) < 1


def test_small_layers_stay_dense_by_hand():
    """Of 820 weights 164 stay: in proportion 50, 30 and 12, with the third full."""
    contenders = of_shapes([(30, 20), (20, 10), (10, 2)])

    assert numbers_kept(ErdosRenyi(), contenders, 0.8) == [90, 54, 20]


def test_each_weight_is_ranked_by_itself():
    contenders = of_shapes([(10, 10), (10, 10)])
    contenders[0].scores = contenders[0].scores + 9

    keep = list(ErdosRenyi()(contenders, 0.5))

    for contender, own in zip(contenders, keep, strict=True):
        expected = np.zeros(100, bool)
        expected[np.argsort(-contender.scores)[:50]] = True
        np.testing.assert_array_equal(own, expected)


def test_in_blocks_the_budget_is_one_of_blocks():
    shapes = [(16, 8), (16, 32), (32, 4)]
    contenders = [
        Contender(np.random.default_rng(i).random(math.prod(s) // 4), None, 4, s)
        for i, s in enumerate(shapes)
    ]

    numbers = numbers_kept(ERK(), contenders, 0.7)

    assert sum(numbers) == 192 - zeros_wanted(0.7, 192)
    # 58 blocks in proportion to 24, 48 and 36: 12.9, 25.8 and 19.3.
    assert numbers == [13, 26, 19]


def test_share_of_what_is_gone_already_goes_to_the_others():
    contenders = of_shapes([(10, 10), (10, 10), (10, 10)])
    contenders[0].candidates = np.arange(100) < 30

    assert numbers_kept(ERK(), contenders, 0.5) == [30, 60, 60]


@pytest.mark.parametrize("scope", ["layer_wise", "erdos_renyi", "erk"])
def test_no_weight_loses_more_than_its_granularity_allows(scope):
    """Two of four stay, also in the last group, which has two or one."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) for shape in ((10, 6), (64, 8), (9, 3))]

    for sparsity in (0.2, 0.4, 0.5):
        masks = list(
            kprune.compute_masks(weights, sparsity, granularity=NofM(), scope=scope)
        )
        for mask in masks:
            groups = np.split(mask, range(4, len(mask), 4))
            assert all(g.sum(axis=0).min() >= len(g) / 2 for g in groups)
        zeros = sum(np.count_nonzero(~mask) for mask in masks)
        assert abs(zeros - sparsity * 599) < 599 / 8


def test_weights_that_go_together_count_with_their_shapes_not_as_a_vector():
    """Eight channels of two kernels, and twenty other inputs and outputs."""
    channels = Contender(
        np.random.default_rng(0).random(8),
        sizes=9 * 4 + 9 * 16,
        shape=(1440,),
        shapes=[(3, 3, 4, 8), (3, 3, 8, 16)],
    )
    other = Contender(np.random.default_rng(0).random(400), shape=(20, 20))

    kept = [np.count_nonzero(k) for k in ERK()([channels, other], 0.75)]

    # 460 stay, in proportion 3 + 3 + 4 + 8 + 3 + 3 + 8 + 16 and 20 + 20: 251 and 209,
    # of which the first makes one channel of 180.
    assert kept == [1, 209]


def test_layer_of_small_units_does_not_pay_for_what_large_ones_leave():
    """Update after update, each weight is as near to its share as its units allow."""
    shapes = [(3, 3, 1, 8), (3, 3, 8, 16), (256, 32), (32, 10)]
    contenders = [
        Contender(np.zeros(s[-1]), sizes=math.prod(s[:-1]), shape=s) for s in shapes
    ]
    rng = np.random.default_rng(0)

    for sparsity in np.linspace(0.05, 0.7, 14):
        for contender in contenders:
            contender.scores = rng.random(len(contender.scores))
        keep = list(ERK()(contenders, sparsity))
        expected = densities_of_evci(shapes, sparsity, kernel_sides=True)
        for contender, own, density in zip(contenders, keep, expected, strict=True):
            assert abs(own.sum() - density * own.size) <= 1
            contender.candidates = own
        left = sum(c.weights_in(k) for c, k in zip(contenders, keep, strict=True))
        assert abs(left - 9736 * (1 - sparsity)) <= 128 + 1


def test_even_where_hardly_anything_is_left_each_keeps_one():
    contenders = of_shapes([(100, 100), (2, 2), (3, 1)])

    assert min(numbers_kept(ErdosRenyi(), contenders, 0.9999)) == 1


# Global


def test_global_ranks_all_weights_together():
    assert kept(Global(), 4 / 7) == [[0, 0, 0, 0], [1, 1], [1]]
    assert kept(Global(), 1 / 7) == [[0, 1, 1, 1], [1, 1], [1]]


def test_global_leaves_at_least_one_in_all():
    assert kept(Global(), 0.99) == [[0, 0, 0, 0], [0, 1], [0]]


def best_within(scores, zeros, least, most):
    """The choice that keeps the largest sum, by trying all that the bounds allow."""
    borders = np.cumsum([len(s) for s in scores])[:-1]
    flat = np.concatenate(scores)
    best = None
    for gone in itertools.combinations(range(flat.size), zeros):
        keep = np.ones(flat.size, bool)
        keep[list(gone)] = False
        parts = np.split(keep, borders)
        counts = [np.count_nonzero(~part) for part in parts]
        if all(a <= c <= b for a, c, b in zip(least, counts, most, strict=True)):
            value = flat[keep].sum()
            if best is None or value > best[0]:
                best = value, parts
    return best[1]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bounds", [(0.0, 0.5), (0.25, 1.0), (0.25, 0.75)])
def test_within_bounds_no_choice_is_better(bounds, seed):
    rng = np.random.default_rng(seed)
    scores = [rng.permutation(4) * 3 + rng.random() * s for s in (1, 9, 20)]
    least, most = bounds

    for zeros in (3, 5, 6):
        sparsity = zeros / 12
        keep = Global(*bounds)(list(map(Contender, scores)), sparsity)
        lowest = int(4 * min(least, sparsity))
        expected = best_within(scores, zeros, [lowest] * 3, [int(4 * most)] * 3)
        np.testing.assert_array_equal(np.stack(keep), np.stack(expected))


def test_a_bound_keeps_a_layer_of_small_weights_alive():
    scores = [np.arange(10.0), np.arange(10.0) + 100]

    alone = kept(Global(), 0.5, scores, [None, None])
    bounded = kept(Global(max_layer_sparsity=0.7), 0.5, scores, [None, None])

    assert list(map(sum, alone)) == [0, 10]
    assert bounded == [[0] * 7 + [1] * 3, [0] * 3 + [1] * 7]


def test_what_is_asked_for_may_leave_nothing_open_to_choice():
    scores = [np.arange(10.0), np.arange(10.0) + 100]

    assert list(map(sum, kept(Global(0.5, 0.5), 0.5, scores, [None, None]))) == [5, 5]
    assert list(map(sum, kept(Global(0.9), 0.3, scores, [None, None]))) == [7, 7]


def test_bounds_count_what_is_removed_already():
    scores = [np.arange(10.0), np.arange(10.0) + 100]
    candidates = [np.arange(10) < 5, None]  # the five best of the first are gone

    keep = kept(Global(max_layer_sparsity=0.6), 0.5, scores, candidates)

    assert keep == [[0, 1, 1, 1, 1] + [0] * 5, [0] * 4 + [1] * 6]


def test_large_weights_are_bounded_too(monkeypatch):
    from kprune.selection import largest

    monkeypatch.setattr(largest, "_DIRECT", 0)
    rng = np.random.default_rng(0)
    scores = [rng.random(n).astype("float32") * s for n, s in ((5000, 1), (3000, 4))]
    contenders = list(map(Contender, scores))

    keep = Global(max_layer_sparsity=0.6)(contenders, 0.5)

    for own, score, number in zip(keep, scores, (2000, 2000), strict=True):
        assert np.count_nonzero(own) == number
        assert score[own].min() > score[~own].max()


def test_bounds_that_are_too_tight_are_refused_with_what_they_allow():
    contenders = of_shapes([(10, 10), (10, 30)])

    Global(max_layer_sparsity=0.9).check(contenders, 0.9)
    with pytest.raises(ValueError, match=r"0.95 can't be reached with Global.* 0.9 ov"):
        Global(max_layer_sparsity=0.9).check(contenders, 0.95)
    contenders[0].reachable = 0.5
    with pytest.raises(ValueError, match="only 0.8 over all weights"):
        Global(max_layer_sparsity=0.9).check(contenders, 0.81)


def test_budget_that_can_not_be_met_stops_a_run_before_its_first_step():
    dense = keras.layers.Dense(4, use_bias=False, kernel_initializer="ones")
    model = kprune.prune(keras.Sequential([keras.Input((4,)), dense]))
    model.compile("sgd", "mse")
    callback = kprune.PruningCallback(0.8, scope=Global(max_layer_sparsity=0.5))

    with pytest.raises(
        ValueError, match="0.8 can't be reached .* 'dense.*/kernel' 0.5"
    ):
        model.fit(np.ones((8, 4)), np.zeros((8, 4)), verbose=0, callbacks=[callback])

    assert (np.asarray(model.layers[0].layer.kernel) == 1).all()


@pytest.mark.parametrize(
    "bounds, message",
    [
        ((1.0,), r"min_layer_sparsity=1.0 must be in \[0, 1\)"),
        ((-0.1,), "min_layer_sparsity=-0.1 must be"),
        ((0.0, 0.0), r"max_layer_sparsity=0.0 must be in \(0, 1\]"),
        (("a",), "min_layer_sparsity='a' must be"),
        ((0.0, True), "max_layer_sparsity=True must be"),
        ((0.5, 0.4), "min_layer_sparsity=0.5 is above max_layer_sparsity=0.4"),
    ],
)
def test_bounds_are_checked_at_once(bounds, message):
    with pytest.raises(ValueError, match=message):
        Global(*bounds)


# Per layer


def test_names_patterns_and_the_default_say_how_sparse_each_is():
    contenders = of_shapes([(100,)] * 4)
    for contender, name in zip(
        contenders,
        ("stem/kernel", "block_1/kernel", "block_2/query/kernel", "head/kernel"),
        strict=True,
    ):
        contender.name = name
    scope = PerLayer(
        {"block_*": 0.8, "block_2/query": 0.6, "head/kernel": 0.1}, default=0.3
    )

    assert numbers_kept(scope, contenders, 0.8) == [70, 20, 40, 90]
    assert numbers_kept(scope, contenders, 0.4) == [85, 60, 70, 95]
    assert numbers_kept(scope, contenders, 0.0) == [100] * 4
    assert scope.asked(contenders, 0.8) == pytest.approx(0.45)


def test_exact_name_counts_before_a_pattern_and_the_first_pattern_before_others():
    contenders = of_shapes([(10,), (10,)])

    scope = PerLayer({"*": 0.5, "a*": 0.2, "b": 0.3})

    assert numbers_kept(scope, contenders, 0.5) == [5, 7]


def test_exact_name_that_reads_as_a_pattern_is_a_name():
    contenders = [Contender(np.arange(8.0), name=f"{n}/kernel") for n in ("d[1]", "d1")]

    keep = PerLayer({"d[1]": 0.5})(contenders, 0.5)

    assert [int(k.sum()) for k in keep] == [4, 8]


def test_unnamed_layers_stay_dense():
    assert numbers_kept(PerLayer({"a": 0.5}), of_shapes([(10,), (9,)]), 0.5) == [5, 9]


def test_name_without_a_layer_is_refused_with_the_names_there_are():
    contenders = of_shapes([(10,), (10,)])

    with pytest.raises(ValueError, match="'steam', which matches .* These are 'a', 'b"):
        PerLayer({"steam": 0.5}).check(contenders, 0.5)


def test_schedule_that_ends_elsewhere_is_refused():
    scope = PerLayer({"a": 0.5}, default=0.7)

    scope.check(of_shapes([(10,), (10,)]), 0.7)
    with pytest.raises(ValueError, match="rises to a sparsity of 0.9, .* is 0.7"):
        scope.check(of_shapes([(10,), (10,)]), 0.9)


def test_layer_that_can_not_become_so_sparse_is_named():
    contenders = of_shapes([(10,), (10,)], reachable=0.5)

    with pytest.raises(ValueError, match="0.7 in 'b/kernel', which may be given 0.5"):
        PerLayer({"b": 0.7}).check(contenders, 0.7)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (({"a": 1.0},), "The sparsity of 'a'=1.0 must be a number"),
        (({}, 90), "default=90 must be .* 90 % is written 0.9"),
        ((0.5,), "sparsities=0.5 must be a dict"),
        ((["a"],), r"sparsities=\['a'\] must be a dict"),
    ],
)
def test_sparsities_are_checked_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        PerLayer(*arguments)


def test_bounds_that_whole_channels_can_not_meet_are_refused_before_training():
    """Of 8 channels 0.95 is 7, thus 0.875."""
    dense = [keras.layers.Dense(8, name=name) for name in ("a", "b")]
    model = keras.Sequential([keras.Input((4,)), *dense])
    model = kprune.prune(model, granularity=kprune.Channel(), only=["a", "b"])
    schedule = kprune.ConstantSchedule(0.95, begin_step=9)
    scope = Global(max_layer_sparsity=0.95)

    with pytest.raises(ValueError, match="0.95 can't be reached .* only 0.875 over"):
        kprune.Pruner(model, schedule, scope=scope)

    kprune.Pruner(model, kprune.ConstantSchedule(0.875), scope=scope).step()


# First and last layers


def test_first_and_last_layer_stay_below_their_limits_and_others_make_up_for_it():
    contenders = of_shapes([(100,), (300,), (100,)])

    numbers = numbers_kept(Sparing(first=0.1, last=0.4), contenders, 0.6)

    assert numbers == [90, 50, 60]  # 300 are to go: 10, 250 and 40


def test_limits_do_nothing_where_the_scope_stays_below_them():
    """ERK leaves small layers dense by itself."""
    contenders = of_shapes(LENET)

    spared = numbers_kept(Sparing("erk", 0.8, 0.9), contenders, 0.9)

    assert spared == numbers_kept(ERK(), contenders, 0.9)


@pytest.mark.parametrize("scope", ["global", "erk", "layer_wise", "erdos_renyi"])
def test_every_scope_works_within_limits(scope):
    contenders = of_shapes([(20, 20), (30, 30), (20, 20)])

    numbers = numbers_kept(Sparing(scope, first=0.0, last=0.5), contenders, 0.6)

    assert numbers[0] == 400 and numbers[2] >= 200
    assert sum(numbers) == 680


def test_all_weights_of_the_first_layer_count_as_first():
    contenders = of_shapes([(10,), (10,), (80,), (80,)])
    contenders[1].name = "a/recurrent"

    assert numbers_kept(Sparing(last=0.5), contenders, 0.5)[:2] == [10, 10]


def test_layer_that_is_first_and_last_has_the_lower_limit():
    assert numbers_kept(Sparing(first=0.5, last=0.2), of_shapes([(10,)]), 0.2) == [8]


def test_limits_that_others_can_not_make_up_for_are_refused():
    contenders = of_shapes([(100,), (100,), (200,)])

    Sparing(first=0.0, last=0.5).check(contenders, 0.5)
    with pytest.raises(ValueError, match="only 0.5 over all .* 'a/kernel' 0, 'c/kern"):
        Sparing(first=0.0, last=0.5).check(contenders, 0.6)


def test_spared_scope_is_of_the_kind_of_the_one_within():
    assert Sparing("global").ranks_layers_together
    assert not Sparing().ranks_layers_together
    assert not Sparing(Threshold(1.0)).fixed_count
    assert Sparing(Threshold(1.0)).asked(of_shapes([(3,)]), 0.5) is None


@pytest.mark.parametrize("value", [-0.1, 1.1, True])
def test_limits_are_checked_at_once(value):
    with pytest.raises(ValueError, match=f"last={value} must be a number in"):
        Sparing(last=value)


# Threshold


def test_threshold_removes_what_is_below_it():
    assert kept(Threshold(4.0), 0.5) == [[0, 0, 0, 1], [1, 1], [1]]
    assert not Threshold(4.0).fixed_count


def test_threshold_leaves_the_best_where_all_are_below_it():
    assert kept(Threshold(7.0), 0.5) == [[0, 0, 0, 1], [1, 1], [1]]


def test_threshold_waits_for_the_schedule_to_begin():
    assert kept(Threshold(7.0), 0.0) == [[1, 1, 1, 1], [1, 1], [1]]


def test_threshold_does_not_bring_back_what_is_removed():
    candidates = [np.array([True, True, True, False]), None, None]

    assert kept(Threshold(2.0), 0.5, SCORES, candidates)[0] == [0, 1, 1, 0]
    assert kept(Threshold(9.0), 0.5, SCORES, candidates)[0] == [0, 0, 1, 0]


def test_threshold_respects_the_limit_of_a_weight():
    contender = Contender(np.arange(10.0), reachable=0.3)

    assert next(iter(Threshold(5.0)([contender], 0.5))).sum() == 7


@pytest.mark.parametrize("value", [np.nan, np.inf, True, "x", None])
def test_threshold_is_checked_at_once(value):
    with pytest.raises(ValueError, match=f"value={value!r} must be a finite number"):
        Threshold(value)


# The weights of one output


@pytest.mark.parametrize("shape", [(12, 5), (3, 3, 4, 6), (7, 1)])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_every_output_keeps_the_best_of_its_inputs(shape, sparsity):
    scores = np.random.default_rng(0).normal(size=shape).astype("float32")
    inputs = math.prod(shape[:-1])

    (mask,) = kprune.compute_masks(
        [scores], sparsity, criterion=np.asarray, scope="output_wise"
    )

    lost = int(np.floor(sparsity * inputs + 0.5))
    columns = scores.reshape(inputs, -1)
    expected = np.ones(columns.shape, bool)
    for output, order in enumerate(columns.argsort(axis=0).T):
        expected[order[:lost], output] = False
    np.testing.assert_array_equal(mask, expected.reshape(shape))


def test_of_equal_scores_an_output_keeps_the_first_ones():
    scores = np.array([[1.0, 2.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])

    mask = kprune.compute_mask(scores, 0.5)
    (by_output,) = kprune.compute_masks([scores], 0.5, scope="output_wise")

    np.testing.assert_array_equal(mask, [[1, 1], [1, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(by_output, [[1, 1], [1, 1], [0, 0], [0, 0]])


def test_an_output_brings_nothing_back_and_counts_what_is_gone():
    scores = np.array([[4.0, 1.0], [3.0, 2.0], [2.0, 3.0], [1.0, 4.0]])
    gone = np.array([[0, 1], [1, 0], [1, 0], [1, 0]], bool)

    (mask,) = kprune.compute_masks([scores], 0.5, scope="output_wise", masks=[gone])

    np.testing.assert_array_equal(mask, [[0, 1], [1, 0], [1, 0], [0, 0]])


def test_what_an_output_loses_is_limited_and_others_make_up_for_it():
    weights = [np.arange(20.0).reshape(10, 2) for _ in range(3)]
    scope = Sparing("output_wise", first=0.2, last=0.5)
    names = ["a/kernel", "b/kernel", "c/kernel"]

    masks = list(kprune.compute_masks(weights, 0.5, scope=scope, names=names))

    lost = [np.count_nonzero(~mask, axis=0).tolist() for mask in masks]
    assert lost == [[2, 2], [8, 8], [5, 5]]


def test_sparsity_that_outputs_reach_is_in_whole_inputs():
    contenders = of_shapes([(3, 4), (10, 2)])

    asked = kprune.OutputWise().asked(contenders, 0.5)

    assert asked == pytest.approx((4 * 2 + 2 * 5) / 32)


def test_outputs_have_a_meaning_with_single_weights_only():
    weights = [np.ones((4, 4))]

    with pytest.raises(ValueError, match="granularity 'element', or take a scope"):
        list(
            kprune.compute_masks(
                weights, 0.5, scope="output_wise", granularity="channel"
            )
        )
