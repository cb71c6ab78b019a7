import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.targets import check_xnnpack, rewrite_padding
from tests.targets import models


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def small(size=8, **stem):
    inputs = keras.Input((size, size, 3), name="image")
    stem = {"strides": 2, "padding": "same", **stem}
    x = layers.Conv2D(4, 3, activation="relu", name="stem", **stem)(inputs)
    x = layers.DepthwiseConv2D(5, strides=2, padding="same", name="depthwise")(x)
    return keras.Model(inputs, layers.Conv2D(2, 1, name="out")(x), name="small")


def test_strided_layers_compute_what_a_reference_by_hand_does():
    model = small()
    x = images(2, 8, 8, 3)

    new = rewrite_padding(model, print_fn=None)

    stem, depthwise, out = (model.get_layer(n) for n in ("stem", "depthwise", "out"))
    y = convolved(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), stem.kernel)
    y = np.pad(np.maximum(y + np.array(stem.bias), 0), ((0, 0), (2, 2), (2, 2), (0, 0)))
    kernel = np.array(depthwise.kernel)[..., 0, None] * np.eye(4)
    y = convolved(y, kernel) + np.array(depthwise.bias)
    expected = y @ np.array(out.kernel)[0, 0] + np.array(out.bias)
    np.testing.assert_allclose(new(x), expected, atol=1e-5)
    assert np.abs(np.array(model(x)) - expected).max() > 1e-2


def convolved(x, kernel):
    """Applies a kernel with stride 2 and no padding, window by window."""
    kernel = np.array(kernel)
    k = len(kernel)
    places = range(0, x.shape[1] - k + 1, 2)
    windows = [[x[:, i : i + k, j : j + k] for j in places] for i in places]
    return np.einsum("ijbhwc,hwcd->bijd", np.array(windows), kernel)


def test_images_of_odd_size_see_no_difference():
    model = small(size=9)
    x = images(2, 9, 9, 3)

    new = rewrite_padding(model, print_fn=None)

    np.testing.assert_allclose(new(x), model(x), atol=1e-6)


def test_names_shapes_and_weights_stay_and_the_input_model_too():
    model = small()
    config, weights = model.get_config(), model.get_weights()

    new = rewrite_padding(model, print_fn=None)

    names = ["image", "stem_pad", "stem", "depthwise_pad", "depthwise", "out"]
    assert [layer.name for layer in new.layers] == names
    assert new.output_shape == model.output_shape
    assert new.get_layer("stem").padding == "valid"
    for ours, theirs in zip(new.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert model.get_config() == config
    assert not {id(v) for v in new.variables} & {id(v) for v in model.variables}


def test_mobilenet_qualifies_afterwards_with_the_same_shapes_and_weights():
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None)
    lines = []

    new = rewrite_padding(model, print_fn=lines.append)

    # At 32 x 32 the last strided layer takes 2 x 2.
    assert check_xnnpack(new).obstacles == ()
    assert len(lines) == 5
    assert lines[0].startswith("Conv1: padding 'same' with stride 2 is now 'valid'")
    assert lines[1] == (
        "block_1_pad: padding top 0, bottom 1, left 0, right 1 in front of "
        "'block_1_depthwise' is now top 1, bottom 1, left 1, right 1"
    )
    shapes = [(layer.name, layer.output.shape) for layer in model.layers]
    assert [s for s in shapes if "pad" not in s[0]] == [
        (layer.name, layer.output.shape)
        for layer in new.layers
        if "pad" not in layer.name
    ]
    for ours, theirs in zip(new.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_nested_and_shared_models_are_rewritten_once_and_stay_shared():
    body = small()
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    model = keras.Model([left, right], layers.Add()([body(left), body(right)]))
    x, y = images(1, 8, 8, 3), images(1, 8, 8, 3, seed=1)

    new = rewrite_padding(model, print_fn=None)

    reference = rewrite_padding(body, print_fn=None)
    assert len(new.weights) == len(body.weights)
    assert "stem_pad" in [layer.name for layer in new.get_layer("small").layers]
    np.testing.assert_allclose(new([x, y]), reference(x) + reference(y), atol=1e-6)


def test_a_sequential_model_stays_one_and_keeps_its_compile_arguments():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            layers.SeparableConv2D(4, 3, 2, "same", name="separable"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    model.compile("adam", "mse")

    new = rewrite_padding(model, print_fn=None)
    new.fit(images(4, 8, 8, 3), np.zeros((4, 2)), verbose=0)

    assert type(new) is keras.Sequential
    assert [layer.name for layer in new.layers][:2] == ["separable_pad", "separable"]


def test_frozen_layers_and_models_stay_frozen():
    body = small()
    body.trainable = False
    inputs = keras.Input((8, 8, 3))
    head = layers.Conv2D(2, 3, 2, "same", name="head")
    model = keras.Model(inputs, head(inputs=body(inputs)))

    new = rewrite_padding(model, print_fn=None)

    assert not new.get_layer("small").trainable
    assert [v.path for v in new.trainable_variables] == ["head/kernel", "head/bias"]
    assert "head_pad" in [layer.name for layer in new.layers]


def test_one_sided_padding_in_a_sequential_model_becomes_equal():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.ZeroPadding2D(((0, 1), (0, 1)), name="pad"),
            layers.DepthwiseConv2D(3, 2),
        ]
    )

    new = rewrite_padding(model, print_fn=None)

    assert new.get_layer("pad").padding == ((1, 1), (1, 1))
    assert new.output_shape == model.output_shape == (None, 4, 4, 3)


