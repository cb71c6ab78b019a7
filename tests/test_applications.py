"""Families of keras.applications are pruned, trained and stripped.

The one with most kinds of layers stands for all in the default run;
`pytest -m applications` runs every one.
"""

import functools

import keras
import numpy as np
import pytest
from keras import applications

import kprune
from tests.checks import assert_equal, assert_plain, entries, zeros_of

# The smallest variant of each family, and the smallest input it takes.
FAMILIES = {
    "MobileNet": (functools.partial(applications.MobileNet, alpha=0.25), 32),
    "VGG16": (applications.VGG16, 32),
    "MobileNetV3": (functools.partial(applications.MobileNetV3Small, alpha=1.0), 32),
    "ConvNeXt": (applications.ConvNeXtTiny, 32),
    "DenseNet": (applications.DenseNet121, 32),
    "EfficientNet": (applications.EfficientNetB0, 32),
    "EfficientNetV2": (applications.EfficientNetV2B0, 32),
    "InceptionResNetV2": (applications.InceptionResNetV2, 75),
    "InceptionV3": (applications.InceptionV3, 75),
    "MobileNetV2": (functools.partial(applications.MobileNetV2, alpha=0.35), 32),
    "NASNet": (applications.NASNetMobile, 32),
    "ResNet": (applications.ResNet50, 32),
    "ResNetV2": (applications.ResNet50V2, 32),
    "VGG19": (applications.VGG19, 32),
    "Xception": (applications.Xception, 71),
}


def test_small_family_is_wrapped_trained_and_stripped():
    check_family(*FAMILIES["MobileNetV3"])


@pytest.mark.applications
@pytest.mark.parametrize(("build", "size"), FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_is_wrapped_trained_and_stripped(build, size):
    check_family(build, size)


def check_family(build, size):
    body = build(
        weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg"
    )
    model = keras.Sequential([body, keras.layers.Dense(5, name="head")])
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (4, size, size, 3)).astype("float32")
    y = rng.normal(size=(4, 5)).astype("float32")
    expected = np.array(model(x))

    pruned = kprune.prune(model)

    assert_equal(pruned(x), expected)
    kernels = [
        w.variable
        for w in kprune.prunable.find_weights(model)
        if len(w.variable.shape) > 1 and w.reason == ""
    ]
    assert len(entries(pruned)) == len(kernels) > 10

    pruned.compile("sgd", "mse", run_eagerly=True)  # one step: tracing takes longer
    pruned.fit(
        x,
        y,
        batch_size=4,
        verbose=0,
        callbacks=[kprune.PruningCallback(kprune.ConstantSchedule(0.5))],
    )

    for entry in entries(pruned):
        mask, weight = np.array(entry.mask), np.array(entry.variable)
        assert mask.size - mask.sum() == zeros_of(mask.size, 0.5), entry.path
        assert not weight[~mask].any(), entry.path
    stripped = kprune.strip(pruned)
    assert_plain(stripped)
    assert_equal(stripped(x), pruned(x))
