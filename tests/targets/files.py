"""TFLite files of models, in the encodings that targets have to tell apart."""

import numpy as np
import tensorflow as tf
from tensorflow import lite

from kprune.export.base import quiet
from kprune.export.forward import Forward
from kprune.litefile import read


def to_tflite(model, mode="float32", sparse=False, batch=1, as_bytes=False):
    """Converts a model; returns the subgraphs of the file, or its bytes."""
    module, signature = Forward(model).module(batch)
    converter = lite.TFLiteConverter.from_concrete_functions([signature], module)
    if sparse:
        converter.optimizations = [lite.Optimize.EXPERIMENTAL_SPARSITY]
    elif mode != "float32":
        converter.optimizations = [lite.Optimize.DEFAULT]
    if mode == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if mode == "int8":
        shape = (1, *model.input_shape[1:])
        rng = np.random.default_rng(0)
        rows = [rng.random(shape).astype("float32") for _ in range(4)]
        converter.representative_dataset = lambda: ([row] for row in rows)
        converter.target_spec.supported_ops = [lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with quiet():
        content = converter.convert()
    return content if as_bytes else read(content).subgraphs
