import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune import GroupLasso, Penalties, penalize


def small_model(**arguments):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, name="conv", **arguments),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="head"),
        ],
        name="small",
    )


def penalties_of(model):
    return {
        layer.name: layer.kernel_regularizer.get_config()
        for layer in model.layers
        if getattr(layer, "kernel_regularizer", None) is not None
    }


def test_penalty_is_on_every_kernel_and_the_model_is_as_before():
    model = small_model()
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1))

    penalized = penalize(model, GroupLasso(0.5))

    config = {"strength": 0.5, "axis": -1}
    assert penalties_of(penalized) == {"conv": config, "head": config}
    np.testing.assert_array_equal(penalized(x), model(x))
    assert [layer.name for layer in penalized.layers] == [
        "conv",
        "norm",
        "flat",
        "head",
    ]
    expected = sum(
        float(GroupLasso(0.5)(model.get_layer(name).kernel))
        for name in ("conv", "head")
    )
    assert float(sum(penalized.losses)) == pytest.approx(expected, rel=1e-6)


def test_the_model_given_is_left_alone():
    model = small_model()

    penalized = penalize(model, "l1")
    penalized.get_layer("head").kernel.assign(np.zeros((144, 3)))

    assert penalties_of(model) == {} and model.losses == []
    assert np.asarray(model.get_layer("head").kernel).any()


@pytest.mark.parametrize(
    "selection", [{"only": "conv"}, {"skip": layers.Dense}, {"only": layers.Conv2D}]
)
def test_only_and_skip_select_layers(selection):
    assert list(penalties_of(penalize(small_model(), "l1", **selection))) == ["conv"]


def test_layer_object_of_the_model_selects_too():
    model = small_model()

    penalized = penalize(model, "l1", only=model.get_layer("head"))

    assert list(penalties_of(penalized)) == ["head"]


def test_penalty_that_a_weight_has_already_stays():
    model = small_model(kernel_regularizer=keras.regularizers.L2(0.25))

    penalized = penalize(model, keras.regularizers.L1(0.5), only="conv")

    kernel = np.asarray(model.get_layer("conv").kernel)
    expected = 0.25 * (kernel**2).sum() + 0.5 * np.abs(kernel).sum()
    assert isinstance(penalized.get_layer("conv").kernel_regularizer, Penalties)
    assert float(sum(penalized.losses)) == pytest.approx(expected, rel=1e-5)


def test_file_keeps_the_penalty(tmp_path):
    penalized = penalize(small_model(), GroupLasso(0.5))
    penalized.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert penalties_of(loaded) == penalties_of(penalized)
    np.testing.assert_allclose(sum(loaded.losses), sum(penalized.losses))


