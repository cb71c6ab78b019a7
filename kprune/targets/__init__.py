"""What a model or file meets on the device: conditions, memory, honest speed."""

from kprune.targets.c_array import write_c_array
from kprune.targets.padding import rewrite_padding
from kprune.targets.speedup import SpeedupPrediction, predict_speedup
from kprune.targets.tflm import TflmCheck, check_tflm
from kprune.targets.xnnpack import XnnpackCheck, check_xnnpack, sparse_risk

__all__ = [
    "SpeedupPrediction",
    "TflmCheck",
    "XnnpackCheck",
    "check_tflm",
    "check_xnnpack",
    "predict_speedup",
    "rewrite_padding",
    "sparse_risk",
    "write_c_array",
]
