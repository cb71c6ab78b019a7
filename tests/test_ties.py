import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.granularity import Tie


def attention(heads=4, width=8, **kwargs):
    inputs = keras.Input((6, width))
    layer = layers.MultiHeadAttention(heads, 3, name="attention", **kwargs)
    return keras.Model(inputs, layer(inputs, inputs))


def grouped():
    inputs = keras.Input((6, 8))
    layer = layers.GroupQueryAttention(3, 6, 2, name="attention")
    return keras.Model(inputs, layer(inputs, inputs))


def randomised(model, seed=0):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def pruned(model, sparsity, **kwargs):
    model = kprune.prune(model, granularity="attention_head", **kwargs)
    kprune.Pruner(model, kprune.ConstantSchedule(sparsity)).step()
    return model


def kernels(model):
    """Kernels of the attention layer, each with its heads as the first axis."""
    layer = model.get_layer("attention")
    layer = getattr(layer, "layer", layer)  # in a wrapper
    number = getattr(layer, "num_key_value_heads", None) or layer.num_heads
    parts = {}
    for name in ("query", "key", "value"):
        kernel = getattr(layer, f"_{name}_dense").kernel.numpy()
        parts[name] = np.stack(np.split(kernel, number, axis=1))
    output = layer._output_dense.kernel.numpy()
    parts["output"] = np.stack(np.split(output, number, axis=0))
    return parts


