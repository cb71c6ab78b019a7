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
    layer = ActivationRange(fixed=(0.0, 1.0), momentum=0.5, static=True, name="r")

    again = ActivationRange.from_config(layer.get_config())

    assert again.get_config() == layer.get_config()
    assert isinstance(again, keras.Layer)


def test_momentum_of_one_is_refused():
    with pytest.raises(ValueError, match="momentum=1 must be at least 0 and below 1"):
        ActivationRange(momentum=1)
