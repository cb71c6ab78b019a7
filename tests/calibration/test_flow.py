import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.calibration import Calibration
from tests.checks import entries


def flow_of(model, data=None):
    """Returns a list of arrays, one a pruned weight."""
    found = Calibration(model, ["synaptic_flow"], data).gather(entries(model))
    return [evidence["synaptic_flow"] for evidence in found]


def chain(*parts, shape=(2,)):
    return kprune.prune(keras.Sequential([keras.Input(shape), *parts]))


FIRST = np.float32([[1, -2], [-3, 0.5]])
SECOND = np.float32([[2, -1, 0], [4, 0.5, -1]])


def set_values(layer, kernel, bias):
    layer.set_weights([kernel, np.float32(bias), *layer.get_weights()[2:]])


@pytest.mark.parametrize("last", [None, "softmax", "log_softmax", "sigmoid", "tanh"])
def test_flow_of_two_layers_is_the_one_found_by_hand(last):
    model = chain(layers.Dense(2, "relu"), layers.Dense(3, last))
    set_values(model.layers[0], FIRST, [5, -5])
    set_values(model.layers[1], SECOND, [1, 2, 3])

    first, second = flow_of(model)

    # A softmax and its like only scale the flow as a whole.
    factor = 1 if last is None else second[0, 0] / 4
    # A weight of the first layer meets a one, and the second layer's rows behind it.
    np.testing.assert_allclose(first / factor, [[3, 5.5], [3, 5.5]], rtol=1e-6)
    # A weight of the second layer meets what the first one's columns sum up to.
    np.testing.assert_allclose(second / factor, [[4] * 3, [2.5] * 3], rtol=1e-6)


def test_bounded_activation_does_not_cut_the_flow_off():
    model = chain(layers.Dense(2, "relu6"), layers.Dense(3))
    set_values(model.layers[0], 10 * FIRST, [0, 0])
    set_values(model.layers[1], SECOND, [0, 0, 0])

    first, second = flow_of(model)

    np.testing.assert_allclose(first, np.float32([[3, 5.5]] * 2) * 12 / 65, rtol=1e-6)
    np.testing.assert_allclose(second, np.full((2, 3), 6))


def test_flow_through_each_layer_is_the_same():
    model = chain(
        layers.Conv2D(3, 3, activation="relu", padding="same"),
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3, activation="relu"),
        layers.Flatten(),
        layers.Dense(5, "softmax"),
        shape=(6, 6, 2),
    )
    model.layers[1].moving_mean.assign([3.0, -4.0, 9.0])

    flows = flow_of(model)

    totals = [
        np.abs(entry.variable.numpy() * flow).sum()
        for entry, flow in zip(entries(model), flows, strict=True)
    ]
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)


def test_model_is_left_as_it_was():
    model = chain(layers.Dense(4), layers.BatchNormalization(), layers.Dense(1))
    before = model.get_weights()

    flow_of(model)

    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_flow_that_overflows_is_scaled_down_and_keeps_its_order():
    model = chain(*(layers.Dense(2, use_bias=False) for _ in range(12)))
    for layer in model.layers:
        layer.set_weights([FIRST * 1e3, *layer.get_weights()[1:]])

    flows = flow_of(model)

    expected = np.abs(FIRST.astype("float64")) * 1e3
    after = np.linalg.matrix_power(expected, 11).sum(axis=1)
    found = flows[0] / flows[0].max()
    np.testing.assert_allclose(found, np.stack([after, after]) / after.max(), rtol=1e-4)
    assert all(np.isfinite(flow).all() and flow.all() for flow in flows)


def test_scale_of_the_last_update_makes_no_difference_to_the_next():
    model = chain(*(layers.Dense(2, use_bias=False) for _ in range(12)))
    calibration = Calibration(model, ["synaptic_flow"], None)

    for size in (1, 1e3, 1e9, 1e9, 1e3, 0.1, 1e6):
        for layer in model.layers:
            layer.set_weights([FIRST * size, *layer.get_weights()[1:]])
        found = calibration.gather(entries(model))

        for evidence, expected in zip(found, flow_of(model), strict=True):
            np.testing.assert_array_equal(evidence["synaptic_flow"], expected)