@pytest.mark.parametrize(
    ("make", "heads"),
    [
        (attention, 4),
        (lambda: attention(value_dim=5), 4),
        (lambda: attention(use_bias=False, output_shape=7), 4),
        (grouped, 2),
    ],
    ids=["plain", "value_dim", "output_shape", "grouped"],
)
def test_the_heads_with_the_smallest_mean_go_from_all_kernels_at_once(make, heads):
    model = randomised(make())
    parts = kernels(model)
    total = sum(np.abs(p).reshape(heads, -1).sum(axis=1) for p in parts.values())
    best = np.sort(np.argsort(total)[heads // 2 :])

    model = pruned(model, 0.5)

    for before, after in zip(parts.values(), kernels(model).values(), strict=True):
        np.testing.assert_array_equal(after[best], before[best])
        assert not np.delete(after, best, axis=0).any()


def test_a_model_without_some_heads_is_one_that_never_had_them():
    model = randomised(attention(heads=4))
    x = np.random.default_rng(1).normal(size=(2, 6, 8))

    model = kprune.strip(pruned(model, 0.5))

    small = attention(heads=2)
    kept = kernels(model)["output"].any(axis=(1, 2, 3))
    for old, new in zip(model.weights, small.weights, strict=True):
        array = old.numpy()
        for axis, size in enumerate(array.shape):
            if size == 4 and new.shape[axis] == 2:
                array = array.compress(kept, axis)
        new.assign(array)
    np.testing.assert_allclose(model(x), small(x), atol=1e-5)


def test_the_schedule_may_rise_and_what_is_removed_stays_removed(tmp_path):
    model = kprune.prune(randomised(attention()), granularity=kprune.AttentionHead())
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(16, 6, 8))
    seen = []
    for final in (0.25, 0.75):
        schedule = kprune.ConstantSchedule(final)
        callback = kprune.PruningCallback(schedule, start="fit", scope="global")
        model.fit(x, x, batch_size=8, verbose=0, callbacks=[callback])
        seen.append([k.any(axis=(1, 2, 3)) for k in kernels(model).values()])
    model.save(tmp_path / "model.keras")

    again = keras.models.load_model(tmp_path / "model.keras")

    for kept in seen:
        assert all((k == kept[0]).all() for k in kept)
    assert [kept[0].sum() for kept in seen] == [3, 1]
    assert (seen[0][0] >= seen[1][0]).all()
    np.testing.assert_array_equal(again(x), model(x))


def test_two_attention_layers_choose_heads_of_their_own():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    outputs = layers.MultiHeadAttention(4, 2, name="second")(x, x)
    model = pruned(randomised(keras.Model(inputs, outputs)), 0.5)

    masks = model.get_layer("second").masks["key_dense/kernel"].numpy()

    assert kernels(model)["key"].any(axis=(1, 2, 3)).sum() == 1
    assert masks.any(axis=(0, 2)).sum() == 2


def with_head():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def test_layers_without_heads_are_refused_with_what_can_be_done():
    with pytest.raises(
        ValueError, match=r"'head/kernel' of shape \(8, 3\).* prune MultiHeadA"
    ):
        kprune.prune(with_head(), granularity="attention_head")


def test_the_other_layers_can_be_pruned_by_another_granularity():
    model = kprune.prune(with_head(), only="head")
    model = kprune.prune(model, granularity="attention_head")

    kprune.Pruner(model, kprune.ConstantSchedule(0.5)).step()

    assert kernels(model)["value"].any(axis=(1, 2, 3)).sum() == 1
    assert model.get_layer("head").masks["kernel"].numpy().sum() == 12


@pytest.mark.parametrize("part", ["query", "attention_output"])
def test_a_part_of_an_attention_layer_is_refused(part):
    with pytest.raises(ValueError, match="all kernels of 'attention' together"):
        kprune.prune(attention(), granularity="attention_head", skip=part)


def test_a_part_that_is_frozen_is_refused_before_training():
    model = attention()
    model.get_layer("attention")._key_dense.trainable = False

    with pytest.raises(ValueError, match="'attention/key/kernel' can't be pruned now"):
        pruned(model, 0.5)


def test_a_custom_layer_takes_part_by_a_rule():
    class Mixer(layers.Layer):
        def build(self, input_shape):
            self.up = self.add_weight(shape=(input_shape[-1], 6), name="up")
            self.down = self.add_weight(shape=(6, 4), name="down")

        def call(self, inputs):
            return inputs @ self.up @ self.down

    @kprune.register("attention_heads", Mixer)
    def heads(layer):
        return [(layer.up, -1, 3), (layer.down, -2, 3)]

    mixer = Mixer(name="mixer")
    model = keras.Sequential([keras.Input((5,)), mixer])
    mixer.up.assign(np.tile(np.repeat([1.0, 3, 2], 2), (5, 1)))
    mixer.down.assign(np.tile(np.repeat([[9.0], [1], [8]], 2, axis=0), (1, 4)))

    try:
        model = pruned(model, 1 / 3)
    finally:
        kprune.registry._families["attention_heads"].pop(Mixer)

    # Means: 5 * 2 ones and 2 * 4 nines make 82 / 18; then 38 / 18 and 84 / 18.
    np.testing.assert_array_equal(model.layers[0].up.numpy()[0], [1, 1, 0, 0, 2, 2])
    np.testing.assert_array_equal(
        model.layers[0].down.numpy()[:, 0], [9, 9, 0, 0, 8, 8]
    )


# On arrays


def test_tied_weights_share_the_choice_wherever_they_stand():
    weights = [np.full((2, 4), [1.0, 2, 3, 4]), np.ones((3, 3)), np.ones((4, 5))]
    weights[2] *= np.array([[9.0], [1], [1], [1]])
    ties = [Tie("a", -1, 4), Tie("b", -2, 3), Tie("a", -2, 4)]

    masks = list(
        kprune.compute_masks(weights, 0.5, granularity="attention_head", ties=ties)
    )

    # Means over 2 + 5 weights: 47 / 7, 9 / 7, 11 / 7, 13 / 7.
    np.testing.assert_array_equal(masks[0], [[1, 0, 0, 1]] * 2)
    np.testing.assert_array_equal(masks[1], np.repeat([[1], [0], [0]], 3, axis=1))
    np.testing.assert_array_equal(masks[2].T, [[1, 0, 0, 1]] * 5)


def test_tied_weights_with_different_numbers_of_units_are_refused():
    ties = [Tie("a", -1, 2), Tie("a", -1, 4)]

    with pytest.raises(ValueError, match="2 in 'up', 4 in 'down'"):
        list(
            kprune.compute_masks(
                [np.ones((4, 4))] * 2,
                0.5,
                granularity="attention_head",
                ties=ties,
                names=["up", "down"],
            )
        )


def tied(*units, stays=(), guards=()):
    """Returns ties of weights with these units."""
    number = 1 + max(map(max, units))
    stays = np.isin(range(number), stays)
    guards = tuple(map(np.array, guards))
    return [Tie("a", -1, number, np.array(u), stays, guards) for u in units]


def test_a_unit_may_have_several_places_of_one_weight_and_none_of_another():
    weights = [np.array([[1.0, 5, 3, 5]]), np.array([[4.0, 2], [4, 2]])]
    ties = tied([0, 1, 0, 2], [2, 0])

    masks = list(kprune.compute_masks(weights, 1 / 3, granularity="channel", ties=ties))

    # Means over 2 + 2, 1 and 1 + 2 weights: 2, 5 and 13 / 3.
    np.testing.assert_array_equal(masks[0], [[0, 1, 0, 1]])
    np.testing.assert_array_equal(masks[1], [[1, 0], [1, 0]])


def test_units_that_stay_and_places_without_a_unit_are_never_removed():
    weights = [np.array([[1.0, 2, 3, 4, 0]])]
    ties = tied([0, 1, 2, 3, -1], stays=[0, 2])

    (mask,) = kprune.compute_masks(weights, 0.5, granularity="channel", ties=ties)

    np.testing.assert_array_equal(mask, [[1, 0, 1, 0, 1]])


def test_of_units_on_guard_the_best_stays():
    weights = [np.array([[1.0, 2, 3, 4]])]
    ties = tied([0, 1, 2, 3], guards=[[0, 1], [2, 3]])

    masks = kprune.compute_masks(weights, 0.5, granularity="channel", ties=ties)

    np.testing.assert_array_equal(list(masks), [[[0, 1, 0, 1]]])


def test_heads_of_a_weight_that_is_tied_to_nothing_are_refused():
    with pytest.raises(ValueError, match="no part of an attention layer's heads"):
        kprune.compute_mask(np.ones((4, 4)), 0.5, granularity="attention_head")


def test_what_is_tied_goes_by_the_name_of_its_first_weight_before_training_too():
    model = kprune.prune(attention(), granularity="attention_head")
    schedule = kprune.ConstantSchedule(0.5)

    of_layer = kprune.PerLayer({"attention": 0.5})
    pruner = kprune.Pruner(model, schedule, scope=of_layer)
    with pytest.raises(ValueError, match="'attention/key_dense', which matches noth"):
        of_part = kprune.PerLayer({"attention/key_dense": 0.5})
        kprune.Pruner(model, schedule, scope=of_part)

    pruner.step()
    assert pruner.sparsity == 0.5
