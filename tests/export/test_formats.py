import os
import sys
import threading

import pytest
from keras import saving

from kprune import registry
from kprune.export import SavedModel, TFLite
from kprune.export.base import Format, quiet
from tests.processes import run_script


def test_formats_are_registered_under_the_names_that_users_write():
    assert isinstance(registry.get("formats", "saved_model"), SavedModel)
    assert isinstance(registry.get("formats", "tflite"), TFLite)


@pytest.mark.parametrize("name", registry.keys("formats"))
def test_every_format_survives_its_config(name):
    format = type(registry.get("formats", name))(tolerance=0.25)

    restored = registry.get("formats", saving.serialize_keras_object(format))

    assert restored == format
    assert restored.tolerance == 0.25


@pytest.mark.parametrize(
    "tolerance", [0, -1e-4, float("nan"), float("inf"), True, "0.1", [1]]
)
def test_tolerance_has_to_be_a_finite_number_above_zero(tolerance):
    with pytest.raises(ValueError, match="expected a number above 0"):
        TFLite(tolerance=tolerance)


def test_quiet_silences_native_code_and_gives_the_streams_back(capfd):
    with quiet():
        os.system("echo noise; echo noise >&2")
    os.system("echo heard")

    assert capfd.readouterr() == ("heard\n", "")


def test_quiet_in_several_threads_ends_with_the_last_of_them(capfd):
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def leave_first():
        with quiet():
            first_is_in.set()
            second_is_in.wait(10)
        first_is_out.set()

    thread = threading.Thread(target=leave_first)
    thread.start()
    first_is_in.wait(10)
    with quiet():
        second_is_in.set()
        first_is_out.wait(10)
        os.system("echo noise")
    thread.join()
    os.system("echo heard")

    assert capfd.readouterr() == ("heard\n", "")


def test_quiet_works_in_a_process_that_has_no_console(capfd, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", None)
        with quiet():
            os.system("echo noise")
    os.system("echo heard")

    assert capfd.readouterr() == ("heard\n", "")


def test_quiet_works_where_a_stream_was_closed():
    saved = os.dup(1)
    os.close(1)
    try:
        with quiet():
            os.write(2, b"noise")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(1, b"closed, as before")
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def test_importing_the_package_loads_no_interpreter():
    script = "import kprune.export, sys; sys.exit('ai_edge_litert' in sys.modules)"

    done = run_script(script)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("method", "arguments"), [("write", (None, "path")), ("load", ("path",))]
)
def test_the_base_class_names_a_format_that_lacks_a_method(method, arguments):
    class Half(Format):
        pass

    with pytest.raises(NotImplementedError, match=f"Half defines no `{method}`"):
        getattr(Half(), method)(*arguments)
