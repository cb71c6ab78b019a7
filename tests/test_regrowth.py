import math

import keras
import numpy as np
import pytest

import kprune
from kprune.optimizer_slots import clean, slots_of
from kprune.planning import Plan
from kprune.regrowth import Update
from tests.checks import entries
from tests.training_helpers import network


def update(weights, masks, sparsity, step=10, **options):
    defaults = {
        "names": [f"w{i}" for i in range(len(weights))],
        "evidence": [{} for _ in weights],
        "criterion": kprune.Magnitude(),
        "granularity": [kprune.Element() for _ in weights],
        "scope": kprune.LayerWise(),
    }
    return Update(
        [np.array(w, "float32") for w in weights],
        [np.array(m, bool) for m in masks],
        sparsity,
        step,
        **{**defaults, **options},
    )


def test_rigl_drops_the_smallest_and_grows_the_steepest_of_all_that_are_out():
    # Half of four kept weights, 0.1 and 0.2, go. The two with the steepest gradients
    # come: one that was out, and 0.1, which therefore stays after all.
    weight = [0.1, 0.9, 0.2, 0.8, 0, 0, 0, 0]
    gradient = np.array([9, 0, 0.5, 8, 1, -7, 2, 3.0])
    rigl = kprune.RigL(fraction=0.5, end_step=10**9)  # no decay to speak of

    (mask,) = rigl(
        update(
            [weight], [[1, 1, 1, 1, 0, 0, 0, 0]], 0.5, evidence=[{"gradient": gradient}]
        )
    )

    np.testing.assert_array_equal(mask, [1, 1, 0, 1, 0, 1, 0, 0])


def test_the_fraction_of_rigl_falls_as_the_cosine_of_the_paper():
    rigl = kprune.RigL(fraction=0.4, end_step=100)

    found = [rigl.fraction_at(t) for t in (0, 25, 50, 100)]

    quarter = 0.4 / 2 * (1 + math.cos(math.pi / 4))
    np.testing.assert_allclose(found, [0.4, quarter, 0.2, 0], atol=1e-12)


def test_the_fraction_of_rigl_is_nothing_outside_its_window():
    rigl = kprune.RigL(fraction=0.4, begin_step=100, end_step=200)

    found = [rigl.fraction_at(t) for t in (99, 100, 150, 200, 250, 300)]

    np.testing.assert_allclose(found, [0, 0.4, 0.2, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize("origin, begins", [(0, 90), (90, 0)])
def test_in_fit_the_fraction_of_rigl_falls_from_where_the_run_begins(origin, begins):
    plan = Plan(clock=95, began=90, end=130, remaining=35, an_epoch=10, origin=origin)

    rigl = plan.regrowth(kprune.RigL(fraction=0.4, frequency=5))

    found = [rigl.fraction_at(begins + t) for t in (0, 15, 30)]  # ends after 3/4
    np.testing.assert_allclose(found, [0.4, 0.2, 0], atol=1e-12)
    given = plan.regrowth(kprune.RigL(begin_step=7))
    assert (given.begin_step, given.end_step) == (7, begins + 30)


def test_set_grows_by_seed_step_and_place_alone():
    weights = [np.arange(1, 101) / 100] * 2
    masks = [np.arange(100) >= 50] * 2

    def grown(seed, step, names=("dense/kernel", "dense_1/kernel")):
        asked = update(weights, masks, 0.5, step, names=names)
        return [mask[:50] for mask in kprune.SET(0.2, seed=seed)(asked)]

    one, other = grown(0, 10)
    again = grown(0, 10, names=("dense_2/kernel", "dense_3/kernel"))  # built anew
    assert 5 <= np.count_nonzero(one) <= 10  # some of what was dropped comes back
    np.testing.assert_array_equal(again, [one, other])
    assert (one != other).any()
    assert (grown(1, 10)[0] != one).any()
    assert (grown(0, 20)[0] != one).any()


@pytest.mark.parametrize("regrowth", [kprune.SET(0.3), kprune.RigL(0.3, end_step=99)])
@pytest.mark.parametrize("scope", [kprune.LayerWise(), kprune.Global()])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_an_exchange_leaves_every_count_as_pruning_did(regrowth, scope, sparsity):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=s) for s in ((7, 9), (20, 3), (5,))]
    masks = [np.ones(w.shape, bool) for w in weights]
    evidence = [{"gradient": rng.normal(size=w.shape)} for w in weights]
    asked = update(weights, masks, sparsity, scope=scope, evidence=evidence)
    pruned = list(asked.prune(evidence=None))

    found = list(regrowth(asked))

    for before, after in zip(pruned, found, strict=True):
        assert np.count_nonzero(before) == np.count_nonzero(after)


