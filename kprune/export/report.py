"""What an export wrote, as data and as a table."""

import dataclasses
import os
import zlib

_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class ExportRecord:
    """One file (or folder) of an export.

    Args:
        format: String, the class of its format, such as `"TFLite"`.
        path: String, where it is.
        bytes: Int, size on disk; of a folder, the sum over its files.
        gzip_bytes: Int, size after gzip level 9, file by file.
        max_difference: Float, the largest absolute difference between its
            outputs and those of the Keras model on the inputs tried.
        notes: Tuple of strings, what to know before using it.

    Example:
    >>> ExportRecord("TFLite", "out/model.tflite", 2124, 1490, 6e-8).notes
    ()
    """

    format: str
    path: str
    bytes: int
    gzip_bytes: int
    max_difference: float
    notes: tuple = ()


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `kprune.export` wrote; `print(report)` shows it as a table.

    Args:
        model: String, the model's name.
        weights: Int, number of values in the model's weights.
        nonzero_weights: Int, how many of them are not zero.
        records: Tuple of `ExportRecord`, one a format.
        notes: Tuple of strings about the export as a whole.
        kprune_version: String, the version that wrote the files.

    Example:
    >>> record = ExportRecord("TFLite", "out/model.tflite", 2124, 1490, 6e-8)
    >>> print(ExportReport("net", 266610, 26661, (record,)))
    net: 266,610 weights, 26,661 nonzero (sparsity 0.9000)
    format  path              bytes  gzipped  max difference
    TFLite  out/model.tflite  2,124    1,490         6.0e-08
    """

    model: str
    weights: int
    nonzero_weights: int
    records: tuple = ()
    notes: tuple = ()
    kprune_version: str = "unknown"

    def to_dict(self):
        """Returns the report as plain data that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data):
        """Returns the report whose `to_dict` gave `data`, also through JSON."""
        records = (
            dict(record, notes=tuple(record["notes"])) for record in data["records"]
        )
        records = tuple(ExportRecord(**record) for record in records)
        return cls(**{**data, "records": records, "notes": tuple(data["notes"])})

    def __str__(self):
        sparsity = 1 - self.nonzero_weights / self.weights if self.weights else 0.0
        lines = [
            f"{self.model}: {self.weights:,} weights, {self.nonzero_weights:,} nonzero "
            f"(sparsity {sparsity:.4f})",
            *_table(self.records),
            *(f"note: {note}" for note in self.notes),
        ]
        for record in self.records:
            lines += [f"note ({record.format}): {note}" for note in record.notes]
        return "\n".join(lines)


def _table(records):
    rows = [("format", "path", "bytes", "gzipped", "max difference")]
    rows += [
        (
            r.format,
            r.path,
            f"{r.bytes:,}",
            f"{r.gzip_bytes:,}",
            f"{r.max_difference:.1e}",
        )
        for r in records
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, path, *numbers in rows:
        cells = [name.ljust(widths[0]), path.ljust(widths[1])]
        cells += [n.rjust(w) for n, w in zip(numbers, widths[2:], strict=True)]
        yield "  ".join(cells)


def file_sizes(path):
    """Measures a file, or all files under a folder.

    Args:
        path: String, a file or folder.

    Returns:
        Two ints: the bytes, and the bytes after gzip level 9 of each file
        without name or time stamp, so that equal files give equal numbers.

    Example:
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     file_sizes(file.name)
    (0, 20)
    """
    raw = packed = 0
    for file in _files(path):
        raw += os.path.getsize(file)
        packed += _gzip_size(file)
    return raw, packed


def _files(path):
    if not os.path.isdir(path):
        return [path]
    return [
        os.path.join(root, name) for root, _, names in os.walk(path) for name in names
    ]


def _gzip_size(file):
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits=31)
    size = 0
    with open(file, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())
