import keras
import numpy as np
import pytest
from keras import layers, optimizers

from kprune.channels.tracing import trace
from kprune.shrinking.optimizer_state import carry_over
from kprune.shrinking.removal import Narrowed, without
from kprune.weight_access import as_array
from tests.training_helpers import with_slow

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6, 6, 2)).astype("float32")
Y = RNG.normal(size=(16, 3)).astype("float32")
RATE = 0.01


def network():
    dtype = "float64"
    inputs = keras.Input((6, 6, 2))
    # No bias: its gradient would be roundings alone, in front of a normalization.
    x = layers.Conv2D(8, 3, use_bias=False, name="conv", dtype=dtype)(inputs)
    x = layers.BatchNormalization(name="norm", dtype=dtype)(x)
    x = layers.Flatten(dtype=dtype)(layers.ReLU(dtype=dtype)(x))
    x = layers.Dense(10, activation="relu", name="hidden", dtype=dtype)(x)
    return keras.Model(inputs, layers.Dense(3, name="out", dtype=dtype)(x))


def hidden(model, tracing):
    """Hides half of the channels that may go with zeros on both sides.

    Returns which they are, by channel.
    """
    groups = tracing.channels.groups()
    free = sorted(set(groups[1:]) - set(tracing.channels.reasons()))
    removed = np.isin(groups, free[1::2])
    for weight in tracing.weights.values():
        if "moving" not in weight.variable.name:
            array = as_array(weight.variable).copy()
            for axis, kept in weight.value.kept(removed).items():
                shape = [-1 if a == axis else 1 for a in range(array.ndim)]
                array *= kept.reshape(shape)
            weight.variable.assign(array)
    return removed


def trained(optimizer, steps=3, model=None, run_eagerly=True):
    """Returns a model that was trained with half of its channels hidden."""
    model = model or network()
    tracing = trace(model)
    removed = hidden(model, tracing)
    model.compile(optimizer, "mse", run_eagerly=run_eagerly)
    for _ in range(steps):
        model.train_on_batch(X, Y)
    return model, tracing, removed


def assert_goes_on(model, tracing, removed, steps=2):
    """Trains the hidden channels' model and the one without them, and compares."""
    small = without(model, tracing, removed)
    carry_over(model, model, small, tracing, removed)
    narrowed = Narrowed(tracing, removed)
    for step in range(steps):
        losses = [one.train_on_batch(X, Y) for one in (model, small)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        for weight, left in zip(model.weights, small.weights, strict=True):
            np.testing.assert_allclose(
                narrowed.array(weight, as_array(weight)),
                as_array(left),
                rtol=1e-6,
                atol=1e-9,
                err_msg=f"{weight.path} after step {step}",
            )
    return small


KINDS = {
    name: kind
    for name, kind in vars(optimizers).items()
    if isinstance(kind, type) and issubclass(kind, optimizers.Optimizer)
}
# Their steps depend on more than single weights; see the tests of their own.
WHOLE = {"Muon", "Adafactor"}
OTHERS = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}
# Each keeps of a weight what Adam or Ftrl keeps, or a variant below.
LIKE_OTHERS = {"AdamW", "Adamax", "Nadam", "Adadelta", "Adagrad", "RMSprop"}


@pytest.mark.parametrize(
    "name", with_slow(LIKE_OTHERS, sorted(set(KINDS) - WHOLE - OTHERS))
)
def test_training_goes_on_as_that_of_the_model_with_zeros(name):
    assert_goes_on(*trained(KINDS[name](RATE)))


VARIANTS = {
    "momentum": lambda: optimizers.SGD(RATE, momentum=0.9, nesterov=True),
    "centered": lambda: optimizers.RMSprop(RATE, momentum=0.5, centered=True),
    "amsgrad": lambda: optimizers.Adam(RATE, amsgrad=True),
    "weight decay": lambda: optimizers.AdamW(RATE, weight_decay=0.1),
    "averages": lambda: optimizers.Adam(
        RATE, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=4
    ),
    "accumulation": lambda: optimizers.Adam(RATE, gradient_accumulation_steps=2),
    "schedule": lambda: optimizers.Adam(
        optimizers.schedules.ExponentialDecay(RATE, 2, 0.5)
    ),
    "clipping": lambda: optimizers.SGD(RATE, momentum=0.9, global_clipnorm=0.1),
    "Muon, same size of step": lambda: optimizers.Muon(RATE, rms_rate=None),
    "two": lambda: optimizers.MultiOptimizer(
        optimizers.OptimizerMap(
            optimizers.SGD(RATE, momentum=0.9), {"conv/.*": optimizers.Adam(RATE)}
        )
    ),
}


