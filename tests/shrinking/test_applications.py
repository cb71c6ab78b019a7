"""Models of keras.applications with zeroed channels, and without these channels.

One small model stands for all in the default run; `pytest -m applications` runs every
one. `python -m tests.make_applications_table` makes the README's table of the latter.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import applications

from kprune import registry
from kprune.channels.tracing import trace
from kprune.shrinking.changes import macs_without
from kprune.shrinking.choice import Chooser
from kprune.shrinking.groups import families_of
from kprune.shrinking.removal import without
from kprune.shrinking.why_not import stuck_in
from tests import make_applications_table
from tests.checks import computing_in
from tests.shrinking.applications import (
    FAMILIES,
    build,
    calibrate,
    images_for,
    zero,
)

# In float64 roundings hide nothing. Its grouped convolutions take minutes.
TYPES = {"ConvNeXt": "float32"}
TOLERANCES = {"float64": 1e-10, "float32": 1e-5}  # of the largest logit
# Why channels stay, apart from those of the logits.
REASONS = {"ConvNeXt": {"`statistics`: their mean and variance are taken"}}
CASES = [
    pytest.param(family, name, id=name)
    for family, names in FAMILIES.items()
    for name in names
]


def test_every_model_of_keras_is_listed():
    functions = inspect.getmembers(applications, inspect.isfunction)

    listed = [name for names in FAMILIES.values() for name in names]

    assert sorted(listed) == [name for name, _ in functions]


def test_a_row_of_the_readme_spans_its_family():
    noted = {
        "free": "0.9",
        "parameters": "0.27",
        "macs": "0.254",
        "difference": "1e-14",
    }
    noted |= {"dtype": "float64", "why_not": "the model returns them"}
    found = {name: noted for names in FAMILIES.values() for name in names}
    found["VGG19"] = {**noted, "parameters": "0.2951", "difference": "2.4e-13"}

    table = make_applications_table.table(found)

    row = "| VGG | 2 | 90.0 % | 27.0 to 29.5 % | 25.4 % | 2e-13 (float64) |"
    assert row in table
    assert table.count("\n") == len(FAMILIES) + 2


def test_a_small_model_without_channels_answers_as_one_with_zeros(request):
    check("MobileNetV3", "MobileNetV3Small", request.node, size=32)


@pytest.mark.applications
@pytest.mark.parametrize(("family", "name"), CASES)
def test_every_model_without_channels_answers_as_one_with_zeros(family, name, request):
    check(family, name, request.node)


def check(family, name, test, size=None):
    """Removes 30 % and 50 % of a model's channels, and notes what the README tells."""
    dtype = TYPES.get(family, "float64")
    keras.backend.clear_session()
    with computing_in(dtype):
        model = Model(name, size)
        differences = [model.difference(0.3), model.difference(0.5, model.check_force)]

    made, free = model.channels()
    texts = {f"`{r.kind}`: {r.text}" for stuck in model.stuck for r in stuck.reasons}
    noted = {
        "model": name,
        "free": free / made,
        "parameters": model.parameters_left,
        "macs": model.macs_left,
        "dtype": dtype,
        "difference": max(differences),
        "why_not": "; ".join(sorted(texts)),
    }
    test.user_properties.extend(noted.items())
    assert max(differences) < TOLERANCES[dtype]
    assert free > 0.7 * made
    assert texts == {"`output`: the model returns them"} | REASONS.get(family, set())


class Model:
    """A model and its channels, and what the last removal has left of it."""

    def __init__(self, name, size=None):
        self.model = build(name, size)
        self.images = images_for(self.model)
        self.tracing = trace(self.model)
        self.families = families_of(self.tracing)
        self.stuck = stuck_in(self.tracing, self.families)
        self.parameters_left = self.macs_left = None

    def channels(self):
        """Returns how many channels layers make, and how many of these may go."""
        pairs = [(a.line, f.groups) for f in self.families for a in f.axes]
        free = sum(np.isin(line, groups).sum() for line, groups in pairs)
        return sum(line.size for line, _ in pairs), int(free)

    def difference(self, fraction, look=None):
        """Removes channels at random from each family, and returns what it changed.

        The model is calibrated with zeros in their places, which stay: signals would
        die down in one that was calibrated with all its channels. Those that go at a
        fraction go at a larger one, too.

        Args:
            fraction: Float in (0, 1), of the channels of a family.
            look: Function of the logits of the model with zeros, called meanwhile.

        Returns:
            Float, the largest difference of any logit, by the largest logit.
        """
        removed = self.choose(fraction)
        zero(self.tracing, removed)
        calibrate(self.model, self.images)
        expected = self.logits(self.model)
        small = without(self.model, self.tracing, removed)
        self._count(small, removed)
        found = self.logits(small)
        del small
        if look:
            look(expected)
        assert expected.std(0).mean() > 0.5 * np.sqrt(np.square(expected).mean())
        return relative(found, expected)

    def choose(self, fraction, seed=0):
        """Chooses channels at random, a bool array by channel."""
        groups = self.tracing.channels.groups()
        scores = np.random.default_rng(seed).random(groups.max() + 1)
        families = [f for f in self.families if len(f.groups) > 1]
        scope = registry.get("scopes", "layer_wise")
        return np.isin(groups, Chooser(families, scores, scope)(fraction))

    def logits(self, model):
        """Returns what a model makes of the images."""
        return np.asarray(model(self.images, training=False))

    def _count(self, small, removed):
        before = macs_without(self.tracing, np.zeros_like(removed))
        self.macs_left = macs_without(self.tracing, removed) / before
        self.parameters_left = small.count_params() / self.model.count_params()

    def check_force(self, logits):
        """Checks that a wrong removal is seen: of other channels, of any family."""
        other = without(self.model, self.tracing, self.choose(0.5, seed=1))
        assert relative(self.logits(other), logits) > 0.1
        del other
        for name, effect in self._effects().items():
            assert effect > 1e-6 * np.abs(logits).max(), name

    def _effects(self):
        """Returns by how much the channels of each family that are left are felt.

        That is how a sum of the logits, with signs at random, changes to first order
        if the slice of a weight that makes one of the channels is left out: of the
        largest change, by family.
        """
        made = [(f.name, axis) for f in self.families for axis in f.axes]
        with tf.GradientTape() as tape:
            logits = self.model(self.images[:2], training=False)
            signs = np.random.default_rng(0).choice([-1, 1], logits.shape)
            total = tf.reduce_sum(logits * signs.astype(logits.dtype.name))
        variables = [axis.weight.variable for _, axis in made]
        found = {}
        gradients = tape.gradient(total, variables)
        for (name, axis), gradient in zip(made, gradients, strict=True):
            array = np.asarray(axis.weight.variable) * np.asarray(gradient)
            others = tuple(a for a in range(array.ndim) if a != axis.axis)
            effect = np.abs(array.sum(others)).max()
            found[name] = max(found.get(name, 0), effect)
        return found


def relative(found, expected):
    """Returns the largest difference, by the largest expected number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())
