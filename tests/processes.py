"""Runs scripts in processes of their own, without importing TensorFlow each time.

That import takes seconds. One server a test worker does it and nothing else; each
script runs in a fork of the server, which knows no model, layer or name of ours.
"""

import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap

REPOSITORY = pathlib.Path(__file__).parents[1]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tensorflow", "keras"])


def run_script(script, *arguments, folder=REPOSITORY):
    """Runs a script as `python -c` does.

    Args:
        script: The Python code; `kprune` and `tests` can be imported in it.
        *arguments: What it finds in `sys.argv`, as strings.
        folder: The working folder, from which modules can be imported too.

    Returns:
        A `subprocess.CompletedProcess` with the text of both outputs; a signal that
        ended the script is its negative return code.
    """
    with tempfile.TemporaryDirectory() as outputs:
        paths = [os.path.join(outputs, name) for name in ("stdout", "stderr")]
        given = (textwrap.dedent(script), [*map(str, arguments)], str(folder), paths)
        process = FORKS.Process(target=_run, args=given)
        process.start()
        process.join()
        texts = [pathlib.Path(path).read_text() for path in paths]
        done = subprocess.CompletedProcess(script, process.exitcode, *texts)
        process.close()
    return done


def _run(script, arguments, folder, paths):
    for number, path in enumerate(paths, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    sys.path[:0] = [folder, str(REPOSITORY)]
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
