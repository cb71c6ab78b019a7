"""What happens while a model trains with either library; one function a case."""

import pathlib
import tempfile

import numpy as np
from _versus_sides import after_batch, dense, fit, fitted, stripped_zeros, zeros


def all_equal(side):
    """A kernel of equal weights, 50 % asked for."""
    standing = side.keras.optimizers.SGD(0.0)
    model = dense(side, np.ones((8, 8)))
    pruned = fitted(side, model, side.constant(0.5), optimizer=standing)
    return stripped_zeros(side, pruned)


def few_values(side):
    """A kernel of four different values, 62 % asked for."""
    standing = side.keras.optimizers.SGD(0.0)
    kernel = np.arange(64).reshape(8, 8) % 4 + 1
    model = dense(side, kernel)
    pruned = fitted(side, model, side.constant(0.62), optimizer=standing)
    return stripped_zeros(side, pruned)


def begin_is_end(side):
    """A polynomial schedule to 50 % that ends where it begins."""
    return stripped_zeros(side, fitted(side, dense(side), side.polynomial(0.5, 5, 5)))


def short_run(side):
    """50 % from step 0, every 100 steps, in a run of 20."""
    schedule = side.constant(0.5, frequency=100)
    return stripped_zeros(side, fitted(side, dense(side), schedule))


def first_mask(side):
    """50 % from step 0, every 100 steps: the first step that leaves zeros."""
    seen = []
    looking = [
        after_batch(side, n, lambda model, n=n: seen.append((n, _now(model))))
        for n in (1, 99, 100, 101)
    ]
    standing = side.keras.optimizers.SGD(0.0)
    schedule = side.constant(0.5, frequency=100)
    model = dense(side)
    fitted(side, model, schedule, 101, before=looking, optimizer=standing)
    return next((f"step {n}" for n, part in seen if part != "0% zeros"), "none")


def off_grid(side):
    """A schedule to 50 % at step 19, every 10 steps, after 40 steps."""
    schedule = side.polynomial(0.5, 0, 19, frequency=10)
    return stripped_zeros(side, fitted(side, dense(side), schedule, 40))


def between_steps(side):
    """Weights between two steps, pruned to 50 %."""
    return _in_mid_run(side, _now)


def strip_in_mid_run(side):
    """Stripped between two steps, pruned to 50 %."""
    return _in_mid_run(side, lambda model: stripped_zeros(side, model))


def _in_mid_run(side, look):
    seen = []
    looking = [after_batch(side, 10, lambda model: seen.append(look(model)))]
    fitted(side, dense(side), side.constant(0.5), before=looking)
    return seen[0]


def _now(model):
    return zeros(model.trainable_variables)


def checkpoint_first(side):
    """A checkpoint that is listed before the pruning callback, pruned to 50 %."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder, "c.weights.h5"))
        saving = side.keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
        fitted(side, dense(side), side.constant(0.5), before=[saving])
        loaded = side.prune(dense(side))
        loaded.load_weights(path)
    return _now(loaded)


def predict_writes(side):
    """`predict` on a pruned model whose weights were set anew: it should only read."""
    pruned = fitted(side, dense(side), side.constant(0.5))
    (kernel,) = pruned.trainable_variables
    kernel.assign(np.ones((8, 8)))
    pruned.predict(np.ones((1, 8)), verbose=0)
    same = np.array_equal(np.asarray(kernel), np.ones((8, 8)))
    return "weights unchanged" if same else "weights overwritten"


def frozen(side):
    """A layer with `trainable=False`, which should stay as it is; 50 % asked for."""
    layers = side.keras.layers
    still = layers.Dense(8, use_bias=False, trainable=False)
    body = [side.keras.Input((8,)), still, layers.Dense(8, use_bias=False)]
    model = side.keras.Sequential(body)
    pruned = fitted(side, model, side.constant(0.5))
    return zeros(side.strip(pruned).layers[0].get_weights())


def used_twice(side):
    """A layer used twice, at step 10 of a schedule to 50 % at step 20 (44 % is due)."""
    inputs = side.keras.Input((8,))
    layer = side.keras.layers.Dense(8, use_bias=False)
    model = side.keras.Model(inputs, layer(layer(inputs)))
    pruned = fitted(side, model, side.polynomial(0.5, 0, 20), 10)
    return stripped_zeros(side, pruned)


def two_of_four_later(side):
    """2:4 sparsity asked for from step 100 on, after 20 steps."""
    schedule = side.constant(0.5, begin_step=100)
    pruned = fitted(side, dense(side), schedule, two_of_four=True)
    return stripped_zeros(side, pruned)


def compiled_again(side):
    """Compiled again at step 10 of a schedule to 80 % at step 20, after 25 steps."""
    schedule = side.polynomial(0.8, 0, 20)
    pruned = fitted(side, dense(side), schedule, 10)
    fit(side, pruned, schedule, 15)
    return stripped_zeros(side, pruned)


def resumed(side):
    """Weights saved after a schedule to 80 %, loaded, and two steps more."""
    schedule = side.polynomial(0.8, 0, 10)
    pruned = fitted(side, dense(side), schedule, 12)
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder, "m.weights.h5"))
        pruned.save_weights(path)
        again = side.prune(dense(side), schedule)
        again.load_weights(path)
    fit(side, again, schedule, 2)
    return stripped_zeros(side, again)


def set_weights(side):
    """`get_weights` after a schedule to 80 %, `set_weights`, and two steps more."""
    schedule = side.polynomial(0.8, 0, 10)
    pruned = fitted(side, dense(side), schedule, 12)
    again = side.prune(dense(side), schedule)
    again.set_weights(pruned.get_weights())
    fit(side, again, schedule, 2)
    return stripped_zeros(side, again)


def averaged(side):
    """An optimizer with `use_ema=True`, pruned to 50 %."""
    optimizer = side.keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.9)
    pruned = fitted(side, dense(side), side.constant(0.5, 10), optimizer=optimizer)
    return stripped_zeros(side, pruned)


def float16(side):
    """Mixed precision with float16, 50 % asked for."""
    return _in_mixed_precision(side, "mixed_float16")


def bfloat16(side):
    """Mixed precision with bfloat16, 50 % asked for."""
    return _in_mixed_precision(side, "mixed_bfloat16")


def _in_mixed_precision(side, policy):
    side.keras.mixed_precision.set_global_policy(policy)
    try:
        pruned = fitted(side, dense(side), side.constant(0.5))
        return stripped_zeros(side, pruned)
    finally:
        side.keras.mixed_precision.set_global_policy("float32")


def compiled_by_xla(side):
    """`jit_compile=True`, 50 % asked for."""
    pruned = fitted(side, dense(side), side.constant(0.5), jit_compile=True)
    return stripped_zeros(side, pruned)


def eagerly(side):
    """`run_eagerly=True`, 50 % asked for."""
    pruned = fitted(side, dense(side), side.constant(0.5), run_eagerly=True)
    return stripped_zeros(side, pruned)


CASES = (
    all_equal,
    few_values,
    begin_is_end,
    short_run,
    first_mask,
    off_grid,
    between_steps,
    strip_in_mid_run,
    checkpoint_first,
    predict_writes,
    frozen,
    used_twice,
    two_of_four_later,
    compiled_again,
    resumed,
    set_weights,
    averaged,
    float16,
    bfloat16,
    compiled_by_xla,
    eagerly,
)
