"""Every part with every other that it has a meaning with, on real training steps.

Made from the registry, so that a class born later is tested at once.
"""

import functools
import inspect
import itertools

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune import registry, whole_model

SPARSITY = 0.4
# What constructors of parts need, and where the defaults ask for more than there is.
ARGUMENTS = {
    "final_sparsity": SPARSITY,
    "end_step": 4,
    "frequency": 1,
    "coarse_sparsity": 0.2,
    "coarse_steps": 1,
    "fine_rounds": 2,
    "steps_per_round": 1,
    "rounds": 2,
    "sparse_steps": 1,
    "sparsities": {"last": SPARSITY},
    "default": 0.2,
    "first": 0.25,
    "value": 0.1,
}
RISING = kprune.LinearSchedule(SPARSITY, 0, 1, initial_sparsity=0.2, frequency=1)
NAMES = {
    family: registry.keys(family)
    for family in ("criteria", "granularities", "scopes", "schedules", "regrowths")
}

# Zeros of each weight at 0.4, layer by layer, counted by hand. The kernels have the
# shapes (3, 3, 4, 8), (32, 12) and (12, 6); of heads there are five in two layers.
ZEROS = {
    "element": [115, 154, 29],
    "block": [29 * 4, 38 * 4, 7 * 4],
    "n_of_m": [288 // 2, 384 // 2, 72 // 2],
    "vector": [29 * 4, 5 * 32, 2 * 12],
    "kernel": [13 * 9, 154, 29],
    "channel": [3 * 36, 5 * 32, 2 * 12],
    "attention_head": [2 * 12] * 8,
}
# The unit of each weight, by its place in the kernel. (A rank of N:M has none.)
UNIT_OF = {
    "element": lambda *place: place,
    "block": lambda *place: (*place[:-2], place[-2] // 4, place[-1]),
    "vector": lambda *place: (*place[:-2], place[-1]),
    "kernel": lambda *place: place[-2:],
    "channel": lambda *place: place[-1:],
}
# Scopes whose zeros are exact in all, other than to half a unit of each weight.
EXACT = ("global", "erk", "erdos_renyi")
# How sparse each weight becomes, where its scope says so.
SHARES = {
    "layer_wise": [SPARSITY] * 3,
    "output_wise": [SPARSITY] * 3,
    "per_layer": [0.2, 0.2, SPARSITY],
}


# Pairs for the slow run, of parts that are known today: what others prove singly. A
# criterion meets single weights and channels; heads, which cost most, meet a few.
SLOW_CRITERIA = {
    "activation_mean",
    "activation_percentile",
    "apoz",
    "batch_norm_scale",
    "fisher",
    "geometric_median",
    "gradient_magnitude",
    "grasp",
    "layer_adaptive",
    "movement",
    "snip",
    "squared_magnitude",
    "squared_taylor",
    "synflow",
    "wanda",
}
SLOW_RANKINGS = {
    *itertools.product(SLOW_CRITERIA, {"attention_head", "kernel", "n_of_m", "vector"}),
    *itertools.product(SLOW_CRITERIA | {"random"}, {"block"}),
}
# Blocks and heads come back by one regrowth; by the others, single weights and more.
SLOW_RETURNS = {
    ("dynamic_network_surgery", "attention_head"),
    ("dynamic_network_surgery", "block"),
    ("set", "block"),
    ("rewind", "block"),
}
# A schedule meets two scopes; a scope meets two schedules and one regrowth.
SLOW_SCOPES = {"output_wise", "erdos_renyi", "erk", "per_layer", "sparing", "threshold"}
SLOW_SCHEDULES = {
    "constant_schedule",
    "cosine_schedule",
    "exponential_schedule",
    "iterative_schedule",
    "linear_schedule",
    "two_stage_schedule",
}
SLOW_REGROWTHS = {"dynamic_network_surgery", "rewind", "set"}


def pairs(first, second, slow=()):
    """Gives a test each part of a family with each of another, some in the slow run."""
    return [
        pytest.param(*pair, marks=pytest.mark.slow if pair in slow else ())
        for pair in itertools.product(NAMES[first], NAMES[second])
    ]


@pytest.fixture(autouse=True, scope="module")
def fixed_seed():
    """Sets the seed once: TensorFlow then forgets the steps that it has prepared."""
    keras.utils.set_random_seed(0)


def usual(family, name):
    """Makes an object of a family with as few arguments as it takes."""
    cls = registry._families[family][name]
    parameters = inspect.signature(cls).parameters
    return cls(**{n: ARGUMENTS[n] for n in parameters if n in ARGUMENTS})


class Switch(kprune.Scope):
    """Hands on to another scope, so that compiled evidence serves for all of them."""

    inner = kprune.LayerWise()

    fixed_count = property(lambda self: self.inner.fixed_count)
    ranks_layers_together = property(lambda self: self.inner.ranks_layers_together)
    elementwise = property(lambda self: self.inner.elementwise)
    within_weight = property(lambda self: self.inner.within_weight)

    def __call__(self, contenders, sparsity):
        return self.inner(contenders, sparsity)

    def check(self, contenders, sparsity):
        self.inner.check(contenders, sparsity)


class Bench:
    """A compiled model that is put back to its beginning before every case."""

    def __init__(self, outputs, x, only, granularity):
        model = keras.Model(x, outputs)
        model.compile("adam", "sparse_categorical_crossentropy")
        self.model = kprune.prune(model, only=only, granularity=granularity)
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(8, *x.shape[1:])).astype("float32")
        self.y = rng.integers(0, 3, 8)
        self.train()
        self._beginning = {id(v): v.numpy() for v in self.model.variables}
        for store in whole_model.stores(self.model):
            self._beginning[id(store.clock.variable)] = 0
        self.switch = Switch()
        self._pruners = {}

    def train(self):
        self.model.train_on_batch(self.x, self.y)

    def entries(self):
        return whole_model.masked_weights(self.model)

    def masks(self):
        return [entry.mask.numpy() for entry in self.entries()]

    def weights(self):
        return [entry.variable.numpy() for entry in self.entries()]

    def begin(self, granularity, scope):
        """Puts all back; methods have tracked nothing and updated at no step."""
        for store in whole_model.stores(self.model):
            store.granularity = usual("granularities", granularity)
            tracked = store.tracked.variables_by_name
            for name in [name for name in tracked if name.startswith("early")]:
                del tracked[name]  # what `Rewind` has taken
        for variable in self.model.variables:
            nothing_yet = np.full(
                variable.shape, -1 if variable.name == "updated" else 0
            )
            variable.assign(self._beginning.get(id(variable), nothing_yet))
        for entry in self.entries():
            if entry.tracked_as("shadow") is not None:
                entry.tracked_as("shadow").assign(entry.variable)
        self.switch.inner = usual("scopes", scope)

    def pruner(self, criterion, schedule=RISING, regrowth=None):
        """Makes a pruner, or starts over with the one that has compiled all."""
        key = criterion, schedule, regrowth
        if key not in self._pruners:
            self._pruners[key] = kprune.Pruner(
                self.model,
                schedule,
                criterion=criterion,
                scope=self.switch,
                calibration_data=(self.x, self.y),
                regrowth=regrowth and usual("regrowths", regrowth),
            )
        pruner = self._pruners[key]
        pruner.start_over()
        return pruner


def bench(granularity, regrowth=None):
    """Returns the model whose weights have units of a granularity.

    Each regrowth has one of its own, since what it tracks stays in the model.
    """
    if registry._families["granularities"][granularity].tied_by is not None:
        return _attention(regrowth)
    return _convolution(regrowth)


@functools.cache
def _convolution(regrowth):
    inputs = keras.Input((4, 4, 4))
    x = layers.Conv2D(8, 3, 2, "same", use_bias=False, name="first")(inputs)
    x = layers.Flatten()(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.Dense(12, use_bias=False, name="middle")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(6, use_bias=False, name="last")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    outputs = layers.Dense(3, "softmax", name="head")(x)
    return Bench(outputs, inputs, ["first", "middle", "last"], "element")


@functools.cache
def _attention(regrowth):
    inputs = keras.Input((3, 6))
    x = layers.MultiHeadAttention(5, 2, name="first")(inputs, inputs)
    x = layers.MultiHeadAttention(5, 2, name="last")(x, x)
    outputs = layers.Dense(3, "softmax", name="head")(layers.Flatten()(x))
    return Bench(outputs, inputs, layers.MultiHeadAttention, "attention_head")


def has_meaning(criterion, granularity, scope):
    """Tells whether three parts have a meaning together, by what they declare."""
    criterion = registry._families["criteria"][criterion]
    granularity = usual("granularities", granularity)
    scope = usual("scopes", scope)
    if criterion.axis not in (None, granularity.channel_axis):
        return False
    if scope.elementwise and not granularity.elementwise:
        return False
    return not (granularity.within_layer and scope.ranks_layers_together)


def units_of(granularity, entry):
    """Returns the number of its unit for each weight of a kernel."""
    shape = tuple(entry.variable.shape)
    if granularity == "attention_head":
        return np.indices(shape)[0 if "output" in entry.path else 1]
    if granularity in UNIT_OF:
        places = UNIT_OF[granularity](*np.indices(shape))
        flat = np.stack([place.reshape(-1) for place in places])
        return np.unique(flat, axis=1, return_inverse=True)[1].reshape(shape)
    units = usual("granularities", granularity).units(np.zeros(shape, "float32"))
    single = [units.expand(one) for one in np.eye(len(units.scores), dtype=bool)]
    return np.argmax(single, axis=0)


def means_of(granularity, entry, values):
    """Returns the mean of a kernel's values over each unit."""
    units = units_of(granularity, entry).reshape(-1)
    return np.bincount(units, values.reshape(-1)) / np.bincount(units)


def assert_whole_units(granularity, entry, mask):
    """No unit is gone in part, and of N:M every group has lost as much."""
    if usual("granularities", granularity).within_layer:
        groups = mask.reshape(-1, 4, mask.shape[-1]).sum(axis=1)
        assert (groups == groups[0, 0]).all()
    else:
        assert np.isin(means_of(granularity, entry, mask), (0, 1)).all()


def largest_unit(granularity, entry):
    """Returns how many weights a unit has at most, with those tied to it."""
    size = entry.mask.numpy().size
    if granularity == "attention_head":
        return 4 * size // 5
    if usual("granularities", granularity).within_layer:
        return size // 4
    return np.bincount(units_of(granularity, entry).reshape(-1)).max()


def assert_zeros(granularity, scope, model, zeros, sparsity):
    """The zeros are those that the scope promises, to half a unit."""
    entries = model.entries()
    sizes = np.array([entry.mask.numpy().size for entry in entries])
    units = np.array([largest_unit(granularity, entry) for entry in entries])
    if scope == "output_wise":
        units = np.array([entry.mask.shape[-1] for entry in entries])
    if scope in SHARES:
        share = dict(zip(("first", "middle", "last"), SHARES[scope], strict=True))
        shares = np.array([share[e.name.split("/")[0]] for e in entries])
        wanted = np.floor(sizes * shares * sparsity / SPARSITY + 0.5)
        assert (abs(zeros - wanted) <= units // 2).all()
    else:
        largest = units.max() if scope in EXACT else units.sum()
        wanted = np.floor(sizes.sum() * sparsity + 0.5)
        assert abs(zeros.sum() - wanted) <= largest // 2


def prune_and_train(model, pruner, granularity, scope):
    """Prunes twice, with a training step after each, and checks what is left."""
    model.train()
    before = [np.ones_like(mask) for mask in model.masks()]
    for _ in range(2):
        pruner.step()
        masks = model.masks()
        model.train()
        for entry, old, mask in zip(model.entries(), before, masks, strict=True):
            weight = entry.variable.numpy()
            assert (old >= mask).all()
            assert not weight[~mask].any()
            assert weight[mask].all()
            np.testing.assert_array_equal(entry.mask.numpy(), mask)
            assert_whole_units(granularity, entry, mask)
        before = masks
    zeros = np.array([np.count_nonzero(~mask) for mask in before])
    if usual("scopes", scope).fixed_count:
        assert_zeros(granularity, scope, model, zeros, SPARSITY)
    return zeros.tolist()


class Batches(keras.callbacks.Callback):
    """Counts the batches that have begun."""

    begun = 0

    def on_train_batch_begin(self, batch, logs=None):
        self.begun += 1


def assert_refused(
    model, message, criterion="magnitude", scope="layer_wise", regrowth=None
):
    """A pruner is not made, and `fit` does not come to its first batch."""
    parts = {
        "criterion": criterion,
        "scope": usual("scopes", scope),
        "calibration_data": (model.x, model.y),
        "regrowth": regrowth and usual("regrowths", regrowth),
    }
    batches = Batches()

    with pytest.raises(ValueError, match=message):
        kprune.Pruner(model.model, RISING, **parts)
    with pytest.raises(ValueError, match=message):
        callbacks = [kprune.PruningCallback(RISING, **parts), batches]
        model.model.fit(model.x, model.y, verbose=0, callbacks=callbacks)

    assert batches.begun == 0


@pytest.mark.parametrize(
    ("criterion", "granularity"), pairs("criteria", "granularities", SLOW_RANKINGS)
)
def test_criterion_ranks_the_units_of_a_granularity(criterion, granularity):
    model = bench(granularity)
    model.begin(granularity, "layer_wise")
    if not has_meaning(criterion, granularity, "layer_wise"):
        assert_refused(model, r"kprune.Channel\(-1\)", criterion=criterion)
        return

    zeros = prune_and_train(model, model.pruner(criterion), granularity, "layer_wise")

    assert zeros == ZEROS.get(granularity, zeros)


@pytest.mark.parametrize("granularity", NAMES["granularities"])
@pytest.mark.parametrize("scope", NAMES["scopes"])
def test_scope_lets_the_units_of_a_granularity_compete(scope, granularity):
    model = bench(granularity)
    model.begin(granularity, scope)
    if not has_meaning("magnitude", granularity, scope):
        assert_refused(model, "'element'|'layer_wise'", scope=scope)
        return

    prune_and_train(model, model.pruner("magnitude"), granularity, scope)

    if granularity in UNIT_OF and scope != "output_wise":
        model.begin(granularity, scope)
        assert_lowest_go_first(model, granularity)


def assert_lowest_go_first(model, granularity):
    """No unit that stays has a mean below that of one that goes."""
    weights = model.weights()
    model.pruner("magnitude").step()
    for entry, weight in zip(model.entries(), weights, strict=True):
        means = means_of(granularity, entry, np.abs(weight))
        kept = means_of(granularity, entry, entry.mask.numpy()) == 1
        assert means[~kept].max(initial=0) <= means[kept].min() * (1 + 1e-6)


@pytest.mark.parametrize(
    ("schedule", "scope"),
    pairs("schedules", "scopes", set(itertools.product(SLOW_SCHEDULES, SLOW_SCOPES))),
)
def test_schedule_is_followed_within_a_scope(schedule, scope):
    model = bench("element")
    model.begin("element", scope)
    schedule = usual("schedules", schedule)
    pruner = model.pruner("magnitude", schedule)
    before = 0.0

    for step in range(schedule.end_step + 1):
        pruner.step()
        old = model.masks()
        model.train()

        sparsity = schedule(step)
        for entry, mask in zip(model.entries(), old, strict=True):
            assert not entry.variable.numpy()[~mask].any()
        zeros = np.array([np.count_nonzero(~mask) for mask in old])
        if usual("scopes", scope).fixed_count:
            assert_zeros("element", scope, model, zeros, sparsity)
        assert sparsity >= before or schedule.lowers
        before = sparsity

    assert before == SPARSITY


def why_no_exchange(regrowth, granularity, scope):
    """Returns what is said where units can't be exchanged, or `None`."""
    granularity, scope = usual("granularities", granularity), usual("scopes", scope)
    if not registry._families["regrowths"][regrowth].exchanges:
        return None
    if not scope.fixed_count:
        return "Take a scope with"
    is_bound = granularity.within_layer or granularity.tied_by
    return "single weights, blocks or chan" if is_bound else None


def regrow(granularity, scope, regrowth):
    """Carries out four updates of a regrowth with a training step after each."""
    refusal = why_no_exchange(regrowth, granularity, scope)
    if refusal:
        model = bench(granularity)
        model.begin(granularity, scope)
        assert_refused(model, refusal, scope=scope, regrowth=regrowth)
        return False
    model = bench(granularity, regrowth)
    model.begin(granularity, scope)
    pruner, moved = model.pruner("magnitude", RISING, regrowth), False
    before = model.masks()

    for step in range(4):
        pruner.step()
        masks = model.masks()
        model.train()
        for entry, mask in zip(model.entries(), masks, strict=True):
            assert not entry.variable.numpy()[~mask].any()
            np.testing.assert_array_equal(entry.mask.numpy(), mask)
            assert_whole_units(granularity, entry, mask)
        zeros = np.array([np.count_nonzero(~mask) for mask in masks])
        if usual("scopes", scope).fixed_count:
            assert_zeros(granularity, scope, model, zeros, RISING(step))
        moved |= any((m & ~b).any() for m, b in zip(masks, before, strict=True))
        before = masks
    return moved


@pytest.mark.parametrize(
    ("regrowth", "granularity"), pairs("regrowths", "granularities", SLOW_RETURNS)
)
def test_units_of_a_granularity_come_back(regrowth, granularity):
    moved = regrow(granularity, "layer_wise", regrowth)

    if granularity == "element" and regrowth in ("set", "rigl"):
        assert moved
    if regrowth == "rewind":
        assert not moved


@pytest.mark.parametrize(
    ("regrowth", "scope"),
    pairs("regrowths", "scopes", set(itertools.product(SLOW_REGROWTHS, SLOW_SCOPES))),
)
def test_regrowth_keeps_the_counts_of_a_scope(regrowth, scope):
    regrow("element", scope, regrowth)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", NAMES["granularities"])
@pytest.mark.parametrize("regrowth", NAMES["regrowths"])
def test_regrowth_granularity_and_scope_have_a_meaning_or_say_so(regrowth, granularity):
    for scope in NAMES["scopes"]:
        if has_meaning("magnitude", granularity, scope):
            regrow(granularity, scope, regrowth)


def test_thresholds_of_surgery_are_for_single_weights():
    model = bench("channel")
    model.begin("channel", "layer_wise")
    surgery = kprune.DynamicNetworkSurgery(end_step=4, deviations=0.5)

    with pytest.raises(ValueError, match="sparsity decides, or prune single weights"):
        kprune.Pruner(model.model, RISING, regrowth=surgery)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", NAMES["granularities"])
@pytest.mark.parametrize("criterion", NAMES["criteria"])
def test_criterion_granularity_and_scope_have_a_meaning_or_say_so(
    criterion, granularity
):
    model = bench(granularity)
    for scope in NAMES["scopes"]:
        model.begin(granularity, scope)
        if has_meaning(criterion, granularity, scope):
            prune_and_train(model, model.pruner(criterion), granularity, scope)
        else:
            message = r"kprune.Channel\(-1\)|'element'|'layer_wise'"
            assert_refused(model, message, criterion=criterion, scope=scope)


def test_what_has_no_meaning_today():
    refused = {
        (granularity, scope)
        for granularity in NAMES["granularities"]
        for scope in NAMES["scopes"]
        if not has_meaning("magnitude", granularity, scope)
    }

    assert refused == {("n_of_m", "global")} | {
        (granularity, "output_wise")
        for granularity in ZEROS
        if granularity != "element"
    }
    of_units = {
        criterion
        for criterion in NAMES["criteria"]
        if not has_meaning(criterion, "element", "layer_wise")
    }
    assert of_units == {
        "activation_mean",
        "activation_percentile",
        "apoz",
        "batch_norm_scale",
        "geometric_median",
    }


def test_a_criterion_of_output_channels_has_no_meaning_for_input_channels():
    model = bench("channel")
    model.begin("channel", "layer_wise")
    for store in whole_model.stores(model.model):
        store.granularity = kprune.Channel(-2)

    assert_refused(model, r"kprune.Channel\(-1\)", criterion="geometric_median")
