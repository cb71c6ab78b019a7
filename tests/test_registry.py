"""Contracts that every registered object obeys, over all of the registry."""

import copy
import dataclasses
import inspect

import ml_dtypes
import numpy as np
import pytest
from keras import saving

import kprune
from kprune import registry
from kprune.scopes import Contender

# What constructors of a family need; the values differ from all defaults.
ARGUMENTS = {
    "final_sparsity": 0.75,
    "begin_step": 5,
    "end_step": 50,
    "initial_sparsity": 0.25,
    "power": 2,
    "frequency": 7,
    "name": "another",
    "tolerance": 1e-3,
    "packed": "fp16",
    "signatures": {"features": "pool"},
    "quantization": "int8",
    "representative_data": np.zeros((1, 1)),
    "sparse": False,
    "target": "tflm",
    "coder": "huffman",
    "axis": -2,
    "pooling": "max",
    "fraction": 0.4,
    "deviations": 0.5,
    "coarse_sparsity": 0.5,
    "coarse_steps": 8,
    "fine_steps": 3,
    "steps_per_round": 6,
    "sparse_steps": 6,
    "dense_steps": 4,
    "sparsities": {"last": 0.75},
    "default": 0.25,
    "scope": "erk",
    "first": 0.25,
    "last": 0.5,
    "value": 0.5,
    "min_layer_sparsity": 0.1,
    "max_layer_sparsity": 0.9,
}
FAMILIES = ("schedules", "criteria", "granularities", "scopes", "regrowths", "formats")
every_class = pytest.mark.parametrize(
    ("family", "name"),
    [(family, name) for family in FAMILIES for name in registry.keys(family)],
)


def make(family, name):
    """Makes an object with every argument away from its default."""
    cls = registry._families[family][name]
    return cls(**{n: _other_than(p) for n, p in _parameters(cls).items()})


def _parameters(cls):
    parameters = inspect.signature(cls).parameters
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {n: p for n, p in parameters.items() if p.kind not in kinds}


def _other_than(parameter):
    default = parameter.default
    if parameter.name in ARGUMENTS and ARGUMENTS[parameter.name] != default:
        return ARGUMENTS[parameter.name]
    if isinstance(default, bool):
        return not default
    if isinstance(default, (int, float)):
        return default + 1
    raise AssertionError(f"Add a value for {parameter} to ARGUMENTS.")


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_not_empty(family):
    assert registry.keys(family)


@every_class
def test_config_holds_every_argument(family, name):
    part = make(family, name)

    config = part.get_config()

    assert config.keys() == _parameters(type(part)).keys()
    for argument, parameter in _parameters(type(part)).items():
        assert config[argument] != parameter.default


@every_class
def test_object_survives_its_config(family, name):
    part = make(family, name)

    again = type(part).from_config(part.get_config())

    assert again == part
    assert hash(again) == hash(part)
    assert repr(again) == repr(part)
    assert again.get_config() == part.get_config()


@every_class
def test_object_survives_the_serialisation_of_keras(family, name):
    part = make(family, name)

    config = saving.serialize_keras_object(part)

    assert config["registered_name"] == f"kprune>{type(part).__name__}"
    assert saving.deserialize_keras_object(config) == part
    assert registry.get(family, config) == part
    assert registry.get(family, part) is part


@every_class
def test_name_is_that_of_the_class_in_snake_case(family, name):
    cls = registry._families[family][name]

    assert name == registry.snake_case(cls.__name__) or name == _alias(cls)
    if not any(p.default is p.empty for p in _parameters(cls).values()):
        assert type(registry.get(family, name)) is cls


def _alias(cls):
    if cls.__name__ == "NofM":
        return "n_of_m"
    joined = ("APoZ", "GraSP", "RigL", "SynFlow", "TFLite")
    return cls.__name__.lower() if cls.__name__ in joined else None


every_criterion = pytest.mark.parametrize("name", registry.keys("criteria"))
SHAPE = (2, 4, 5)