def test_a_rising_schedule_prunes_first_and_exchanges_then():
    weight = np.arange(1, 11) / 10  # 0.1 ... 1.0
    gradient = np.array([5, 4, 3, 2, 1, 0, 0, 0, 0, 0.0])
    rigl = kprune.RigL(fraction=0.4, end_step=10**9)

    (mask,) = rigl(
        update([weight], [np.ones(10)], 0.5, evidence=[{"gradient": gradient}])
    )

    # Pruning leaves 0.6 to 1.0; two of the five are exchanged for the first two.
    np.testing.assert_array_equal(mask, [1, 1, 0, 0, 0, 0, 0, 1, 1, 1])


def test_whole_channels_are_exchanged():
    weight = np.array([[4.0, 0, 2, 0], [4, 0, 2, 0]])
    mask = np.array([[1, 0, 1, 0]] * 2)
    gradient = np.array([[0.0, 1, 0, -3], [0, 1, 0, -3]])

    (found,) = kprune.RigL(fraction=0.5, end_step=10**9)(
        update(
            [weight],
            [mask],
            0.5,
            evidence=[{"gradient": gradient}],
            granularity=[kprune.Channel()],
        )
    )

    np.testing.assert_array_equal(found, [[1, 0, 0, 1]] * 2)


@pytest.mark.parametrize("rows, columns", [(4, 1), (3, 5)])
def test_blocks_at_the_edge_let_no_sparsity_creep_in(rows, columns):
    rng = np.random.default_rng(0)
    weight, mask, zeros = rng.normal(size=(18, 7)), np.ones((18, 7)), []
    for step in range(40):
        asked = update(
            [weight], [mask], 0.7, step, granularity=[kprune.Block(rows, columns)]
        )
        (pruned,), (mask,) = asked.prune(), kprune.SET(0.3)(asked)
        zeros.append([np.count_nonzero(~m) for m in (pruned, mask)])
        weight = np.where(mask, rng.normal(size=(18, 7)), 0)

    zeros = np.array(zeros)
    assert (np.abs(zeros[:, 0] - 0.7 * 126) <= rows * columns).all()
    assert (zeros[:, 1] <= zeros[:, 0]).all()
    assert (zeros[:, 1] > zeros[:, 0] - rows * columns).all()


@pytest.mark.parametrize("regrowth", [kprune.SET(), kprune.RigL()])
def test_units_that_depend_on_each_other_are_not_exchanged(regrowth):
    with pytest.raises(ValueError, match=r"NofM.*Prune with single weights, blocks or"):
        regrowth.check([kprune.NofM(2, 4)], kprune.LayerWise())


@pytest.mark.parametrize("regrowth", [kprune.SET(), kprune.RigL()])
@pytest.mark.parametrize(
    "scope", [kprune.Threshold(0.2), kprune.Sparing(kprune.Threshold(0.2))]
)
def test_nothing_is_exchanged_where_scores_decide_how_many_go(regrowth, scope):
    # What has grown starts at zero, so that it would fall below any threshold.
    with pytest.raises(ValueError, match=r"Threshold\(.*'layer_wise' or 'global'"):
        regrowth.check([kprune.Element()], scope)

    kprune.DynamicNetworkSurgery().check([kprune.Element()], scope)


@pytest.mark.parametrize("step, exchanged", [(49, True), (50, False), (51, False)])
def test_nothing_is_exchanged_from_the_end_on(step, exchanged):
    asked = update([np.arange(1, 101)], [np.ones(100)], 0.5, step)

    (mask,) = kprune.SET(0.3, frequency=10, end_step=50)(asked)

    assert mask.sum() == 50
    assert mask[:50].any() == exchanged


@pytest.mark.parametrize(
    "regrowth", [kprune.SET(0.3), kprune.Rewind(), kprune.DynamicNetworkSurgery()]
)
def test_masks_open_where_the_schedule_lowers_sparsity(regrowth):
    # Half of eight stay, whichever they are, where all but two were removed.
    weight, mask = np.array([8.0, 7, 0, 0, 0, 0, 0, 0]), np.arange(8) < 2
    evidence = [{"shadow": weight.astype("float32")}]

    def kept(**options):
        asked = update([weight], [mask], 0.5, evidence=evidence, **options)
        (found,) = regrowth(asked)
        return found.sum()

    assert kept(reopens=True) == 4
    if not regrowth.tracks:
        assert kept() == 2


def test_surgery_at_a_sparsity_lets_a_weight_back_only_beyond_the_margin():
    # Two of four stay. 1.05 is larger than the kept 1.0, but not by a tenth; 1.2 is.
    surgery = kprune.DynamicNetworkSurgery(margin=0.1, end_step=99)

    def spliced(newcomer):
        shadow = np.array([1.0, 2.0, newcomer, 0.1], "float32")
        (mask,) = surgery(
            update([[1, 2, 0, 0]], [[1, 1, 0, 0]], 0.5, evidence=[{"shadow": shadow}])
        )
        return mask.tolist()

    assert spliced(-1.05) == [True, True, False, False]
    assert spliced(-1.2) == [False, True, True, False]


