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
            for key, tensors in seen.items():
                _check_seen(watched[key][0], tensors)
            return seen

        self._look = look

    def over(self, data):
        """Runs the model, and yields what is seen in it, batch after batch.

        Args:
            data: `CalibrationData`.

        Yields:
            Dict from key to a list of what was seen, one a call, in running order.
        """
        for x, _, _ in data:
            yield self._look(x)


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


def _check_seen(operation, tensors):
    here = tf.compat.v1.get_default_graph()
    if not tensors or any(tensor.graph is not here for tensor in tensors):
        why = "runs inside a loop" if tensors else "is not called by the model"
        raise ValueError(
            f"The layer {operation.name!r} {why}, so that its inputs and outputs "
            "can't be looked at. Leave it out, `kprune.prune(model, "
            f"skip={operation.name!r})`, or take another criterion."
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