def evidence_for(criterion, shape=SHAPE):
    """Evidence of every kind that a criterion may require."""
    rng = np.random.default_rng(1)
    known = {
        "name": "block/kernel",
        "place": 0,
        "total_saliency": 3.0,
        "batch_norm_scale": rng.normal(size=shape[-1]),
        "output_mean": rng.random(shape[-1]),
        "output_positive": rng.random(shape[-1]),
        "output_sample": rng.random((9, shape[-1])),
    }
    return {
        kind: known.get(kind, rng.normal(size=shape).astype("float32"))
        for kind in criterion.requires
    }


def masks_by(criterion, weight, sparsity):
    """Prunes one weight with a granularity that has a meaning for the criterion."""
    return kprune.compute_masks(
        [weight],
        sparsity,
        criterion=criterion,
        granularity="element" if criterion.axis is None else "channel",
        names=["block/kernel"],
        evidence=[evidence_for(criterion, weight.shape)],
    )


@every_criterion
def test_criterion_scores_each_weight_and_changes_nothing(name):
    criterion = make("criteria", name)
    weight = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    evidence = evidence_for(criterion)
    before = copy.deepcopy((weight, evidence))

    scores = criterion(weight, **evidence)

    assert scores.shape == weight.shape
    assert np.issubdtype(scores.dtype, np.floating)
    np.testing.assert_array_equal(scores, criterion(weight, **evidence))
    np.testing.assert_equal((weight, evidence), before)


@every_criterion
def test_scores_are_those_of_the_pieces_or_of_whole_units(name):
    criterion = make("criteria", name)
    weight = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
    evidence = evidence_for(criterion)

    scores = criterion(weight, **evidence)

    if criterion.elementwise:
        piece = {k: e[1] if np.shape(e) == SHAPE else e for k, e in evidence.items()}
        np.testing.assert_array_equal(scores[1], criterion(weight[1], **piece))
    if criterion.axis is not None:
        first = np.take(scores, [0], axis=0)[:, :1]
        np.testing.assert_array_equal(scores, np.broadcast_to(first, SHAPE))


@every_criterion
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_criterion_takes_weights_of_any_precision_and_its_masks_nest(name, dtype):
    criterion = make("criteria", name)
    weight = np.random.default_rng(0).normal(size=(6, 10)).astype(dtype)

    masks = [next(masks_by(criterion, weight, s)) for s in (0.2, 0.5, 0.8)]

    assert [np.count_nonzero(~mask) for mask in masks] == [12, 30, 48]
    assert (masks[0] >= masks[1]).all()
    assert (masks[1] >= masks[2]).all()


@every_criterion
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_criterion_refuses_weights_that_are_no_numbers(name, bad):
    weight = np.ones((6, 10), "float32")
    weight[2, 3] = bad

    with pytest.raises(ValueError, match=r"'block/kernel' of shape \(6, 10\) holds"):
        list(masks_by(make("criteria", name), weight, 0.5))


every_granularity = pytest.mark.parametrize("name", registry.keys("granularities"))
every_shape = pytest.mark.parametrize("shape", [(4, 8), (5, 7), (2, 2, 6, 7)])


def ties_for(granularity, shape):
    """What the units of a weight alone are given, where they need a tie."""
    return [granularity.tied_by and kprune.Tie("alone", -1, shape[-1])]


def units_of(granularity, scores):
    tie = filter(None, ties_for(granularity, scores.shape))
    return granularity.units(scores, None, *tie)


@every_granularity
@every_shape
def test_units_share_out_all_weights(name, shape):
    granularity = make("granularities", name)
    scores = np.random.default_rng(0).normal(size=shape).astype("float32")
    before = scores.copy()

    units = units_of(granularity, scores)
    single = [units.expand(one) for one in np.eye(units.scores.size, dtype=bool)]

    assert units.scores.ndim == 1
    assert units.scores.dtype == "float32"
    assert all(mask.shape == shape and mask.dtype == bool for mask in single)
    assert (np.sum(single, axis=0) == 1).all()
    if not granularity.within_layer:  # whose units count alike, whatever is in them
        sizes = np.broadcast_to(units.sizes, units.scores.shape)
        np.testing.assert_array_equal([mask.sum() for mask in single], sizes)
    np.testing.assert_array_equal(scores, before)


