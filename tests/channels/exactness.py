"""Whether removal is exact: a model with zeroed channels against one without them."""

import contextlib

import keras
import numpy as np

from kprune.channels.tracing import trace
from kprune.shrinking.removal import without
from tests.checks import assert_equal

TOLERANCE = 1e-5  # of the largest output


def randomised(model, seed=0):
    """Gives random values to all that starts at zeros or ones, and returns the model.

    Zeros hide a wrong removal: biases, scales, offsets, means and variances.
    """
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if "float" not in str(variable.dtype):
            continue
        array = np.asarray(variable)
        if "variance" in variable.name:
            variable.assign(generator.uniform(0.5, 2, array.shape))
        elif array.ndim < 2 or array.std() == 0:
            variable.assign(generator.normal(0.3, 0.5, array.shape))
    for layer in model._flatten_layers():
        if hasattr(layer, "finalize_state"):  # keeps values derived from weights
            layer.finalize_state()
    return model


def free_groups(tracing):
    """Lists the numbers of the groups that may go."""
    groups = np.unique(tracing.channels.groups()[1:])
    return np.setdiff1d(groups, list(tracing.channels.reasons()))


def choose(tracing, fraction, seed=0):
    """Chooses channels at random: at most a fraction of any axis of anything.

    Args:
        tracing: `Tracing` of the model.
        fraction: Float in (0, 1).
        seed: Int.

    Returns:
        Bool array, by channel: those that go.
    """
    groups = tracing.channels.groups()
    quota, places = [], {}
    for line in _lines(tracing):
        numbers, counts = np.unique(groups[line], return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            places.setdefault(number, []).append((len(quota), count))
        quota.append(min(max(1, int(line.size * fraction)), line.size - 1))
    chosen = []
    for group in np.random.default_rng(seed).permutation(free_groups(tracing)):
        found = places.get(int(group), [])
        if found and all(count <= quota[line] for line, count in found):
            chosen.append(group)
            for line, count in found:
                quota[line] -= count
    removed = np.isin(groups, chosen)
    removed[0] = False
    return removed


def _lines(tracing):
    """Lists the channels of each axis of all tensors and weights, once each."""
    found = [*tracing.values.values(), *(w.value for w in tracing.weights.values())]
    lines = [array.ravel() for value in found for array in value.maps]
    return {line.tobytes(): line for line in lines}.values()


def remove(model, fraction=0.5, seed=0, exact=True):
    """Makes a model without some channels; see `choose`.

    Returns:
        Tuple of the model and the bool array of the channels that are gone. They are
        numbered as in `trace(model, exact)`.
    """
    tracing = trace(model, exact)
    removed = choose(tracing, fraction, seed)
    return without(model, tracing, removed), removed


@contextlib.contextmanager
def zeroed(model, tracing, removed, only_made=False):
    """Zeroes all that makes or takes some channels for a while.

    Args:
        model: The model that was traced.
        tracing: Its `Tracing`.
        removed: Bool array, by channel.
        only_made: Bool, whether weights that take them are left as they are.
    """
    saved = []
    try:
        for weight in tracing.weights.values():
            variable, array = weight.variable, np.array(weight.variable)
            if "variance" in variable.name:
                continue
            saved.append((variable, array))
            makes = {axis % array.ndim for axis in weight.makes}
            for axis, kept in weight.value.kept(removed).items():
                if only_made and axis not in makes:
                    continue
                shape = [-1 if a == axis else 1 for a in range(array.ndim)]
                array = array * kept.reshape(shape).astype(array.dtype)
            variable.assign(array)
        yield model
    finally:
        for variable, array in saved:
            variable.assign(array)


def random_inputs(model, seed=0, size=3, open_size=8):
    """Draws a batch for each input; whole numbers lie in [0, 5)."""
    generator = np.random.default_rng(seed)
    drawn = []
    for tensor in model.inputs:
        shape = (tensor.shape[0] or size, *(s or open_size for s in tensor.shape[1:]))
        if tensor.dtype == "bool":
            array = generator.random(shape) < 0.7
        elif "int" in tensor.dtype:
            array = generator.integers(0, 5, shape)
        else:
            array = generator.normal(size=shape)
        drawn.append(array.astype(tensor.dtype))
    return drawn


def outputs_of(model, inputs):
    """Lists the outputs of a model for a list of inputs, as arrays."""
    inputs = keras.tree.pack_sequence_as(model.input, inputs)
    return [np.asarray(x) for x in keras.tree.flatten(model(inputs, training=False))]


def assert_exact(model, small, tracing, removed, inputs=None, tolerance=TOLERANCE):
    """Checks that zeroed channels and removed ones make the same outputs.

    Args:
        model: The model as it was.
        small: The one without the channels.
        tracing: `Tracing` of `model`.
        removed: Bool array, by channel: those that are gone.
        inputs: List of arrays. Defaults to random ones.
        tolerance: Float, of the largest output. Defaults to 1e-5.
    """
    inputs = random_inputs(model) if inputs is None else inputs
    with zeroed(model, tracing, removed):
        expected = outputs_of(model, inputs)
    actual = outputs_of(small, inputs)
    assert [a.shape for a in actual] == [e.shape for e in expected]
    for ours, theirs in zip(actual, expected, strict=True):
        largest = np.abs(theirs).max()
        assert largest > 0, "The outputs are zero: they can't tell what is right."
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


def assert_saved(model, folder):
    """Checks that a model answers alike from a file, and returns the loaded one."""
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    inputs = random_inputs(model)
    assert_equal(outputs_of(loaded, inputs), outputs_of(model, inputs))
    return loaded
