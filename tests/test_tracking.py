"""What is followed through training steps, and let go when nobody asks for it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune
from kprune.optimizer_slots import slots_of
from kprune.tracking import follow, optimizers_of
from tests.checks import entries
from tests.subclassed_models import TwoOptimizers
from tests.training_helpers import BATCH, build_optimizer, data, fit, network

HALF = kprune.ConstantSchedule(0.5)
LATE = kprune.ConstantSchedule(0.5, begin_step=1)


def pruned(optimizer="sgd", model=None, **options):
    model = kprune.prune(model or network())
    model.compile(optimizer, "mse", **options)
    build_optimizer(model)
    return model


def built(model):
    model(data()[0][:1])
    return model


def by_surgery():
    surgery = kprune.DynamicNetworkSurgery(frequency=5, end_step=10)
    return kprune.PruningCallback(HALF, regrowth=surgery)


def by_movement(schedule=LATE):
    return kprune.PruningCallback(schedule, criterion="movement")


def plainly():
    return kprune.PruningCallback(HALF)


def tracked_names(model):
    return [name for e in entries(model) for name in e.tracked.variables_by_name]


METHODS = {"shadow": by_surgery, "movement": by_movement}


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    "compiled",
    [{}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)],
    ids=["graph", "jit"],
)
def test_a_later_fit_lets_go_of_what_it_does_not_ask_for(kind, compiled, tmp_path):
    model = pruned(**compiled)
    fit(model, METHODS[kind](), epochs=1)
    assert tracked_names(model)

    fit(model, plainly(), epochs=1)

    assert not any(kind in name for name in tracked_names(model))
    model.save(tmp_path / "after.keras")
    loaded = keras.saving.load_model(tmp_path / "after.keras")
    assert not any(kind in name for name in tracked_names(loaded))
    x, y = data()
    for _ in range(2):  # both go on alike
        model.train_on_batch(x[:BATCH], y[:BATCH])
        loaded.train_on_batch(x[:BATCH], y[:BATCH])
    np.testing.assert_array_equal(model(x), loaded(x))
    fit(model, METHODS[kind](), epochs=1)  # and can be followed once more
    assert any(kind in name for name in tracked_names(model))


def test_movements_are_summed_up_anew_in_a_fit_after_one_without_them():
    model = pruned()
    fit(model, by_movement(), epochs=1)
    fit(model, plainly(), epochs=1)
    reference = kprune.prune(model)
    reference.compile("sgd", "mse")
    end = 25  # steps, a step into the third fit

    fit(model, by_movement(kprune.ConstantSchedule(0.5, end)), epochs=1, shuffle=False)
    fit(
        reference,
        by_movement(kprune.ConstantSchedule(0.5, end)),
        epochs=1,
        shuffle=False,
    )

    for one, other in zip(entries(model), entries(reference), strict=True):
        sums = [e.tracked_as("movement").numpy() for e in (one, other)]
        np.testing.assert_array_equal(*sums)


def test_an_optimizer_gets_its_apply_back():
    model, other = pruned(), pruned(keras.optimizers.SGD(0.01))
    applied = []

    def own_apply(grads, trainable_variables=None):
        applied.append(len(grads))
        return keras.optimizers.SGD.apply(other.optimizer, grads, trainable_variables)

    other.optimizer.apply = own_apply
    for each in (model, other):
        fit(each, by_movement(), epochs=1)
        assert "apply" in vars(each.optimizer)
        assert each.optimizer.apply is not own_apply

        fit(each, plainly(), epochs=1)

    assert "apply" not in vars(model.optimizer)
    assert other.optimizer.apply is own_apply and applied


def test_a_backup_of_a_run_that_followed_more_is_restored_without_it(tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    fit(pruned(), by_surgery(), backup, epochs=1)
    resumed = pruned()
    fit(resumed, epochs=1)  # its step is traced already

    fit(resumed, plainly(), backup, epochs=2)

    assert not any("shadow" in name for name in tracked_names(resumed))


def test_a_checkpoint_holds_no_more_than_is_followed(tmp_path):
    model = pruned()
    fit(model, by_surgery(), epochs=1)
    fit(model, plainly(), epochs=1)

    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "after"))

    names = [name for name, _ in tf.train.list_variables(path)]
    assert names and not any("shadow" in name for name in names)


def step_of_the_users(model):
    """Returns a training step on the first batch of `data()`, not yet traced."""
    x, y = (array[:BATCH] for array in data())
    optimizer = model.optimizer

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        optimizer.apply(
            tape.gradient(loss, model.trainable_variables), model.trainable_variables
        )

    return step


def test_a_step_of_the_users_that_was_traced_before_runs_on():
    model = pruned()
    follow(model, ["shadow"])
    step = step_of_the_users(model)

    step()
    before = model.get_weights()
    follow(model, [])
    step()

    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


@pytest.fixture
def one_sided():
    """A pruned model with a layer whose gradients are zero."""
    inputs = keras.Input((6,))
    outputs = [keras.layers.Dense(3, name=n)(inputs) for n in ("used", "unused")]
    model = kprune.prune(keras.Model(inputs, outputs), only=["used", "unused"])
    model.compile("sgd", ["mse", "mse"], loss_weights=[1.0, 0.0])
    return model


def test_a_layer_that_never_moved_is_named(one_sided):
    x, y = data()

    with pytest.raises(ValueError, match=r"of 'unused/kernel' shall be removed by"):
        one_sided.fit(x, [y, y], verbose=0, callbacks=[by_movement()])

    assert all(e.mask.numpy().all() for e in entries(one_sided))


def test_a_layer_that_never_moved_may_stay_as_it_is(one_sided):
    scope = kprune.PerLayer({"used": 0.5})
    pruning = kprune.PruningCallback(LATE, criterion="movement", scope=scope)
    x, y = data()

    one_sided.fit(x, [y, y], verbose=0, callbacks=[pruning])

    kept = {e.layer.name: int(e.mask.numpy().sum()) for e in entries(one_sided)}
    assert kept == {"used": 9, "unused": 18}


class Unmakeable(keras.optimizers.SGD):
    """An optimizer that its config does not make again."""

    def __init__(self, secret):
        super().__init__(0.01)


def test_an_optimizer_that_was_replaced_takes_no_part_any_longer():
    model = pruned(Unmakeable(3), run_eagerly=True)
    fit(model, epochs=1)
    steps = int(model.optimizer.iterations)
    model.compile("sgd", "mse", run_eagerly=True)
    schedule = kprune.ConstantSchedule(0.5, begin_step=steps - 1)
    rewinding = kprune.PruningCallback(
        schedule, regrowth=kprune.Rewind(step=1), start="fit"
    )

    fit(model, rewinding, epochs=1)

    assert optimizers_of(model) == [model.optimizer]
    assert int(model.optimizer.iterations) == 1 + 1  # back at 1, and a step after that


def test_an_optimizer_that_was_replaced_is_watched_no_longer():
    model = pruned(run_eagerly=True)
    first = model.optimizer
    fit(model, by_movement(), epochs=1)
    model.compile("sgd", "mse", run_eagerly=True)

    fit(model, by_movement(), epochs=1)

    assert "apply" not in vars(first) and "apply" in vars(model.optimizer)


@pytest.mark.parametrize("compiled_anew", [False, True])
def test_an_optimizer_beside_that_of_compile_is_not_forgotten(compiled_anew):
    model = pruned(model=built(TwoOptimizers()), run_eagerly=True)
    fit(model, plainly(), epochs=1)
    first, mask = model.optimizer, entries(model)[1].mask.numpy()
    if compiled_anew:
        model.compile("sgd", "mse", run_eagerly=True)
    slots = slots_of(model.second, model.head.kernel)["momentums"]
    seen = []

    class Grown(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            grown = entries(self.model)[1].mask.numpy() & ~mask
            seen.append((int(grown.sum()), slots.numpy()[grown]))

    exchanges = kprune.SET(0.3, frequency=12, end_step=500)
    fit(model, kprune.PruningCallback(HALF, regrowth=exchanges), Grown(), epochs=1)

    count, momentums = seen[0]
    assert count and not momentums.any()
    assert optimizers_of(model) == [model.optimizer, model.second]
    assert compiled_anew == (first is not model.optimizer)


def assert_shadows_follow(model):
    for entry in entries(model):
        kept, shadow = entry.mask.numpy(), entry.tracked_as("shadow").numpy()
        np.testing.assert_array_equal(shadow[kept], entry.variable.numpy()[kept])
        assert shadow[~kept].any()


def test_a_shadow_from_a_file_is_followed_by_a_step_that_was_traced_without(tmp_path):
    model, traced = pruned(), pruned()
    fit(model, by_surgery(), epochs=1)
    model.save_weights(tmp_path / "surgery.weights.h5")
    fit(traced, epochs=1)
    traced.load_weights(tmp_path / "surgery.weights.h5")

    fit(traced, by_surgery(), epochs=1)

    assert_shadows_follow(traced)


def test_weights_that_were_loaded_without_shadows_begin_new_ones(tmp_path):
    model = pruned(run_eagerly=True)
    model.save_weights(tmp_path / "start.weights.h5")
    fit(model, by_surgery(), epochs=1)
    model.load_weights(tmp_path / "start.weights.h5")

    follow(model, ["shadow"])

    for entry in entries(model):
        np.testing.assert_array_equal(entry.tracked_as("shadow"), entry.variable)


def test_a_step_of_the_users_that_leaves_out_what_is_followed_is_found_out():
    model = pruned()
    step = step_of_the_users(model)
    step()
    surgery = kprune.DynamicNetworkSurgery(frequency=2, end_step=10)
    late = kprune.Pruner(model, HALF, regrowth=surgery)
    late.step()  # nothing has been missed yet
    for _ in range(2):
        step()

    with pytest.raises(ValueError, match=r"'hidden/kernel'.*traced before they were"):
        late.step()


def test_surgery_refuses_an_optimizer_that_computes_weights_anew():
    model = pruned(keras.optimizers.Ftrl(0.05))

    with pytest.raises(ValueError, match=r"can't be followed with 'ftrl\w*' \(Ftrl\)"):
        fit(model, by_surgery(), epochs=1)


class Plain(keras.Model):
    """A model that nothing but its own constructor can make."""

    def __init__(self, units):
        super().__init__()
        self.hidden = keras.layers.Dense(units)
        self.head = keras.layers.Dense(3)

    def call(self, x):
        return self.head(self.hidden(x))


@pytest.mark.filterwarnings("ignore:.* pruned in place")
def test_a_model_that_is_stripped_in_place_trains_on_without_masks():
    model = Plain(8)
    model(data()[0][:1])
    model = pruned(model=model)
    fit(model, by_movement(), epochs=1)
    optimizer = model.optimizer

    stripped = kprune.strip(model)
    fit(stripped, epochs=1)

    assert stripped is model and "apply" not in vars(optimizer)
    assert all(kernel.numpy().all() for kernel in model.weights)
