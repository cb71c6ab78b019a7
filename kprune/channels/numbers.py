"""The channels of a graph, numbered: which must go together, and which must stay."""

import dataclasses

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NONE = 0  # In an array of channels: the place belongs to no channel.


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why channels can't be removed.

    Attributes:
        kind: String, one of `KINDS`.
        layer: String, the name of the layer or operation that keeps them.
        text: String, what it does with them.
    """

    kind: str
    layer: str
    text: str

    def __str__(self):
        return f"{self.layer}: {self.text}"


KINDS = (
    "output",  # the model's outputs are never narrowed
    "unknown",  # a layer or operation without a rule
    "mixed",  # something that treats the channels' axis as one of places
    "statistics",  # a mean, norm, maximum or softmax takes all channels in
    "partner",  # combined with something that can't be narrowed
    "last",  # a tensor would be empty without them
    "protected",  # by the user
    "zeros",  # no different where only channels of zeros go
)


class Channels:
    """Numbers channels, ties those that go together and notes those that stay.

    A channel is a positive integer; `NONE` stands for no channel.

    Example:
    >>> channels = Channels()
    >>> left, right = channels.new(3), channels.new(3)
    >>> channels.tie(left, right)
    >>> channels.groups()[left].tolist() == channels.groups()[right].tolist()
    True
    """

    def __init__(self):
        self._count = 1
        self._ties = []
        self._fixed = []
        self._groups = None

    def new(self, number):
        """Returns new channels, an int array of shape `(number,)`.

        One alone is no channel, since a layer can't do without its last one.
        """
        if number == 1:
            return np.array([NONE])
        first = self._count
        self._count += number
        self._groups = None
        return np.arange(first, self._count)

    def tie(self, left, right):
        """Lets channels go together, place by place.

        Args:
            left: Int array of channels.
            right: Int array that can be broadcast against it. Where one of the two
                is no channel nothing is tied.
        """
        left, right = (a.ravel() for a in np.broadcast_arrays(left, right))
        both = (left != NONE) & (right != NONE) & (left != right)
        if both.any():
            self._ties.append(np.stack([left[both], right[both]]))
            self._groups = None

    def fix(self, ids, reason):
        """Notes that channels stay, and with them what they are tied to.

        Args:
            ids: Int array of channels.
            reason: `Reason`.
        """
        ids = np.unique(ids)
        ids = ids[ids != NONE]
        if ids.size:
            self._fixed.append((ids, reason))

    def tie_lines(self, lines, reason):
        """Lets the channels of each line go together, or stay if one place has none.

        Args:
            lines: Int array of rank 2.
            reason: `Reason` of those that stay.

        Returns:
            Int array, one channel of each line, `NONE` where it has none.
        """
        some = lines.max(1)
        self.tie(lines, some[:, None])
        self.fix(some[(lines == NONE).any(1)], reason)
        return some

    def groups(self):
        """Returns the number of the group of each channel, an int array.

        Its place 0 stands for no channel, in a group of its own with number 0.
        """
        if self._groups is None:
            self._groups = _components(self._ties, self._count)
        return self._groups

    def reasons(self):
        """Returns a dict from the number of each group that stays to its reasons."""
        groups, found = self.groups(), {}
        for ids, reason in self._fixed:
            for group in np.unique(groups[ids]):
                reasons = found.setdefault(int(group), [])
                if reason not in reasons:
                    reasons.append(reason)
        return found


def connected(lines, number):
    """Returns what hangs together, directly or through others.

    Args:
        lines: Sequence of int arrays: all in one line hang together, but for `NONE`.
        number: Int. The entries of the lines are below it.

    Returns:
        Int array of that length: equal numbers for what hangs together.

    Example:
    >>> connected([np.array([1, 2]), np.array([2, NONE, 4])], 5).tolist()
    [0, 1, 1, 2, 1]
    """
    lines = [line[line != NONE] for line in lines]
    return _components([np.stack([line[:-1], line[1:]]) for line in lines], number)


def _components(pairs, number):
    pairs = np.concatenate([np.zeros((2, 0), int), *pairs], 1)
    links = coo_array((np.ones(pairs.shape[1], bool), pairs), shape=(number, number))
    return connected_components(links, directed=False)[1]
