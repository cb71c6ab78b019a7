"""What an export wrote, as data and as a table."""

import dataclasses
import os
import tempfile
import zipfile
import zlib

from kprune.tables import laid_out

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
            outputs and those it should have on the inputs tried.
        notes: Tuple of strings, what to know before using it.
        zip_bytes: Int, size of one zip archive of it (deflate, level 9), as it
            is often shipped.
        bound: Int or `None`, bytes to compare with: the entropy of the positions of
            nonzero weights, plus their values at the bits of the format. A coder
            that uses how values or positions are distributed comes out below it.
        overhead_bytes: Int or `None`, the bytes among `bytes` that are no weights:
            graph, header.
        accuracy: Float in [0, 1] or `None`, on the data given to `export`.
        latency_ms: Float or `None`, median milliseconds a call with one row, on
            this machine.
        rounding_difference: Float or `None`, for a file whose weights are rounded as
            asked for: the largest absolute difference between the outputs it should
            have and those of the Keras model, on the inputs tried.

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
    zip_bytes: int | None = None
    bound: int | None = None
    overhead_bytes: int | None = None
    accuracy: float | None = None
    latency_ms: float | None = None
    rounding_difference: float | None = None


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
        accuracy: Float in [0, 1] or `None`, of the Keras model on the data given.
        latency_ms: Float or `None`, of the Keras model, compiled, as in
            `ExportRecord`.

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
    accuracy: float | None = None
    latency_ms: float | None = None

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
            _table(self),
            *(f"note: {note}" for note in self.notes),
        ]
        for record in self.records:
            name = os.path.basename(record.path)
            lines += [f"note ({name}): {note}" for note in record.notes]
        return "\n".join(lines)


# Heading, field, and how a value is shown. Those from `by rounding` on appear only if
# some record has them.
_COLUMNS = (
    ("format", "format", "{}"),
    ("path", "path", "{}"),
    ("bytes", "bytes", "{:,}"),
    ("gzipped", "gzip_bytes", "{:,}"),
    ("max difference", "max_difference", "{:.1e}"),
    ("by rounding", "rounding_difference", "{:.1e}"),
    ("zipped", "zip_bytes", "{:,}"),
    ("bound", "bound", "{:,}"),
    ("no weights", "overhead_bytes", "{:,}"),
    ("accuracy", "accuracy", "{:.4f}"),
    ("ms a call", "latency_ms", "{:.3f}"),
)


def _table(report):
    columns = [
        (heading, field, form)
        for heading, field, form in _COLUMNS
        if any(getattr(record, field) is not None for record in report.records)
    ]
    rows = []
    if report.accuracy is not None or report.latency_ms is not None:
        rows.append([_cell(report, field, form) for _, field, form in columns])
        rows[-1][0] = "Keras"
    rows += [
        [_cell(r, field, form) for _, field, form in columns] for r in report.records
    ]
    headings = [heading for heading, *_ in columns]
    return laid_out(headings, rows, numbers=headings[2:])


def _cell(record, field, form):
    value = getattr(record, field, None)
    return "" if value is None else form.format(value)


def file_sizes(path):
    """Measures a file, or all files under a folder.

    Args:
        path: String, a file or folder.

    Returns:
        Three ints: the bytes; the bytes after gzip level 9 of each file without
        name or time stamp, so that equal files give equal numbers; the bytes of
        one zip archive of all, deflated at level 9.

    Example:
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     file_sizes(file.name)[:2]
    (0, 20)
    """
    files = files_under(path)
    return file_bytes(path), sum(map(_gzip_size, files)), _zip_size(path, files)


def file_bytes(path):
    """Returns the bytes of a file, or of all files under a folder."""
    return sum(map(os.path.getsize, files_under(path)))


def files_under(path):
    """Lists the paths of all files under a folder; of a file, just this one."""
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


def _zip_size(path, files):
    with tempfile.TemporaryFile() as target:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as zip:
            for file in files:
                zip.write(file, os.path.relpath(file, os.path.dirname(path)))
        return target.seek(0, os.SEEK_END)
