import keras
import numpy as np
import pytest
from keras import layers

from kprune.export.base import ExportError
from kprune.export.forward import Forward
from kprune.export.samples import draw_samples
from tests.export import models


def drawn(model, name):
    """Returns all values drawn for an input, over seeds."""
    forward = Forward(model)
    batches = [x[name] for seed in range(20) for x, _ in draw_samples(forward, seed)]
    return np.concatenate([batch.ravel() for batch in batches])


def test_each_input_stays_in_the_vocabulary_it_reaches():
    model = models.recommender()

    users, films = drawn(model, "user"), drawn(model, "film")

    assert (users.min(), films.min()) == (0, 0)
    assert films.max() == 6
    assert 40 <= users.max() <= 49
    assert (users.dtype, films.dtype) == ("int32", "int64")


def test_pixels_of_uint8_take_the_whole_range():
    inputs = keras.Input((4, 4, 1), dtype="uint8", name="image")
    model = keras.Model(inputs, layers.Rescaling(1 / 255)(inputs))

    pixels = drawn(model, "image")

    assert pixels.dtype == "uint8"
    assert pixels.max() > 240


def test_words_are_known_and_unknown_ones():
    words = set(drawn(models.word_lookup(), "word"))

    assert {"salt", "pepper", "kprune"} <= words


def test_booleans_are_true_and_false():
    inputs = keras.Input((3,), dtype="bool", name="flag")
    model = keras.Model(
        inputs, layers.Lambda(lambda x: keras.ops.cast(x, "float32"))(inputs)
    )

    assert set(drawn(model, "flag")) == {False, True}


def test_open_dimensions_get_the_first_size_that_the_model_takes():
    inputs = keras.Input((None, None, 1), name="image")
    small = keras.Model(inputs, layers.Conv2D(1, 3)(inputs))
    large = keras.Model(inputs, layers.Conv2D(1, 40)(inputs))

    shapes = [
        draw_samples(Forward(model))[0][0]["image"].shape for model in (small, large)
    ]

    assert shapes == [(1, 32, 32, 1), (1, 96, 96, 1)]


def test_outputs_are_those_of_the_model():
    model = keras.Sequential(
        [keras.Input((3,), name="x"), layers.Lambda(lambda x: 2 * x)]
    )

    samples = draw_samples(Forward(model))

    assert [x["x"].shape for x, _ in samples] == [(1, 3), (1, 3), (3, 3)]
    for inputs, outputs in samples:
        (output,) = outputs.values()
        np.testing.assert_array_equal(output, 2 * inputs["x"])


def test_a_model_that_runs_on_nothing_is_refused():
    class Picky(layers.Layer):
        def call(self, x):
            if not keras.ops.is_tensor(x) or hasattr(x, "numpy"):
                raise ValueError("no eager tensors here")
            return x

    model = keras.Sequential([keras.Input((3,), name="x"), Picky()])

    with pytest.raises(ExportError, match=r"(?s)random inputs.*no eager tensors here"):
        draw_samples(Forward(model))
