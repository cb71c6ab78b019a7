import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kprune.export.forward import Forward
from kprune.export.representative import cut_batches, take_rows
from tests.export import models


def image_forward():
    return Forward(models.cnn())


def images(count, dtype="float32"):
    values = np.arange(count * 192) % 251
    return values.reshape(count, 8, 8, 3).astype(dtype)


class Batches(keras.utils.PyDataset):
    """Batches of four images, with targets."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return images(4 * self.count)[4 * index : 4 * index + 4], np.zeros(4)


class Endless(Batches):
    """The first batch for ever."""

    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return super().__getitem__(0)


def test_long_arrays_give_evenly_spaced_rows():
    x = np.repeat(np.arange(1001.0), 192).reshape(-1, 8, 8, 3)

    rows = take_rows(x, image_forward(), most=5)

    assert rows["image"][:, 0, 0, 0].tolist() == [0, 250, 500, 750, 1000]


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int64"])
def test_numbers_are_cast_to_the_type_of_the_input(dtype):
    rows = take_rows(images(3, dtype), image_forward())

    assert rows["image"].dtype == "float32"
    np.testing.assert_array_equal(rows["image"], images(3))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: [x],
        lambda x: {"image": x},
        lambda x: tf.constant(x),
        lambda x: tf.data.Dataset.from_tensor_slices(x).batch(4),
        lambda x: tf.data.Dataset.from_tensor_slices((x, np.zeros(12))).batch(5),
        lambda x: tf.data.Dataset.from_tensor_slices({"image": x}).batch(12).repeat(),
        lambda x: Batches(3),
    ],
    ids=["list", "dict", "tensor", "dataset", "with_targets", "endless", "pydataset"],
)
def test_every_kind_of_data_gives_the_same_rows(wrap):
    rows = take_rows(wrap(images(12)), image_forward(), most=12)

    np.testing.assert_array_equal(rows["image"], images(12))


def test_data_without_an_end_is_read_as_far_as_needed():
    rows = take_rows(Endless(1), image_forward(), most=6)

    np.testing.assert_array_equal(rows["image"][4:], images(2))


@pytest.mark.parametrize("kind", ["dict", "list", "dataset"])
def test_several_inputs_go_by_name_or_by_the_order_of_the_model(kind):
    left, right = np.ones((4, 3), "float32"), np.zeros((4, 4), "float32")
    data = {
        "dict": {"right": right, "left": left},
        "list": [left, right],
        "dataset": tf.data.Dataset.from_tensor_slices(((left, right), right)).batch(2),
    }[kind]

    rows = take_rows(data, Forward(models.two_in_two_out()))

    np.testing.assert_array_equal(rows["left"], left)
    np.testing.assert_array_equal(rows["right"], right)


@keras.saving.register_keras_serializable("tests")
class Sum(keras.Model):
    """A subclassed model with keys that no signature takes."""

    def call(self, inputs):
        return keras.ops.sum(inputs["left-x"], 1) + keras.ops.sum(inputs["right-x"], 1)


def awkward(kind):
    """A model whose inputs have names or keys that no signature takes."""
    if kind == "subclass":
        model = Sum()
        model({"left-x": np.ones((1, 3), "f"), "right-x": np.ones((1, 4), "f")})
        return model
    inputs = [keras.Input((3,), name="left-x"), keras.Input((4,), name="right-x")]
    merged = layers.Concatenate()(inputs)
    by_name = dict(zip(("left-x", "right-x"), inputs, strict=True))
    return keras.Model(by_name if kind == "dict" else inputs, merged)


@pytest.mark.parametrize("kind", ["dict", "list", "subclass"])
@pytest.mark.parametrize("mark", ["-", "_"])
def test_inputs_go_by_the_names_and_keys_that_keras_has_for_them(kind, mark):
    left, right = np.ones((4, 3), "float32"), np.zeros((4, 4), "float32")

    rows = take_rows(
        {f"right{mark}x": right, f"left{mark}x": left}, Forward(awkward(kind))
    )

    np.testing.assert_array_equal(rows["left_x"], left)
    np.testing.assert_array_equal(rows["right_x"], right)


def test_names_of_the_signature_win_where_two_inputs_come_out_alike():
    inputs = [keras.Input((1,), name="a-x"), keras.Input((1,), name="a_x")]
    forward = Forward(keras.Model(inputs, layers.Concatenate()(inputs)))
    ones, zeros = np.ones((2, 1), "float32"), np.zeros((2, 1), "float32")

    by_signature = take_rows({"a_x": ones, "a_x_1": zeros}, forward)
    by_layer = take_rows({"a-x": ones, "a_x": zeros}, forward)

    for rows in (by_signature, by_layer):
        np.testing.assert_array_equal(rows["a_x"], ones)
        np.testing.assert_array_equal(rows["a_x_1"], zeros)


def test_whole_numbers_stay_whole():
    data = {"user": [[1, 2]], "film": [[1, 2]], "age": [[0.5, 1.5]]}
    data = {name: np.array(x[0]) for name, x in data.items()}
    data["age"] = data["age"][:, None]

    rows = take_rows(data, Forward(models.recommender()))

    assert {name: x.dtype.name for name, x in rows.items()} == {
        "user": "int32",
        "film": "int64",
        "age": "float32",
    }


def with_nan():
    x = images(4)
    x[2, 0, 0, 0] = np.nan
    x[3, 0, 0, 0] = np.inf
    return x


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (images(0), r"\{'image': 0\} rows by input, expected.*at least 1"),
        (images(2)[0], r"shape \(8, 8, 3\), expected \(rows, 8, 8, 3\).*array\[None\]"),
        (np.float32(1), r"shape \(\), expected \(rows, 8, 8, 3\)"),
        (with_nan(), "2 values that are NaN or infinite in float32, of 768"),
        (images(2, "float64") * 1e300, "NaN or infinite in float32"),
        (images(2).astype(str), "of type <U.*, expected float32"),
        (images(2).astype(complex), "of type complex128, expected float32"),
        ({"picture": images(2)}, r"inputs \['picture'\].*image \(rows, 8, 8, 3\)"),
        ((images(2), np.zeros(2)), "2 arrays.*the inputs alone, without targets"),
        (tf.data.Dataset.from_tensor_slices(images(2)), r"dataset\.batch\(32\)"),
        (tf.data.Dataset.from_tensor_slices(images(0)).batch(2), "has no batch"),
        (Batches(0), "has no batch"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_data_that_does_not_fit_is_refused(data, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        take_rows(data, image_forward())


@pytest.mark.parametrize("data", ["images.npy", 3, [images(1).tolist()], None])
def test_something_that_is_no_data_is_refused(data):
    with pytest.raises(TypeError, match=r"Expected arrays.*PyDataset"):
        take_rows(data, image_forward())


def test_fractions_are_no_whole_numbers():
    model = keras.Sequential([keras.Input((2,), dtype="int32"), layers.Embedding(5, 2)])

    with pytest.raises(ValueError, match="of type float64, expected int32"):
        take_rows(np.zeros((3, 2)), Forward(model))


def test_numbers_too_large_for_the_input_are_refused():
    inputs = keras.Input((2,), dtype="uint8")
    forward = Forward(keras.Model(inputs, layers.Rescaling(1.0)(inputs)))

    with pytest.raises(ValueError, match="from 0 to 256, more than uint8 holds"):
        take_rows(np.array([[0, 256]]), forward)


def test_every_input_needs_the_same_number_of_rows():
    data = {"left": np.ones((4, 3)), "right": np.ones((3, 4))}

    with pytest.raises(ValueError, match="'left': 4, 'right': 3.*same number"):
        take_rows(data, Forward(models.two_in_two_out()))


def test_rows_of_open_length_need_one_length():
    batches = [np.ones((2, 5, 3), "float32"), np.ones((2, 6, 3), "float32")]
    signature = tf.TensorSpec((None, None, 3))
    data = tf.data.Dataset.from_generator(lambda: batches, output_signature=signature)
    forward = Forward(models.open_sequence())

    with pytest.raises(ValueError, match=r"shapes \[\(5, 3\), \(6, 3\)\].*pad or crop"):
        take_rows(data, forward)
    assert take_rows(data.take(1), forward).popitem()[1].shape == (2, 5, 3)


def test_rows_that_fill_no_batch_are_left_over():
    rows = {"a": np.arange(7), "b": np.arange(7) * 10}

    batches = cut_batches(rows, 3)

    assert [batch["b"].tolist() for batch in batches] == [[0, 10, 20], [30, 40, 50]]