# A schedule and a decay keep nothing of a weight; as many slots others have as well.
VARIANTS_IN_THE_SLOW_RUN = {"amsgrad", "momentum", "schedule", "weight decay"}


@pytest.mark.parametrize("name", with_slow(VARIANTS_IN_THE_SLOW_RUN, VARIANTS))
def test_training_goes_on_with_all_that_an_optimizer_can_do(name):
    assert_goes_on(*trained(VARIANTS[name]()))


def attentive():
    """Makes a model with weights that grow or shrink as channels are removed."""
    dtype = "float64"
    inputs = keras.Input((6, 6, 2))
    x = layers.Reshape((36, 2), dtype=dtype)(inputs)
    x = layers.Dense(8, dtype=dtype)(x)
    x = layers.RMSNormalization(epsilon=1e-30, dtype=dtype)(x)
    # A softmax does not see the bias of the keys: its gradient would be roundings.
    x = layers.MultiHeadAttention(2, 6, use_bias=False, dtype=dtype)(x, x)
    x = layers.Flatten(dtype=dtype)(x)
    return keras.Model(inputs, layers.Dense(3, dtype=dtype)(x))


# Steps so small that both models see the same gradients all the time, each its own.
STILL = 1e-12
SCALED = {
    "Adam": lambda: optimizers.Adam(STILL, amsgrad=True),
    "SGD": lambda: optimizers.SGD(STILL, momentum=0.9),
    "RMSprop": lambda: optimizers.RMSprop(STILL, 0.9, 0.5, 1e-30, True),
    "Adagrad": lambda: optimizers.Adagrad(STILL, initial_accumulator_value=0),
    "Adamax": lambda: optimizers.Adamax(STILL),
    "Adadelta": lambda: optimizers.Adadelta(STILL, epsilon=1e-30),
    "Adafactor": lambda: optimizers.Adafactor(STILL, clip_threshold=1e30),
    "Lion": lambda: optimizers.Lion(STILL),
    "schedule free": lambda: optimizers.ScheduleFreeAdamW(STILL),
    "averages": lambda: optimizers.SGD(STILL, use_ema=True),
    "accumulation": lambda: optimizers.SGD(STILL, gradient_accumulation_steps=5),
}
ALIKE = {"Adamax", "Adagrad", "Adadelta", "Lion"}


@pytest.mark.parametrize("name", with_slow(ALIKE, SCALED))
def test_slots_are_those_that_the_small_model_would_have_had(name):
    model, tracing, removed = trained(SCALED[name](), 0, attentive())
    small = without(model, tracing, removed)
    other = without(model, tracing, removed)
    for _ in range(3):
        model.train_on_batch(X, Y)
        other.train_on_batch(X, Y)

    carry_over(model, model, small, tracing, removed)

    pairs = zip(small.optimizer.variables, other.optimizer.variables, strict=True)
    for ours, theirs in pairs:
        ours, expected = as_array(ours), as_array(theirs)
        limit = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, 1e-6, limit, err_msg=theirs.path)


def state(model):
    return [as_array(variable) for variable in model.optimizer.variables]


def test_a_new_optimizer_would_take_other_steps():
    model, tracing, removed = trained(optimizers.Adam(RATE))
    small = without(model, tracing, removed)

    with pytest.raises(AssertionError):
        model.train_on_batch(X, Y)
        small.train_on_batch(X, Y)
        left = Narrowed(tracing, removed).array(
            model.weights[0], as_array(model.weights[0])
        )
        np.testing.assert_allclose(left, as_array(small.weights[0]), rtol=1e-3)


