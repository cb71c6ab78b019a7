import keras
import pytest
from keras import layers

import kprune
from kprune.layer_graph import layers_of_outputs, read_graph


def test_calls_come_in_running_order_with_their_values_and_shapes():
    inputs = keras.Input((4,))
    left = layers.Dense(3, name="left")(inputs)
    right = layers.Dense(3, name="right")(inputs)
    model = keras.Model(inputs, layers.Add(name="sum")([left, right]))

    graph = read_graph(model)

    assert graph.inputs == (0,)
    by_name = {call.name: call for call in graph.calls}
    assert by_name["left"].inputs == by_name["right"].inputs == (0,)
    produced = by_name["left"].outputs + by_name["right"].outputs
    assert by_name["sum"].inputs == produced
    assert graph.calls[-1].outputs == graph.outputs
    assert graph.shapes[graph.outputs[0]] == (None, 3)
    assert {call.name for call in graph.consumers()[0]} == {"left", "right"}


def test_a_model_called_twice_gives_its_calls_twice():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="d")], name="in")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inner(inner(inputs)))

    graph = read_graph(model)

    first, second = graph.calls
    assert first.name == second.name == "in/d"
    assert second.inputs == first.outputs
    assert graph.outputs == second.outputs


def test_several_inputs_and_outputs_of_a_nested_model_are_told_apart():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    inner = keras.Model(
        {"a": a, "b": b},
        {"p": layers.ReLU(name="p")(b), "q": layers.ReLU(name="q")(a)},
        name="in",
    )
    x, y = keras.Input((2,), name="x"), keras.Input((3,), name="y")
    outputs = inner({"a": x, "b": y})
    model = keras.Model([x, y], [outputs["q"], outputs["p"]])

    graph = read_graph(model)

    by_name = {call.name: call for call in graph.calls}
    assert by_name["in/q"].inputs == (graph.inputs[0],)
    assert by_name["in/p"].inputs == (graph.inputs[1],)
    assert graph.outputs == by_name["in/q"].outputs + by_name["in/p"].outputs


def sequence(tokens):
    return keras.Sequential([tokens, layers.Dense(8, name="wide"), layers.LSTM(4)])


def functional(tokens):
    return keras.Model(tokens, layers.LSTM(4)(layers.Dense(8, name="wide")(tokens)))


@pytest.mark.filterwarnings("ignore:.*destroy the mask")
@pytest.mark.parametrize("nest", [sequence, functional])
@pytest.mark.parametrize(
    "call", [lambda inner, x: inner(x), lambda inner, x: inner(inputs=x)]
)
def test_a_mask_that_comes_along_is_no_input_of_a_nested_model(nest, call):
    inner = nest(keras.Input((6, 5)))
    numbers = keras.Input((6,), dtype="int32")
    tokens = layers.Embedding(5, 5, mask_zero=True, name="tokens")(numbers)
    model = keras.Model(numbers, layers.Dense(3)(call(inner, tokens)))

    graph = read_graph(model)
    small = kprune.shrink(model, only="wide", sparsity=0.5)

    by_name = {call.name: call for call in graph.calls}
    assert by_name[f"{inner.name}/wide"].inputs == by_name["tokens"].outputs
    assert small.get_layer(inner.name).get_layer("wide").units == 4
    assert {record.layers[0] for record in kprune.why_not(model).records}


def classifier(*last):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="stem")(inputs)
    for layer in last:
        x = layer(x)
    return keras.Model(inputs, x)


def with_shortcut():
    inputs = keras.Input((5,))
    x = layers.Dense(4, name="body")(inputs)
    y = layers.Dense(4, name="more")(layers.ReLU()(x))
    return keras.Model(inputs, layers.Softmax()(x + y))


def with_two_heads():
    inputs = keras.Input((5,))
    x = layers.Dense(4, name="body")(inputs)
    return keras.Model(inputs, {n: layers.Dense(2, name=n)(x) for n in ("a", "b")})


def nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="head")])
    return keras.Sequential([keras.Input((3,)), layers.Dense(4, name="body"), inner])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: classifier(
                layers.Conv2D(2, 1, name="classes"),
                layers.GlobalAveragePooling2D(),
                layers.Softmax(),
            ),
            ["classes"],
        ),
        (
            lambda: classifier(layers.Conv2D(6, 1, name="boxes"), layers.Flatten()),
            ["boxes"],
        ),
        (lambda: classifier(layers.BatchNormalization()), ["stem"]),
        (with_shortcut, ["body", "more"]),
        (with_two_heads, ["a", "b"]),
        (nested, ["head"]),
        (
            lambda: keras.Sequential(
                [layers.Dense(3, name="body"), layers.Dense(2, name="head")]
            ),
            ["head"],
        ),
    ],
)
def test_layers_whose_channels_are_the_outputs_are_found(make, expected):
    found = layers_of_outputs(make())

    assert sorted(layer.name for layer in found) == expected


def test_of_attention_its_last_kernel_alone_is_the_output():
    inputs = keras.Input((3, 6))
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))

    assert layers_of_outputs(model) == [attention._output_dense]


@pytest.mark.parametrize("built", [True, False])
def test_classes_are_not_pruned_away_unless_asked_for(built):
    stack = [layers.Dense(8, name="body"), layers.Dense(4, name="head")]
    model = keras.Sequential(([keras.Input((3,))] if built else []) + stack)
    channels = kprune.Channel(coupled=built)
    by_default = kprune.prune(model, granularity=channels)
    asked_for = kprune.prune(model, granularity=channels, only=["body", "head"])
    for pruned in (by_default, asked_for):
        pruned.build((None, 3))
        kprune.Pruner(pruned, kprune.ConstantSchedule(0.5)).step()

    records = kprune.summary(by_default, print_fn=None).weights
    kernels = {w.layer: w for w in records if w.weight == "kernel"}

    assert kernels["body"].sparsity == 0.5
    assert kernels["head"].reason.startswith("its channels are the model's outputs")
    # Of the four inputs that are gone, its weights go along where that is known.
    assert kernels["head"].zeros == (4 * 4 if built else 0)
    masked = kprune.summary(asked_for, print_fn=None).masked
    assert [w.sparsity for w in masked] == [0.5, 0.75 if built else 0.5]


def test_other_granularities_prune_the_last_layer_too():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="head")])

    with pytest.raises(ValueError, match="its channels are the model's outputs"):
        kprune.prune(model, granularity="channel")

    assert kprune.prune(model, granularity=kprune.Channel(-2)).layers[0].masks
    assert kprune.prune(model).layers[0].masks
