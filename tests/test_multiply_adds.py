import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune.layer_graph import read_graph
from kprune.multiply_adds import Work, works
from kprune.registry import keys
from tests.flops import profiled_macs


def macs(model):
    return [work and work.macs() for work in works(read_graph(model))]


def around(layer, *shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


PROFILED = {
    "Conv1D": (layers.Conv1D(4, 3, padding="causal"), (9, 3)),
    "Conv2D": (layers.Conv2D(4, (3, 5), strides=2, padding="same"), (9, 8, 3)),
    "Conv3D": (layers.Conv3D(4, 2, strides=2), (5, 6, 7, 3)),
    "Conv1DTranspose": (layers.Conv1DTranspose(4, 3, padding="same"), (9, 3)),
    "Conv2DTranspose": (
        layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
        (4, 6, 3),
    ),
    "DepthwiseConv1D": (layers.DepthwiseConv1D(3, depth_multiplier=2), (9, 3)),
    "DepthwiseConv2D": (layers.DepthwiseConv2D(3, strides=2), (9, 9, 4)),
    "SeparableConv1D": (layers.SeparableConv1D(7, 3, depth_multiplier=2), (9, 3)),
    "SeparableConv2D": (layers.SeparableConv2D(7, 3, strides=2), (9, 9, 4)),
    "Dense": (layers.Dense(4), (5, 6, 3)),
    "EinsumDense": (layers.EinsumDense("abc,cde->abde", (5, 4, 6)), (5, 3)),
    "SimpleRNN": (layers.SimpleRNN(4, unroll=True), (5, 3)),
    "GRU": (layers.GRU(4, unroll=True, return_sequences=True), (5, 3)),
    "LSTM": (layers.LSTM(4, unroll=True, go_backwards=True), (5, 3)),
    "RNN": (
        layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], unroll=True),
        (5, 2),
    ),
    "Bidirectional": (layers.Bidirectional(layers.LSTM(4, unroll=True)), (5, 3)),
    "TimeDistributed": (layers.TimeDistributed(layers.Conv2D(4, 3)), (5, 6, 6, 3)),
}


@pytest.mark.parametrize(("layer", "shape"), PROFILED.values(), ids=PROFILED)
def test_counts_are_those_of_the_profiler_of_tensorflow(layer, shape):
    model = around(layer, *shape)

    (found,) = macs(model)

    assert found == profiled_macs(model) > 0


def matmul(x):
    return ops.matmul(x, ops.transpose(x, (0, 2, 1)))


def dot(x):
    return layers.Dot(axes=(1, -2))([x, x])


def attention(x):
    return layers.Attention()([x, x])


@pytest.mark.parametrize("function", [matmul, dot, attention])
def test_products_of_activations_are_those_of_the_profiler(function):
    model = around(function, 5, 6)

    assert sum(macs(model)) == profiled_macs(model) > 0


# Counted by hand: what the profiler does not know.
COUNTED = {
    # 2 groups, each of 3 x 3 places, 2 inputs and 3 outputs, at 4 x 4 places.
    "grouped": (layers.Conv2D(6, 3, groups=2), (6, 6, 4), 16 * 2 * 9 * 2 * 3),
    # A kernel of 3 x 3 x 3 x 2 x 5 at each of 2 x 2 x 2 places that come in.
    "Conv3DTranspose": (
        layers.Conv3DTranspose(5, 3, strides=2),
        (2, 2, 2, 2),
        8 * 27 * 2 * 5,
    ),
    # 4 steps, 4 gates of 3 filters, 5 x 5 places left of 7 x 7.
    "ConvLSTM2D": (
        layers.ConvLSTM2D(3, 3),
        (4, 7, 7, 2),
        4 * 25 * 9 * (2 + 3) * 12,
    ),
    "LSTM in a loop": (layers.LSTM(3), (7, 5), 7 * (5 * 12 + 3 * 12)),
    "rows of an embedding": (layers.Embedding(100, 8), (7,), 0),
    "BatchNormalization": (layers.BatchNormalization(), (7, 7, 3), 0),
    "ellipsis": (layers.EinsumDense("...x,xy->...y", 6), (4, 3), 4 * 3 * 6),
    # Each of 3 channels has a matrix of its own.
    "batched einsum": (layers.EinsumDense("abc,cd->acd", (3, 4)), (5, 3), 5 * 3 * 4),
    "nothing to multiply": (layers.Rescaling(2.0), (5,), 0),
}


