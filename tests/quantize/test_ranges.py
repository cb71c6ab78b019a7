import keras
import numpy as np
import pytest

from kprune.quantize import ActivationRange


def batches(count):
    generator = np.random.default_rng(0)
    return [generator.normal(size=(8, 3)).astype("float32") for _ in range(count)]


def test_bounds_are_a_mean_at_first_and_a_moving_average_then():
    layer = ActivationRange(momentum=0.75)
    low, high = 0.0, 0.0

    for i, batch in enumerate(batches(8)):
        layer(batch, training=True)
        past = min(i / (i + 1), 0.75)
        low = past * low + (1 - past) * min(batch.min(), 0)
        high = past * high + (1 - past) * max(batch.max(), 0)

    np.testing.assert_allclose([layer.low, layer.high], [low, high], rtol=1e-5)


def test_bounds_hold_zero_even_if_the_values_do_not():
    layer = ActivationRange()

    layer(np.array([2.0, 3.0], "float32"), training=True)

    assert float(layer.low) == 0
    assert float(layer.high) == 3


def test_inference_rounds_and_learns_nothing():
    layer = ActivationRange()
    layer(np.array([0.0, 255.0], "float32"), training=True)

    outputs = layer(np.array([0.6, 300.0], "float32"), training=False)

    np.testing.assert_allclose(outputs, [1, 255])
    assert float(layer.high) == 255
    assert float(layer.batches) == 1


def test_inference_before_any_training_goes_by_its_own_batch():
    layer = ActivationRange()

    outputs = layer(np.array([0.6, 255.0], "float32"))

    np.testing.assert_allclose(outputs, [1, 255])
    assert not layer.is_known


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_batch_that_overflowed_leaves_the_bounds_alone(value):
    layer = ActivationRange()
    layer(np.array([-1.0, 1.0], "float32"), training=True)

    layer(np.array([-1.0, value], "float32"), training=True)

    assert float(layer.low) == -1
    assert float(layer.high) == 1
    assert float(layer.batches) == 1


def test_fixed_bounds_need_no_data_and_have_no_weights():
    layer = ActivationRange(fixed=(0.0, 255 / 256))

    outputs = layer(np.array([0.5, 2.0], "float32"), training=True)

    np.testing.assert_array_equal(outputs, [0.5, 255 / 256])
    assert layer.is_known
    assert not layer.weights


def test_static_bounds_do_not_move_in_training():
    layer = ActivationRange(static=True)
    layer.build(None)
    layer.high.assign(1.0)

    layer(np.array([5.0], "float32"), training=True)

    assert float(layer.high) == 1


def test_config_holds_every_argument():
    layer = ActivationRange((0.0, 1.0), momentum=0.5, static=True, uses=2, name="r")

    again = ActivationRange.from_config(layer.get_config())

    assert again.get_config() == layer.get_config()
    assert isinstance(again, keras.Layer)


def test_momentum_of_one_is_refused():
    with pytest.raises(ValueError, match="momentum=1 must be at least 0 and below 1"):
        ActivationRange(momentum=1)


def test_range_of_several_uses_is_the_mean_of_what_holds_all_uses_of_a_step():
    layer = ActivationRange(uses=2, momentum=0.75)
    steps = [([-1.0, 2.0], [0.0, 10.0]), ([0.0, 30.0], [-5.0, 1.0])]

    for step in steps:
        for batch in step:
            layer(np.array(batch, "float32"), training=True)

    np.testing.assert_allclose([layer.low, layer.high], [-3, 20])
    assert float(layer.batches) == 2


def test_step_in_which_one_of_the_uses_overflowed_is_left_out():
    layer = ActivationRange(uses=2)
    values = [[1.0], [10.0], [np.inf], [40.0], [2.0], [20.0]]

    for batch in values:
        layer(np.array(batch, "float32"), training=True)

    assert float(layer.high) == 15
    assert float(layer.batches) == 2


@pytest.mark.parametrize("uses", [1, 2])
def test_empty_batch_leaves_the_bounds_alone(uses):
    layer = ActivationRange(uses=uses)
    for _ in range(uses):
        layer(np.array([-1.0, 3.0], "float32"), training=True)

    for _ in range(uses):
        outputs = layer(np.zeros((0, 2), "float32"), training=True)

    assert outputs.shape == (0, 2)
    assert (float(layer.low), float(layer.high)) == (-1, 3)


def test_range_without_uses_is_refused():
    with pytest.raises(ValueError, match="uses=0 must be 1 or more"):
        ActivationRange(uses=0)
