"""Evidence that was gathered while the model was trained."""

from kprune.calibration.base import gathers
from kprune.weight_access import as_array


@gathers("movement")
def _movement(model, entries, kinds, data):
    """Reads the sum of `-w * g` over the training steps so far; see `tracking`."""
    return [{"movement": as_array(entry.tracked_as("movement"))} for entry in entries]
