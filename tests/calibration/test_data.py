import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kprune
from kprune.calibration import Calibration, CalibrationData
from tests.checks import entries

X = np.arange(210, dtype="float32").reshape(70, 3)
Y = X[:, :2] / 210
WEIGHT = np.linspace(0, 1, 70, dtype="float32")


class Batches(keras.utils.PyDataset):
    """Batches of 32 that know how many of them were in memory at once."""

    def __init__(self, rows=70):
        super().__init__()
        self.rows = rows
        self.made, self.most = [], 0

    def __len__(self):
        return -(-self.rows // 32)

    def __getitem__(self, index):
        rows = slice(32 * index, min(32 * index + 32, self.rows))
        x = X[rows].copy()
        self.made.append(weakref.ref(x))
        self.most = max(self.most, sum(made() is not None for made in self.made))
        return x, Y[rows], WEIGHT[rows]


class Endless(keras.utils.PyDataset):
    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return X, Y


def dense(**compiling):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile(**{"loss": "mse", **compiling})
    return model


def dataset(*parts):
    return tf.data.Dataset.from_tensor_slices(parts)


@pytest.mark.parametrize(
    "data",
    [
        (X, Y, WEIGHT),
        [X, Y, WEIGHT],
        (X.astype("float64"), tf.constant(Y), WEIGHT),
        dataset(X, Y, WEIGHT).batch(32),
        Batches(),
    ],
    ids=["tuple", "list", "mixed", "dataset", "py_dataset"],
)
def test_all_forms_give_the_same_batches_at_each_pass(data):
    calibration = CalibrationData(data, dense())

    for _ in range(2):
        batches = list(calibration)
        assert [len(x) for x, _, _ in batches] == [32, 32, 6]
        for i, expected in enumerate((X, Y, WEIGHT)):
            parts = [np.asarray(batch[i]) for batch in batches]
            np.testing.assert_array_equal(np.concatenate(parts), expected)
            assert parts[0].dtype == "float32"


@pytest.mark.parametrize("kind", [dict, list, tuple])
def test_models_of_several_inputs_and_outputs_take_their_structure(kind):
    inputs = [keras.Input((3,), name="b"), keras.Input((1,), name="a")]
    outputs = [layers.Dense(2)(inputs[0]), layers.Dense(1)(inputs[1])]
    model = keras.Model(inputs, outputs)
    model.compile(loss=["mse", "mse"])
    x = {"b": X, "a": X[:, :1]} if kind is dict else kind([X, X[:, :1]])

    batches = list(CalibrationData((x, [Y, Y[:, :1]]), model))

    first, targets, weight = batches[0]
    assert isinstance(first, kind)
    assert [len(array) for array in keras.tree.flatten(first)] == [32, 32]
    assert [array.shape for array in targets] == [(32, 2), (32, 1)]
    assert weight is None


def test_inputs_alone_do_where_no_labels_are_needed():
    (x, y, weight), *_ = CalibrationData(X, dense(), labels=False)

    assert x.shape == (32, 3)
    assert y is None
    assert weight is None


def test_model_with_a_fixed_batch_gets_batches_of_that_size():
    model = keras.Sequential([keras.Input(batch_shape=(7, 3)), layers.Dense(2)])
    model.compile(loss="mse")

    assert [len(x) for x, _, _ in CalibrationData((X, Y), model)] == [7] * 10


@pytest.mark.parametrize("form", ["arrays", "dataset"])
def test_rows_that_leave_a_fixed_batch_half_full_are_refused(form):
    model = keras.Sequential([keras.Input(batch_shape=(32, 3)), layers.Dense(2)])
    model.compile(loss="mse")
    data = (X, Y) if form == "arrays" else dataset(X, Y).batch(32)

    with pytest.raises(ValueError, match="batch of 6 .* fixed to batches of 32"):
        list(CalibrationData(data, model))


def test_single_examples_need_a_model_whose_batch_is_open():
    model = keras.Sequential([keras.Input(batch_shape=(7, 3)), layers.Dense(2)])
    model = kprune.prune(model)
    model.compile(loss="mse")

    with pytest.raises(ValueError, match="one by one, .* fixed to batches of 7"):
        Calibration(model, ["example_squared_gradient"], (X, Y))


def test_list_of_as_many_arrays_as_the_model_has_inputs_is_its_inputs():
    inputs = [keras.Input((3,)), keras.Input((2,))]
    model = keras.Model(inputs, layers.Dense(1)(layers.Concatenate()(inputs)))
    model.compile(loss="mse")

    x, y, _ = next(iter(CalibrationData([X, Y], model, labels=False)))

    assert [array.shape for array in x] == [(32, 3), (32, 2)]
    assert y is None
    with pytest.raises(ValueError, match="has no labels"):
        CalibrationData([X, Y], model)
    with pytest.raises(ValueError, match=r"takes 2 inputs.*`\(\[x1, x2\],\)`"):
        CalibrationData((X, Y), model, labels=False)


@pytest.mark.parametrize("kind", ["squared_gradient", "hessian_gradient"])
def test_no_more_than_two_batches_are_in_memory(kind):
    data, model = Batches(), kprune.prune(dense())
    model.compile(loss="mse")

    Calibration(model, [kind], data).gather(entries(model))

    assert len(data.made) >= 4
    assert data.most <= 2


def test_model_need_not_be_built_yet():
    model = keras.Sequential([layers.Dense(2)])
    model.compile(loss="mse")

    assert len(list(CalibrationData((X, Y), model))) == 3
    assert not model.built


def test_checks_leave_the_model_as_it_was():
    model = dense(optimizer="adam", metrics=["mae"])
    model.fit(X, Y, verbose=0)
    watched = [*model.variables, *model.metrics_variables]
    before = [variable.numpy() for variable in watched]

    CalibrationData((X, Y), model)

    for variable, value in zip(watched, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X, "has no labels, and the criterion looks at gradients"),
        ((X, None), "has no labels"),
        (dataset(X).batch(32), "has no labels"),
        ((X[:0], Y[:0]), "holds no examples"),
        (dataset(X[:0], Y[:0]).batch(32), "holds no examples"),
        (dataset(X, Y).batch(32).filter(lambda x, y: False), "holds no examples"),
        (Batches(rows=0), "holds no examples"),
        ((X, Y[:9]), r"differ in length; their shapes are \(70, 3\), \(9, 2\)"),
        (dataset(X, Y).batch(32).repeat(), r"never ends.*`dataset.take\(16\)`"),
        (Endless(), "never ends.*a PyDataset with a number of batches"),
        (dataset(X, Y), r"shape \(3,\), without an axis for the batch.*None, 3"),
        ((X[:, :2], Y), r"comes with shape \(32, 2\), and the input .* \(None, 3\)"),
        ((X, X), r"can't be computed .* the shapes \(32, 3\), \(32, 3\)\."),
        ((X, {"other": Y}), "loss can't be computed"),
    ],
)
def test_data_that_can_not_serve_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        CalibrationData(data, dense())


@pytest.mark.parametrize(
    "data", ["x_train", 3, [[1, 2, 3], [4, 5, 6]], iter([(X, Y)]), object()]
)
def test_data_of_another_kind_is_refused(data):
    with pytest.raises(TypeError, match="Expected arrays with one row an example"):
        CalibrationData(data, dense())


def test_model_without_a_loss_is_refused():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)], name="net")

    with pytest.raises(ValueError, match="'net' is not compiled. Call `model.compile"):
        CalibrationData((X, Y), model)
    model.compile(optimizer="sgd")
    with pytest.raises(ValueError, match="No loss to compute"):
        CalibrationData((X, Y), model)
