"""What every export format has in common."""

import contextlib
import dataclasses
import logging
import math
import numbers
import os
import sys
import threading

from kprune.registry import Configurable


class ExportError(RuntimeError):
    """An export that could not be written, or was found to be wrong.

    The folder asked for is as it was before the call.

    Example:
    >>> issubclass(ExportError, RuntimeError)
    True
    """


_TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


def default_tolerance(compute_dtype):
    """Returns the largest relative difference that rounding may explain.

    Args:
        compute_dtype: String, the least precise type that the model computes in.

    Returns:
        Float, relative to the largest absolute value of an output.

    Example:
    >>> default_tolerance("float32"), default_tolerance("bfloat16")
    (0.0001, 0.1)
    """
    return _TOLERANCES[compute_dtype]


@dataclasses.dataclass(frozen=True)
class Written:
    """What a format has to say of a file it wrote.

    Args:
        notes: Tuple of strings, what the reader of the report should know.
        bound: Int or `None`, see `ExportRecord`.
        overhead_bytes: Int or `None`, bytes of the file that are no weights.
        sha256: String or `None`, `kprune.export.provenance.files_sha256` of what was
            written. If given, it is compared before the file is loaded.

    Example:
    >>> Written(("batch fixed to 1",)).notes
    ('batch fixed to 1',)
    """

    notes: tuple = ()
    bound: int | None = None
    overhead_bytes: int | None = None
    sha256: str | None = None


class Format(Configurable):
    """Base of the export formats: how a file is written, and how it is run.

    A subclass names its file in the export folder, writes it from a
    `kprune.export.forward.Forward`, and loads it in the runtime it is made for.
    Options are constructor arguments, returned by `get_config`. Registered with
    `@register("formats")`, a format can be asked for by name.

    Args:
        tolerance: Finite float above 0, the largest difference allowed between the
            file's outputs and Keras' own, relative to the largest absolute
            value of an output. Defaults to `None`: 1e-4 for models that compute
            in float32, 2e-2 for float16 and 1e-1 for bfloat16, whose rounding
            alone moves the outputs of a deep network that far.

    Raises:
        ValueError: If `tolerance` is no finite number above 0.

    Example:
    >>> from kprune.export import TFLite
    >>> TFLite(tolerance=1e-3)
    TFLite(tolerance=0.001)
    """

    file = None

    def __init__(self, tolerance=None):
        if tolerance is not None and not _is_tolerance(tolerance):
            raise ValueError(
                f"tolerance is {tolerance!r}, expected a number above 0 (relative to "
                "the size of the outputs) or None for the default of the model's dtype."
            )
        self.tolerance = tolerance

    def write(self, forward, path):
        """Writes the file.

        Args:
            forward: The model's `Forward`.
            path: String, where to write; nothing is there yet.

        Returns:
            `Written`.

        Raises:
            ExportError: If the model cannot be written in this format.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `write`.")

    def load(self, path):
        """Loads the file in its own runtime.

        Args:
            path: String, the file.

        Returns:
            A function of a dict of arrays by input name that returns a dict of
            arrays by output name, and the batch size that it is bound to
            (`None` if it takes any).
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `load`.")

    def check(self, forward):
        """Looks at the options before anything is written.

        Args:
            forward: The model's `Forward`.

        Raises:
            ValueError: If an option does not fit the model.
        """

    def inputs(self, forward):
        """Returns the inputs to verify the file on.

        Args:
            forward: The model's `Forward`.

        Returns:
            List of dicts of arrays by input name, or `None` for random ones.
        """

    def reference(self, forward):
        """Returns what the file is compared with.

        Args:
            forward: The model's `Forward`.

        Returns:
            Function like `forward`: the model itself, or the model as rounded on
            purpose by this format.
        """
        return forward

    def examine(self, forward, run, label):
        """Checks what the outputs for a few inputs do not show.

        Args:
            forward: The model's `Forward`.
            run: The function that `load` returned, not yet called.
            label: String, what errors call the file.

        Returns:
            Float, the largest absolute difference of outputs seen.

        Raises:
            ExportError: If something in the file is not as it should be.
        """
        return 0.0

    def default_tolerance(self, forward):
        """Returns the tolerance where none was given.

        Args:
            forward: The model's `Forward`.

        Returns:
            Float above 0.
        """
        return default_tolerance(forward.compute_dtype)

    def get_config(self):
        """Returns all constructor arguments, by name."""
        return {"tolerance": self.tolerance}


def _is_tolerance(given):
    is_number = isinstance(given, numbers.Real) and not isinstance(given, bool)
    return is_number and given > 0 and math.isfinite(given)


@contextlib.contextmanager
def quiet():
    """Silences TensorFlow's logger and what native code prints.

    The converter reports each failed attempt in hundreds of lines that no
    Python stream sees. Errors arrive as exceptions all the same. The streams are
    those of the process: what other threads print meanwhile is lost, too.

    Example:
    >>> with quiet():
    ...     _ = os.system("echo noise")
    """
    with _silence:
        yield


class _Silence:
    """Begins with the first thread that asks for it and ends with the last.

    Each on its own would take the silence of another for the stream to give back.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._users = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self):
        with self._lock:
            if not self._users:
                with contextlib.ExitStack() as stack:
                    _begin_silence(stack)
                    self._undo = stack.pop_all()
            self._users += 1

    def __exit__(self, *_):
        with self._lock:
            self._users -= 1
            if not self._users:
                self._undo.close()


_silence = _Silence()


def _begin_silence(stack):
    logger = logging.getLogger("tensorflow")
    stack.callback(logger.setLevel, logger.level)
    logger.setLevel(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        # A process without a console has none; a closed one has nothing to flush.
        if stream is not None and not stream.closed:
            stream.flush()
    saved = {stream: os.dup(stream) for stream in (1, 2) if _is_open(stream)}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    stack.callback(os.close, nowhere)
    for stream, copy in saved.items():
        stack.callback(os.close, copy)
        stack.callback(os.dup2, copy, stream)
        os.dup2(nowhere, stream)


def _is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
