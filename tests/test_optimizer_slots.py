"""Optimizers that have to forget, and those that can't."""

import keras
import pytest

import kprune
from kprune.whole_model import clock_of
from tests.training_helpers import fit, network


@keras.saving.register_keras_serializable("tests")
class Unmade(keras.optimizers.SGD):
    """An optimizer whose config lacks an argument of its constructor."""

    def __init__(self, strength, **kwargs):
        super().__init__(0.1, momentum=0.9)
        self.strength = strength


def pruned():
    model = kprune.prune(network())
    model.compile(Unmade(3), "mse")
    return model


LATE = kprune.ConstantSchedule(0.5, begin_step=20)


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": LATE, "regrowth": kprune.SET(frequency=30, end_step=100)},
        {"schedule": LATE, "regrowth": kprune.Rewind(step=15)},
        {"schedule": kprune.CyclicSchedule(0.5, 2, sparse_steps=5, begin_step=9)},
    ],
    ids=["set", "rewind", "cycles"],
)
def test_an_optimizer_that_can_not_be_made_anew_is_refused_before_training(options):
    model = pruned()

    with pytest.raises(ValueError, match=r"optimizer Unmade begins .* `get_config`"):
        fit(model, kprune.PruningCallback(**options))

    assert clock_of(model) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": kprune.ConstantSchedule(0.5)},
        {
            "schedule": kprune.ConstantSchedule(0.5),
            "regrowth": kprune.DynamicNetworkSurgery(frequency=3),
        },
    ],
    ids=["plain", "surgery"],
)
def test_such_an_optimizer_serves_where_nothing_has_to_be_forgotten(options):
    pruning = kprune.PruningCallback(**options)

    fit(pruned(), pruning, epochs=1)

    assert pruning.sparsity == 0.5
