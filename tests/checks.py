"""What tests of models ask of them: what is masked, what they hold, what they share."""

import contextlib

import keras
import numpy as np

import kprune
from kprune import whole_model


@contextlib.contextmanager
def computing_in(dtype):
    """Lets new models compute in a type of number for a while."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    try:
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def zeros_of(size, sparsity):
    """Returns how many zeros the sparsity asks of a weight of that size."""
    return min(int(np.floor(sparsity * size + 0.5)), size - 1)


def pruned_at_once(model, sparsity=0.5, **kwargs):
    """Makes the pruned copy of a model, at its target without training."""
    pruned = kprune.prune(model, **kwargs)
    kprune.Pruner(pruned, kprune.ConstantSchedule(sparsity)).step()
    return pruned


def entries(model):
    """Lists all masked weights of a model."""
    return whole_model.masked_weights(model)


def values(model):
    """Returns copies of all weights of a model."""
    return [np.array(v) for v in model.variables]


def assert_equal(actual, expected):
    """Compares two structures of arrays bit for bit."""
    keras.tree.assert_same_structure(actual, expected)
    pairs = zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def assert_plain(model):
    """Checks that nothing of kprune is left in a model."""
    for layer in model._flatten_layers():
        assert not type(layer).__module__.startswith("kprune."), layer
        assert not any(name.startswith("kprune") for name in vars(layer)), layer
    for variable in model.variables:
        constraint = getattr(variable, "constraint", None)
        assert not type(constraint).__module__.startswith("kprune."), variable.path


def assert_shares_nothing(first, second):
    """Checks that two models have no layer and no variable in common."""
    layers_of_both = [list(m._flatten_layers()) for m in (first, second)]
    for ours, theirs in (layers_of_both, [first.variables, second.variables]):
        assert not {id(x) for x in ours} & {id(x) for x in theirs}
