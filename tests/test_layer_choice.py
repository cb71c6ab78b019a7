import keras
from keras import layers

from kprune.layer_choice import Selection


def test_exact_name_that_reads_as_a_pattern_is_a_name():
    selection = Selection(only="d[1]", skip="head*")
    named = layers.Dense(2, name="d[1]")

    assert selection.selects([named])
    assert not selection.selects([layers.Dense(2, name="head*")])
    Selection(only="d[1]").check(keras.Sequential([keras.Input((3,)), named]))


def test_selection_looks_at_the_layers_around():
    body = keras.Sequential([layers.Dense(2, name="a")], name="body")
    dense = body.layers[0]

    assert Selection(only="body").selects([body, dense])
    assert Selection(only="bod?").selects([body, dense])
    assert not Selection(skip=keras.Sequential).selects([body, dense])
    assert not Selection(only="a", skip="body").selects([body, dense])
    assert Selection(only=[layers.Conv2D, lambda x: x is dense]).selects([body, dense])