@pytest.mark.parametrize(("layer", "shape", "expected"), COUNTED.values(), ids=COUNTED)
def test_counts_are_those_made_by_hand(layer, shape, expected):
    assert macs(around(layer, *shape)) == [expected]


def test_attention_counts_four_projections_and_two_products():
    query, value, key = keras.Input((5, 6)), keras.Input((7, 8)), keras.Input((7, 9))
    layer = layers.MultiHeadAttention(2, 3, value_dim=4, use_gate=True)

    (found,) = works(
        read_graph(keras.Model([query, value, key], layer(query, value, key=key)))
    )

    projections = 5 * 6 * 6 + 7 * 9 * 6 + 7 * 8 * 8 + 5 * 8 * 6
    gate = 5 * 6 * 8
    assert found.products == 2 * 5 * 7 * 3 + 2 * 5 * 7 * 4
    assert found.macs() == projections + gate + found.products


def test_attention_along_some_axes_compares_only_these():
    image = keras.Input((4, 5, 6))
    layer = layers.MultiHeadAttention(2, 3, attention_axes=(2,))

    (found,) = works(read_graph(keras.Model(image, layer(image, image))))

    # In each of 4 rows, 5 places with 5 places.
    assert found.products == 4 * 5 * 5 * 2 * (3 + 3)


def test_heads_that_share_keys_compare_as_often_as_there_are_queries():
    inputs = keras.Input((5, 6))
    layer = layers.GroupQueryAttention(3, 4, 2)

    (found,) = works(read_graph(keras.Model(inputs, layer(inputs, inputs))))

    projections = 5 * 6 * (4 * 3 + 2 * 3 + 2 * 3) + 5 * 12 * 6
    assert found.products == 4 * 5 * 5 * (3 + 3)
    assert found.macs() == projections + found.products


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Attention(score_mode="concat"), 5 * 7 * 6),
        (layers.AdditiveAttention(), 5 * 7 * (6 + 6)),
        (layers.AdditiveAttention(use_scale=False), 5 * 7 * 6),
    ],
    ids=["concat", "additive", "no scale"],
)
def test_scores_that_are_sums_are_no_products(layer, expected):
    query, value = keras.Input((5, 6)), keras.Input((7, 6))

    assert macs(keras.Model([query, value], layer([query, value]))) == [expected]


def test_products_of_operations_are_counted():
    a, b = keras.Input((2, 5, 3)), keras.Input((2, 3, 7))
    kernel = np.ones((3, 3, 2, 4), "float32")
    image = keras.Input((6, 6, 2))
    heads = keras.Input((5, 2, 3))
    made = [
        ops.einsum("bhij,bhjk->bhik", a, b),
        a @ b,
        ops.conv(image, kernel),
        ops.depthwise_conv(image, kernel),
        ops.dot_product_attention(heads, heads, heads),
        ops.matmul(a, np.ones((3, 11), "float32")),
        ops.einsum("bhij->bhji", a),
        ops.einsum("bhij,bhjk,bhlk->bhil", a, b, b),
    ]

    found = [
        work.macs() if work else None
        for work in works(read_graph(keras.Model([a, b, image, heads], made)))
    ]

    assert sorted(found, key=str) == sorted(
        [
            2 * 5 * 3 * 7,
            2 * 5 * 3 * 7,
            16 * 9 * 2 * 4,
            16 * 9 * 2 * 4,
            5 * 5 * 2 * (3 + 3),
            2 * 5 * 3 * 11,
            0,
            None,  # it depends on which two go first
        ],
        key=str,
    )


def test_a_table_is_a_kernel_where_it_is_used_the_other_way_round():
    table = layers.ReversibleEmbedding(11, 4)
    inputs = keras.Input((5,), dtype="int32")

    model = keras.Model(inputs, table(table(inputs), reverse=True))

    assert macs(model) == [0, 5 * 4 * 11]