def test_flow_that_overflows_even_in_float64_is_an_error():
    model = chain(*(layers.Dense(2, use_bias=False) for _ in range(12)))
    for layer in model.layers:
        layer.set_weights([FIRST * 1e30, *layer.get_weights()[1:]])

    with pytest.raises(ValueError, match="overflows, even in float64"):
        flow_of(model)


def test_what_shifts_inputs_does_not_stop_the_flow():
    rescaling = layers.Rescaling(1 / 4, offset=-1)
    normalization = layers.Normalization(mean=3.0, variance=1.0)
    model = chain(rescaling, normalization, layers.Dense(3, "relu"))

    (flow,) = flow_of(model)

    np.testing.assert_allclose(flow, np.full((2, 3), 1 / 4))
    assert rescaling.offset == -1
    assert model(np.full((1, 2), 16.0)).shape == (1, 3)


@pytest.mark.parametrize(
    "normalization",
    [
        layers.LayerNormalization,
        layers.RMSNormalization,
        layers.UnitNormalization,
        lambda: layers.GroupNormalization(2),
    ],
)
def test_what_normalizes_each_example_only_scales_the_flow(normalization):
    inputs = keras.Input((2,))
    x = layers.Dense(2)(normalization()(layers.Dense(2)(inputs)))
    model = kprune.prune(keras.Model(inputs, layers.Add()([inputs, x])))
    first, second = (entry.layer for entry in entries(model))
    for layer, kernel in ((first, FIRST), (second, SECOND[:, :2])):
        layer.set_weights([kernel, np.float32([5, -5])])
    norm = next(layer for layer in model.layers if "normal" in layer.name)
    scales = np.float32([1, 1])
    if norm.weights:
        scales = np.float32([-2, 3])
        norm.weights[0].assign(scales)

    found = flow_of(model)

    # The first columns sum up to 4 and 2.5, the second rows to 3 and 4.5.
    mean, scales = 3.25, abs(scales)
    behind = np.stack([scales * [3, 4.5] / mean] * 2)
    np.testing.assert_allclose(found[0], behind, rtol=1e-6)
    met = scales * [4, 2.5] / mean
    np.testing.assert_allclose(found[1], np.stack([met, met], 1), rtol=1e-6)
    assert "call" not in vars(norm)


def test_a_weight_that_no_flow_gets_through_is_named():
    inputs = keras.Input((2,))
    dead = layers.Dense(2, name="behind", kernel_initializer="zeros")
    branch = dead(layers.Dense(2, name="before")(inputs))
    outputs = layers.Dense(2)(layers.Add()([inputs, branch]))
    model = kprune.prune(keras.Model(inputs, outputs))

    with pytest.raises(ValueError, match="No synaptic flow .*'before/kernel'"):
        flow_of(model)


def test_weights_of_a_branch_that_pruning_has_cut_off_have_no_flow():
    inputs = keras.Input((2,))
    branch = layers.Dense(2)(layers.Dense(2)(inputs))
    outputs = layers.Dense(2)(layers.Add()([inputs, branch]))
    model = kprune.prune(keras.Model(inputs, outputs))
    first, second, _ = entries(model)
    for entry in (first, second):
        entry.mask.assign(np.zeros((2, 2), bool))
        entry.variable.assign(np.zeros((2, 2)))

    found = flow_of(model)

    assert not found[0].any()
    assert not found[1].any()
    np.testing.assert_allclose(found[2], np.ones((2, 2)))  # it meets the inputs


def test_embedding_of_indices_that_come_as_floats_is_refused():
    inputs = keras.Input((3,))
    x = layers.Flatten()(layers.Embedding(5, 2, name="words")(inputs))
    model = keras.Model(inputs, layers.Dense(1)(x))

    for skip in ((), "words"):
        with pytest.raises(ValueError, match="embedding 'words'.*synaptic flow"):
            flow_of(kprune.prune(model, skip=skip))