@every_granularity
@every_shape
@pytest.mark.parametrize("seed", range(3))
def test_a_mask_tells_which_units_it_was_made_of(name, shape, seed):
    units = units_of(make("granularities", name), np.ones(shape, "float32"))
    keep = np.random.default_rng(seed).random(units.scores.size) < 0.5

    mask = units.expand(keep)

    np.testing.assert_array_equal(units.kept(mask), keep)
    without_shortcut = dataclasses.replace(units, collapse=None)
    np.testing.assert_array_equal(without_shortcut.kept(mask), keep)


@every_granularity
@every_shape
def test_zeros_are_exact_to_half_a_unit_and_never_fewer_than_before(name, shape):
    granularity = make("granularities", name)
    rng, mask = np.random.default_rng(0), np.ones(shape, bool)

    for sparsity in (0.0, 0.2, 0.25, 0.4):
        weight, before = rng.normal(size=shape).astype("float32"), mask
        (mask,) = kprune.compute_masks(
            [weight],
            sparsity,
            granularity=granularity,
            masks=[before],
            ties=ties_for(granularity, shape),
        )

        assert (before >= mask).all()
        if not granularity.within_layer:  # whose last group may lose less
            largest = np.max(units_of(granularity, weight).sizes)
            zeros = np.count_nonzero(~mask)
            assert abs(zeros - sparsity * mask.size) <= largest / 2 + 0.5


@every_granularity
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_weights_of_any_precision_are_pruned_alike(name, dtype):
    granularity, shape = make("granularities", name), (2, 2, 6, 7)
    coarse = np.random.default_rng(0).normal(size=shape).astype(ml_dtypes.bfloat16)
    weights = [coarse.astype(dtype), coarse.astype("float32")]
    if dtype == "float16":
        weights[1] = weights[0].astype("float32")

    masks = [
        next(
            kprune.compute_masks(
                [weight],
                0.4,
                granularity=granularity,
                ties=ties_for(granularity, shape),
            )
        )
        for weight in weights
    ]

    np.testing.assert_array_equal(masks[0], masks[1])
    assert not masks[0].all()


@every_granularity
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused_whatever_their_units(name, bad):
    granularity, weight = make("granularities", name), np.ones((5, 7))
    weight[2, 3] = bad

    with pytest.raises(ValueError, match=r"weight 'head/kernel' of shape \(5, 7\) h"):
        list(
            kprune.compute_masks(
                [weight],
                0.4,
                granularity=granularity,
                names=["head/kernel"],
                ties=ties_for(granularity, weight.shape),
            )
        )


every_scope = pytest.mark.parametrize("name", registry.keys("scopes"))


def contenders_of_unequal_size(seed=0):
    rng = np.random.default_rng(seed)
    sizes = {"first": 70, "middle": 500, "last": 10}
    return [Contender(rng.random(n), name=f"{k}/kernel") for k, n in sizes.items()]


@every_scope
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.8])
def test_scope_removes_the_exact_number(name, sparsity):
    scope, contenders = make("scopes", name), contenders_of_unequal_size()
    before = [contender.scores.copy() for contender in contenders]

    keep = list(scope(contenders, sparsity))

    assert [k.shape for k in keep] == [c.scores.shape for c in contenders]
    assert all(k.dtype == bool and k.any() for k in keep)
    np.testing.assert_equal([contender.scores for contender in contenders], before)
    zeros = sum(np.count_nonzero(~k) for k in keep)
    asked = scope.asked(contenders, sparsity)
    assert (asked is not None) == scope.fixed_count
    if scope.fixed_count:  # of all weights together, or of each on its own
        assert abs(zeros - 580 * asked) <= 0.5 * len(contenders) + 1e-9


