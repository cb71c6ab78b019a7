import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune.channels.tracing import trace
from kprune.layer_graph import read_graph
from kprune.shrinking.costs import activation_bytes_of, costs_of, macs_of
from kprune.shrinking.removal import Narrowed, without
from tests.flops import profiled_macs


def small():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(x), name="small")


def rows(costs):
    return {c.name: (c.parameters, c.macs, c.activation_bytes) for c in costs.layers}


def test_costs_of_each_layer_are_those_made_by_hand():
    costs = costs_of(small())

    assert rows(costs) == {
        "conv": (27 * 4 + 4, 36 * 27 * 4, 4 * 36 * 4),
        "norm": (4 * 4, 0, 4 * 36 * 4),
        "flat": (0, 0, 4 * 144),
        "head": (144 * 5 + 5, 144 * 5, 4 * 5),
    }
    assert costs.parameters == small().count_params()
    assert costs.macs == 36 * 27 * 4 + 144 * 5
    assert costs.activation_bytes == 3 * 4 * 144 + 4 * 5


def test_a_shared_layer_has_its_parameters_once_and_its_work_each_call():
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, name="d")], name="inner"
    )
    inputs = keras.Input((3,))
    model = keras.Model(inputs, inner(inner(inputs)))

    costs = costs_of(model)

    found = [(c.name, c.parameters, c.macs) for c in costs.layers]
    assert found == [("inner/d", 12, 9), ("inner/d", 0, 9)]
    assert costs.parameters == model.count_params() == 12


def test_activations_are_counted_in_the_type_of_number_that_a_layer_puts_out():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(5, 4, dtype="mixed_float16", name="rows")(inputs)
    x = layers.Dense(3, dtype="bfloat16", name="half")(x)
    x = layers.Dense(2, dtype="float32", name="full")(x)
    model = keras.Model(inputs, ops.argmax(x, axis=-1))

    # 6 places; 4, 3 and 2 numbers of 2, 2 and 4 bytes; an int32 each.
    found = [layer.activation_bytes for layer in costs_of(model).layers]
    assert found == [48, 36, 48, 24]


def test_all_tensors_that_a_layer_puts_out_are_counted():
    inputs = keras.Input((5, 3))
    made = layers.LSTM(4, return_sequences=True, return_state=True)(inputs)

    costs = costs_of(keras.Model(inputs, made))

    assert costs.activation_bytes == 4 * (5 * 4 + 4 + 4)


def test_a_batch_of_given_size_costs_as_much_for_one_example():
    def model(**kwargs):
        inputs = keras.Input(**kwargs)
        return keras.Model(inputs, layers.Dense(4, name="d")(inputs))

    assert rows(costs_of(model(batch_shape=(8, 5, 3)))) == rows(
        costs_of(model(shape=(5, 3)))
    )


def test_what_is_not_known_is_none_and_said():
    inputs = keras.Input((4, 4))
    x = layers.Lambda(lambda x: x @ x, name="own")(layers.Dense(4)(inputs))
    costs = costs_of(keras.Model(inputs, x))

    assert costs.macs is None
    assert costs.known_macs == 64
    assert costs.uncounted == ("own",)
    assert "at least 64 multiply-adds (not known: own)" in str(costs)


def test_open_sizes_leave_activations_unknown():
    inputs = keras.Input((None, 3))
    costs = costs_of(keras.Model(inputs, layers.Conv1D(4, 3)(inputs)))

    assert costs.activation_bytes is None
    assert str(costs).splitlines()[0].endswith("? bytes of activations")


def test_of_a_subclassed_model_only_the_parameters_are_known():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.inner = layers.Dense(4)

        def call(self, inputs):
            return self.inner(inputs)

    model = Own()
    model(np.ones((1, 3), "float32"))

    costs = costs_of(model)

    assert rows(costs) == {"own": (16, None, None)}
    assert (costs.parameters, costs.macs, costs.activation_bytes) == (16, None, None)


def test_masks_are_no_parameters():
    model = small()

    assert rows(costs_of(kprune.prune(model))) == rows(costs_of(model))


def test_data_is_plain_python():
    data = json.loads(json.dumps(costs_of(small()).to_dict()))

    assert data["macs"] == 36 * 27 * 4 + 144 * 5
    assert data["layers"][0]["name"] == "conv"


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="'net' has no weights yet"):
        costs_of(keras.Sequential([layers.Dense(2)], name="net"))


def candidates():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.Add()([x, layers.Conv2D(8, 3, padding="same")(x)])
    x = layers.Dense(6)(layers.Flatten()(x))
    yield "residual", keras.Model(image, layers.Dense(3)(x))
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(10), layers.Dense(6)])
    a, b = keras.Input((5,)), keras.Input((5,))
    first = layers.Dense(6)
    x = inner(first(a)) * inner(first(b))
    yield "shared", keras.Model([a, b], layers.Dense(2)(x))


CANDIDATES = dict(candidates())


@pytest.mark.parametrize("model", CANDIDATES.values(), ids=CANDIDATES)
def test_a_candidate_costs_what_the_model_made_of_it_costs(model):
    tracing = trace(model)
    groups = tracing.channels.groups()
    free = sorted(set(groups[1:]) - set(tracing.channels.reasons()))
    removed = np.isin(groups, free[::2])
    narrowed = Narrowed(tracing, removed)

    def shape_of(number):
        return tracing.values[number].narrowed(removed)

    small = costs_of(without(model, tracing, removed))

    assert macs_of(tracing.graph, shape_of, narrowed.weight) == [
        layer.macs for layer in small.layers
    ]
    assert activation_bytes_of(tracing.graph, shape_of) == [
        layer.activation_bytes for layer in small.layers
    ]
    assert small.macs < costs_of(model).macs


PUBLISHED = {
    # Howard et al., 2017, table 4; Sandler et al., 2018, table 4; He et al., 2016,
    # table 1, with the stride in the first 1x1 convolution of a block; Simonyan and
    # Zisserman, 2015; Huang et al., 2017; Tan and Le, 2019.
    "MobileNet": (569e6, 0.01),
    "MobileNetV2": (300e6, 0.01),
    "ResNet50": (3.86e9, 0.01),
    "VGG16": (15.5e9, 0.01),
    "DenseNet121": (2.87e9, 0.02),
    "EfficientNetB0": (0.39e9, 0.02),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "figure"), PUBLISHED.items(), ids=PUBLISHED)
def test_counts_of_known_networks_are_the_published_ones(name, figure):
    published, tolerance = figure
    model = getattr(keras.applications, name)(weights=None)

    costs = costs_of(model)

    assert costs.macs == pytest.approx(published, rel=tolerance)
    assert costs.macs == profiled_macs(model)
    assert costs.parameters == model.count_params()


def test_graph_of_a_large_network_is_counted_as_the_profiler_does():
    model = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, weights=None
    )

    costs = costs_of(model)

    assert costs.macs == sum(macs_of(read_graph(model))) == profiled_macs(model)
    assert costs.parameters == model.count_params()
