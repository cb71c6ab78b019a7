"""Checks that a model and its twin in the other Keras compute the same."""

import contextlib

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf

from kprune.copier import in_short
from kprune.export.base import ExportError
from kprune.export.forward import Forward
from kprune.export.samples import draw_samples
from kprune.export.verify import verify
from kprune.tfmot.keras_2 import with_states_put_back
from kprune.tfmot.twins import by_id

# Outputs may differ by so many roundings of the type that the model computes in; 1e-6
# in float32.
_ROUNDINGS = 8
# In a deep model small differences of many layers add up to more. Where each layer by
# itself is within the bound, so much is taken.
_MANY_ROUNDINGS = 1000


def check_same(model, twins):
    """Raises an error unless a model and its twin give the same outputs.

    Both are run for inference on random inputs, of the types and within the ranges
    that they accept. Compared are the outputs, relative to the largest of them.

    Args:
        model: The model that was translated. What its run changes is not put back.
        twins: `Twins`, with its twin.

    Raises:
        ValueError: If they differ, with the first layer that does; or if the model runs
            on none of the inputs, so that nothing is known.
    """
    pair = [model, twins.of(model)]
    new, old = pair if isinstance(model, keras.Model) else reversed(pair)
    try:
        forward = _Both(new, old)
        samples = draw_samples(forward)
    except (ExportError, _NotRunError) as error:
        reason = error
        if isinstance(error.__cause__, _NotRunError):
            which = "original" if old is model else "translation"
            reason = f"the {which} runs on no random input: {error.__cause__}"
        raise ValueError(
            f"The model {model.name!r} was translated, but can't be compared with the "
            f"translation: {reason}"
        ) from error
    run = forward.answer_of_old
    one = float(ml_dtypes.finfo(forward.compute_dtype).eps)
    label = f"The model {model.name!r}, brought over,"
    try:
        verify(run, None, samples, _ROUNDINGS * one, label)
    except ExportError as error:
        _check_weights(model, twins)
        values = by_id(model.inputs, forward.pack(samples[0][0]))
        culprit = _first_difference(model, twins, values, _ROUNDINGS * one)
        if culprit is None:
            with contextlib.suppress(ExportError):
                verify(run, None, samples, _MANY_ROUNDINGS * one, label)
                return
        raise ValueError(
            f"The model {model.name!r} can't be brought over: its outputs would not be "
            f"the same. {_explained(culprit)}"
        ) from error


class _Both(Forward):
    """Runs a Keras 3 model on what one of tf_keras runs on, too."""

    def __init__(self, new, old):
        super().__init__(new)
        self.old = old

    def __call__(self, arrays):
        try:
            self.answer_of_old(_with_extremes(arrays))
        except Exception as error:  # any that a layer thinks of
            raise _NotRunError(in_short(error)) from error
        return super().__call__(arrays)

    def answer_of_old(self, arrays):
        """Returns the outputs of the tf_keras model as a dict of arrays."""
        with with_states_put_back(self.old):
            outputs = self.named(self.old(*self.pack(arrays), training=False))
        return {name: np.asarray(x) for name, x in outputs.items()}


class _NotRunError(Exception):
    """The reason why a tf_keras model can't be run on some inputs."""


def _with_extremes(arrays):
    """Makes fractions large and negative, which no word of a vocabulary is.

    A layer that looks up words takes a fraction near zero for the first of them. In
    Keras 3 it takes negative numbers as well.
    """
    return {
        name: np.where(x % 1 != 0, -1e3 * np.abs(x), x) if x.dtype.kind == "f" else x
        for name, x in arrays.items()
    }


def _check_weights(model, twins):
    """Raises an error if there are weights that can't be computed with."""
    layers = [twin for _, twin in twins.pairs if hasattr(twin, "weights")]
    layers = [layer for layer in layers if not hasattr(layer, "layers")]
    broken = dict.fromkeys(repr(x.name) for x in layers if not _is_finite(x))
    if broken:
        raise ValueError(
            f"The model {model.name!r} computes NaN, which can't be compared: there "
            f"are numbers that are not finite in the weights of {', '.join(broken)}. "
            "Train it anew, or go back to a checkpoint from before."
        )


def _is_finite(layer):
    arrays = [np.asarray(v) for v in layer.weights if "float" in str(v.dtype)]
    return all(np.isfinite(array.astype("float32")).all() for array in arrays)


def _explained(culprit):
    if culprit is None:
        return (
            "Each of its layers gives the same by itself; what passes between them, "
            "such as a mask of padding, does not come over. Pass masks as inputs."
        )
    return (
        f"The first layer to differ is {culprit}. Replace that layer, or pass a class "
        "for it in `custom_objects`."
    )


def _first_difference(model, twins, values, tolerance, within=""):
    """Finds the first layer whose twin gives something else on the same inputs.

    Args:
        model: The model that was translated.
        twins: Its `Twins`.
        values: Dict from the ids of the model's symbolic inputs to their values.
        tolerance: Float, the difference that is allowed, by the largest output.
        within: String, the names of the models around this one.

    Returns:
        String that names it, or `None`.
    """
    for call in twins.calls_of(model):
        operation, (args, kwargs) = call.operation, call.fill_in(values)
        name = f"{within}{operation.name}"
        expected = operation(*args, **kwargs)
        if isinstance(operation, twins.source.Model):
            inner = by_id(operation.inputs, (args, kwargs))
            culprit = _first_difference(operation, twins, inner, tolerance, f"{name}/")
            if culprit:
                return culprit
        found = twins.call(operation, args, kwargs)
        if not _is_same(found, expected, tolerance):
            return f"{name!r} ({type(operation).__name__})"
        values = values | by_id(call.output_tensors, expected)
    return None


def _is_same(found, expected, tolerance):
    found, expected = (
        {str(i): np.asarray(x) for i, x in enumerate(tf.nest.flatten(outputs))}
        for outputs in (found, expected)
    )
    try:
        verify(lambda _: found, None, [({}, expected)], tolerance, "a layer")
    except ExportError:
        return False
    return True
