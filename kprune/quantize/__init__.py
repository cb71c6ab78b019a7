"""Training for int8 with the zeros and clusters of a pruned model kept.

`quantize_aware` makes a model that rounds as int8 does while it trains, `finish` what
the TFLite converter turns into an int8 file, `dequantize` a plain model again.
"""

from kprune.quantize.finishing import dequantize, finish
from kprune.quantize.floats import left_in_float
from kprune.quantize.fold import fold_batch_normalization
from kprune.quantize.ranges import ActivationRange
from kprune.quantize.rules import Rule, rule_for
from kprune.quantize.surgery import quantize_aware
from kprune.quantize.wrapper import QuantizationWrapper, wrappers

__all__ = [
    "ActivationRange",
    "QuantizationWrapper",
    "Rule",
    "dequantize",
    "finish",
    "fold_batch_normalization",
    "left_in_float",
    "quantize_aware",
    "rule_for",
    "wrappers",
]
