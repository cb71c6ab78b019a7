import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.channels.tracing import trace
from kprune.shrinking.groups import families_of, is_kernel, protect
from kprune.shrinking.why_not import why_not


def families(model, **selection):
    tracing = trace(model)
    protect(model, tracing, **selection)
    return families_of(tracing)


def sizes(found):
    return {f.name: (f.layers, len(f.groups), len(f.stuck)) for f in found}


def residual_model():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    y = layers.Conv2D(4, 3, padding="same", name="inner")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.Conv2D(6, 1, name="outer")(y)
    x = layers.GlobalAveragePooling2D()(layers.Add(name="sum")([x, y]))
    return keras.Model(inputs, layers.Dense(5, name="head")(x))


def test_layers_that_are_added_up_are_one_family():
    assert sizes(families(residual_model())) == {
        "stem": (["stem", "outer"], 6, 0),
        "inner": (["inner"], 4, 0),
        "head": (["head"], 0, 5),
    }


def test_a_concatenation_does_not_make_one_family_of_two():
    inputs = keras.Input((4,))
    parts = [layers.Dense(n, name=f"part_{n}")(inputs) for n in (3, 5)]
    x = layers.BatchNormalization()(layers.Concatenate()(parts))
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))

    assert sizes(families(model)) == {
        "part_3": (["part_3"], 3, 0),
        "part_5": (["part_5"], 5, 0),
        "head": (["head"], 0, 2),
    }


def test_channels_that_are_reshaped_into_rows_go_row_by_row():
    inputs = keras.Input((4,))
    x = layers.Reshape((3, 2))(layers.Dense(6, name="made")(inputs))
    x = layers.Dense(5, name="rows")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))

    made = families(model)[0]

    # Columns 0, 2, 4 are the first number of each row, 1, 3, 5 the second.
    line = made.axes[0].line
    assert len(made.groups) == 2
    np.testing.assert_array_equal(line[[0, 1]], line[[2, 3]])
    np.testing.assert_array_equal(line[[0, 1]], line[[4, 5]])


def test_a_layer_that_is_used_twice_makes_its_channels_once():
    shared = layers.Dense(6, name="shared")
    left, right = keras.Input((3,)), keras.Input((3,))
    x = layers.Concatenate()([shared(left), shared(right)])
    model = keras.Model([left, right], layers.Dense(2, name="head")(x))

    assert sizes(families(model))["shared"] == (["shared"], 6, 0)


@pytest.mark.parametrize("kind, gates", [(layers.LSTM, 4), (layers.GRU, 3)])
def test_units_of_recurrent_layers_count_once_for_all_their_gates(kind, gates):
    model = keras.Sequential([keras.Input((6, 3)), kind(5, name="made")])
    model.add(layers.Dense(2))

    made = families(model)[0]

    assert len(made.groups) == 5
    np.testing.assert_array_equal(made.axes[0].line, [*made.axes[0].units] * gates)


@pytest.mark.parametrize(
    "layer, kernels",
    [
        (layers.Dense(4), ["kernel"]),
        (layers.GRU(4), ["kernel", "recurrent_kernel"]),  # its bias has two axes
        (layers.MultiHeadAttention(2, 3), ["kernel"] * 4),  # and so have its
        (layers.PReLU(), []),
        (layers.BatchNormalization(), []),
        (layers.DepthwiseConv1D(3), ["kernel"]),
        (layers.SeparableConv1D(4, 3), ["depthwise_kernel", "pointwise_kernel"]),
        (layers.Embedding(9, 4), ["embeddings"]),
        (layers.SpectralNormalization(layers.Dense(4)), ["kernel"]),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_kernels_are_told_from_biases_and_scales(layer, kernels):
    inputs = keras.Input((5,)) if kernels == ["embeddings"] else keras.Input((5, 3))
    is_attention = isinstance(layer, layers.MultiHeadAttention)
    x = layer(inputs, inputs) if is_attention else layer(inputs)
    tracing = trace(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))))
    owners = tracing.owners

    found = [v.name for v in layer.weights if is_kernel(owners[id(v)], v)]

    assert found == kernels


def test_layers_of_nested_models_bear_the_names_of_these():
    body = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, name="stem")], name="body"
    )
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(body(inputs)))

    assert list(sizes(families(model))) == ["body/stem", "head"]
    assert sizes(families(model, skip="body"))["body/stem"] == (["body/stem"], 0, 4)


def test_only_protects_all_other_layers_that_make_channels():
    found = sizes(families(residual_model(), only="inner"))

    assert found["inner"] == (["inner"], 4, 0)
    assert found["stem"] == (["stem", "outer"], 0, 6)


def test_one_of_several_layers_that_go_together_does_not_go_alone():
    (family,) = [f for f in families(residual_model(), only="stem") if f.name == "stem"]

    assert not len(family.groups)
    assert [(r.kind, r.layer) for r in family.reasons] == [("protected", "outer")]


@pytest.mark.parametrize("skip", ["inner", "norm", "depthwise", layers.DepthwiseConv2D])
def test_skip_keeps_the_width_of_what_a_layer_puts_out(skip):
    found = sizes(families(residual_model(), skip=skip))

    assert found["inner"] == (["inner"], 0, 4)
    assert found["stem"] == (["stem", "outer"], 6, 0)


def test_skip_takes_layers_without_weights_too():
    assert sizes(families(residual_model(), skip="sum"))["stem"][1:] == (0, 6)


def test_a_name_that_no_layer_has_is_an_error():
    with pytest.raises(ValueError, match="skip got 'sten', which matches no layer"):
        why_not(residual_model(), skip="sten")


def test_what_would_be_empty_without_them_is_guarded():
    inputs = keras.Input((4,))
    x = layers.Dense(6, name="made")(inputs)
    model = keras.Model(inputs, [layers.Dense(2)(x), layers.Dense(2)(x[:, :2])])

    made = families(model)[0]

    assert made.axes[0].line[:2].tolist() in [g.tolist() for g in made.guards]


class Unheard(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 7), name="kernel")

    def call(self, inputs):
        return inputs @ self.kernel


def test_why_not_lists_families_and_layers_with_their_reasons():
    inputs = keras.Input((4,))
    x = Unheard(name="own")(layers.Dense(6, name="before")(inputs))
    x = layers.Dense(8, name="between")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x), name="tiny")

    result = kprune.shrinking.why_not(model)

    found = {r.layers[0]: (r.width, r.stuck, r.reasons[0].kind) for r in result.records}
    assert found == {
        "before": (6, 6, "unknown"),
        "head": (3, 3, "output"),
        "own": (0, 0, "unknown"),
    }
    assert "own: no rule for the layer Unheard" in str(result)
    assert "between" not in str(result)
    assert result.to_dict()["records"][0]["layers"] == ["before"]
    assert [name in str(result) for name in ("before", "head", "own")] == [True] * 3


def test_why_not_says_so_if_there_is_nothing_to_say():
    result = kprune.shrinking.WhyNot("tiny", [])

    assert str(result) == "tiny: all channels can be removed"
