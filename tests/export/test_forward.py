import keras
import numpy as np
import pytest
from keras import layers

from kprune.export.base import ExportError
from kprune.export.forward import Forward
from tests.export import models


def names_of(model):
    forward = Forward(model)
    return [spec.name for spec in forward.inputs], forward.output_names


def test_names_that_a_signature_cannot_hold_are_mended():
    inputs = {key: keras.Input((2,), name=key) for key in ("class", "my image", "3d")}
    x = layers.Concatenate()(list(inputs.values()))
    model = keras.Model(inputs, layers.Dense(1, name="a-b")(x))

    assert names_of(model) == (["input_3d", "class_", "my_image"], ["a_b"])


def test_two_outputs_of_one_layer_get_names_of_their_own():
    inputs = keras.Input((4, 3), name="x")
    outputs = layers.LSTM(2, return_state=True, name="memory")(inputs)

    assert names_of(keras.Model(inputs, outputs)) == (
        ["x"],
        ["memory", "memory_1", "memory_2"],
    )


def test_outputs_nested_in_a_dict_are_named_by_their_path():
    inputs = keras.Input((3,), name="x")
    heads = {"pair": [layers.Dense(1)(inputs), layers.Dense(1)(inputs)]}

    assert names_of(keras.Model(inputs, heads)) == (["x"], ["pair_0", "pair_1"])


def test_a_subclassed_model_gets_the_types_it_can_be_traced_with():
    real = Forward(models.subclassed())
    whole = Forward(models.whole_number_subclass())

    assert [(s.name, s.dtype.name) for s in real.inputs] == [
        ("ids", "float32"),
        ("x", "float32"),
    ]
    assert [(s.name, s.dtype.name) for s in whole.inputs] == [("inputs", "int32")]


def test_a_call_with_two_arguments_is_refused_with_the_way_out():
    class TwoArguments(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, left, right):
            return self.dense(left) + self.dense(right)

    model = TwoArguments()
    model(np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))

    with pytest.raises(ExportError, match="all inputs as one tensor, list or dict"):
        Forward(model)


def test_outputs_that_are_none_are_left_out():
    class Optional(keras.Model):
        def call(self, x):
            return {"here": x * 2, "absent": None}

    model = Optional()
    model(np.ones((1, 2), "float32"))
    forward = Forward(model)

    outputs = forward({"inputs": np.array([[1.0, 3.0]], "float32")})

    assert list(outputs) == ["here"]
    np.testing.assert_array_equal(outputs["here"], [[2, 6]])


def test_module_holds_the_variables_that_inference_reads_and_no_others():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dropout(0.5), layers.BatchNormalization()]
    )
    model.compile("adam", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 4)), verbose=0)

    module, _ = Forward(model).module()

    assert len(module.variables) == 4
    assert [v.shape.as_list() for v in module.variables] == [[4]] * 4


def test_a_batch_size_can_be_bound_without_another_model():
    forward = Forward(models.cnn())

    _, signature = forward.module(batch=1)

    assert signature.structured_input_signature[1]["image"].shape == (1, 8, 8, 3)
    assert signature.structured_outputs["logits"].shape == (1, 5)


def test_an_input_may_be_called_self():
    inputs = keras.Input((3,), name="self")
    forward = Forward(keras.Model(inputs, layers.Dense(1, name="y")(inputs)))

    module, signature = forward.module()

    assert [spec.name for spec in forward.inputs] == ["self_"]
    assert signature(self_=np.ones((2, 3), "float32"))["y"].shape == (2, 1)


def test_a_declared_batch_is_kept_where_the_model_needs_it():
    inputs = keras.Input(batch_shape=(4, 6), name="x")
    halves = keras.ops.reshape(layers.Dense(6)(inputs), (4, 3, 2))

    forward = Forward(keras.Model(inputs, halves))

    assert forward.fixed_batch == 4
    assert forward.inputs[0].shape == (4, 6)


def test_a_declared_batch_is_opened_where_the_model_allows_it():
    inputs = keras.Input(batch_shape=(4, 6), name="x")

    forward = Forward(keras.Model(inputs, layers.Dense(6)(inputs)))

    assert forward.fixed_batch is None
    assert forward.inputs[0].shape == (None, 6)


@pytest.mark.parametrize("name", ["my dense", "été"])
def test_names_that_tensorflow_does_not_take_are_listed(name):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name=name)])

    with pytest.raises(ExportError, match=f"layers named '{name}'.*Rename them"):
        Forward(model)
    model.layers[0].name = "renamed"

    assert Forward(model).output_names == ["renamed"]
