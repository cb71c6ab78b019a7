"""`PruningSummaries`: TFMOT's callback that writes for TensorBoard."""

import os

import keras
import numpy as np
import tensorflow as tf

from kprune.weight_access import as_array
from kprune.whole_model import masked_weights


class PruningSummaries(keras.callbacks.TensorBoard):
    """Writes the sparsity and the threshold of each pruned weight for TensorBoard.

    When an epoch begins, `dense/kernel/sparsity`, the fraction of zeros, and
    `dense/kernel/threshold`, the smallest magnitude that is left, if any, are written
    to the folder `metrics` of `log_dir`, by the step of the optimizer.

    Args:
        log_dir: String, the folder.
        update_freq: As for `keras.callbacks.TensorBoard`. Defaults to `"epoch"`.
        **kwargs: What `keras.callbacks.TensorBoard` takes.

    Raises:
        ValueError: If `log_dir` is no path.

    Example:
    >>> summaries = PruningSummaries(log_dir="logs")
    """

    def __init__(self, log_dir, update_freq="epoch", **kwargs):
        if not isinstance(log_dir, (str, os.PathLike)) or not str(log_dir):
            raise ValueError(f"log_dir={log_dir!r} must be a string that is not empty.")
        super().__init__(log_dir=str(log_dir), update_freq=update_freq, **kwargs)
        self._pruning_writer = None

    def on_epoch_begin(self, epoch, logs=None):
        """Writes what the masks are at the beginning of an epoch."""
        super().on_epoch_begin(epoch, logs)
        if self._pruning_writer is None:
            folder = os.path.join(self.log_dir, "metrics")
            self._pruning_writer = tf.summary.create_file_writer(folder)
        step = int(as_array(self.model.optimizer.iterations))
        with self._pruning_writer.as_default():
            for entry in masked_weights(self.model):
                mask, weight = as_array(entry.mask), as_array(entry.variable)
                kept = np.abs(weight[mask].astype("float32"))
                tf.summary.scalar(f"{entry.name}/sparsity", 1 - mask.mean(), step)
                if kept.size:
                    tf.summary.scalar(f"{entry.name}/threshold", kept.min(), step)
        self._pruning_writer.flush()

    def on_train_end(self, logs=None):
        """Closes the file."""
        super().on_train_end(logs)
        if self._pruning_writer is not None:
            self._pruning_writer.close()
            self._pruning_writer = None
