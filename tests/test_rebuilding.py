import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune.copier import CannotCopyError
from kprune.rebuilding import rebuilt, unchanged
from tests.checks import assert_equal, assert_shares_nothing, values
from tests.layer_cases import normal


def test_copy_has_names_weights_and_inputs_and_shares_nothing():
    a = keras.Input((6,), name="a")
    b = keras.Input((6,), name="b", dtype="float64")
    x = layers.Add(name="add")([layers.Dense(4, name="d")(a), layers.Dense(4)(b)])
    model = keras.Model({"a": a, "b": b}, [x, keras.ops.sum(x, -1)], name="net")
    before = values(model)

    new = rebuilt(model)

    assert new.name == "net"
    assert [layer.name for layer in new.layers] == [x.name for x in model.layers]
    assert {k: (t.name, t.dtype) for k, t in new.input.items()} == {
        "a": ("a", "float32"),
        "b": ("b", "float64"),
    }
    assert_shares_nothing(new, model)
    x = {"a": normal(6)(4), "b": normal(6)(4)}
    assert_equal(new(x), model(x))
    assert_equal(values(model), before)


def test_copy_of_a_graph_keeps_sharing():
    dense = layers.Dense(4)
    inputs = keras.Input((4,))

    new = rebuilt(keras.Model(inputs, dense(dense(inputs))))

    assert len(new.trainable_variables) == 2


def tied(read, nested=False):
    """Makes a model whose output is a function of hidden units and their table."""
    inputs = keras.Input((5,), dtype="int32")
    embedding = layers.Embedding(11, 8, name="table")
    body = embedding
    if nested:
        tokens = keras.Input((5,), dtype="int32")
        body = keras.Model(tokens, embedding(tokens), name="body")
    x = layers.Dense(6)(body(inputs))
    x = layers.Dense(8, name="last")(x)
    return keras.Model(inputs, read(x, embedding.embeddings))


READ = {
    "positional": lambda x, table: ops.einsum("btd,vd->btv", x, table),
    "in a list": lambda x, table: x + ops.max(ops.concatenate([x[0], table], 0), 0),
    "named": lambda x, table: x + ops.take(table, ops.argmax(x, -1), axis=0),
    "of a layer": lambda x, table: x + ops.max(_joined([x[0], table]), 0),
}


def _joined(rows):
    return layers.Concatenate(axis=0)(rows)


TOKENS = np.random.default_rng(0).integers(0, 11, (3, 5))


@pytest.mark.parametrize("make", [rebuilt, kprune.prune], ids=["rebuilt", "pruned"])
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_calls_take_the_variables_of_the_new_layers(read, nested, make):
    model = tied(read, nested)
    expected = np.asarray(model(TOKENS))

    new = make(model)
    table = next(v for v in model.weights if v.name == "embeddings")
    table.assign(ops.zeros_like(table))
    without_table = np.asarray(model(TOKENS))
    assert_equal(np.asarray(new(TOKENS)), expected)
    own = next(v for v in new.weights if v.name == "embeddings")
    own.assign(ops.zeros_like(own))

    assert_equal(np.asarray(new(TOKENS)), without_table)


def test_a_variable_may_be_read_before_the_layer_that_it_belongs_to():
    later = layers.Dense(4, name="later")
    later.build((None, 4))
    inputs = keras.Input((4,))
    early = ops.matmul(inputs, later.kernel)
    model = keras.Model(inputs, [early, later(ops.tanh(ops.exp(inputs)))])

    new = rebuilt(model)

    assert_equal(new(np.eye(4)), model(np.eye(4)))
    later.kernel.assign(ops.zeros((4, 4)))
    assert np.any(new(np.eye(4))[0])


def test_a_variable_that_belongs_to_no_layer_stays_as_it_is():
    free = keras.Variable([1.0, 2.0])
    inputs = keras.Input((2,))
    new = rebuilt(keras.Model(inputs, layers.Dense(2)(inputs) * 0.0 + free))

    free.assign([3.0, 4.0])

    assert_equal(np.asarray(new(np.ones((1, 2)))), np.array([[3, 4]], "float32"))


def test_a_variable_that_the_stand_in_lacks_is_an_error():
    def another(layer, parents, copier):
        if layer.name == "table":
            return layers.ReversibleEmbedding(11, 8, tie_weights=False), lambda: None
        return unchanged(layer, parents, copier)

    with pytest.raises(CannotCopyError, match="'table' goes straight into another"):
        rebuilt(tied(READ["positional"]), another)
