"""Operations on one element at a time."""

import numpy as np
from keras.src.ops import core, math, nn
from keras.src.ops import numpy as operations

from kprune.channels.rules.base import ChannelRule
from kprune.channels.rules.common import types_of
from kprune.channels.rules.elementwise import is_zero_at_zero, keep_what_needs_numbers
from kprune.channels.value import Value
from kprune.registry import register


class UnaryRule(ChannelRule):
    """Computes each element of the result from one element."""

    def trace(self, operation, inputs, tracer):
        """Lets channels through."""
        own = [v for name, v in vars(operation).items() if name[0] != "_"]
        if len(inputs) != 1 or any(map(np.ndim, own)):
            return None  # bounds, say, that are arrays
        (value,) = inputs
        keep_what_needs_numbers(inputs, operation, tracer)
        silent = value.silent and is_zero_at_zero(operation, tracer)
        return [Value(value.shape, value.maps, silent, isinstance(operation, _FILLED))]


_FILLED = (operations.OnesLike, operations.ZerosLike)
_UNARY = {
    operations: """
        Absolute Angle Arccos Arccosh Arcsin Arcsinh Arctan Arctanh BitwiseInvert
        BitwiseNot Cbrt Ceil Clip Conjugate Copy Cos Cosh Deg2rad Exp Exp2 Expm1 Fabs
        Floor Isfinite Isinf Isnan Isneginf Isposinf Log Log10 Log1p Log2 LogicalNot
        NanToNum Negative OnesLike Rad2deg Reciprocal Round Sign Signbit Sin Sinc Sinh
        Sqrt Square Tan Tanh Trunc ZerosLike
    """,
    nn: """
        Celu Elu Gelu HardShrink HardSigmoid HardSilu HardTanh LeakyRelu LogSigmoid
        Relu Relu6 Selu Sigmoid Silu SoftShrink Softplus Softsign SparsePlus
        SparseSigmoid Squareplus TanhShrink Threshold
    """,
    math: "Erf Erfc Erfinv Rsqrt",
    core: "Cast ConvertToTensor SaturateCast StopGradient",
}
UNARY = types_of(_UNARY)

for _kind in UNARY:
    register("channel_rules", _kind)(UnaryRule)
