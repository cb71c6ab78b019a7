"""What criteria know beside the weights: evidence gathered over calibration data."""

from kprune.calibration import activations
from kprune.calibration.base import Calibration, gathers

__all__ = ["Calibration", "activations", "gathers"]
