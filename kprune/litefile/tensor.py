"""A tensor of a TFLite file, decoded from the way it is stored."""

import dataclasses
import math

import ml_dtypes
import numpy as np

_DENSE = 0
_NUMPY_TYPES = {"bfloat16": ml_dtypes.bfloat16, "int4": ml_dtypes.int4}
# Bits of one element; strings, resources and variants have no size of their own.
_BITS = {
    "float32": 32,
    "float16": 16,
    "bfloat16": 16,
    "int32": 32,
    "uint32": 32,
    "uint8": 8,
    "int8": 8,
    "bool": 8,
    "int16": 16,
    "uint16": 16,
    "int64": 64,
    "uint64": 64,
    "float64": 64,
    "complex64": 64,
    "complex128": 128,
    "int4": 4,
    "uint4": 4,
    "int2": 2,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a TFLite file.

    Args:
        name: String, as the converter chose it.
        dtype: String, such as `"float32"` or `"int8"`.
        shape: Tuple of ints; -1 where the size is open.
        scales: float32 array of shape `(channels,)`, `(1,)` or, where the tensor
            is not quantized, `(0,)`.
        zero_points: int64 array of `scales`' shape.
        axis: Int, the axis that `scales` runs along.
        stored: uint8 array of the bytes in the file, or `None` for a tensor
            that is computed.
        sparsity: The encoding of a sparse tensor, or `None`.
        is_variable: Bool, whether it keeps its value from call to call.

    Example:
    >>> weights = Tensor("w", "int8", (2,), stored=np.array([1, 255], "uint8"))
    >>> weights.is_constant, weights.values()
    (True, array([ 1, -1], dtype=int8))
    """

    name: str
    dtype: str
    shape: tuple
    scales: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, "f"))
    zero_points: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, "int64")
    )
    axis: int = 0
    stored: np.ndarray | None = dataclasses.field(default=None, repr=False)
    sparsity: object = dataclasses.field(default=None, repr=False)
    is_variable: bool = False

    @property
    def bytes(self):
        """Int, the size of its values, stored densely; open sizes count as 1."""
        bits = _BITS.get(self.dtype, 0) * math.prod(map(abs, self.shape))
        return (bits + 7) // 8

    @property
    def open_axes(self):
        """Tuple of int, the dimensions that are open."""
        return tuple(axis for axis, size in enumerate(self.shape) if size < 0)

    @property
    def is_constant(self):
        """Whether the file holds the tensor's values."""
        return self.stored is not None

    @property
    def is_sparse(self):
        """Whether the file leaves out zeros of it."""
        return self.sparsity is not None

    def values(self):
        """Returns a constant's values, of its dtype and shape, zeros included."""
        dtype = np.dtype(_NUMPY_TYPES.get(self.dtype, self.dtype))
        if self.dtype == "int4":
            stored = _unpacked(self.stored)[: int(np.prod(self.shape))]
        else:
            stored = np.frombuffer(self.stored.tobytes(), dtype)
        if self.sparsity is None:
            return stored.reshape(self.shape).astype(dtype)
        return _densified(stored, self.sparsity, self.shape)

    def real_values(self):
        """Returns what a constant stands for: scaled if quantized, as float64."""
        values = self.values().astype("float64")
        if not self.scales.size:
            return values
        return (values - self._along_axis(self.zero_points)) * self.steps()

    def steps(self):
        """Returns the scales, float64, in a shape that broadcasts to the values."""
        return self._along_axis(self.scales.astype("float64"))

    def _along_axis(self, array):
        shape = [1] * len(self.shape)
        if array.size > 1:
            shape[self.axis] = -1
        return array.reshape(shape)


def _unpacked(stored):
    """Returns the int4 values of bytes that hold two each, the low half first."""
    halves = np.stack([stored & 15, stored >> 4], axis=-1).reshape(-1)
    return ((halves ^ 8).astype("int8") - 8).astype("int8")


def _densified(stored, sparsity, shape):
    """Returns a sparse tensor with its zeros.

    The file describes a tree, one level for each dimension and one more for each
    blocked dimension. A dense level gives every node above it `denseSize`
    children; a compressed one gives node `n` the children listed from
    `segments[n]` to `segments[n + 1]`. The leaves are the stored values, in order.
    """
    coordinates, sizes = _walked(sparsity.dimMetadata)
    by_dimension = dict(zip(sparsity.traversalOrder, coordinates, strict=True))
    size_of = dict(zip(sparsity.traversalOrder, sizes, strict=True))
    index = [by_dimension[axis] for axis in range(len(shape))]
    blocked = [] if sparsity.blockMap is None else sparsity.blockMap
    for inner, axis in enumerate(blocked, start=len(shape)):
        index[axis] = index[axis] * size_of[inner] + by_dimension[inner]
    dense = np.zeros(shape, stored.dtype)
    dense[tuple(index)] = stored
    return dense


def _walked(levels):
    """Returns each leaf's coordinate at every level, and the levels' sizes."""
    coordinates, nodes = [], 1
    for level in levels:
        if level.format == _DENSE:
            children = np.full(nodes, level.denseSize)
            position = np.tile(np.arange(level.denseSize), nodes)
        else:
            children = np.diff(np.asarray(level.arraySegments.values, "int64"))
            position = np.asarray(level.arrayIndices.values, "int64")
        parents = np.repeat(np.arange(nodes), children)
        coordinates = [coordinate[parents] for coordinate in coordinates]
        coordinates.append(position)
        nodes = len(position)
    return coordinates, [level.denseSize for level in levels]
