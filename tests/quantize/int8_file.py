"""Reads int8 TFLite files for the tests, by LiteRT's own interpreter."""

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from kprune.export.base import quiet
from kprune.export.forward import Forward
from kprune.quantize import finish

KERNEL_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


class Int8File:
    """A quantization-aware model, converted without representative data.

    Args:
        model: A trained model that `quantize_aware` has made.
    """

    def __init__(self, model):
        module, signature = Forward(finish(model)).module()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([signature], module)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        with quiet():
            self.content = converter.convert()
            self.interpreter = Interpreter(model_content=self.content)
            self.interpreter.allocate_tensors()
        details = self.interpreter.get_tensor_details()
        self._details = {detail["index"]: detail for detail in details}
        self.ops = [
            op
            for op in self.interpreter._get_ops_details()
            if op["op_name"] != "DELEGATE"
        ]

    def __call__(self, inputs):
        """Returns the file's outputs for a batch, an array or a dict by input name."""
        with quiet():
            run = self.interpreter.get_signature_runner()
            if not isinstance(inputs, dict):
                (name,) = run.get_input_details()
                inputs = {name: inputs}
            (outputs,) = run(**inputs).values()
        return outputs

    def kernels(self):
        """Lists the int8 kernels as arrays, in the order of the operators."""
        found = [op["inputs"][1] for op in self.ops if op["op_name"] in KERNEL_OPS]
        kernels = [i for i in found if self._details[i]["dtype"] == np.int8]
        return [self.interpreter.get_tensor(i) for i in kernels]

    def biases(self):
        """Lists the types of the biases."""
        found = [op for op in self.ops if op["op_name"] in KERNEL_OPS]
        return [self._details[op["inputs"][-1]]["dtype"] for op in found]

    def float_ops(self):
        """Lists the operators that read or write floats, but for the two ends."""
        return [
            op["op_name"]
            for op in self.ops
            if op["op_name"] not in ("QUANTIZE", "DEQUANTIZE")
            and any(self._is_float(i) for i in (*op["inputs"], *op["outputs"]))
        ]

    def count(self, op_name):
        """Counts the operators of a name."""
        return sum(op["op_name"] == op_name for op in self.ops)

    def _is_float(self, index):
        return index >= 0 and self._details[index]["dtype"] == np.float32
