"""Gradients of the loss over calibration data, as evidence for criteria."""

import numpy as np
import tensorflow as tf

from kprune.calibration.base import gathers
from kprune.calibration.data import count_rows, fixed_batch, slice_rows
from kprune.calibration.loss import loss_of
from kprune.weight_access import as_array

# What is summed up of the gradient of a batch's summed loss; first, in which power a
# factor of the loss is in it.
_OF_BATCHES = {
    "gradient": (1, lambda gradient, rows: gradient),
    "absolute_gradient": (1, lambda gradient, rows: tf.abs(gradient)),
    "squared_gradient": (2, lambda gradient, rows: tf.square(gradient) / rows),
    "hessian_gradient": (1, lambda gradient, rows: gradient),
}
_OF_EXAMPLES = {
    "example_squared_gradient": (2, lambda gradient, rows: tf.square(gradient)),
}
_TERMS = _OF_BATCHES | _OF_EXAMPLES


@gathers(*_TERMS, "total_saliency", labels=True)
class LossGradients:
    """Gathers what gradients of the loss say, in one pass over the data.

    `"hessian_gradient"` alone takes a second one, since it needs the mean gradient
    first. In memory there are one array of each weight's shape a kind, and one
    gradient, however many examples there are. A batch counts by its rows.

    Args:
        model: A compiled model.
        kinds: Set of strings, the kinds that are wanted.
        data: `CalibrationData` with labels.

    Raises:
        ValueError: If examples are wanted one by one, and the model is fixed to
            batches of several.
    """

    def __init__(self, model, kinds, data):
        fixed = fixed_batch(model) or 1
        if kinds & _OF_EXAMPLES.keys() and fixed > 1:
            raise ValueError(
                "The criterion looks at the gradients of examples one by one, and "
                f"{model.name!r} is fixed to batches of {fixed}. Build it with an open "
                "batch, `keras.Input(shape)` without `batch_size`, or take another "
                "criterion, such as 'taylor'."
            )
        self._model = model
        self._kinds = kinds
        self._data = data
        self._compiled = {}

    def __call__(self, entries):
        """Returns the evidence for some weights.

        Args:
            entries: List of `MaskedWeight`.

        Returns:
            List of dicts, one a weight, from kind to float32 array of the weight's
            own shape, or to a float for `"total_saliency"`.

        Raises:
            ValueError: If a gradient is NaN or infinite, or if the loss depends on
                none of the weights.
        """
        names = {id(entry.variable): entry.name for entry in entries}
        variables = {id(entry.variable): entry.variable for entry in entries}
        gradients = self._compiled.setdefault(
            tuple(variables), _Gradients(self._model, list(variables.values()))
        )
        for scale in _loss_scales(self._model):
            means = self._means(gradients, scale)
            fault = _fault(means, [names[key] for key in variables])
            if fault is None:
                break
        else:
            raise ValueError(
                f"{fault} Either training has diverged (lower the learning rate or "
                "clip gradients), or the calibration data holds such values."
            )
        evidence = {
            key: {kind: means[kind][i] for kind in means.keys() & self._kinds}
            for i, key in enumerate(variables)
        }
        if "total_saliency" in self._kinds:
            total = _total_saliency(variables.values(), means["gradient"])
            for found in evidence.values():
                found["total_saliency"] = total
        return [evidence[id(entry.variable)] for entry in entries]

    def _means(self, gradients, scale):
        """Returns a dict from kind to arrays, one a variable."""
        kinds = self._kinds & _TERMS.keys()
        if self._kinds & {"hessian_gradient", "total_saliency"}:
            kinds = kinds | {"gradient"}
        second = kinds & {"hessian_gradient"}
        means = gradients.means(kinds - second, self._data, scale)
        if second:
            along = list(map(tf.convert_to_tensor, means["gradient"]))
            means |= gradients.means(second, self._data, scale, along)
        return means