def test_pruned_embedding_of_positions_is_refused():
    inputs = keras.Input((3, 2))
    places = layers.Embedding(3, 2, name="places")

    class Placed(layers.Layer):
        def __init__(self):
            super().__init__(name="placed")
            self.places = places

        def call(self, x):
            return x + self.places(keras.ops.arange(3))

    model = keras.Model(inputs, layers.Dense(1)(Placed()(inputs)))

    with pytest.raises(ValueError, match="embedding 'places'.*skip="):
        flow_of(kprune.prune(model, only="placed"))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_flow_does_not_depend_on_what_the_model_computes_in(policy):
    model = chain(*(layers.Dense(2, dtype=policy) for _ in range(9)))
    for layer in model.layers:
        set_values(layer, 16 * FIRST, [1, -1])

    flows = flow_of(model)

    expected = 16 * np.abs(FIRST)
    after = np.linalg.matrix_power(expected, 8).sum(axis=1)
    np.testing.assert_allclose(flows[0], np.stack([after, after]), rtol=0.01)
    assert {layer.compute_dtype for layer in model.layers} == {policy.split("_")[-1]}


def test_inputs_and_outputs_by_name_and_open_sizes_are_served():
    image = keras.Input((None, None, 1), name="image")
    vector = keras.Input((3,), name="vector")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 1, use_bias=False)(image))
    outputs = {"a": layers.Dense(1, name="a")(x), "b": layers.Dense(1)(vector)}
    model = keras.Model({"image": image, "vector": vector}, outputs)
    model = kprune.prune(model, only="a")

    (flow,) = flow_of(model)

    kernel = next(w for w in model.weights if w.path.startswith("conv2d"))
    np.testing.assert_allclose(flow[:, 0], np.abs(kernel.numpy()).reshape(2), rtol=1e-3)


def test_flow_reaches_every_layer_of_a_gated_network_and_does_not_explode():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same")(inputs)
    for gate in ("sigmoid", "hard_sigmoid") * 2:
        y = layers.Conv2D(16, 3, padding="same", activation="hard_silu")(x)
        squeezed = layers.Dense(4, "relu6")(layers.GlobalAveragePooling2D()(y))
        gates = layers.Reshape((1, 1, 16))(layers.Dense(16, gate)(squeezed))
        x = layers.Add()([x, layers.Multiply()([y, gates])])
    outputs = layers.Dense(3, "softmax")(layers.Flatten()(x))
    model = kprune.prune(keras.Model(inputs, outputs))

    totals = [
        np.abs(entry.variable.numpy().astype("float64") * flow).sum()
        for entry, flow in zip(entries(model), flow_of(model), strict=True)
    ]

    np.testing.assert_allclose(totals[-1], 1, rtol=1e-4)  # what the softmax sums to
    assert min(totals) > 1e-3
    assert max(totals) < 4**4  # each product of a block doubles what comes from it


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = layers.Dense(2)

    def call(self, x):
        return keras.ops.softmax(self.head(x))

    def get_config(self):
        return {}


def test_subclassed_model_takes_the_shapes_from_examples():
    model = Subclassed()
    model(np.zeros((1, 3)))
    model = kprune.prune(model)

    (flow,) = flow_of(model, np.zeros((5, 3)))

    np.testing.assert_allclose(flow, np.full((3, 2), flow[0, 0]))
    assert flow[0, 0] > 0
    with pytest.raises(ValueError, match="subclassed model. Pass `calibration_data`"):
        flow_of(model)


def test_inputs_of_whole_numbers_are_refused():
    inputs = keras.Input((3,), dtype="int32")
    x = layers.Flatten()(layers.Embedding(5, 2)(inputs))
    model = kprune.prune(keras.Model(inputs, layers.Dense(1)(x)))

    with pytest.raises(ValueError, match="is of int32, and synaptic flow starts"):
        Calibration(model, ["synaptic_flow"])


def test_flow_that_reaches_no_output_is_an_error():
    inputs = keras.Input((3,))
    outputs = keras.ops.stop_gradient(layers.Dense(2)(inputs))
    model = kprune.prune(keras.Model(inputs, outputs))

    with pytest.raises(ValueError, match="No synaptic flow gets from the inputs"):
        flow_of(model)
