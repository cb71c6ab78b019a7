import keras
import numpy as np
import pytest
from keras import layers

from kprune.coupling import Coupling


def named(model):
    """Returns the variables of a model by path."""
    return {v.path: v for v in model.variables}


def block():
    """Two convolutions that are added, and a normalization of the sum."""
    inputs = keras.Input((4, 4, 3))
    parts = [layers.Conv2D(5, 3, name=name)(inputs) for name in ("a", "b")]
    x = layers.BatchNormalization(name="norm")(layers.Add(name="sum")(parts))
    x = layers.DepthwiseConv2D(2, name="depthwise")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


def test_kernels_whose_channels_are_added_have_one_key_and_the_same_units():
    model = block()
    found = named(model)
    kernels = [found["a/kernel"], found["b/kernel"]]

    first, second = Coupling(model).ties(kernels).values()

    assert first == second
    for tie in (first, second):
        np.testing.assert_array_equal(tie.units, range(5))
        assert not tie.stays.any()


def test_all_that_makes_a_channel_felt_follows_it():
    model = block()
    found = named(model)
    kernels = [found["a/kernel"], found["b/kernel"]]

    followers = Coupling(model).followers(kernels)

    assert {path: followers.get(id(v)) for path, v in found.items()} == {
        "a/kernel": None,
        "a/bias": (5,),
        "b/kernel": None,
        "b/bias": (5,),
        "norm/gamma": (5,),
        "norm/beta": (5,),
        "norm/moving_mean": None,
        "norm/moving_variance": None,
        "depthwise/kernel": (1, 1, 5, 1),
        "depthwise/bias": (5,),
        "head/kernel": (5, 1),
        "head/bias": None,
    }


def test_masks_of_followers_say_where_the_channels_were():
    model = block()
    found = named(model)
    kernels = [found["a/kernel"], found["b/kernel"]]
    coupling = Coupling(model)
    mask = np.ones((3, 3, 3, 5), bool)
    mask[..., [0, 3]] = False

    left = coupling.left({id(kernel): mask for kernel in kernels}, kernels)

    kept = [False, True, True, False, True]
    np.testing.assert_array_equal(
        coupling.mask(found["norm/beta"], (5,), False, left), kept
    )
    rows = coupling.mask(found["head/kernel"], (5, 1), False, left)
    np.testing.assert_array_equal(rows.reshape(-1), kept)


def test_what_only_one_of_two_kernels_has_lost_is_not_gone():
    model = block()
    found = named(model)
    kernels = [found["a/kernel"], found["b/kernel"]]
    coupling = Coupling(model)
    masks = {id(kernels[0]): np.zeros((3, 3, 3, 5), bool)}
    masks[id(kernels[1])] = np.ones((3, 3, 3, 5), bool)

    left = coupling.left(masks, kernels)

    assert coupling.mask(found["norm/beta"], (5,), False, left).all()


def test_without_its_partner_a_kernel_keeps_its_channels():
    model = block()
    found = named(model)
    coupling = Coupling(model)

    reasons = coupling.dense([found["a/kernel"]])

    expected = "its channels go together with those of 'b', which is not pruned"
    assert reasons == {id(found["a/kernel"]): expected}
    assert coupling.followers([found["a/kernel"]]) == {}
    assert coupling.ties([found["a/kernel"]])[id(found["a/kernel"])].stays.all()


@pytest.mark.parametrize(
    ("layer", "path", "shape"),
    [
        (layers.LSTM(4, name="made"), "lstm_cell/kernel", (3, 16)),
        (layers.GRU(4, name="made"), "gru_cell/recurrent_kernel", (4, 12)),
        (layers.SimpleRNN(4, name="made"), "simple_rnn_cell/kernel", (3, 4)),
        (layers.Conv1DTranspose(4, 2, name="made"), "kernel", (2, 4, 3)),
        (layers.SeparableConv1D(4, 2, name="made"), "pointwise_kernel", (1, 3, 4)),
        (layers.EinsumDense("bti,io->bto", (None, 4), name="made"), "kernel", (3, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_units_are_channels_wherever_the_kernel_has_them(layer, path, shape):
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, layers.Dense(2)(layer(inputs)))
    found = {path: v for path, v in named(model).items() if path.startswith("made/")}
    kernels = [v for v in found.values() if "kernel" in v.name and v.name[0] != "d"]
    kernel = found[f"made/{path}"]

    tie = Coupling(model).ties(kernels)[id(kernel)]

    assert tuple(kernel.shape) == shape
    np.testing.assert_array_equal(tie.units, range(4))
    assert not tie.stays.any()


def test_of_outputs_with_two_kinds_of_channels_the_inner_ones_are_the_units():
    inputs = keras.Input((5, 6))
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    model = keras.Model(inputs, layers.Dense(2)(attention(inputs, inputs)))
    parts = attention._query_dense, attention._key_dense, attention._value_dense
    query, key, value = (part.kernel for part in parts)
    coupling = Coupling(model)

    ties = coupling.ties([query, key, value])

    for tie in ties.values():
        np.testing.assert_array_equal(tie.units, [0, 1, 2, 0, 1, 2])
        assert not tie.stays.any()
    assert ties[id(query)] == ties[id(key)] != ties[id(value)]
    followers = coupling.followers([query, key, value])
    found = {path: followers.get(id(v)) for path, v in named(model).items()}
    assert {path: shape for path, shape in found.items() if shape} == {
        "attention/query/bias": (1, 3),
        "attention/key/bias": (1, 3),
        "attention/value/bias": (1, 3),
        "attention/attention_output/kernel": (1, 3, 1),
    }


def test_where_the_inner_channels_stay_the_outer_ones_are_the_units():
    inputs = keras.Input((5, 6))
    project = layers.EinsumDense("btc,chp->bthp", (None, 2, 3), name="project")
    x = layers.Softmax(axis=-1)(project(inputs))
    model = keras.Model(inputs, layers.EinsumDense("bthp,ho->btpo", (None, 3, 4))(x))

    tie = Coupling(model).ties([project.kernel])[id(project.kernel)]

    np.testing.assert_array_equal(tie.units, [0, 0, 0, 1, 1, 1])
    assert not tie.stays.any()


def test_kernels_of_unknown_layers_are_not_coupled():
    class Own(layers.Dense):
        def call(self, inputs):
            return super().call(inputs) * 2

    inputs = keras.Input((5,))
    own = Own(4)
    model = keras.Model(inputs, layers.Dense(2)(own(inputs)))
    coupling = Coupling(model)

    assert coupling.ties([own.kernel]) == {}
    assert coupling.dense([own.kernel]) == {}


def test_a_kernel_with_one_output_keeps_it():
    inputs = keras.Input((5,))
    one = layers.Dense(1, name="one")
    model = keras.Model(inputs, layers.Dense(2)(one(inputs)))

    reasons = Coupling(model).dense([one.kernel])

    assert reasons == {id(one.kernel): "it makes one channel, and can't be without"}
