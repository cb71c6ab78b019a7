"""What is said of a run's result, where it is not what was asked for."""

import keras
import numpy as np
import pytest

import kprune
from tests.training_helpers import build_optimizer, data, entries, fit, network


def pruned(model=None, **options):
    model = kprune.prune(model or network(), **options)
    model.compile("sgd", "mse")
    build_optimizer(model)
    return model


class Open(keras.callbacks.Callback):
    """Sets some weights of the mask of the layer "hidden" to kept, at the end."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def on_train_end(self, logs=None):
        mask = entries(self.model)[0].mask
        value = mask.numpy()
        value.flat[np.flatnonzero(~value)[: self.count]] = True
        mask.assign(value)


def test_less_than_was_asked_for_is_warned_of():
    pruning = kprune.PruningCallback(kprune.ConstantSchedule(0.75))

    # 72 and 36 of 144 weights were to go, and 8 of them are back.
    with pytest.warns(UserWarning, match=r"Asked for sparsity 0.75, reached 0.6944"):
        fit(pruned(), pruning, Open(8), epochs=1)


def test_a_weight_of_each_layer_more_or_less_is_not_warned_of():
    pruning = kprune.PruningCallback(kprune.ConstantSchedule(0.75))

    fit(pruned(), pruning, Open(2), epochs=1)


@pytest.mark.parametrize(
    "granularity, schedule",
    [
        (kprune.Block(4, 1), kprune.ConstantSchedule(0.7)),  # the last row is of two
        (kprune.Channel(-1), kprune.ConstantSchedule(0.4)),  # 1 of 3 and 6 of 16
        (kprune.NofM(2, 4), kprune.ConstantSchedule(0.4)),  # a quarter
    ],
    ids=["blocks", "channels", "n_of_m"],
)
def test_what_whole_units_leave_is_not_warned_of(granularity, schedule):
    model = pruned(granularity=granularity)
    pruning = kprune.PruningCallback(schedule)

    fit(model, pruning, epochs=1)

    assert 0 < pruning.sparsity <= 0.75


def with_a_tiny_layer():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(1, name="tiny")(inputs)
    x = keras.layers.Dense(16, name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x))


def test_a_layer_whose_last_weight_stays_is_named(capsys):
    model = pruned(with_a_tiny_layer())
    pruning = kprune.PruningCallback(kprune.ConstantSchedule(0.95))

    fit(model, pruning, epochs=1, verbose=2)

    said = capsys.readouterr().out
    assert "the last unit of a weight stays: 'tiny/kernel' has sparsity 0.8333." in said
    assert "hidden/kernel" not in said  # 1 of 16 is 0.9375, as near as can be


@pytest.mark.parametrize("scope", ["layer_wise", "global"])
def test_nothing_is_said_of_last_weights_where_none_had_to_stay(scope, capsys):
    sparsity = 0.5 if scope == "layer_wise" else 0.95
    model = pruned(with_a_tiny_layer())
    pruning = kprune.PruningCallback(kprune.ConstantSchedule(sparsity), scope=scope)

    fit(model, pruning, epochs=1, verbose=2)

    assert "the last unit" not in capsys.readouterr().out


@pytest.mark.parametrize("options", [{}, {"regrowth": kprune.RigL(end_step=9)}])
def test_the_loss_of_calibration_data_is_tried_once_before_training(options):
    model, calls = pruned(), []
    loss = keras.losses.MeanSquaredError()

    def counted(y, predicted):
        calls.append(None)
        return loss(y, predicted)

    model.compile("sgd", counted)
    x, y = data()
    begun = []
    count = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: begun.append(len(calls))
    )
    pruning = kprune.PruningCallback(
        kprune.ConstantSchedule(0.5, begin_step=5),
        criterion="taylor",
        calibration_data=(x[:16], y[:16]),
        **options,
    )

    fit(model, pruning, count, epochs=1)

    assert begun == [1]
