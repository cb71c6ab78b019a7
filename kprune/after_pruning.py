"""`AfterPruning`: callbacks that wait until the target sparsity is reached."""

import keras

from kprune.callbacks import PruningCallback


def _passed_on(hook, waits=False):
    """Returns a hook that calls that of the callback which is held back.

    Args:
        hook: String, the name of both.
        waits: Bool, whether it does so only once the target is reached. Defaults to
            `False`.
    """

    def pass_on(self, *arguments, **named):
        """Calls the same hook of the callback that is held back."""
        if self.pruning.finished or not waits:
            getattr(self.callback, hook)(*arguments, **named)

    return pass_on


class AfterPruning(keras.callbacks.Callback):
    """Lets a callback see results only once the target sparsity is reached.

    For callbacks that keep the best weights, `EarlyStopping` and
    `ModelCheckpoint` above all. Before the target is reached the model is less
    sparse and often scores better, so that they would bring back its past.

    What it holds back until then are the ends of batches and of epochs, and
    evaluations. All else is passed on: where training and its parts begin, its end,
    and predictions.

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

    on_train_begin = _passed_on("on_train_begin")
    on_train_end = _passed_on("on_train_end")
    on_epoch_begin = _passed_on("on_epoch_begin")
    on_epoch_end = _passed_on("on_epoch_end", waits=True)
    on_train_batch_begin = _passed_on("on_train_batch_begin")
    on_train_batch_end = _passed_on("on_train_batch_end", waits=True)
    on_test_begin = _passed_on("on_test_begin", waits=True)
    on_test_end = _passed_on("on_test_end", waits=True)
    on_test_batch_begin = _passed_on("on_test_batch_begin", waits=True)
    on_test_batch_end = _passed_on("on_test_batch_end", waits=True)
    on_predict_begin = _passed_on("on_predict_begin")
    on_predict_end = _passed_on("on_predict_end")
    on_predict_batch_begin = _passed_on("on_predict_batch_begin")
    on_predict_batch_end = _passed_on("on_predict_batch_end")