def test_pruning_keeps_the_penalty_and_training_feels_it():
    x, y = np.ones((32, 8, 8, 1)), np.zeros(32)
    model = kprune.prune(penalize(small_model(), keras.regularizers.L1(0.1)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = [np.abs(np.asarray(model.layers[0].layer.kernel)).sum()]

    model.fit(x, y, verbose=0, epochs=3, callbacks=[kprune.PruningCallback(0.5)])

    stripped = kprune.strip(model)
    kernel = np.asarray(stripped.get_layer("conv").kernel)
    assert len(model.losses) == 2
    assert np.count_nonzero(kernel) == 18
    assert np.abs(kernel).sum() < before[0]
    assert list(penalties_of(stripped)) == ["conv", "head"]


@pytest.mark.parametrize(
    ("layer", "shape", "number"),
    [
        (lambda: layers.Embedding(5, 3), (4,), 1),
        (lambda: layers.LSTM(3), (4, 2), 2),
        (lambda: layers.Bidirectional(layers.GRU(3)), (4, 2), 4),
        (lambda: layers.SeparableConv2D(3, 2), (4, 4, 2), 1),
        (lambda: layers.TimeDistributed(layers.Dense(3)), (4, 2), 1),
        (lambda: keras.Sequential([layers.Dense(3), layers.Dense(2)]), (4,), 2),
    ],
)
def test_kernels_are_penalized_wherever_they_are(layer, shape, number):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer()(inputs))

    assert len(penalize(model, "l1").losses) == number


def test_weights_can_be_named(tmp_path):
    model = keras.Sequential(
        [small_model(), layers.LayerNormalization(name="last"), layers.Dense(2)]
    )

    norms = layers.BatchNormalization
    penalized = penalize(model, keras.regularizers.L1(0.5), weight="gamma", only=norms)

    norm = penalized.get_layer("small").get_layer("norm")
    assert norm.gamma_regularizer.get_config() == {"l1": 0.5}
    assert [float(loss) for loss in penalized.losses] == [2.0]  # 0.5 of 4 scales of 1
    assert len(penalize(model, "l1", weight="gamma").losses) == 2
    penalized.save(tmp_path / "model.keras")
    assert len(keras.saving.load_model(tmp_path / "model.keras").losses) == 1


def test_penalties_can_be_taken_off():
    model = small_model(kernel_regularizer="l2", bias_regularizer="l2")

    for_scales = penalize(model, "l1", weight="gamma")

    assert len(for_scales.losses) == 3
    assert len(penalize(for_scales, None, weight="gamma").losses) == 2
    assert penalties_of(penalize(model, None)) == {}
    assert len(penalize(model, None).losses) == 1


def test_name_that_no_weight_has_is_refused():
    with pytest.raises(
        ValueError, match="weight='gamma', .* They have 'kernel', 'bias'"
    ):
        penalize(small_model(), "l1", weight="gamma", only="conv")


def with_attention(layer):
    inputs = keras.Input((4, 6))
    return keras.Model(inputs, layer(inputs, inputs))


@pytest.mark.parametrize(
    "attention",
    [
        lambda: layers.MultiHeadAttention(2, 3),
        lambda: layers.MultiHeadAttention(2, 3, kernel_regularizer="l2"),
        lambda: layers.GroupQueryAttention(3, 4, 2),
    ],
)
def test_the_kernels_of_attention_have_the_penalty_of_their_layer(attention):
    model = with_attention(attention())
    kernels = [w for w in model.trainable_weights if w.name == "kernel"]

    penalized = penalize(model, GroupLasso(0.5))

    assert len(penalized.losses) == len(kernels) == 4
    expected = sum(float(GroupLasso(0.5)(kernel)) for kernel in kernels)
    expected += float(sum(model.losses))
    assert float(sum(penalized.losses)) == pytest.approx(expected, rel=1e-6)


def test_a_part_of_attention_can_not_be_penalized_by_itself():
    model = with_attention(layers.MultiHeadAttention(2, 3, name="attention"))

    with pytest.raises(ValueError, match="'attention/key_dense/kernel' can't be left"):
        penalize(model, "l1", only="query")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(layers.DepthwiseConv1D, (5, 2)), (layers.DepthwiseConv2D, (5, 5, 2))],
)
def test_depthwise_kernels_are_penalized_where_they_are_asked_for(layer, shape):
    model = keras.Sequential([keras.Input(shape), layer(3, name="own")])

    penalized = penalize(model, "l1", only="own")

    magnitude = np.abs(model.layers[0].kernel).sum()
    assert float(penalized.losses[0]) == pytest.approx(0.01 * magnitude, rel=1e-6)


@keras.saving.register_keras_serializable("tests")
class WithoutRegularizer(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, x):
        return x @ self.kernel


def test_weight_without_a_place_for_a_penalty_is_named():
    model = keras.Sequential([keras.Input((4,)), WithoutRegularizer(name="own")])

    with pytest.raises(ValueError, match="'own/kernel' can't be penalized"):
        penalize(model, "l1")


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: kprune.prune(small_model()), "'small' is pruned already. Penalize it"),
        (Subclassed, r"\(Subclassed\) is subclassed or not built"),
        (
            lambda: keras.Sequential([layers.Dense(3)]),
            r"\(Sequential\) is sub.* not bui",
        ),
        (
            lambda: keras.Sequential([keras.Input((3,)), layers.BatchNormalization()]),
            "Nothing in the model .* can be penalized",
        ),
    ],
)
def test_model_that_can_not_be_penalized_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        penalize(model(), "l1")


def test_name_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match="only got 'stem', which matches no layer"):
        penalize(small_model(), "l1", only="stem")