def test_steps_learning_rate_and_slots_are_carried_over():
    model, tracing, removed = trained(optimizers.Adam(RATE))
    model.optimizer.learning_rate = 0.123
    small = without(model, tracing, removed)

    carry_over(model, model, small, tracing, removed)

    assert int(small.optimizer.iterations) == 3
    assert float(small.optimizer.learning_rate) == pytest.approx(0.123)
    kernel = tracing.weights[id(model.get_layer("conv").kernel)]
    (kept,) = kernel.value.kept(removed).values()
    assert kept.sum() == small.get_layer("conv").filters == 4
    ours = as_array(model.optimizer._momentums[0])
    np.testing.assert_array_equal(
        ours[..., kept], as_array(small.optimizer._momentums[0])
    )
    assert ours[..., kept].any()


def test_the_trained_model_and_its_optimizer_are_not_changed():
    model, tracing, removed = trained(optimizers.Adam(RATE))
    before = [a.copy() for a in state(model)]
    small = without(model, tracing, removed)

    carry_over(model, model, small, tracing, removed)
    small.train_on_batch(X, Y)

    for was, now in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(was, now)


def test_the_scale_of_the_loss_goes_on():
    inner = optimizers.SGD(RATE, momentum=0.9)
    scaled = optimizers.LossScaleOptimizer(inner, dynamic_growth_steps=4)
    model, tracing, removed = trained(scaled)

    small = assert_goes_on(model, tracing, removed)

    assert int(small.optimizer.step_counter) == 1
    assert float(small.optimizer.dynamic_scale) == 2 * scaled.initial_scale


def test_compiled_training_goes_on():
    assert_goes_on(*trained(optimizers.Adam(RATE), run_eagerly=False))


def test_averages_are_those_of_what_is_left():
    model, tracing, removed = trained(optimizers.SGD(RATE, use_ema=True))
    small = assert_goes_on(model, tracing, removed)

    for one in (model, small):
        one.optimizer.finalize_variable_values(one.trainable_variables)

    narrowed = Narrowed(tracing, removed)
    for weight, left in zip(model.weights, small.weights, strict=True):
        np.testing.assert_allclose(
            narrowed.array(weight, as_array(weight)), as_array(left), atol=1e-9
        )


def test_factors_of_squared_gradients_have_the_products_that_they_had():
    model, tracing, removed = trained(optimizers.Adafactor(RATE))
    small = without(model, tracing, removed)

    carry_over(model, model, small, tracing, removed)

    narrowed = Narrowed(tracing, removed)
    for index, weight in enumerate(model.trainable_variables):
        if len(weight.shape) > 1:
            ours, theirs = (product(m.optimizer, index) for m in (model, small))
            np.testing.assert_allclose(
                narrowed.array(weight, ours), theirs, rtol=1e-6, err_msg=weight.path
            )
    assert small.train_on_batch(X, Y) == pytest.approx(model.train_on_batch(X, Y))


def product(optimizer, index):
    rows = as_array(optimizer._r[index])[..., None]
    columns = as_array(optimizer._c[index])[..., None, :]
    return rows * columns / rows.mean(-2, keepdims=True)


def test_an_optimizer_that_has_not_begun_has_nothing_to_carry():
    model, tracing, removed = trained(optimizers.Adam(RATE), steps=0)
    small = without(model, tracing, removed)

    carry_over(model, model, small, tracing, removed)

    assert not small.optimizer.built
    assert np.isfinite(small.train_on_batch(X, Y))


def test_a_frozen_layer_has_no_slots_before_and_after():
    model = network()
    model.get_layer("conv").trainable = False

    assert_goes_on(*trained(optimizers.Adam(RATE), model=model))


def test_a_model_that_is_not_compiled_is_refused():
    model = network()
    tracing = trace(model)
    removed = hidden(model, tracing)
    small = without(model, tracing, removed)

    with pytest.raises(ValueError, match="has no optimizer: it is not compiled"):
        carry_over(model, model, small, tracing, removed)


@keras.saving.register_keras_serializable("kprune_tests")
class Odd(optimizers.SGD):
    """Keeps a flat copy of each gradient."""

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.flat = [
            self.add_variable((int(np.prod(v.shape)),), name="flat") for v in variables
        ]


def test_what_can_not_be_cut_is_named():
    model, tracing, removed = trained(Odd(RATE))
    small = without(model, tracing, removed)

    with pytest.raises(ValueError, match=r"Odd keeps '.*flat' of shape \(144,\)"):
        carry_over(model, model, small, tracing, removed)
