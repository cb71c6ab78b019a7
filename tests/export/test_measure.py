import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune.export import interpreter, measure
from kprune.export.conversion import convert
from kprune.export.forward import Forward


def classifier(units=3, **dense):
    inputs = keras.Input((2,), name="x")
    return keras.Model(inputs, keras.layers.Dense(units, name="y", **dense)(inputs))


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_accuracy_counts_rows_whose_largest_output_is_the_label(batch):
    rows = np.array([[9, 1, 0], [0, 2, 1], [1, 3, 2], [0, 0, 5]], float)

    share = measure.accuracy(
        lambda inputs: {"y": inputs["x"]}, batch, {"x": rows}, np.array([0, 1, 2, 2])
    )

    assert share == 0.75


def test_a_single_output_is_cut_at_one_half():
    probabilities = np.array([[0.2], [0.7], [0.5], [0.9]])

    share = measure.accuracy(
        lambda inputs: {"y": inputs["x"]},
        None,
        {"x": probabilities},
        np.array([0, 1, 0, 0]),
    )

    assert share == 0.75


@pytest.mark.parametrize(
    "labels", [np.array([2, 0, 1]), np.array([[2], [0], [1]]), np.eye(3)[[2, 0, 1]]]
)
def test_labels_are_whole_numbers_a_column_or_one_hot_rows(labels):
    inputs, found = measure.check_data(Forward(classifier()), (np.ones((3, 2)), labels))

    assert found.tolist() == [2, 0, 1]
    assert inputs["x"].dtype == "float32"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((2, 2)), "expected a tuple of inputs and labels"),
        (
            tf.data.Dataset.from_tensor_slices(np.ones((4, 2), "f4")).batch(2),
            "Dataset, expected a tuple",
        ),
        ((np.full((3, 2), np.nan), np.zeros(3)), "6 values are NaN"),
        ((np.full((3, 2), "1"), np.zeros(3)), r"type <U1, expected numbers"),
        (({"z": np.ones((3, 2))}, np.zeros(3)), r"inputs \[.z.\].* takes x "),
        ((np.ones((3, 2)), np.zeros(4)), r"\[3, 4\] rows"),
        ((np.ones((3, 5)), np.zeros(3)), "does not run on the data given"),
        ((np.ones((0, 2)), np.zeros(0)), "at least one"),
        ((np.ones((3, 2)), np.array([0.5, 1, 2])), "not whole numbers"),
        ((np.ones((3, 2)), np.array([np.nan, 1, 2])), "not whole numbers"),
        ((np.ones((3, 2)), np.array([-1, 1, 2])), "not whole numbers"),
        ((np.ones((3, 2)), np.array(["a", "b", "c"])), "not whole numbers"),
        (
            (np.ones((3, 2)), np.array([0, 1, 3])),
            r"labels that reach to 3, .*\(batch, 3\)",
        ),
        ((np.ones((3, 2)), np.eye(4)[:3]), r"name 4, .* so classes 0 to 2"),
        ((np.ones((3, 2)), np.eye(2)[[0, 1, 1]]), r"name 2, .* so classes 0 to 2"),
        ((np.ones((3, 2)), np.ones((3, 3))), "whose row 0 names 3 classes"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path, data, message
):
    with pytest.raises(ValueError, match=message):
        kprune.export(classifier(), tmp_path / "out", "tflite", data=data)

    assert not (tmp_path / "out").exists()


def test_one_column_knows_two_classes():
    forward = Forward(classifier(1))

    _, labels = measure.check_data(forward, (np.ones((2, 2)), np.array([1, 0])))

    assert labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"reach to 2, .*classes 0 to 1"):
        measure.check_data(forward, (np.ones((2, 2)), np.array([1, 2])))


def test_inputs_go_by_the_names_that_keras_has_for_them():
    inputs = keras.Input((2,), name="a-x")
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    rows = np.arange(4.0).reshape(2, 2)

    for name in ("a-x", "a_x"):
        found, _ = measure.check_data(Forward(model), ({name: rows}, np.zeros(2)))
        np.testing.assert_array_equal(found["a_x"], rows)


def test_accuracy_needs_one_output_with_a_class_a_column():
    inputs = keras.Input((2,), name="x")
    model = keras.Model(inputs, keras.layers.Reshape((1, 2))(inputs))

    with pytest.raises(ValueError, match="needs one output of shape"):
        measure.check_data(Forward(model), (np.ones((3, 2)), np.zeros(3)))


def test_latencies_tell_slow_from_fast():
    def slow(inputs):
        return sum(range(100_000))

    times = measure.latencies({"fast": lambda inputs: 0, "slow": slow}, {}, 0.05)

    assert times["fast"] < times["slow"]


class CountedCalls(keras.layers.Layer):
    """Counts how often Python runs it, which compiled calls do not."""

    calls = 0

    def call(self, inputs):
        self.calls += 1
        return 2 * inputs


def test_the_keras_model_is_timed_compiled():
    model = keras.Sequential([keras.Input((3,), name="x"), CountedCalls(name="y")])
    forward, rows = Forward(model), {"x": np.ones((1, 3), "f4")}
    before = model.layers[0].calls

    with forward.compiled() as run:
        outputs = [run(rows) for _ in range(3)]

    np.testing.assert_array_equal(outputs[-1]["y"], [[2, 2, 2]])
    assert model.layers[0].calls == before


def test_timing_does_not_move_the_state_of_a_model():
    layer = keras.layers.SimpleRNN(2, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(1, 3, 2), name="x"), layer])
    state = np.array([[0.25, -0.5]], "f4")
    layer.states[0].assign(state)

    with Forward(model).compiled() as run:
        first, second = (run({"x": np.ones((1, 3, 2), "f4")}) for _ in range(2))

    assert not np.array_equal(*[list(x.values())[0] for x in (first, second)])
    np.testing.assert_array_equal(layer.states[0], state)


def test_a_timed_call_of_a_tflite_file_does_nothing_but_run_it(monkeypatch):
    content, _ = convert(Forward(classifier()))
    run, _ = interpreter.load(content)
    rows = {"x": np.ones((1, 2), "f4")}
    run(rows)
    swapped = []
    monkeypatch.setattr(os, "dup2", lambda *streams: swapped.append(streams))

    measure.latencies({"file": run}, rows, 0.001)

    assert swapped == []


def test_export_reports_accuracy_and_latency_of_every_file_beside_keras(tmp_path):
    model = classifier()
    model.set_weights([np.array([[1, 0, 0], [0, 1, 0]], "f4"), np.zeros(3, "f4")])
    rows = np.array([[1, 0], [0, 1], [2, 1], [1, 2]], "f4")

    report = kprune.export(
        model, tmp_path / "out", data=(rows, [0, 1, 0, 2]), measure_latency=True
    )

    assert report.accuracy == 0.75
    assert [record.accuracy for record in report.records] == [0.75, 0.75]
    assert report.latency_ms > 0
    assert all(record.latency_ms > 0 for record in report.records)
    assert "accuracy" in str(report) and "ms a call" in str(report)
    saved = (tmp_path / "out" / "export.json").read_text()
    assert '"accuracy": 0.75' in saved
