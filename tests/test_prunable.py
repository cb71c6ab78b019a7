import keras
import pytest
from keras import layers

import kprune
from kprune import registry
from kprune.layer_choice import Selection
from kprune.prunable import find_weights
from tests.checks import entries, pruned_at_once
from tests.layer_cases import normal


def reasons(root, **kwargs):
    return {w.path: w.reason for w in find_weights(root, **kwargs)}


def built(layer, shape):
    layer.build(shape)
    return layer


def test_kernels_are_prunable_and_the_rest_has_reasons():
    attention = layers.MultiHeadAttention(2, 3)
    attention.build((None, 5, 4), (None, 5, 4))

    found = reasons(attention)

    assert {path for path, reason in found.items() if not reason} == {
        f"{part}_dense/kernel" for part in ("query", "key", "value", "output")
    }
    # The biases of attention have rank 2, and are none the less biases.
    assert found["query_dense/bias"] == "a bias"
    assert attention.query_dense.bias.ndim == 2


@pytest.mark.parametrize(
    ("layer", "path", "reason"),
    [
        (layers.BatchNormalization(), "moving_mean", "not a trainable weight"),
        (layers.BatchNormalization(), "gamma", "the rule for BatchNormalization"),
        (layers.Dense(3), "bias", "a bias"),
        (layers.DepthwiseConv1D(3), "kernel", "a depthwise kernel; name its layer"),
        (layers.SeparableConv1D(2, 3), "depthwise_kernel", "the rule for Separable"),
        (layers.SeparableConv1D(2, 3), "pointwise_kernel", ""),
    ],
)
def test_reason_of_each_weight(layer, path, reason):
    found = reasons(built(layer, (None, 6, 4)))[path]

    assert found.startswith(reason)
    assert bool(found) is bool(reason)


def test_integers_and_vectors_are_no_kernels():
    class Counting(layers.Layer):
        def build(self, input_shape):
            self.table = self.add_weight(shape=(3, 3), dtype="int32", name="table")
            self.scale = self.add_weight(shape=(4,), name="scale")

        def call(self, inputs):
            return inputs * self.scale

    found = reasons(built(Counting(), (None, 4)))

    assert found["table"] == "holds int32, no floating-point numbers"
    assert found["scale"] == "a vector, no kernel"


# What a custom layer says of itself


class Twofold(layers.Layer):
    def build(self, input_shape):
        self.a = self.add_weight(shape=(input_shape[-1], 4), name="a")
        self.b = self.add_weight(shape=(4,), name="b")

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.a) * self.b


@pytest.fixture
def rule_for_twofold(monkeypatch):
    """Registers a rule and forgets it after the test."""
    families = {name: dict(entries) for name, entries in registry._families.items()}
    monkeypatch.setattr(registry, "_families", families)
    kprune.register("prunable", Twofold)(lambda layer: [layer.b])
    yield
    monkeypatch.undo()


def test_registered_rule_replaces_the_general_one(rule_for_twofold):
    class Heir(Twofold):
        pass

    for layer in (Twofold(), Heir()):
        found = reasons(built(layer, (None, 3)))
        assert found["b"] == ""
        assert found["a"] == f"the rule for {type(layer).__name__} leaves it out"


def test_rule_is_not_needed_to_load(tmp_path, monkeypatch):
    families = {name: dict(entries) for name, entries in registry._families.items()}
    model = keras.Sequential([keras.Input((3,)), Twofold(name="two")])
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_families", families)
        kprune.register("prunable", Twofold)(lambda layer: [layer.b])
        pruned = pruned_at_once(model)
    pruned.save(tmp_path / "m.keras")

    loaded = keras.saving.load_model(
        tmp_path / "m.keras", custom_objects={"Twofold": Twofold}
    )

    assert registry.lookup("prunable", Twofold) is None
    assert [entry.path for entry in entries(loaded)] == ["b"]
    assert (loaded(normal(3)(4)).numpy() == pruned(normal(3)(4)).numpy()).all()
    assert [e.path for e in entries(kprune.prune(loaded, only="two"))] == ["b"]


def test_get_prunable_weights_reaches_into_sublayers():
    class Picky(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.first, self.second = layers.Dense(4), layers.Dense(4)

        def build(self, input_shape):
            self.first.build(input_shape)
            self.second.build((None, 4))

        def call(self, inputs):
            return self.second(self.first(inputs))

        def get_prunable_weights(self):
            return [self.second.kernel, self.second.bias]

    layer = built(Picky(name="picky"), (None, 3))

    assert reasons(layer) == {
        "first/kernel": "its layer's get_prunable_weights() leaves it out",
        "first/bias": "its layer's get_prunable_weights() leaves it out",
        "second/kernel": "",
        "second/bias": "",
    }
    skipped = reasons(layer, selection=Selection(skip="picky"))
    assert skipped["second/kernel"] == "left out by `only` or `skip`"
