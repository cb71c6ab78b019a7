import keras
import pytest
from keras import layers

from kprune.quantize.plan import calls, place_ranges


def nothing(layer, parents):
    return False


def diamond():
    inputs = keras.Input((4,))
    first = layers.Dense(4, name="first")(inputs)
    left = layers.Dense(4, name="left")(first)
    right = layers.Dense(4, name="right")(left)
    return keras.Model(inputs, layers.Add(name="add")([first, right]))


def test_calls_come_after_those_that_they_read():
    names = [call.operation.name for call in calls(diamond())]

    assert names == ["first", "left", "right", "add"]


def test_shared_layer_is_called_once_a_use_and_placed_once():
    inputs = keras.Input((4,))
    dense = layers.Dense(4, name="shared")
    model = keras.Model(inputs, dense(dense(inputs)))

    placements = place_ranges(model, nothing)

    assert len(calls(model)) == 2
    assert list(placements) == [id(dense)]
    # Its first input has no range yet, so that it has to give one to all.
    assert placements[id(dense)].inputs == [True]
    assert placements[id(dense)].output
    assert placements[id(dense)].uses == 2


def test_layer_of_a_nested_model_has_the_uses_of_that_model():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inner(inner(inner(inputs))))

    placements = place_ranges(model, nothing)

    assert placements[id(inner.layers[0])].uses == 3


def placement_of(model, name, stays_float=nothing):
    placements = place_ranges(model, stays_float)
    return placements[id(model.get_layer(name))]


@pytest.mark.parametrize(
    ("behind", "merges"),
    [
        (layers.ReLU(), True),
        (layers.ReLU(6.0), True),
        (layers.Activation("relu"), True),
        (layers.Activation("tanh"), False),
        (layers.MaxPooling2D(), False),
    ],
)
def test_only_a_relu_right_behind_takes_the_range_of_a_convolution(behind, merges):
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(2, 3, name="convolution")(inputs)
    model = keras.Model(inputs, type(behind).from_config(behind.get_config())(x))

    assert placement_of(model, "convolution").output != merges


def test_convolution_read_by_two_has_its_own_range():
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(2, 3, name="convolution")(inputs)
    model = keras.Model(inputs, [layers.ReLU()(x), x])

    assert placement_of(model, "convolution").output


def test_inputs_are_rounded_once_also_behind_layers_that_pass_them_on():
    inputs = keras.Input((4, 4, 1))
    x = layers.Flatten()(layers.MaxPooling2D()(inputs))
    x = layers.Dense(3, name="first")(x)
    model = keras.Model(inputs, layers.Dense(2, name="second")(x))

    assert placement_of(model, "first").inputs == [True]
    assert placement_of(model, "second").inputs == [False]


def test_nested_model_knows_whether_its_inputs_are_rounded():
    inner = diamond()
    inputs = keras.Input((4,))
    x = layers.Dense(4)(inputs)
    model = keras.Model(inputs, inner(x))

    placements = place_ranges(model, nothing)

    assert placements[id(inner.get_layer("first"))].inputs == [False]
