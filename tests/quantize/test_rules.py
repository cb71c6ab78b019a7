import pytest
from keras import layers

from kprune.quantize import rule_for

IN_FLOAT = [
    (layers.LSTM(2), "no rule for layers of type LSTM"),
    (layers.Conv3D(2, 3), "no rule for layers of type Conv3D"),
    (layers.Conv2D(2, 3, dilation_rate=2), "dilated"),
    (layers.Conv2D(2, 3, data_format="channels_first"), "channels_last"),
    (layers.Dense(2, activation="elu"), "'elu'"),
    (layers.Activation("softplus"), "'softplus'"),
    (layers.Softmax(axis=1), "last axis"),
    (layers.ReLU(negative_slope=0.1), "slope"),
    (layers.ReLU(max_value=3.0), "up to 3.0"),
    (layers.Rescaling(0.5, offset=1.0), "use two layers, one for each"),
    (layers.Rescaling([0.5, 1.0]), "a number for each channel"),
    (layers.UpSampling2D(2, interpolation="bilinear"), "'bilinear'"),
    (layers.BatchNormalization(), "folded"),
]


@pytest.mark.parametrize(("layer", "reason"), IN_FLOAT)
def test_layer_without_int8_form_says_why(layer, reason):
    assert reason in rule_for(layer)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_outputs_that_tflite_fixes_have_bounds(name):
    assert rule_for(layers.Activation(name)).fixed == (0, 255 / 256)
    assert rule_for(layers.Dense(2, activation=name)).fixed == (0, 255 / 256)


def test_relu_is_part_of_the_layer_and_other_activations_are_not():
    assert rule_for(layers.Dense(2, activation="relu")).activation is None
    assert rule_for(layers.Dense(2, activation="tanh")).activation == "tanh"
