import keras
import pytest
from keras import layers

import kprune
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


def two_blocks():
    """Makes a model of two blocks with a layer `wide` each, and one beside them."""
    blocks = [
        keras.Sequential(
            [keras.Input((4,)), layers.Dense(8, name="wide"), layers.Dense(4)],
            name=name,
        )
        for name in ("block_1", "block_2")
    ]
    beside = layers.Dense(8, name="block_1_wide")
    return keras.Sequential([keras.Input((4,)), *blocks, beside, layers.Dense(2)])


def widths(model):
    """Returns the units of the layers called `wide`, and of the one beside."""
    first, second, beside, _ = model.layers
    inner = [block.get_layer("wide").units for block in (first, second)]
    return [*inner, beside.units]


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"only": "block_1/wide"}, [4, 8, 8]),
        ({"only": "*/wide"}, [4, 4, 8]),
        ({"only": "wide"}, [4, 4, 8]),
        ({"only": "*_1*wide"}, [8, 8, 4]),  # no slash: no layers within others
        ({"skip": "block_2/*"}, [4, 8, 4]),
        ({"skip": ["block_1/wide", "block_1_wide"]}, [8, 4, 8]),
    ],
)
def test_a_layer_within_models_goes_by_its_full_name_too(kwargs, expected):
    model = two_blocks()

    small = kprune.shrink(model, sparsity=0.5, **kwargs)

    assert widths(small) == expected


def test_full_names_choose_the_layers_that_are_masked():
    pruned = kprune.prune(two_blocks(), only="block_2/wide")

    first, second = (pruned.get_layer(f"block_{n}").get_layer("wide") for n in (1, 2))
    assert list(second.masks) == ["kernel"]
    assert not hasattr(first, "masks")


def test_a_full_name_that_no_layer_has_is_named_with_those_that_there_are():
    with pytest.raises(ValueError, match="'block_1/wid', which .* 'block_1/wide'"):
        kprune.shrink(two_blocks(), sparsity=0.5, skip="block_1/wid")