def windows(x):
    x = ops.reshape(x, (-1, 2, 4, 2, 4, 3))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, 16, 3))


def test_rows_that_were_moved_into_the_batch_are_counted():
    inputs = keras.Input((8, 8, 3))
    x = layers.Dense(5)(windows(inputs))  # on 4 windows of 16 places
    x = ops.reshape(x, (-1, 64, 5))
    model = keras.Model(inputs, layers.Dense(2)(x))

    found = macs(model)

    assert [n for n in found if n] == [64 * 3 * 5, 64 * 5 * 2]


def two_views(x):
    return ops.concatenate([x, ops.flip(x, axis=1)], axis=0)


def halves(x):
    left, right = ops.split(layers.Dense(5)(two_views(x)), 2, axis=0)
    return layers.Dense(2)(left + right)


VIEW = 4 * 6 * 5  # of a Dense from 6 to 5, at 4 places


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda x: layers.Dense(5)(two_views(x)), [2 * VIEW]),
        (lambda x: layers.Dense(5)(layers.Concatenate(axis=0)([x] * 3)), [3 * VIEW]),
        (lambda x: layers.Dense(5)(ops.vstack([x, x, x])), [3 * VIEW]),
        (lambda x: layers.Dense(5)(ops.repeat(x, 3, axis=0)), [3 * VIEW]),
        (lambda x: layers.Dense(5)(ops.tile(x, (4, 1, 1))), [4 * VIEW]),
        (lambda x: layers.Dense(5)(ops.repeat(x, 3, axis=1)), [3 * VIEW]),
        (lambda x: layers.Dense(5)(ops.concatenate([x, x], axis=1)), [2 * VIEW]),
        (lambda x: layers.Dense(5)(ops.concatenate([two_views(x), x], 0)), [3 * VIEW]),
        # The batch comes second, behind what are no examples.
        (lambda x: layers.Dense(5)(ops.stack([x, x], axis=0)), [None]),
        # So many examples more, however many there are; every other example.
        (
            lambda x: layers.Dense(5)(ops.pad(x, ((1, 1), (0, 0), (0, 0)))),
            [None],
        ),
        (lambda x: layers.Dense(5)(ops.concatenate([x, x[:1, :]], axis=0)), [None]),
        (lambda x: layers.Dense(5)(x[::2, :]), [None]),
        (lambda x: layers.Dense(5)(x[:, 0]), [6 * 5]),
        (lambda x: layers.Dense(5)(ops.split(x, 7, axis=0)[0]), [None]),
        # Both views, and again one: a Dense from 5 to 2 at 4 places.
        (halves, [2 * VIEW, 4 * 5 * 2]),
    ],
)
def test_what_is_put_beside_a_batch_counts(body, expected):
    inputs = keras.Input((4, 6))
    graph = read_graph(keras.Model(inputs, body(inputs)))

    found = [
        work and work.macs()
        for call, work in zip(graph.calls, works(graph), strict=True)
        if isinstance(call.operation, layers.Dense)
    ]

    assert found == expected


def test_a_batch_of_given_size_counts_for_one_example():
    inputs = keras.Input(batch_shape=(4, 6, 3))
    model = keras.Model(inputs, layers.LSTM(2)(layers.Dense(5)(inputs)))

    assert macs(model) == [6 * 3 * 5, 6 * (5 * 8 + 2 * 8)]


def test_each_call_of_a_shared_layer_is_counted():
    inner = keras.Sequential([keras.Input((5, 3)), layers.Dense(3)])
    inputs = keras.Input((5, 3))

    assert macs(keras.Model(inputs, inner(inner(inputs)))) == [45, 45]


class Own(layers.Dense):
    """Calls its kernel twice."""

    def call(self, inputs):
        return super().call(super().call(inputs))


class Doubled(layers.Conv1D):
    """Applies its kernel twice, in a hook that its `call` calls."""

    def convolution_op(self, inputs, kernel):
        once = super().convolution_op(inputs, kernel)
        return once + super().convolution_op(-inputs, kernel)


