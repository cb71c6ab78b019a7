"""Folders that are replaced as a whole, after the new one is complete."""

import contextlib
import json
import os
import re
import shutil
import uuid

from kprune.export.report import ExportReport

MARK = "export.json"


def local_path(directory):
    """Returns the absolute path of a folder on this machine.

    Args:
        directory: String, bytes or path; `~` stands for the home folder.

    Returns:
        String.

    Raises:
        ValueError: If it is an address such as `"gs://bucket/out"`.

    Example:
    >>> local_path("/models/../out")
    '/out'
    """
    path = os.fsdecode(directory)
    # `pathlib` makes one slash of two. One letter is a drive.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        raise ValueError(
            f"directory is {path!r}, expected a folder on this machine: an export "
            "takes its place by renaming. Export to a local folder and copy that, for "
            "example with tf.io.gfile."
        )
    return os.path.abspath(os.path.expanduser(path))


def check_target(directory, files):
    """Raises unless `directory` may receive an export.

    It may if it does not exist, is empty, or holds an earlier export, which
    `export.json` marks; what a killed export left unfinished does not count. Other
    files beside an earlier export are allowed, as
    long as none has the name of a file to be written.

    Args:
        directory: String, the folder asked for.
        files: Names that the export is going to write into it.

    Raises:
        FileExistsError: If something else is there.

    Example:
    >>> check_target("/no/such/folder", ["model.tflite"])
    """
    if not os.path.lexists(directory):
        return
    if not os.path.isdir(directory):
        raise FileExistsError(
            f"{directory!r} is a file (or a broken link), expected a folder to write "
            "the export into. Pass another path, or remove it."
        )
    present = [x for x in sorted(os.listdir(directory)) if not _is_left(x, directory)]
    ours = previous_files(directory)
    if present and not ours:
        raise FileExistsError(
            f"{directory!r} is not empty and holds no export of kprune (no {MARK} that "
            f"lists its files), but {_some(present)}. Pass a new or empty folder, or "
            "empty this one."
        )
    clashes = sorted(set(present) & set(files) - ours)
    if clashes:
        raise FileExistsError(
            f"{directory!r} holds {_some(clashes)}, not written by kprune, where the "
            "export is to go. Move it away, or pass another folder."
        )


def _is_left(name, directory):
    """Tells whether a process that was killed left a folder of `replacing` behind."""
    home = re.escape(os.path.basename(os.path.realpath(directory)))
    return re.fullmatch(rf"\.{home}\.[0-9a-f]{{8}}\.new", name) is not None


def _some(names):
    shown = ", ".join(map(repr, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def previous_files(directory):
    """Returns the names that an earlier export wrote into a folder.

    Args:
        directory: String, an existing folder.

    Returns:
        Set of names, `export.json` among them; empty if there is no export.

    Example:
    >>> previous_files("/")
    set()
    """
    try:
        with open(os.path.join(directory, MARK), encoding="utf-8") as file:
            report = ExportReport.from_dict(json.load(file))
        return {MARK, *(os.path.basename(record.path) for record in report.records)}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return set()


@contextlib.contextmanager
def replacing(directory):
    """Gives a temporary folder that takes the place of `directory` at the end.

    The folder lies beside `directory`, or in it if that exists, so that the change
    is a rename. If the body raises, it is removed and `directory` is as before.
    Files of an earlier export go; files of others that lie among them stay.

    Args:
        directory: String, a folder that passed `check_target`.

    Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with replacing(os.path.join(parent, "out")) as folder:
    ...         open(os.path.join(folder, "a"), "w").close()
    ...     os.listdir(parent), os.listdir(os.path.join(parent, "out"))
    (['out'], ['a'])
    """
    directory = os.path.realpath(directory)
    parent, name = os.path.split(directory)
    # An existing folder may be a mount or somebody's working directory: it stays,
    # and the new files are made inside.
    home = directory if os.path.isdir(directory) else parent
    created = _make_folders(home)
    staged = os.path.join(home, f".{name}.{uuid.uuid4().hex[:8]}.new")
    try:
        os.mkdir(staged)
        yield staged
        _move_in(staged, directory)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        for folder in created:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        raise


def _make_folders(path):
    """Makes a folder and its parents; returns those that were missing, last first."""
    missing = []
    current = path
    while not os.path.isdir(current):
        missing.append(current)
        current = os.path.dirname(current)
    os.makedirs(path, exist_ok=True)
    return missing


def _move_in(staged, directory):
    if not os.path.isdir(directory):
        os.rename(staged, directory)
        return
    aside = staged.removesuffix(".new") + ".old"
    stale = previous_files(directory) & set(os.listdir(directory))
    moves = [(directory, aside, name) for name in stale]
    moves += [(staged, directory, name) for name in os.listdir(staged)]
    os.mkdir(aside)
    done = []
    try:
        for source, target, name in moves:
            os.rename(os.path.join(source, name), os.path.join(target, name))
            done.append((source, target, name))
    except BaseException:
        for source, target, name in reversed(done):
            os.rename(os.path.join(target, name), os.path.join(source, name))
        os.rmdir(aside)
        raise
    os.rmdir(staged)
    shutil.rmtree(aside)
