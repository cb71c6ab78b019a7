"""TensorFlow's own count of floating-point operations."""

import keras
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

_PROFILER = tf.compat.v1.profiler


def profiled_macs(model):
    """Counts the multiply-adds of a model as TensorFlow's profiler does.

    It counts two operations a multiply-add, of one call of `model`, one example, with
    all weights frozen. Only multiplications by kernels and of matrices are taken here,
    not biases, activations and normalization, which it counts too. It knows nothing
    of einsum, of loops and of grouped convolutions.
    """
    signature = [
        tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs
    ]
    call = tf.function(
        lambda *inputs: model(keras.tree.pack_sequence_as(model.input, inputs))
    )
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        call.get_concrete_function(*signature)
    )
    counted = _PROFILER.ProfileOptionBuilder.float_operation()
    options = (
        _PROFILER.ProfileOptionBuilder(counted)
        .with_accounted_types([".*MatMul.*", ".*Conv.*"])
        .with_empty_output()
        .build()
    )
    found = _PROFILER.profile(frozen.graph, cmd="op", options=options)
    return found.total_float_ops // 2
