"""Contracts that every registered object obeys, over all of the registry."""

import inspect

import numpy as np
import pytest
from keras import saving

import kprune
from kprune import registry
from tests.layer_cases import zeros_of

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
}
FAMILIES = ("schedules", "criteria", "granularities", "scopes", "formats")
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
    if parameter.name in ARGUMENTS:
        return ARGUMENTS[parameter.name]
    default = parameter.default
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
    return {"TFLite": "tflite"}.get(cls.__name__)


@pytest.mark.parametrize("name", registry.keys("criteria"))
def test_criterion_scores_each_weight_and_changes_nothing(name):
    criterion = make("criteria", name)
    weight = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    before = weight.copy()

    scores = criterion(weight)

    assert scores.shape == weight.shape
    assert np.issubdtype(scores.dtype, np.floating)
    np.testing.assert_array_equal(weight, before)


@pytest.mark.parametrize("name", registry.keys("granularities"))
def test_granularity_turns_units_back_into_weights(name):
    granularity = make("granularities", name)
    scores = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")

    units = granularity.scores(scores)
    mask = granularity.mask(units > np.median(units), scores.shape)

    assert units.ndim == 1
    assert mask.shape == scores.shape
    assert mask.dtype == bool
    assert granularity.mask(np.ones(units.shape, bool), scores.shape).all()


@pytest.mark.parametrize("name", registry.keys("scopes"))
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.999])
def test_scope_removes_the_exact_number(name, sparsity):
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=n) for n in (7, 50, 1)]

    keep = list(make("scopes", name)(scores, [None] * 3, sparsity))

    assert [k.shape for k in keep] == [s.shape for s in scores]
    assert all(k.dtype == bool for k in keep)
    zeros = sum(np.count_nonzero(~k) for k in keep)
    # As many as all weights together ask for, or each on its own.
    assert zeros in (
        zeros_of(58, sparsity),
        sum(zeros_of(n, sparsity) for n in (7, 50, 1)),
    )


@pytest.mark.parametrize("name", registry.keys("schedules"))
def test_schedule_never_falls_and_ends_on_target(name):
    schedule = make("schedules", name)

    values = schedule(np.arange(200))

    assert (np.diff(values) >= 0).all()
    assert values[-1] == ARGUMENTS["final_sparsity"]
    assert values.min() >= 0


# The registry itself


@pytest.fixture
def families(monkeypatch):
    """A registry that forgets what the test adds."""
    copy = {name: dict(entries) for name, entries in registry._families.items()}
    monkeypatch.setattr(registry, "_families", copy)


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'magnitud' is none .* criteria: 'magnitude'"):
        registry.get("criteria", "magnitud")


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