def test_surgery_with_deviations_has_the_two_thresholds_of_the_paper():
    # Mean 5, deviation sqrt(5): t = 7.236 with one deviation, a = 6.03, b = 8.68.
    surgery = kprune.DynamicNetworkSurgery(0.2, end_step=99, deviations=1.0)
    shadow = np.array([2.0, -4.0, 6.0, -8.0], "float32")

    kept = surgery.splice(shadow, np.array([True, True, True, True]))
    removed = surgery.splice(shadow, np.array([True, True, True, False]))

    np.testing.assert_array_equal(kept, [0, 0, 0, 1])
    np.testing.assert_array_equal(removed, [0, 0, 0, 1])  # never all of them
    assert not surgery.fixed_count


def test_surgery_lets_a_threshold_decide_what_goes_and_what_comes():
    # Of the kept ones those above 1 / 1.5 stay; of the removed ones those above 1 come.
    evidence = [{"shadow": np.array([0.7, 0.5, 1.2, 0.9], "float32")}]
    asked = update(
        [[0.7, 0.5, 0, 0]],
        [[1, 1, 0, 0]],
        0.5,
        evidence=evidence,
        scope=kprune.Threshold(1.0),
    )

    (mask,) = kprune.DynamicNetworkSurgery(margin=0.5)(asked)

    np.testing.assert_array_equal(mask, [1, 0, 1, 0])


@pytest.mark.parametrize("step, kept", [(9, [0, 1, 1, 0]), (10, [0, 1, 0, 0])])
@pytest.mark.parametrize("deviations", [None, 0.0])
def test_surgery_only_removes_from_its_end_on(deviations, step, kept):
    # Mean 4.25: a is 3.9, b is 4.7. Asked for half, the two largest would stay.
    surgery = kprune.DynamicNetworkSurgery(0.1, end_step=10, deviations=deviations)
    evidence = [{"shadow": np.array([3.0, 5, 9, 0], "float32")}]
    sparsity = 0.5 if step < surgery.end_step else 0.75

    (mask,) = surgery(
        update([[3, 5, 0, 0]], [[1, 1, 0, 0]], sparsity, step, evidence=evidence)
    )

    np.testing.assert_array_equal(mask, kept)


def test_surgery_past_its_end_leaves_the_largest_of_what_is_kept():
    # Mean 25.5, and all that is kept lies below it.
    surgery = kprune.DynamicNetworkSurgery(0.1, end_step=10, deviations=0.0)
    evidence = [{"shadow": np.array([1.0, -2, 99, 0], "float32")}]

    def spliced(**options):
        weight, mask = [[1, -2, 0, 0]], [[1, 1, 0, 0]]
        (found,) = surgery(update(weight, mask, 0.5, 10, evidence=evidence, **options))
        return found.tolist()

    assert spliced() == [False, True, False, False]
    assert spliced(reopens=True) == [False, False, True, False]


@pytest.mark.parametrize("reopens, kept", [(False, [1, 1, 0]), (True, [1, 1, 1])])
def test_surgery_by_thresholds_removes_nothing_while_no_sparsity_is_asked_for(
    reopens, kept
):
    surgery = kprune.DynamicNetworkSurgery(end_step=99, deviations=0.0)
    evidence = [{"shadow": np.array([0.1, 2, 3], "float32")}]
    asked = update([[0.1, 2, 0]], [[1, 1, 0]], 0.0, evidence=evidence, reopens=reopens)

    (mask,) = surgery(asked)

    np.testing.assert_array_equal(mask, kept)


@pytest.mark.parametrize("deviations", [None, 0.5])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_surgery_refuses_a_shadow_that_is_no_number(deviations, value):
    surgery = kprune.DynamicNetworkSurgery(end_step=9, deviations=deviations)
    evidence = [{"shadow": np.array([1, value], "float32")}]

    with pytest.raises(ValueError, match="removed weights of w0 have learnt is NaN"):
        list(surgery(update([[1, 0]], [[1, 0]], 0.5, evidence=evidence)))


def test_thresholds_of_surgery_need_single_weights():
    surgery = kprune.DynamicNetworkSurgery(end_step=9, deviations=0.5)

    with pytest.raises(ValueError, match="compares single weights with thresholds"):
        surgery.check([kprune.Channel()], kprune.LayerWise())


@pytest.mark.parametrize(
    "regrowth", [kprune.SET(0.3, 10, 35), kprune.RigL(0.3, 10, 35)]
)
def test_updates_are_due_on_the_grid_before_the_end(regrowth):
    assert [regrowth.last_due(s) for s in (0, 9, 10, 34, 35, 99)] == [
        None,
        None,
        10,
        30,
        30,
        30,
    ]
    assert [regrowth.next_due(s) for s in (0, 9, 10, 29, 30)] == [10, 10, 20, 30, None]


