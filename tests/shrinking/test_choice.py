import types

import numpy as np
import pytest

import kprune
from kprune import registry
from kprune.shrinking.choice import Chooser, Room, least_sparsity, scope_for
from kprune.shrinking.groups import Family, MadeAxis


def family(*lines, name="a", groups=None, guards=()):
    """Makes a family of layers that make the groups of the lines."""
    weight = types.SimpleNamespace(variable=np.zeros((3, len(lines[0]))))
    axes = [
        MadeAxis(f"{name}{i or ''}", weight, 1, np.array(line), np.array(line))
        for i, line in enumerate(lines)
    ]
    groups = np.unique(lines[0]) if groups is None else np.array(groups)
    return Family(name, axes, groups, np.array([]), [], list(map(np.array, guards)))


def scores(*values):
    """Scores of the groups 1, 2, ..., behind that of no channel."""
    return np.array([np.nan, *values], float)


def gone(found):
    return sorted(np.concatenate([[], found]).astype(int).tolist())


def fitted(room, *stay):
    return gone(room.fitted(np.isin(room.family.groups, stay)))


EIGHT = family(range(1, 9))
RISING = scores(1, 2, 3, 4, 5, 6, 7, 8)


def test_the_lowest_scores_go():
    chooser = Chooser([EIGHT], RISING, registry.get("scopes", "layer_wise"))

    assert gone(chooser(0.25)) == [1, 2]
    assert gone(chooser(0)) == []


def test_of_equal_scores_the_lower_index_stays():
    chooser = Chooser([EIGHT], scores(*[1] * 8), registry.get("scopes", "layer_wise"))

    assert gone(chooser(0.5)) == [5, 6, 7, 8]


@pytest.mark.parametrize(
    "stay, expected", [(7, 8), (6, 8), (5, 4), (4, 4), (3, 4), (2, 4), (1, 4)]
)
def test_widths_become_the_nearest_multiple(stay, expected):
    room = Room(EIGHT, RISING, round_to=4)

    # Of two that are as near the larger one: 6 lies between 4 and 8.
    left = fitted(room, *range(9 - stay, 9))
    assert 8 - len(left) == expected
    assert left == list(range(1, 9 - expected))


def test_a_layer_narrower_than_the_multiple_stays_as_it_is():
    assert fitted(Room(EIGHT, RISING, round_to=16), 8) == []


def test_a_width_that_is_no_multiple_itself_may_stay():
    seven = family(range(1, 8))

    assert fitted(Room(seven, RISING, round_to=4), *range(2, 8)) == []
    assert fitted(Room(seven, RISING, round_to=4), *range(3, 8)) == [1, 2, 3]


def test_groups_of_several_channels_are_counted_as_such():
    shuffled = family([1, 2, 3, 1, 2, 3, 1, 2, 3])  # 3 groups of 3 channels

    room = Room(shuffled, scores(1, 2, 3), round_to=6)
    assert fitted(room, 3) == [1]  # 3 channels are no multiple of 6, and 6 are

    room = Room(shuffled, scores(1, 2, 3), min_width=4)
    assert fitted(room, 3) == [1]


def test_all_layers_of_a_family_get_round_widths():
    # The second layer makes the first three groups alone, twice each.
    both = family(range(1, 9), [1, 2, 3, 1, 2, 3])

    # Six groups that stay are 6 and 2 channels, seven 7 and 4, five 5 and 0.
    assert fitted(Room(both, RISING, min_width=2, round_to=2), 4, 5, 6, 7, 8) == [1, 2]


def test_channels_that_must_stay_count_for_the_width():
    half_stuck = family(range(1, 9), groups=[1, 2, 3, 4])

    assert fitted(Room(half_stuck, RISING, min_width=4)) == [1, 2, 3, 4]
    assert fitted(Room(half_stuck, RISING, round_to=8)) == []
    assert fitted(Room(half_stuck, RISING, min_width=5)) == [1, 2, 3]


