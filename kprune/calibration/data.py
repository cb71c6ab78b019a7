"""Calibration data: a few hundred examples, read batch by batch."""

import keras
import numpy as np
import tensorflow as tf


class CalibrationData:
    """Examples that criteria look at, in batches, the same at each pass.

    Args:
        data: What `fit` takes: a pair of inputs and targets or inputs alone, as
            arrays of shape `(rows, ...)`; a batched `tf.data.Dataset`, or a
            `keras.utils.PyDataset`, of finite length.
        model: The model that will see it.
        labels: Bool, whether targets must be there. Defaults to `True`.
        batch_size: Int, for arrays. Defaults to 32.

    Raises:
        TypeError: If the data is of another kind.
        ValueError: If there are no examples, or no targets where they are needed,
            or if the model is not compiled with a loss that takes them.

    Example:
    >>> data = CalibrationData((np.zeros((50, 3)), np.zeros((50, 1))), None)
    >>> [len(x) for x, y, sample_weight in data]
    [32, 18]
    """

    def __init__(self, data, model, labels=True, batch_size=32):
        self._data = data
        self._batch_size = batch_size

    def __iter__(self):
        """Yields triples of inputs, targets or `None`, sample weights or `None`."""
        data = self._data
        if not isinstance(data, (tf.data.Dataset, keras.utils.PyDataset)):
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            parts = tuple(p for p in (x, y, weight) if p is not None)
            parts = keras.tree.map_structure(np.asarray, parts)
            data = tf.data.Dataset.from_tensor_slices(parts).batch(self._batch_size)
        if isinstance(data, keras.utils.PyDataset):
            data = (data[i] for i in range(len(data)))
        for batch in data:
            yield keras.utils.unpack_x_y_sample_weight(batch)