def test_no_update_is_due_before_the_first_step():
    regrowth = kprune.SET(frequency=10, end_step=35)

    assert [regrowth.last_due(s) for s in (-25, -10, -1)] == [None] * 3
    assert [regrowth.next_due(s) for s in (-25, -10, -1)] == [10] * 3


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: kprune.SET(0.0), "fraction=0.0 must be a number between 0 and 1"),
        (lambda: kprune.SET("0.3"), "fraction='0.3' must be a number between 0 and 1"),
        (lambda: kprune.RigL(1.0), "fraction=1.0 must be a number between 0 and 1"),
        (lambda: kprune.RigL(frequency=0), "frequency=0 must be a whole number"),
        (lambda: kprune.RigL(end_step=2.5), "end_step=2.5 must be a whole number"),
        (lambda: kprune.Rewind(-1), "step=-1 must be a whole number"),
        (lambda: kprune.RigL(begin_step=-1), "begin_step=-1 must be a whole number"),
        (lambda: kprune.RigL(begin_step=9, end_step=9), "end_step=9 .* begin_step=9"),
        (lambda: kprune.DynamicNetworkSurgery(-0.1), "margin=-0.1 must be a finite"),
        (lambda: kprune.DynamicNetworkSurgery("a"), "margin='a' must be a finite"),
        (
            lambda: kprune.DynamicNetworkSurgery(deviations=math.nan),
            "deviations=nan must be a finite number or None",
        ),
        (
            lambda: kprune.DynamicNetworkSurgery(deviations="x"),
            "deviations='x' must be a finite number or None",
        ),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rewinding_finds_each_weight_whatever_is_frozen_meanwhile():
    model = kprune.prune(network())
    rounds = kprune.IterativeSchedule(0.75, rounds=2, steps_per_round=8, begin_step=1)
    pruner = kprune.Pruner(model, rounds, regrowth=kprune.Rewind())
    pruner.step()
    kernel = model.get_layer("head").kernel.numpy()
    frozen = model.get_layer("hidden")
    frozen.trainable = False
    frozen.bias.assign([7.0] * 16)
    for weight in (model.get_layer("head").kernel, model.get_layer("head").bias):
        weight.assign(weight + 1.0)
    kprune.set_clock(model, 9)

    pruner.step()

    head = model.get_layer("head")
    np.testing.assert_array_equal(head.bias, np.zeros(3))
    mask = entries(model)[1].mask.numpy()
    assert mask.sum() == 12
    np.testing.assert_array_equal(head.kernel, kernel * mask)
    np.testing.assert_array_equal(frozen.bias, [7.0] * 16)


def test_rewinding_restarts_the_optimizer_of_another_loop():
    model = kprune.prune(network())
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    schedule = kprune.ConstantSchedule(0.5, 2)
    pruner = kprune.Pruner(model, schedule, regrowth=kprune.Rewind())
    optimizer.build(model.trainable_variables)
    ones = [np.ones(v.shape, "float32") for v in model.trainable_variables]
    for _ in range(2):
        pruner.step()
        optimizer.apply(ones)

    pruner.step()

    (momentum,) = slots_of(optimizer, model.trainable_variables[0]).values()
    assert (momentum.numpy() == 0).all()
    assert int(optimizer.iterations) == 0


def test_what_surgery_left_behind_is_not_used_by_other_methods():
    model = kprune.prune(network())
    surgery = kprune.DynamicNetworkSurgery(frequency=5, end_step=9)
    kprune.Pruner(model, kprune.ConstantSchedule(0.5), regrowth=surgery).step()
    entry = entries(model)[0]
    before = entry.mask.numpy()
    kprune.set_clock(model, 5)
    exchange = kprune.SET(0.3, frequency=5, end_step=9)

    kprune.Pruner(model, kprune.ConstantSchedule(0.5), regrowth=exchange).step()

    came = entry.mask.numpy() & ~before
    assert came.any()
    np.testing.assert_array_equal(entry.variable.numpy()[came], 0)


def test_muon_forgets_what_it_keeps_by_the_name_of_a_weight():
    model = network()
    optimizer = keras.optimizers.Muon(exclude_layers=["hidden"])
    optimizer.build(model.trainable_variables)
    kernel = model.get_layer("hidden").kernel
    slots = slots_of(optimizer, kernel)
    for slot in slots.values():
        slot.assign(slot + 1.0)
    where = np.arange(96).reshape(6, 16) % 2 == 0

    clean(optimizer, kernel, where)

    assert list(slots) == ["momentums", "adam_velocities"]
    for slot in slots.values():
        np.testing.assert_array_equal(slot, np.where(where, 0.0, 1.0))