def test_something_is_left_of_each_guarded_tensor():
    guarded = family(range(1, 9), guards=[[1, 2], [4, 5, 6]])

    # Of those that must stay the best ones do, before others with better scores.
    assert fitted(Room(guarded, RISING), 8) == [1, 3, 4, 5, 7, 8]
    assert fitted(Room(guarded, RISING), 8, 7, 6) == [1, 3, 4, 5, 7]
    assert fitted(Room(guarded, RISING, round_to=4), 8) == [1, 3, 4, 5]
    assert Room(guarded, RISING).contender().reachable == 0.75


def test_masks_that_are_there_are_not_exceeded():
    room = Room(EIGHT, RISING, round_to=4)

    keep = np.array([False] * 3 + [True] * 5)
    assert gone(room.fitted(keep)) == [1, 2, 3, 4]
    assert gone(room.fitted(keep, all_stay=True)) == []


def test_a_global_scope_lets_families_find_their_own_widths():
    small = family([9, 10, 11, 12], name="b")
    found = np.array([np.nan, *range(1, 9), 100, 101, 102, 103])

    chooser = Chooser([EIGHT, small], found, registry.get("scopes", "global"))

    assert gone(chooser(0.5)) == [1, 2, 3, 4, 5, 6]


def test_a_group_counts_as_often_as_layers_make_it():
    # 4 groups in three layers, and 8 in one: 12 of 20 channels are the first's.
    thrice = family(*[[9, 10, 11, 12]] * 3, name="b")
    found = np.array([np.nan, *range(11, 19), 1, 2, 3, 4])

    chooser = Chooser([EIGHT, thrice], found, registry.get("scopes", "global"))

    assert chooser.size == 20
    assert gone(chooser(0.45)) == [9, 10, 11]


@pytest.mark.parametrize("name", registry.keys("scopes"))
def test_every_scope_chooses_or_says_at_once_why_not(name):
    small = family([9, 10, 11, 12], name="b")
    found = np.array([np.nan, *range(1, 9), 3, 4, 5, 6])
    given = {"per_layer": ({"a": 0.25},), "threshold": (3.5,), "sparing": ("global", 1)}
    kind = registry.lookup("scopes", name)
    scope = kind(*given.get(name, ()))

    if scope.elementwise:
        with pytest.raises(ValueError, match="ranks single weights"):
            scope_for(scope, [EIGHT, small])
        return
    chooser = Chooser([EIGHT, small], found, scope_for(scope, [EIGHT, small]))

    left = gone(chooser(0.25))

    assert len(left) == {"per_layer": 2, "threshold": 4}.get(name, 3)
    assert set(left) == {*range(1, 1 + sum(g < 9 for g in left))} | {
        *range(9, 9 + sum(g >= 9 for g in left))
    }


def test_a_sparsity_that_bounds_do_not_allow_is_an_error():
    chooser = Chooser([EIGHT], RISING, kprune.Global(max_layer_sparsity=0.5))
    chooser.check(0.5)
    with pytest.raises(ValueError, match="Ask for 0.5 or less"):
        chooser.check(0.75)

    chooser = Chooser([EIGHT], RISING, kprune.LayerWise(), min_width=6)
    with pytest.raises(ValueError, match="Ask for 0.25 or less"):
        chooser.check(0.5)


def test_a_sparsity_per_layer_counts_for_all_that_goes_with_it():
    pair = family(range(1, 9), range(1, 9))  # the layers "a" and "a1"

    scope = scope_for(kprune.PerLayer({"a1": 0.5}), [pair])

    assert scope == kprune.PerLayer({"a": 0.5})


def test_layers_that_go_together_can_not_differ():
    pair = family(range(1, 9), range(1, 9))

    with pytest.raises(ValueError, match="'a1' is to lose 0.5 .* 0.25: 'a'"):
        scope_for(kprune.PerLayer({"a": 0.25, "a1": 0.5}), [pair])


def test_the_least_sparsity_that_costs_little_enough_is_found():
    chooser = Chooser([EIGHT], RISING, kprune.LayerWise())

    def cost(groups):
        return (8 - len(groups)) ** 2

    assert gone(least_sparsity(chooser, cost, most=25)) == [1, 2, 3]
    assert gone(least_sparsity(chooser, cost, most=24)) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="can't be brought below 1, and 0 were asked"):
        least_sparsity(chooser, cost, most=0.5)