def test_a_padding_that_is_called_twice_stays():
    pad = layers.ZeroPadding2D(((0, 1), (0, 1)), name="pad")
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    outputs = [layers.Conv2D(4, 3, 2)(pad(left)), layers.ReLU()(pad(right))]
    model = keras.Model([left, right], outputs)

    new = rewrite_padding(model, print_fn=None)

    assert new.get_layer("pad").padding == ((0, 1), (0, 1))


def test_a_padding_that_the_model_returns_stays():
    inputs = keras.Input((8, 8, 3))
    padded = layers.ZeroPadding2D(((0, 1), (0, 1)), name="pad")(inputs)
    outputs = {"map": layers.Conv2D(4, 3, 2)(padded), "padded": padded}
    model = keras.Model(inputs, outputs)

    new = rewrite_padding(model, print_fn=None)

    assert new.output_shape == model.output_shape
    assert new.get_layer("pad").padding == ((0, 1), (0, 1))


def test_a_padding_that_a_nested_model_uses_too_stays():
    pad, inner = layers.ZeroPadding2D(((0, 1), (0, 1))), keras.Input((8, 8, 3))
    nested = keras.Model(inner, layers.Conv2D(3, 3, 2)(pad(inner)))
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, pad(nested(inputs)))

    new = rewrite_padding(model, print_fn=None)

    assert new.output_shape == model.output_shape


def test_a_taken_name_is_avoided():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU(name="stem_pad")(inputs)
    model = keras.Model(inputs, layers.Conv2D(4, 3, 2, "same", name="stem")(x))

    new = rewrite_padding(model, print_fn=None)

    assert [layer.name for layer in new.layers][1:] == [
        "stem_pad",
        "stem_pad_2",
        "stem",
    ]


@pytest.mark.parametrize(
    "stem",
    [{"strides": 1}, {"padding": "valid"}, {"strides": 3}, {"kernel_size": 1}],
    ids=["stride 1", "valid", "stride 3", "1x1"],
)
def test_other_convolutions_stay_as_they_are(stem):
    layer = layers.Conv2D(4, **{"kernel_size": 3, "padding": "same", **stem})
    model = keras.Sequential([keras.Input((9, 9, 3)), layer])
    lines = []

    new = rewrite_padding(model, print_fn=lines.append)

    assert lines == []
    assert len(new.layers) == 1
    x = images(1, 9, 9, 3)
    np.testing.assert_array_equal(new(x), model(x))


@pytest.mark.parametrize(
    ("size", "padding", "users"),
    [(7, ((0, 1), (0, 1)), 1), (8, ((2, 2), (2, 2)), 1), (8, ((0, 1), (0, 1)), 2)],
    ids=["the shape would change", "wider on purpose", "two layers read it"],
)
def test_padding_that_serves_something_else_stays(size, padding, users):
    inputs = keras.Input((size, size, 3))
    x = layers.ZeroPadding2D(padding, name="pad")(inputs)
    model = keras.Model(inputs, [layers.Conv2D(4, 3, 2)(x) for _ in range(users)])

    new = rewrite_padding(model, print_fn=None)

    assert new.get_layer("pad").padding == padding
    assert [x.shape for x in new.outputs] == [x.shape for x in model.outputs]


def test_a_pruned_model_is_refused_and_the_rewritten_one_can_be_pruned():
    model = small()

    with pytest.raises(ValueError, match="'small', which is pruned. Rewrite the plain"):
        rewrite_padding(kprune.prune(model))
    assert kprune.is_pruned(kprune.prune(rewrite_padding(model, print_fn=None)))


def test_what_qualifies_is_left_alone():
    model = models.mobile()
    lines = []

    rewrite_padding(model, print_fn=lines.append)

    assert lines == []


def test_a_convolution_that_is_called_twice_gets_one_padding():
    layer = layers.Conv2D(4, 3, 2, "same", name="twice")
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    model = keras.Model([left, right], layers.Add()([layer(left), layer(right)]))
    x, y = images(1, 8, 8, 3), images(1, 8, 8, 3, seed=1)
    lines = []

    new = rewrite_padding(model, print_fn=lines.append)

    single = keras.Sequential([keras.Input((8, 8, 3)), layer])
    reference = rewrite_padding(single, print_fn=None)
    assert [line.split(":")[0] for line in lines] == ["twice"]
    assert [each.name for each in new.layers if "pad" in each.name] == ["twice_pad"]
    np.testing.assert_allclose(new([x, y]), reference(x) + reference(y), atol=1e-6)
