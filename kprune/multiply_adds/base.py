"""`Work`: what a call multiplies, and the rules that know it."""

import dataclasses
import math

import keras
from keras import tree

from kprune.delegation import DelegatingWrapper
from kprune.layer_graph import parts_of
from kprune.prunable import has_no_prunable_weights
from kprune.registry import lookup
from kprune.variants import defined_anew, known_type, other_kernels


@dataclasses.dataclass(frozen=True)
class Work:
    """What one call multiplies and adds for one example.

    Attributes:
        kernels: Tuple of pairs (variable, times): each kernel and how often it is
            applied as a whole.
        products: Int, the multiply-adds of activations with activations.
    """

    kernels: tuple = ()
    products: int = 0

    def __add__(self, other):
        return Work(self.kernels + other.kernels, self.products + other.products)

    def macs(self, shape_of=lambda variable: variable.shape):
        """Returns the number of multiply-adds.

        Args:
            shape_of: Function that returns the shape of a kernel, for kernels that
                are to be narrowed. Defaults to its own.

        Example:
        >>> kernel = keras.Variable([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> Work(((kernel, 10),), products=7).macs()
        67
        """
        applied = [math.prod(shape_of(kernel)) * n for kernel, n in self.kernels]
        return sum(applied) + self.products


class Unknown(Exception):
    """A rule can't tell the work, for want of a size or of code it can read."""


@dataclasses.dataclass(frozen=True)
class Use:
    """One call of a layer or operation, as its rule sees it.

    Shapes are those of one example, with the axis of the batch in front. Its size
    is 1 but where a reshape has moved other axes there.

    Attributes:
        arguments: Tuple of a tuple and a dict, positional and named arguments of the
            call, with a `Shape` in the place of each tensor and Keras variable.
        outputs: List of `Shape`, of what comes out.
        shape_of: Function `(variable)`: the shape of a weight, a tuple of ints.
    """

    arguments: tuple
    outputs: list
    shape_of: object

    @property
    def inputs(self):
        """List of `Shape`, of all tensors and variables that are given."""
        leaves = tree.flatten(self.arguments)
        return [leaf for leaf in leaves if isinstance(leaf, Shape)]

    def argument(self, place, name):
        """Returns an argument by its place, counted from 0, or by its name."""
        positional, named = self.arguments
        return positional[place] if place < len(positional) else named.get(name)

    def of(self, shape):
        """Returns the use of a layer within, on one tensor."""
        return Use(((Shape(shape),), {}), [], self.shape_of)


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of a tensor, whole in the structure of a call's arguments.

    Attributes:
        sizes: Tuple of int, or `None` where a size is open.
    """

    sizes: tuple

    def __getitem__(self, place):
        """Returns a size, or a tuple of sizes."""
        return self.sizes[place]

    def __len__(self):
        return len(self.sizes)


def count(sizes):
    """Returns the product of sizes.

    Raises:
        Unknown: If one is open.
    """
    sizes = tuple(sizes)
    if None in sizes:
        raise Unknown
    return math.prod(sizes)


# What multiplies sums without a kernel of its own, or calls code that can't be read.
_NAMES = """
    AdditiveAttention AssociativeScan Attention CDist Cholesky CholeskyInverse Cond Conv
    ConvTranspose Correlate Corrcoef Cross DepthwiseConv Det Dot DotProductAttention Eig
    Eigh Einsum ElasticTransform FFT FFT2 ForiLoop GaussianBlur IFFT2 IRFFT ISTFT Inner
    Inv JVP Kron Lambda Logdet Lstsq LuFactor Map Matmul MatrixRank MelSpectrogram Outer
    Pinv Qr RFFT SSIM STFT STFTSpectrogram SVD Scan SeparableConv Slogdet SobelEdges
    Solve SolveTriangular Switch Tensordot Vdot VectorizedMap WhileLoop
"""
_UNCOUNTED = frozenset(_NAMES.split())


def work_of(operation, use):
    """Returns the work of one call, or `None` if it is not known.

    Say what a layer of your own does by a rule: a function of the layer and of a
    `Use` that returns a `Work`. It counts for subclasses of the type, too, as long as
    these define nothing anew but their constructor and config.

    Args:
        operation: The layer or `keras.Operation`. One that stands in the place of a
            layer counts as that layer.
        use: `Use`.

    Example:
    >>> import kprune
    >>> class Mixing(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.matrix = self.add_weight(shape=(shape[-1], shape[-1]))
    ...     def call(self, inputs):
    ...         return keras.ops.matmul(inputs, self.matrix)
    >>> @kprune.register("multiply_adds", Mixing)
    ... def work_of_mixing(layer, use):
    ...     return Work(((layer.matrix, count(use.inputs[0][:-1])),))
    >>> layer = Mixing()
    >>> layer.build((None, 5, 3))
    >>> use = Use(((Shape((1, 5, 3)),), {}), [], lambda variable: variable.shape)
    >>> work_of(layer, use).macs()
    45
    """
    while isinstance(operation, DelegatingWrapper):
        operation = operation.layer
    rule = _rule_of(operation)
    if rule is None:
        return Work() if _is_free(operation) else None
    if other_kernels(operation) is not None:
        return None
    try:
        return rule(operation, use)
    except Unknown:
        return None


def known(operation, use):
    """Returns the work of a layer within another.

    Raises:
        Unknown: If it is not known.
    """
    work = work_of(operation, use)
    if work is None:
        raise Unknown
    return work


def _rule_of(operation):
    known = known_type("multiply_adds", operation)
    if known is None or defined_anew(type(operation), known):
        return None
    return lookup("multiply_adds", known)


def _is_free(operation):
    return all(map(_is_free_part, parts_of(operation)))


def _is_free_part(part):
    kind = type(part)
    if isinstance(part, keras.Model):  # what it calls besides layers is not seen here
        return False
    if has_no_prunable_weights(part):
        return True
    has_kernel = any(len(v.shape) > 1 for v in getattr(part, "variables", ()))
    is_keras = kind.__module__.partition(".")[0] == "keras"
    return is_keras and not has_kernel and kind.__name__ not in _UNCOUNTED
