"""`AfterPruning`: callbacks that wait until the target sparsity is reached."""

import keras

from kprune.callbacks import PruningCallback


class AfterPruning(keras.callbacks.Callback):
    """Lets a callback see results only once the target sparsity is reached.

    For callbacks that keep the best weights, `EarlyStopping` and
    `ModelCheckpoint` above all. Before the target is reached the model is less
    sparse and often scores better, so that they would bring back its past.

    Args:
        callback: The `keras.callbacks.Callback` to hold back.
        pruning: The `PruningCallback` of the same `fit`.

    Raises:
        ValueError: If one of the two is of another kind.

    Example:
    >>> import keras, kprune
    >>> pruning = kprune.PruningCallback(0.9)
    >>> stopping = keras.callbacks.EarlyStopping(restore_best_weights=True)
    >>> callbacks = [pruning, kprune.AfterPruning(stopping, pruning)]
    """

    def __init__(self, callback, pruning):
        super().__init__()
        if not isinstance(callback, keras.callbacks.Callback):
            raise ValueError(
                f"Expected a Keras callback to hold back, got {callback!r}."
            )
        if not isinstance(pruning, PruningCallback):
            raise ValueError(
                f"Expected the PruningCallback of the same fit, got {pruning!r}."
            )
        self.callback = callback
        self.pruning = pruning

    def set_params(self, params):
        """Passes the parameters on."""
        super().set_params(params)
        self.callback.set_params(params)

    def set_model(self, model):
        """Passes the model on."""
        super().set_model(model)
        self.callback.set_model(model)

    def on_train_begin(self, logs=None):
        """Passes the beginning on."""
        self.callback.on_train_begin(logs)

    def on_train_end(self, logs=None):
        """Passes the end on."""
        self.callback.on_train_end(logs)

    def on_epoch_begin(self, epoch, logs=None):
        """Passes the beginning of an epoch on."""
        self.callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        """Passes the end of an epoch on, once the target is reached."""
        if self.pruning.finished:
            self.callback.on_epoch_end(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        """Passes the beginning of a batch on."""
        self.callback.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        """Passes the end of a batch on, once the target is reached."""
        if self.pruning.finished:
            self.callback.on_train_batch_end(batch, logs)
