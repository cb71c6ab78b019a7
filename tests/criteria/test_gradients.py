"""Criteria that look at gradients, against what removing weights does to the loss."""

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.calibration import Calibration
from tests.checks import entries
from tests.training_helpers import data, with_slow

X, Y = data(batches=4)  # 32 rows, one batch
HIDDEN, HEAD = "hidden/kernel", "head/kernel"


def network():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    hidden = layers.Dense(4, "tanh", name="hidden")(inputs)
    model = kprune.prune(keras.Model(inputs, layers.Dense(3, name="head")(hidden)))
    model.compile("sgd", "mse")
    return model


def weights_of(model):
    return [entry.variable.numpy().astype("float64") for entry in entries(model)]


def scores_of(model, criterion):
    """Returns the scores of each weight, from evidence over the data."""
    evidence = Calibration(model, criterion.requires, (X, Y)).gather(entries(model))
    pairs = zip(weights_of(model), evidence, strict=True)
    return [criterion(weight, **found) for weight, found in pairs]


class ByHand:
    """The network in float64, with its gradient by the chain rule."""

    def __init__(self, model):
        biases = [model.get_layer(n).layer.bias.numpy() for n in ("hidden", "head")]
        self.first, self.last = map(np.float64, biases)

    def loss(self, kernels, x=X, y=Y):
        hidden = np.tanh(x @ kernels[0] + self.first)
        return np.mean((hidden @ kernels[1] + self.last - y) ** 2)

    def gradient(self, kernels, x=X, y=Y):
        hidden = np.tanh(x @ kernels[0] + self.first)
        error = 2 * (hidden @ kernels[1] + self.last - y) / y.size
        back = error @ kernels[1].T * (1 - hidden**2)
        return [x.T @ back, hidden.T @ error]

    def gradient_norm(self, kernels):
        return sum(np.sum(g**2) for g in self.gradient(kernels))


def with_scaled(kernels, number, place, factor):
    """Returns the kernels with one weight multiplied."""
    scaled = [kernel.copy() for kernel in kernels]
    scaled[number][place] *= factor
    return scaled


def each_weight(kernels):
    return [(i, p) for i, k in enumerate(kernels) for p in np.ndindex(k.shape)]


def rates(function, kernels, step=1e-5):
    """Returns how fast a value changes as each weight is scaled: the c of SNIP."""
    found = [np.zeros_like(kernel) for kernel in kernels]
    for number, place in each_weight(kernels):
        up, down = (
            function(with_scaled(kernels, number, place, 1 + sign * step))
            for sign in (1, -1)
        )
        found[number][place] = (up - down) / (2 * step)
    return found


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-6)


def test_gradient_magnitude_is_the_steepness_of_the_loss():
    model = network()

    found = scores_of(model, kprune.GradientMagnitude())

    assert_close(found, map(np.abs, ByHand(model).gradient(weights_of(model))))


def test_taylor_is_the_rate_at_which_the_loss_changes_as_a_weight_vanishes():
    model = network()
    changes = rates(ByHand(model).loss, weights_of(model))

    assert_close(scores_of(model, kprune.Taylor()), map(np.abs, changes))
    assert_close(scores_of(model, kprune.SquaredTaylor()), map(np.square, changes))


def test_snip_is_the_share_in_the_sensitivity_to_scaling_any_weight():
    model = network()

    found = scores_of(model, kprune.SNIP())

    changes = list(map(np.abs, rates(ByHand(model).loss, weights_of(model))))
    total = sum(change.sum() for change in changes)
    assert_close(found, [change / total for change in changes])
    np.testing.assert_allclose(sum(scores.sum() for scores in found), 1, rtol=1e-5)


def test_grasp_keeps_the_weights_that_the_norm_of_the_gradient_needs():
    model = network()

    found = scores_of(model, kprune.GraSP())

    # As a weight is scaled up, |g|^2 grows by 2 w (H g): what its removal loses.
    grows = rates(ByHand(model).gradient_norm, weights_of(model))
    assert_close([2 * scores for scores in found], grows)


def test_fisher_is_the_second_order_with_squared_gradients_of_examples():
    model, by_hand = network(), ByHand(network())
    kernels = weights_of(model)

    found = scores_of(model, kprune.Fisher())

    of_examples = [
        by_hand.gradient(kernels, X[i : i + 1], Y[i : i + 1]) for i in range(len(X))
    ]
    curvatures = (np.mean(np.square(g), axis=0) for g in zip(*of_examples, strict=True))
    expected = [k**2 / 2 * c for k, c in zip(kernels, curvatures, strict=True)]
    assert_close(found, expected)


def test_synflow_is_what_flows_in_through_the_weight_and_out():
    model = network()

    found = scores_of(model, kprune.SynFlow())

    first, last = map(np.abs, weights_of(model))
    hidden = np.tanh(first.sum(axis=0))
    kept = hidden.sum() / first.sum()  # of the flow, by all of tanh
    np.testing.assert_allclose(found[0], kept * first * last.sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found[1], hidden[:, None] * last, rtol=1e-4)


def test_movement_prefers_weights_that_grew():
    movement = np.float32([[-1.0, 0.5], [2.0, -0.1]])

    (mask,) = kprune.compute_masks(
        [np.float32([[9, 1], [1, 9]])],
        0.5,
        criterion="movement",
        evidence=[{"movement": movement}],
    )

    np.testing.assert_array_equal(mask, [[0, 1], [1, 0]])


CRITERIA = (
    "fisher",
    "gradient_magnitude",
    "grasp",
    "layer_adaptive",
    "random",
    "snip",
    "squared_magnitude",
    "squared_taylor",
    "synflow",
    "taylor",
)


# Variants of taylor and of magnitude, which all units and scopes meet elsewhere.
VARIANTS = {
    "gradient_magnitude",
    "layer_adaptive",
    "snip",
    "squared_magnitude",
    "squared_taylor",
}


@pytest.mark.parametrize("criterion", with_slow(VARIANTS, CRITERIA))
def test_criterion_prunes_with_each_granularity_and_scope(criterion):
    for granularity, scope in (("element", "global"), ("channel", "layer_wise")):
        keras.utils.set_random_seed(0)
        dense = layers.Dense(4, "relu", name="hidden")
        head = layers.Dense(4, name="head")
        model = keras.Sequential([keras.Input((6,)), dense, head])
        model = kprune.prune(model, granularity=granularity)
        model.compile("sgd", "mse")
        pruner = kprune.Pruner(
            model,
            kprune.ConstantSchedule(0.5),
            criterion=criterion,
            scope=scope,
            calibration_data=(X[:8], X[:8, :4]),
        )

        pruner.step()

        assert pruner.sparsity == 0.5
        removed = [~entry.mask.numpy() for entry in entries(model)]
        if granularity == "channel":
            assert all((r == r[0]).all() for r in removed)


def test_fit_prunes_with_jit_and_bfloat16():
    hidden = layers.Dense(8, "relu", dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(3)])
    model = kprune.prune(model)
    model.compile("sgd", "mse", jit_compile=True)
    schedule = kprune.PolynomialSchedule(0.75, begin_step=0, end_step=3, frequency=1)
    pruning = kprune.PruningCallback(
        schedule, criterion="taylor", calibration_data=(X, Y)
    )

    history = model.fit(X, Y, batch_size=8, verbose=0, callbacks=[pruning])

    assert history.history["sparsity"] == [0.75]
    assert np.isfinite(history.history["loss"]).all()
