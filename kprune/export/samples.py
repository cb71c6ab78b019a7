"""Random inputs that a model accepts, and what it answers to them."""

import functools
import itertools

import keras
import numpy as np
import tensorflow as tf

from kprune.export.base import ExportError

# Batch size and the range of real-valued inputs: normal, or uniform in [0, 1).
_PLAN = ((1, "normal"), (1, "uniform"), (3, "normal"))
# Lengths tried for dimensions that the model leaves open.
_OPEN_SIZES = (32, 96, 224)
_UNKNOWN_WORD = "kprune"


def draw_samples(forward, seed=0):
    """Draws random inputs, runs the Keras model on them and keeps both.

    Real inputs are normal or uniform. Whole-number inputs stay below the
    largest vocabulary (`Embedding`, `CategoryEncoding`) that the model accepts
    for them, found by trying; strings are words of the vocabularies of lookup
    layers and one that is in none; open dimensions get 32 entries, or more
    if the model wants more.

    Args:
        forward: The model's `kprune.export.forward.Forward`.
        seed: Int, seed of the draws.

    Returns:
        List of pairs of dicts, inputs and outputs by name. Batch sizes are 1, 1
        and 3, or the model's own where it has a fixed one.

    Raises:
        ExportError: If the model runs on none of the inputs drawn.

    Example:
    >>> from kprune.export.forward import Forward
    >>> model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.ReLU()])
    >>> [inputs["x"].shape for inputs, _ in draw_samples(Forward(model))]
    [(1, 3), (1, 3), (3, 3)]
    """
    domains, size = _find_domains(forward)
    plan = _PLAN if forward.fixed_batch is None else [(forward.fixed_batch, "normal")]
    samples = []
    for index, (batch, real) in enumerate(plan):
        rng = np.random.default_rng((seed, index))
        inputs = _draw(forward, domains, size, rng, batch, real)
        samples.append((inputs, forward(inputs)))
    return samples


def _draw(forward, domains, size, rng, batch, real="normal"):
    inputs = {}
    for spec, domain in zip(forward.inputs, domains, strict=True):
        shape = (batch, *(size if d is None else d for d in spec.shape[1:]))
        values = domain(rng, shape, real)
        inputs[spec.name] = np.asarray(values, spec.dtype.as_numpy_dtype)
    return inputs


def _find_domains(forward):
    """Returns a domain for each input, and the size of open dimensions.

    Without knowing which input reaches which layer: all inputs start from their
    narrowest domain, then each in turn gets the widest that the model takes.
    """
    choices = [_domains_of(forward, spec) for spec in forward.inputs]
    is_open = any(None in spec.shape[1:] for spec in forward.inputs)
    for size in _OPEN_SIZES if is_open else _OPEN_SIZES[:1]:
        domains = [widest for *_, widest in map(reversed, choices)]
        failure = _failure(forward, domains, size)
        if failure is None:
            return domains, size
        domains = [narrowest for *_, narrowest in choices]
        failure = _failure(forward, domains, size)
        if failure is None:
            for index, wider in enumerate(choices):
                domains[index] = next(
                    domain
                    for domain in wider
                    if domain is wider[-1]
                    or not _failure(forward, _replaced(domains, index, domain), size)
                )
            return domains, size
    shapes = ", ".join(f"{s.name} {s.shape} {s.dtype.name}" for s in forward.inputs)
    raise ExportError(
        f"Model {forward.model.name!r} could not be run on random inputs ({shapes}), "
        f"so that no file of it can be verified. It failed with: {failure}"
    ) from failure


def _replaced(domains, index, domain):
    return [*domains[:index], domain, *domains[index + 1 :]]


def _failure(forward, domains, size):
    rng = np.random.default_rng(0)
    batch = forward.fixed_batch or 3
    try:
        forward(_draw(forward, domains, size, rng, batch))
    except Exception as error:
        return error
    return None


def _domains_of(forward, spec):
    """Returns the domains to try for one input, the widest first."""
    bounds = sorted({2, *_vocabulary_sizes(forward.model)}, reverse=True)
    whole = [functools.partial(_whole, bound) for bound in bounds]
    if spec.dtype == tf.string:
        return [functools.partial(_words, _vocabulary(forward.model))]
    if spec.dtype == tf.bool:
        return [functools.partial(_whole, 2)]
    if spec.dtype.is_floating:
        return [_real, *whole]
    if len(bounds) == 1:
        ceiling = min(256, spec.dtype.max)
        return [functools.partial(_whole, b) for b in (ceiling, 10, 2)]
    return whole


def _real(rng, shape, real):
    return rng.normal(size=shape) if real == "normal" else rng.random(shape)


def _whole(bound, rng, shape, _):
    return rng.integers(0, bound, shape)


def _words(vocabulary, rng, shape, _):
    words = [*vocabulary, _UNKNOWN_WORD]
    words += [f"{first} {second}" for first, second in itertools.pairwise(words)]
    return rng.choice(np.array(words, object), shape)


def _vocabulary_sizes(model):
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Embedding):
            yield layer.input_dim
        elif isinstance(layer, keras.layers.CategoryEncoding):
            yield layer.num_tokens


def _vocabulary(model):
    kinds = (keras.layers.StringLookup, keras.layers.TextVectorization)
    lookups = [x for x in model._flatten_layers() if isinstance(x, kinds)]
    return [str(word) for x in lookups for word in x.get_vocabulary() if word]