class MixingCell(layers.LSTMCell):
    """Multiplies its output by a part of its recurrent kernel once more."""

    def _compute_carry_and_output_fused(self, z, c_tm1):
        carry, output = super()._compute_carry_and_output_fused(z, c_tm1)
        return carry, output @ self.recurrent_kernel[:, : self.units]


class Normed(layers.Dense):
    """Multiplies by a kernel that is computed from its weights."""

    @property
    def kernel(self):
        return self._kernel @ ops.transpose(self._kernel) @ self._kernel


class Same(layers.Dense):
    """Is a Dense of another name."""


def quantized(x):
    layer = layers.Dense(4)
    made = layer(x)
    layer.quantize("int8")
    return made


def adapted(x):
    layer = layers.Dense(4)
    made = layer(x)
    layer.enable_lora(2)
    return made


UNKNOWN = {
    "code of its own": Own(4),
    "hook of its own": Doubled(4, 2),
    "cell with a hook of its own": layers.RNN(MixingCell(3)),
    "kernel of its own": Normed(4),
    "function": layers.Lambda(lambda x: x @ x, output_shape=(4, 4)),
    "loop": lambda x: ops.vectorized_map(lambda y: y @ y, x),
    "quantized": quantized,
    "adapted": adapted,
    "spectral": layers.SpectralNormalization(layers.Dense(3)),
    "model in a wrapper": layers.TimeDistributed(
        keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    ),
}


@pytest.mark.parametrize("layer", UNKNOWN.values(), ids=UNKNOWN)
def test_what_can_not_be_read_is_not_known(layer):
    assert macs(around(layer, 4, 4)) == [None]


def test_open_sizes_are_not_known_until_they_are_pooled():
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))

    assert macs(model) == [None, 0, 4 * 2]


class Named(layers.Dense):
    """Differs in its constructor, its config and what its code does not call."""

    def __init__(self, units, label="none", **kwargs):
        super().__init__(units, **kwargs)
        self.label = label

    def get_config(self):
        return {**super().get_config(), "label": self.label}

    def described(self):
        return self.label


@pytest.mark.parametrize("kind", [Same, Named])
def test_a_subclass_with_the_same_code_counts_like_its_base(kind):
    assert macs(around(kind(5), 4)) == [20]


def test_a_pruned_layer_counts_like_the_layer_in_it():
    model = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4), layers.Dense(2)])

    assert macs(kprune.prune(model)) == macs(model) == [5 * 7 * 16, 8]


def test_shapes_can_be_given_for_a_model_that_is_not_there():
    first, second = layers.Dense(8), layers.Conv1D(6, 3)
    model = keras.Sequential([keras.Input((5, 3)), first, second])
    narrow = keras.Sequential(
        [keras.Input((5, 3)), layers.Dense(4), layers.Conv1D(2, 3)]
    )
    widths = {id(first.kernel): (3, 4), id(second.kernel): (3, 4, 2)}

    found = works(read_graph(model), None, lambda v: widths[id(v)])

    assert [w.macs(lambda v: widths[id(v)]) for w in found] == macs(narrow)


def test_rules_count_for_types_that_have_work():
    """Each registered layer type stands in one of the tables above."""
    counted = {type(layer) for layer, *_ in (*PROFILED.values(), *COUNTED.values())}
    counted |= {layers.MultiHeadAttention, layers.GroupQueryAttention, layers.Dot}
    counted |= {layers.Attention, layers.AdditiveAttention, layers.ReversibleEmbedding}
    types = {kind for kind in keys("multiply_adds") if issubclass(kind, layers.Layer)}

    left = {kind.__name__ for kind in types - counted}

    assert left - {"Mixing"} == {
        "ConvLSTM1D",
        "ConvLSTM3D",
        "ConvLSTMCell",
        "GRUCell",
        "LSTMCell",
        "SimpleRNNCell",
        "StackedRNNCells",
    }


def test_works_add_up():
    assert (Work((), 3) + Work((), 4)).macs() == 7