class _Gradients:
    """Means of what a model's gradients give, by passes that are compiled once."""

    def __init__(self, model, variables):
        self._model = model
        self._variables = variables
        self._traced = set()
        # As in `fit`, no Python of the user's is rewritten.
        self._add = tf.function(self._add_batch, reduce_retracing=True, autograph=False)

    def means(self, kinds, data, scale, along=()):
        """Returns the means of some kinds over all batches, or all examples.

        Args:
            kinds: Set of keys of `_TERMS`.
            data: `CalibrationData`.
            scale: Float, what the loss is multiplied with on the way, as half
                precision needs it.
            along: List of tensors, one a variable, for `"hessian_gradient"`: what the
                Hessian is multiplied with.

        Returns:
            Dict from kind to a list of float32 arrays, one a variable.
        """
        sums = {
            kind: [tf.Variable(tf.zeros(v.shape)) for v in self._variables]
            for kind in sorted(kinds)
        }
        of_batches = {kind: sums[kind] for kind in sums if kind in _OF_BATCHES}
        of_examples = {kind: sums[kind] for kind in sums if kind in _OF_EXAMPLES}
        seen = 0
        for batch in data:
            rows = count_rows(batch)
            seen += rows
            if of_batches:
                self._run(of_batches, batch, scale, along)
            for i in range(rows) if of_examples else ():
                self._run(of_examples, slice_rows(batch, i, i + 1), scale, along)
        return {
            kind: [_divided(v, seen * scale ** _TERMS[kind][0]) for v in found]
            for kind, found in sums.items()
        }

    def _run(self, sums, batch, scale, along):
        arguments = tf.constant(float(count_rows(batch))), tf.constant(scale), along
        if tuple(sums) not in self._traced:
            # For any number of rows, before the first ones are met.
            spec = _of_any_length(batch)
            self._add.get_concrete_function(sums, spec, *arguments)
            self._traced.add(tuple(sums))
        self._add(sums, batch, *arguments)

    def _add_batch(self, sums, batch, rows, scale, along):
        weights = [tf.convert_to_tensor(v.value) for v in self._variables]
        if along:
            gradients = self._hessian_products(weights, batch, rows * scale, along)
        else:
            gradients = self._gradients(weights, batch, rows * scale)
        for kind, found in sums.items():
            _, term = _TERMS[kind]
            for total, gradient in zip(found, gradients, strict=True):
                total.assign_add(term(gradient, rows))

    def _gradients(self, weights, batch, scale):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            replaced = list(zip(self._variables, weights, strict=True))
            loss = loss_of(self._model, batch, replaced)
            loss = tf.cast(loss, "float32") * scale
        gradients = tape.gradient(loss, weights)
        if all(gradient is None for gradient in gradients):
            raise ValueError(
                f"The loss of {self._model.name!r} depends on none of the weights that "
                "are being pruned, so that they can't be scored by its gradients. "
                "Take a criterion that needs no gradients, such as 'magnitude'."
            )
        return list(map(_dense, gradients, weights))

    def _hessian_products(self, weights, batch, scale, along):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            gradients = self._gradients(weights, batch, scale)
            pairs = zip(gradients, along, strict=True)
            product = tf.add_n([tf.reduce_sum(g * a) for g, a in pairs])
        products = tape.gradient(product, weights)
        return list(map(_dense, products, weights))


def _dense(gradient, weight):
    """Returns a gradient as a float32 tensor; of what has none, zeros."""
    if gradient is None:
        return tf.zeros(weight.shape)
    if isinstance(gradient, tf.IndexedSlices):  # of an embedding
        rows = weight.shape[0]
        gradient = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, rows)
    return tf.cast(gradient, "float32")


def _of_any_length(batch):
    def spec(array):
        return tf.TensorSpec((None, *array.shape[1:]), array.dtype)

    return tf.nest.map_structure(lambda a: None if a is None else spec(a), batch)


def _divided(variable, divisor):
    if divisor != 1:
        variable.assign(variable / divisor)
    return np.asarray(memoryview(variable.value()))  # without a copy


def _loss_scales(model):
    """Returns the factors of the loss to be tried until all gradients are finite.

    In half precision small gradients are lost unless the loss is scaled up, and large
    ones if it is. The optimizer finds out what serves, as training goes on.
    """
    scale = getattr(model.optimizer, "initial_scale", 1.0)
    if hasattr(model.optimizer, "dynamic_scale"):
        scale = float(as_array(model.optimizer.dynamic_scale))
    return [scale, scale**0.5, 1.0] if scale > 1 else [1.0]


def _fault(means, names):
    """Returns a sentence about the first array that holds NaN, or `None`."""
    for kind, arrays in means.items():
        for name, array in zip(names, arrays, strict=True):
            finite = np.isfinite(array)
            if not finite.all():
                return (
                    f"The evidence {kind!r} for the weight {name!r} of shape "
                    f"{array.shape} holds {np.count_nonzero(~finite)} values that are "
                    "NaN or infinite."
                )
    return None


def _total_saliency(variables, gradients):
    """Returns the sum of `|w * g|` over all weights, never quite zero."""
    total = 0.0
    for variable, gradient in zip(variables, gradients, strict=True):
        weight = as_array(variable).astype("float32", copy=False)
        total += float(np.vdot(np.abs(weight), np.abs(gradient)))
    return max(total, np.finfo("float32").tiny)
