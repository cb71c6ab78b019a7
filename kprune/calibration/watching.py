"""Layers watched while a model runs."""

import contextlib

import keras
import tensorflow as tf


class Watch:
    """A model whose layers are looked at while it runs over data.

    It leaves no trace in the model: states of recurrent layers stay what they are.
    It is compiled once for all passes, and sees weights as they are in each.

    Args:
        model: The model, called in inference mode.
        watched: Dict from key to a pair: a layer or operation, and a function of its
            own `call`, its first input and its output that returns a tensor.
    """

    def __init__(self, model, watched):
        @tf.function(reduce_retracing=True)
        def look(x):
            with contextlib.ExitStack() as stack:
                seen = {key: [] for key in watched}
                for key, (operation, note) in watched.items():
                    stack.enter_context(_watching(operation, note, seen[key]))
                stack.enter_context(keras.StatelessScope())
                model(x, training=False)
            missed = (_missed(watched[k][0], tensors) for k, tensors in seen.items())
            self._missed = next(filter(None, missed), None)
            return {} if self._missed else seen

        self._look = look
        self._missed = None

    def over(self, data):
        """Runs the model, and yields what is seen in it, batch after batch.

        Args:
            data: `CalibrationData`.

        Yields:
            Dict from key to a list of what was seen, one a call, in running order.
        """
        for x, _, _ in data:
            seen = self._look(x)
            if self._missed:  # raised within, the message would be one of many
                raise ValueError(self._missed)
            yield seen


@contextlib.contextmanager
def _watching(operation, note, seen):
    """Notes something at each call of a layer."""
    call = operation.call

    def watched_call(*args, **kwargs):
        outputs = call(*args, **kwargs)
        inputs = args[0] if args else next(iter(kwargs.values()))
        seen.append(note(call, inputs, outputs))
        return outputs

    own = vars(operation).get("call", _MISSING)
    object.__setattr__(operation, "call", watched_call)
    try:
        yield
    finally:
        if own is _MISSING:
            object.__delattr__(operation, "call")
        else:
            object.__setattr__(operation, "call", own)


_MISSING = object()


def _missed(operation, tensors):
    """Returns why a layer could not be watched, a string, or `None`."""
    here = tf.compat.v1.get_default_graph()
    if tensors and all(tensor.graph is here for tensor in tensors):
        return None
    why = "runs inside a loop" if tensors else "is not called by the model"
    return (
        f"The layer {operation.name!r} {why}, so that its inputs and outputs can't be "
        f"looked at. Leave it out with `skip={operation.name!r}`, or take another "
        "criterion."
    )


@contextlib.contextmanager
def attribute(holder, name, value, before):
    """Sets an attribute for a while, unless it was `None` before."""
    if before is None:
        yield
        return
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)
