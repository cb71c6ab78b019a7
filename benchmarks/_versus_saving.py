"""What either library does with configs, files and forgotten steps; a case each."""

import pathlib
import tempfile

import numpy as np
import tensorflow as tf
from _versus_sides import dense, fit, fitted, stripped_zeros
from training_overhead import bytes_of


def two_of_four_config(side):
    """2:4 sparsity after `from_config(get_config())`."""
    pruned = side.prune(dense(side), two_of_four=True)
    with side.scope():
        again = side.keras.Sequential.from_config(pruned.get_config())
    schedule = side.constant(0.5)
    fit(side, again, schedule, 5)
    (kernel,) = side.strip(again).get_weights()
    return "2 of 4" if _two_of_four(kernel) or _two_of_four(kernel.T) else "not 2 of 4"


def _two_of_four(kernel):
    """Tells whether of every four weights along the rows two are zero."""
    return bool(np.all((kernel.reshape(-1, 4) == 0).sum(1) == 2))


def loaded_without_scope(side):
    """A pruned model saved, and loaded without custom objects."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder, "m.keras"))
        fitted(side, dense(side), side.constant(0.5)).save(path)
        side.keras.models.load_model(path)
    return "loads"


def resumed_from_file(side):
    """A model saved at step 10 of a schedule to 80 % at step 20, and 15 steps more."""
    schedule = side.polynomial(0.8, 0, 20)
    with tempfile.TemporaryDirectory() as folder, side.scope():
        path = str(pathlib.Path(folder, "m.keras"))
        fitted(side, dense(side), schedule, 10).save(path)
        again = side.keras.models.load_model(path)
    fit(side, again, schedule, 15)
    return stripped_zeros(side, again)


def forgotten_strip(side):
    """`strip` forgotten: the float32 file of TensorFlow's TFLite converter."""
    return _forgotten(side, [])


def forgotten_strip_quantized(side):
    """`strip` forgotten: that converter's dynamic-range file, of int8 weights."""
    return _forgotten(side, [tf.lite.Optimize.DEFAULT])


def _forgotten(side, optimizations):
    layers = side.keras.layers
    body = [side.keras.Input((256,)), layers.Dense(256), layers.Dense(256)]
    pruned = fitted(side, side.keras.Sequential(body), side.constant(0.5))
    sizes = []
    for model in (pruned, side.strip(pruned)):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = optimizations
        sizes.append(len(converter.convert()))
    return f"{sizes[0] / sizes[1]:.2f}x the bytes of a stripped one"


def variables(side):
    """Bytes of the variables of a pruned model."""
    body = [side.keras.Input((256,)), side.keras.layers.Dense(256)]
    model = side.keras.Sequential(body)
    return (
        f"{bytes_of(side.prune(model)) / bytes_of(model):.2f}x those of the plain one"
    )


def layer_names(side):
    """A layer looked up by its name in a pruned model."""
    return f"found: {side.prune(dense(side)).get_layer('only').name}"


def input_model(side):
    """The model that was given to be pruned, after the pruned one has trained."""
    model = dense(side)
    (before,) = model.get_weights()
    fitted(side, model, side.constant(0.5))
    same = np.array_equal(model.get_weights()[0], before)
    return "unchanged" if same else "weights changed"


def forgotten_callback(side):
    """Training without the pruning callback."""
    pruned = side.prune(dense(side), side.constant(0.5))
    pruned.compile("sgd", "mse")
    pruned.fit(np.ones((4, 8)), np.ones((4, 8)), verbose=0)
    return stripped_zeros(side, pruned)


CASES = (
    two_of_four_config,
    loaded_without_scope,
    resumed_from_file,
    forgotten_strip,
    forgotten_strip_quantized,
    variables,
    layer_names,
    input_model,
    forgotten_callback,
)