@every_scope
def test_scope_brings_nothing_back_and_counts_what_is_gone(name):
    scope, contenders = make("scopes", name), contenders_of_unequal_size()

    for sparsity in (0.2, 0.4, 0.75):
        keep = list(scope(contenders, sparsity))
        for old, own in zip(contenders, keep, strict=True):
            assert old.candidates is None or (old.candidates >= own).all()
        asked = scope.asked(contenders, sparsity)
        zeros = sum(np.count_nonzero(~k) for k in keep)
        assert asked is None or abs(zeros - 580 * asked) <= 0.5 * 3 + 1e-9
        contenders = contenders_of_unequal_size(seed=1)
        for contender, own in zip(contenders, keep, strict=True):
            contender.candidates = own


@every_scope
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_scope_takes_weights_of_any_precision(name, dtype):
    scope, rng = make("scopes", name), np.random.default_rng(0)
    coarse = [rng.random(n).astype(ml_dtypes.bfloat16) for n in (64, 100, 8)]
    weights = [weight.astype("float16").astype(dtype) for weight in coarse]
    names = ["first/kernel", "middle/kernel", "last/kernel"]

    found = kprune.compute_masks(weights, 0.75, scope=scope, names=names)

    same = [weight.astype("float16").astype("float64") for weight in weights]
    expected = kprune.compute_masks(same, 0.75, scope=scope, names=names)
    np.testing.assert_equal(list(found), list(expected))


@pytest.mark.parametrize("name", registry.keys("schedules"))
def test_schedule_ends_on_target_and_falls_only_where_it_says_so(name):
    schedule = make("schedules", name)

    values = schedule(np.arange(200))

    assert (np.diff(values) < 0).any() == schedule.lowers
    assert values[-1] == schedule.highest == ARGUMENTS["final_sparsity"]
    assert values.min() >= 0
    assert values.max() < 1


# The registry itself


@pytest.fixture
def families(monkeypatch):
    """A registry that forgets what the test adds."""
    copy = {name: dict(entries) for name, entries in registry._families.items()}
    monkeypatch.setattr(registry, "_families", copy)


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'magnitud' is none .*: .*'magnitude'"):
        registry.get("criteria", "magnitud")


def test_class_is_refused_with_the_object_that_is_wanted():
    with pytest.raises(
        ValueError, match=r"config of one. Magnitude is a class: pass an ob"
    ):
        registry.get("criteria", kprune.Magnitude)


def test_object_of_another_family_is_refused():
    with pytest.raises(ValueError, match="is none of the registered scopes"):
        registry.get("scopes", kprune.Magnitude())


def test_taken_name_is_refused(families):
    class Magnitude(kprune.Criterion):
        pass

    with pytest.raises(ValueError, match="'magnitude' is already registered in 'crit"):
        registry.register("criteria")(Magnitude)


def test_registering_the_same_again_is_allowed(families):
    registry.register("criteria")(kprune.Magnitude)

    assert registry.get("criteria", "magnitude") == kprune.Magnitude()


def test_key_replaces_the_name(families):
    @registry.register("criteria", "tiny_first")
    class Reversed(kprune.Criterion):
        def __call__(self, weight):
            return -np.abs(weight)

    assert isinstance(registry.get("criteria", "tiny_first"), Reversed)
    assert "reversed" not in registry.keys("criteria")


def test_rule_of_the_nearest_base_is_found(families):
    registry.register("rules", int)(lambda x: "int")
    registry.register("rules", object)(lambda x: "object")

    assert registry.lookup("rules", bool)(True) == "int"
    assert registry.lookup("rules", str)("") == "object"
    assert registry.lookup("none", str) is None


def test_objects_that_differ_in_one_argument_are_not_equal():
    schedule = kprune.ConstantSchedule(0.5)

    assert schedule == kprune.ConstantSchedule(0.5)
    assert schedule != kprune.ConstantSchedule(0.5, begin_step=1)
    assert schedule != kprune.Magnitude()
