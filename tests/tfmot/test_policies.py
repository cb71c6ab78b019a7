"""Which layers policies allow, and which models XNNPACK's policy takes."""

import keras
import pytest
from keras import layers

from kprune import tfmot
from tests.checks import entries
from tests.tfmot.models import simple_dense_model, unbuilt_model

XNNPACK = tfmot.PruneForLatencyOnXNNPack()


def pruned_layers(model, policy=XNNPACK):
    """Prunes a model by a policy and returns how many layers are wrapped."""
    pruned = tfmot.prune_low_magnitude(model, pruning_policy=policy)
    return len(tfmot.collect_prunable_layers(pruned))


def entry(inputs, filters=16, pad=True, padding="valid"):
    """Begins as XNNPACK wants it: a padded 3x3 convolution of stride 2."""
    x = layers.ZeroPadding2D(padding=1)(inputs) if pad else inputs
    return layers.Conv2D(filters, (3, 3), strides=(2, 2), padding=padding)(x)


def head(x):
    """Ends as XNNPACK wants it."""
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))


def network(middle, pad=True, padding="valid", end=head):
    """Makes a model with something between the entry and the pooling."""
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, end(middle(entry(inputs, pad=pad, padding=padding))))


def one_by_one(x):
    return layers.Conv2D(16, [1, 1])(x)


def twice(x):
    conv = layers.Conv2D(16, [1, 1])
    return conv(conv(x))


def depthwise(x):
    x = layers.DepthwiseConv2D((3, 3), padding="same")(x)
    return one_by_one(layers.Activation("relu")(x))


def operations(x):
    residual = one_by_one(x)
    return (x + residual) * residual


def branches():
    """Makes a model of two inputs, with a gate and four 1x1 convolutions."""
    first, second = keras.Input((16, 16, 3)), keras.Input((16, 16, 3))
    x = entry(first)
    left = layers.Add()(
        [layers.DepthwiseConv2D((3, 3), padding="same")(x), one_by_one(x)]
    )
    x = layers.ZeroPadding2D(padding=1)(entry(second, 8))
    x = layers.DepthwiseConv2D((3, 3), strides=(2, 2), padding="valid")(x)
    gate = layers.Conv2D(32, [1, 1])(layers.GlobalAveragePooling2D(keepdims=True)(x))
    gate = layers.Activation("sigmoid")(gate)
    x = layers.UpSampling2D(interpolation="bilinear")(layers.Conv2D(32, [1, 1])(x))
    x = one_by_one(layers.Multiply()([gate, x]))
    return keras.Model([first, second], head(layers.Add()([left, x])))


def sequential():
    """Makes a Sequential with a model in it, and two 1x1 convolutions."""
    inner = keras.Sequential([layers.Conv2D(8, [1, 1]), layers.Conv2D(16, [1, 1])])
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.ZeroPadding2D(padding=1),
            layers.Conv2D(4, (3, 3), strides=(2, 2), padding="valid"),
            inner,
            layers.GlobalAveragePooling2D(),
        ]
    )


def of_the_guide(keepdims):
    """Makes the model of TFMOT's guide to XNNPACK, with two 1x1 convolutions."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.ZeroPadding2D(padding=1),
            layers.Conv2D(8, (3, 3), strides=(2, 2), padding="valid"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D((3, 3), padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(16, (1, 1)),
            layers.ZeroPadding2D(padding=1),
            layers.DepthwiseConv2D((3, 3), strides=(2, 2), padding="valid"),
            layers.Conv2D(32, (1, 1)),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(keepdims=keepdims),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda: of_the_guide(keepdims=True), 2),
        (lambda: of_the_guide(keepdims=False), 2),
        (lambda: network(one_by_one), 1),
        (lambda: network(twice), 1),
        (lambda: network(depthwise), 1),
        (lambda: network(operations), 1),
        (lambda: keras.models.clone_model(network(one_by_one)), 1),
        (sequential, 2),
        (branches, 4),
    ],
)
def test_one_by_one_convolutions_are_pruned(make, expected):
    assert pruned_layers(make()) == expected


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: network(one_by_one, pad=False, padding="same"), "padding|ZeroPadding"),
        (lambda: network(one_by_one, end=layers.AveragePooling2D(2)), "pool"),
        (lambda: network(lambda x: one_by_one(layers.MaxPooling2D()(x))), "pool"),
        (lambda: keras.Sequential([layers.Conv2D(4, 1)]), "without input shape"),
        (simple_dense_model, "it has no convolution"),
    ],
)
def test_models_that_xnnpack_does_not_run_with_sparse_kernels_are_refused(
    make, message
):
    with pytest.raises(ValueError, match=message):
        pruned_layers(make())


def test_pruned_model_is_pruned_again_as_it_is():
    once = tfmot.prune_low_magnitude(network(one_by_one), pruning_policy=XNNPACK)

    assert pruned_layers(once) == 1


class ByName(tfmot.PruningPolicy):
    """A policy of the user's."""

    def __init__(self, *names):
        self.names = names

    def allow_pruning(self, layer):
        return layer.name in self.names

    def ensure_model_supports_pruning(self, model):
        if len(model.layers) > 5:
            raise ValueError("too deep")


def test_policy_of_the_user_chooses_layers_and_models():
    pruned = tfmot.prune_low_magnitude(
        simple_dense_model(), pruning_policy=ByName("classes")
    )

    wrapped = tfmot.collect_prunable_layers(pruned)
    assert [layer.name for layer in wrapped] == ["classes"]
    with pytest.raises(ValueError, match="too deep"):
        pruned_layers(branches(), ByName("any"))


def test_policy_that_allows_nothing_is_told_of():
    # TFMOT returns a model without a wrapper.
    with pytest.raises(ValueError, match="ByName allows no layer of the model"):
        pruned_layers(simple_dense_model(), ByName())


@pytest.mark.parametrize("missing", ["allow_pruning", "ensure_model_supports_pruning"])
def test_policy_of_the_user_has_to_define_both_methods(missing):
    methods = {
        name: lambda *a: True
        for name in ("allow_pruning", "ensure_model_supports_pruning")
    }
    del methods[missing]

    with pytest.raises(TypeError, match=missing):
        type("Incomplete", (tfmot.PruningPolicy,), methods)()


def test_policy_chooses_among_the_layers_of_a_model_that_is_not_built():
    class OnlyWide(tfmot.PruningPolicy):
        def allow_pruning(self, layer):
            return layer.units == 8

        def ensure_model_supports_pruning(self, model):
            pass

    pruned = tfmot.prune_low_magnitude(unbuilt_model(), pruning_policy=OnlyWide())
    pruned.build((None, 3))

    assert [entry.layer.name for entry in entries(pruned)] == ["a"]
