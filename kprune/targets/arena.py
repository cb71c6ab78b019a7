"""How much memory the activations of a .tflite file need on a microcontroller.

TensorFlow Lite Micro keeps them in one arena and decides once, before the first call,
where each is to lie. The plan is made here in the same way: the largest buffer
first, each at the lowest place that is free as long as it lives.
"""

import dataclasses

ALIGNMENT = 16
# More steps than any model takes; a crafted file can ask for 2 to its subgraphs.
_MOST_STEPS = 100_000


@dataclasses.dataclass(frozen=True)
class Buffer:
    """The place of one activation in time and memory.

    Attributes:
        name: String, the tensor's name.
        bytes: Int, its size, rounded up to a multiple of `ALIGNMENT`.
        first: Int, the step at which it is written.
        last: Int, the last step at which it is read; they overlap if equal.
        offset: Int, where the plan puts it.
    """

    name: str
    bytes: int
    first: int
    last: int
    offset: int = 0


@dataclasses.dataclass(frozen=True)
class ArenaPlan:
    """Where the activations lie.

    Attributes:
        buffers: Tuple of `Buffer`.
    """

    buffers: tuple

    @property
    def planned_bytes(self):
        """Int, the bytes that the plan takes."""
        return max((b.offset + b.bytes for b in self.buffers), default=0)

    @property
    def peak_bytes(self):
        """Int, the most that lives at one step; no plan can take less."""
        return max(map(self._alive, (b.first for b in self.buffers)), default=0)

    def _alive(self, step):
        return sum(b.bytes for b in self.buffers if b.first <= step <= b.last)


def plan_arena(subgraphs):
    """Plans the arena for the activations of a model.

    What TensorFlow Lite Micro adds on its own is not counted: the structures of
    tensors and operators, scratch buffers of kernels, and variables.

    Args:
        subgraphs: Sequence of `kprune.litefile.Subgraph`, the model first.

    Returns:
        An `ArenaPlan`.

    Raises:
        ValueError: If a subgraph runs itself, or they run each other too often.

    Example:
    >>> from kprune.litefile import Operator, Subgraph, Tensor
    >>> x, y = Tensor("x", "int8", (1, 20)), Tensor("y", "int8", (1, 3))
    >>> relu = Operator("RELU", (x,), (y,))
    >>> plan = plan_arena([Subgraph((x, y), (relu,), (x,), (y,))])
    >>> [(b.name, b.bytes, b.offset) for b in plan.buffers], plan.planned_bytes
    ([('x', 32, 0), ('y', 16, 32)], 48)

    Reference:
        `GreedyMemoryPlanner` and `AllocationInfoBuilder` in tensorflow/tflite-micro.
    """
    lifetimes = _Lifetimes(subgraphs)
    lifetimes.walk(0)
    return ArenaPlan(tuple(_placed(list(lifetimes.buffers()))))


class _Lifetimes:
    """When each tensor is written first and read last, over all subgraphs."""

    def __init__(self, subgraphs):
        self._subgraphs = subgraphs
        self._first, self._last = {}, {}
        self._step = 0
        self._running = []

    def walk(self, index):
        """Marks the tensors of a subgraph and of those that it runs."""
        if index in self._running:
            raise ValueError(
                f"Subgraph {index} of the TFLite file runs itself. Export it again."
            )
        self._running.append(index)
        graph = self._subgraphs[index]
        self._mark(graph.inputs)
        for operator in graph.operators:
            self._step += 1
            if self._step > _MOST_STEPS:
                raise ValueError(
                    f"The {len(self._subgraphs)} subgraphs of the TFLite file run each "
                    f"other in more than {_MOST_STEPS:,} steps, so that no arena can "
                    "be planned. It is damaged; export it again."
                )
            self._mark(operator.outputs)
            for inner in operator.subgraphs:
                self.walk(inner)
            self._mark(operator.inputs + operator.outputs)
        self._mark(graph.outputs)
        self._running.pop()

    def _mark(self, tensors):
        for tensor in filter(None, tensors):  # inputs may be left out
            self._first.setdefault(tensor, self._step)
            self._last[tensor] = self._step

    def buffers(self):
        """Lists the tensors that live in the arena, in the order of the file."""
        for tensor in (t for graph in self._subgraphs for t in graph.tensors):
            is_activation = not (tensor.is_constant or tensor.is_variable)
            if tensor in self._first and tensor.bytes and is_activation:
                size = -(-tensor.bytes // ALIGNMENT) * ALIGNMENT
                yield Buffer(tensor.name, size, self._first[tensor], self._last[tensor])


def _placed(buffers):
    placed = []
    # Of equal sizes the later tensor comes first.
    for buffer in sorted(reversed(buffers), key=lambda b: -b.bytes):
        offset = 0
        for other in sorted(placed, key=lambda b: b.offset):
            overlaps = other.first <= buffer.last and buffer.first <= other.last
            if not overlaps:
                continue
            if other.offset - offset >= buffer.bytes:
                break
            offset = max(offset, other.offset + other.bytes)
        placed.append(dataclasses.replace(buffer, offset=offset))
    return placed
