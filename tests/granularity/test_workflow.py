"""Granularities on real layers: train with masks, save, load, strip, export."""

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.layout import layout_of
from tests.checks import entries
from tests.training_helpers import assert_masked

IMAGES = {
    "conv2d": lambda: layers.Conv2D(3, 2),
    "transposed": lambda: layers.Conv2DTranspose(5, 2),
    "depthwise": lambda: layers.DepthwiseConv2D(2, depth_multiplier=2),
    "dense": lambda: layers.Dense(3),
    "einsum": lambda: layers.EinsumDense("abcd,def->abcef", (4, 4, 2, 3)),
}
SEQUENCES = {
    "conv1d": lambda: layers.Conv1D(3, 3),
    "lstm": lambda: layers.LSTM(5),
}


def everything():
    """Returns a model with many types of layers side by side."""
    images, words = keras.Input((4, 4, 6)), keras.Input((3,))
    sequences = layers.Reshape((16, 6))(images)
    branches = [make()(images) for make in IMAGES.values()]
    branches += [make()(sequences) for make in SEQUENCES.values()]
    branches.append(layers.MultiHeadAttention(2, 3)(sequences, sequences))
    branches.append(layers.Conv3D(2, 2)(layers.Reshape((2, 2, 4, 6))(images)))
    branches.append(layers.Embedding(9, 5)(words))
    joined = layers.Concatenate()([layers.Flatten()(b) for b in branches])
    outputs = layers.Dense(2, name="head")(joined)
    return keras.Model([images, words], outputs)


def data():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 9, (8, 3))
    return [rng.normal(size=(8, 4, 4, 6)), words], rng.normal(size=(8, 2))


def units_left(mask, rows):
    """How many weights of each block of (rows, 1) are left, and how many it has."""
    inputs = mask.shape[-2]
    places = range(0, inputs, rows)
    blocks = [mask[..., i : i + rows, :] for i in places]
    return [(b.sum(axis=-2), b.shape[-2]) for b in blocks]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return everything()


def canonical_masks(model):
    return {
        entry.name: layout_of(entry.layer, entry.variable).canonical(entry.mask.numpy())
        for entry in entries(model)
    }


def test_blocks_are_whole_in_every_type_of_layer_from_fit_to_strip(model, tmp_path):
    model = kprune.prune(model, only="*", granularity=kprune.Block(4, 1))
    model.compile("sgd", "mse")
    schedule = kprune.PolynomialSchedule(0.5, end_step=3, frequency=2)
    callback = kprune.PruningCallback(schedule)
    model.fit(*data(), batch_size=2, verbose=0, callbacks=[callback])

    masks = canonical_masks(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    plain = kprune.strip(again)

    assert len(masks) == 15
    for mask in masks.values():
        assert abs(mask.sum() - mask.size / 2) <= 2.5
        for left, size in units_left(mask, 4):
            assert np.isin(left, [0, size]).all()
    assert_masked(model)
    for name, mask in canonical_masks(again).items():
        np.testing.assert_array_equal(mask, masks[name])
    zeros = sum(mask.size - mask.sum() for mask in masks.values())
    assert zeros <= sum(np.count_nonzero(w.numpy() == 0) for w in plain.weights)
    x, _ = data()
    np.testing.assert_array_equal(plain(x), model(x))


def test_two_of_four_are_left_in_every_type_of_layer(model):
    model = kprune.prune(model, only="*", granularity=kprune.NofM(2, 4))

    kprune.Pruner(model, kprune.ConstantSchedule(0.5)).step()

    for mask in canonical_masks(model).values():
        for left, size in units_left(mask, 4):
            assert (left == -(-size // 2)).all()
    assert_masked(model)


@pytest.mark.parametrize(
    "granularity", ["vector", "kernel", "channel", kprune.Channel(-2)], ids=str
)
def test_lines_and_slices_of_a_convolution_are_removed_whole(granularity):
    layer = layers.Conv2D(3, 2)
    model = keras.Sequential([keras.Input((4, 4, 6)), layer])
    scores = np.abs(layer.kernel.numpy())
    axes = {"vector": 2, "kernel": (0, 1), "channel": (0, 1, 2)}
    axes = axes.get(granularity, (0, 1, 3))
    model = kprune.prune(model, only=layers.Conv2D, granularity=granularity)

    kprune.Pruner(model, kprune.ConstantSchedule(1 / 3)).step()

    means = np.sort(scores.mean(axis=axes), axis=None)
    worst = means[round(len(means) / 3)]
    kept = scores.mean(axis=axes, keepdims=True) >= worst
    (entry,) = entries(model)
    np.testing.assert_array_equal(
        entry.mask.numpy(), np.broadcast_to(kept, scores.shape)
    )


def test_a_schedule_beyond_the_pattern_is_refused_with_what_can_be_reached():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="head")])
    model = kprune.prune(model, granularity=kprune.NofM(2, 4))

    with pytest.raises(ValueError, match=r"0\.75 can't be .* only 0\.5.*'head/kernel'"):
        kprune.Pruner(model, kprune.PolynomialSchedule(0.75, end_step=9))


def test_blocks_along_the_inputs_make_a_smaller_tflite_file(tmp_path):
    plain = keras.Sequential([keras.Input((64,)), layers.Dense(64, use_bias=False)])
    sizes = {}

    for granularity in ("element", kprune.Block(4, 1)):
        model = kprune.prune(plain, granularity=granularity)
        kprune.Pruner(model, kprune.ConstantSchedule(0.9)).step()
        kprune.export(kprune.strip(model), tmp_path, ["tflite"])
        (path,) = tmp_path.glob("*.tflite")
        sizes[granularity] = path.stat().st_size

    assert sizes[kprune.Block(4, 1)] < 0.9 * sizes["element"]
