"""What an archive holds, part by part, beside what no code could go below."""

import dataclasses

from kprune.tables import laid_out

# Parts in the order of the table, and what they are.
PARTS = {
    "positions": "where the nonzeros are",
    "indices": "which codebook entry each is",
    "codebooks": "the entries",
    "values": "weights without a codebook, biases, statistics",
    "tables": "code tables",
    "architecture": "layers and names",
    "header": "lengths, kinds, checksum",
}


@dataclasses.dataclass(frozen=True)
class ArchiveReport:
    """What `kprune.save_archive` wrote; `print(report)` shows it as a table.

    Args:
        model: String, the model's name.
        path: String, the file.
        parts: Dict from part to bytes; their sum is the size of the file.
        arrays: Tuple of `kprune.compress.streams.ArraySizes`, one a weight.
        weights: Int, number of values in the model's weights.
        weight_bytes: Int, what they take in memory.
        notes: Tuple of strings, what to know of the file.

    Example:
    >>> parts = {"values": 40, "header": 9}
    >>> report = ArchiveReport("net", "net.kpz", parts, (), 10, 40)
    >>> report.bytes
    49
    >>> print(report)
    net: 10 weights of 40 bytes in 49 bytes, 0.8x
    part      bytes  bound  what
    values       40         weights without a codebook, biases, statistics
    header        9         lengths, kinds, checksum
    """

    model: str
    path: str
    parts: dict
    arrays: tuple
    weights: int
    weight_bytes: int
    notes: tuple = ()

    @property
    def bytes(self):
        """Int, size of the file."""
        return sum(self.parts.values())

    @property
    def nonzeros(self):
        """Int, how many weights are not zero."""
        return sum(array.nonzeros for array in self.arrays)

    @property
    def bounds(self):
        """Dict of bytes: the entropy of the coded streams.

        That of independent symbols, for each array as if its distribution came for
        free. A stream whose symbols depend on each other can be shorter.
        """
        return {
            "positions": sum(array.positions_bound for array in self.arrays),
            "indices": sum(array.indices_bound for array in self.arrays),
        }

    @property
    def coded_bytes(self):
        """Int, size of the coded streams with their tables: `bounds` is for these."""
        return sum(
            self.parts.get(part, 0) for part in ("positions", "indices", "tables")
        )

    def to_dict(self):
        """Returns the report as plain data that JSON can hold."""
        return {**dataclasses.asdict(self), "bytes": self.bytes, "bounds": self.bounds}

    def __str__(self):
        ratio = self.weight_bytes / self.bytes if self.bytes else 0.0
        rows = []
        for part, what in PARTS.items():
            if self.parts.get(part):
                bound = self.bounds.get(part)
                bound = f"{bound:,.0f}" if bound else ""
                rows.append((part, f"{self.parts[part]:,}", bound, what))
        lines = [
            f"{self.model}: {self.weights:,} weights of {self.weight_bytes:,} bytes in "
            f"{self.bytes:,} bytes, {ratio:.1f}x",
            laid_out(("part", "bytes", "bound", "what"), rows, ("bytes", "bound")),
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
