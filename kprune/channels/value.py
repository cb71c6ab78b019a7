"""`Value`: a tensor of the graph, and which channel each of its elements belongs to."""

import dataclasses

import numpy as np

from kprune.channels.numbers import NONE


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor or weight with its channels.

    An element may belong to several channels, one in each array of `maps`, as that
    of an attention's queries does to a head and to a place within the heads. It is
    gone as soon as one of them is.

    Attributes:
        shape: Tuple of int or `None`, the tensor's.
        maps: Tuple of int arrays of the tensor's rank that hold channels. Each has
            size 1 along the axes on which its channels do not depend.
        silent: Bool, whether a channel is zero everywhere once all weights that
            make it are zero.
        uniform: Bool, whether all channels that some earlier tensor had hold the same,
            so that one of them says what all do.

    Example:
    >>> value = Value((None, 4, 3), (np.array([[[7, 8, 9]]]),))
    >>> value.axes(value.maps[0]), value.along(2)
    ((2,), [array([7, 8, 9])])
    """

    shape: tuple
    maps: tuple = ()
    silent: bool = False
    uniform: bool = False

    @classmethod
    def of_axes(cls, shape, ids, silent=False):
        """Makes a value from the channels along its axes.

        Args:
            shape: Tuple of int or `None`.
            ids: Dict from axis, counted from the front or the back, to a list of
                int arrays of its length.
            silent: Bool.
        """
        rank = len(shape)
        maps = [
            array.reshape([-1 if a == axis % rank else 1 for a in range(rank)])
            for axis, arrays in ids.items()
            for array in arrays
        ]
        return cls(tuple(shape), tuple(m for m in maps if m.any()), silent)

    @staticmethod
    def axes(array):
        """Returns the axes along which the channels of an array of `maps` change."""
        return tuple(axis for axis, size in enumerate(array.shape) if size > 1)

    def along(self, axis):
        """Returns the channels that change along one axis and along no other.

        Returns:
            List of int arrays of the axis' length.
        """
        axis %= len(self.shape)
        return [m.ravel() for m in self.maps if self.axes(m) == (axis,)]

    def ids(self):
        """Returns all channels of the tensor, an int array."""
        return np.unique(np.concatenate([[NONE], *map(np.ravel, self.maps)]))

    def kept(self, removed):
        """Returns which places of each axis are left.

        Args:
            removed: Bool array, by channel: which of them are gone.

        Returns:
            Dict from axis to a bool array of its length, for axes that change.

        Raises:
            AssertionError: If what is left would not be a full grid.
        """
        found = {}
        for array in self.maps:
            gone = removed[array]
            if not gone.any():
                continue
            varying = [
                a
                for a in self.axes(array)
                if (gone != np.take(gone, [0], a)).any() or len(self.axes(array)) == 1
            ]
            assert len(varying) == 1, "Channels of several axes are gone at once."
            axis = varying[0]
            line = np.moveaxis(gone, axis, -1).reshape(-1, gone.shape[axis])[0]
            found[axis] = found.get(axis, True) & ~line
        return found

    def narrowed(self, removed):
        """Returns the shape without the channels that are gone; see `kept`."""
        kept = self.kept(removed)
        return tuple(
            int(kept[axis].sum()) if axis in kept else size
            for axis, size in enumerate(self.shape)
        )


def compressed(array):
    """Returns an array with size 1 along the axes on which it does not depend.

    Example:
    >>> compressed(np.array([[1, 2, 3], [1, 2, 3]]))
    array([[1, 2, 3]])
    """
    for axis, size in enumerate(array.shape):
        if size > 1:
            first = np.take(array, [0], axis)
            if (array == first).all():
                array = first
    return array


def pairs(left, right):
    """Pairs the maps of two tensors that lie along the same axes, in order."""
    waiting = {}
    for array in right.maps:
        waiting.setdefault(right.axes(array), []).append(array)
    for array in left.maps:
        same = waiting.get(left.axes(array), [])
        yield array, same.pop(0) if same else None
    for same in waiting.values():
        yield from ((None, array) for array in same)
