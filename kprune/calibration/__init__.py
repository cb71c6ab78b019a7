"""What criteria know beside the weights: evidence gathered over calibration data."""

from kprune.calibration import activations, flow, gradients, tracked
from kprune.calibration.base import Calibration, gathers
from kprune.calibration.data import CalibrationData

__all__ = [
    "Calibration",
    "CalibrationData",
    "activations",
    "flow",
    "gathers",
    "gradients",
    "tracked",
]
