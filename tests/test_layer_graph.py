import keras
from keras import layers

from kprune.layer_graph import read_graph


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
