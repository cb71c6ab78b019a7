import os
import subprocess
import sys

import pytest
from keras import saving

from kprune import registry
from kprune.export import SavedModel, TFLite
from kprune.export.base import quiet


def test_formats_are_registered_under_the_names_that_users_write():
    assert isinstance(registry.get("formats", "saved_model"), SavedModel)
    assert isinstance(registry.get("formats", "tflite"), TFLite)


@pytest.mark.parametrize("name", registry.keys("formats"))
def test_every_format_survives_its_config(name):
    format = type(registry.get("formats", name))(tolerance=0.25)

    restored = registry.get("formats", saving.serialize_keras_object(format))

    assert restored == format
    assert restored.tolerance == 0.25


@pytest.mark.parametrize("tolerance", [0, -1e-4, float("nan")])
def test_tolerance_has_to_be_above_zero(tolerance):
    with pytest.raises(ValueError, match="expected a number above 0"):
        TFLite(tolerance=tolerance)


def test_quiet_silences_native_code_and_gives_the_streams_back(capfd):
    with quiet():
        os.system("echo noise; echo noise >&2")
    os.system("echo heard")

    assert capfd.readouterr() == ("heard\n", "")


def test_importing_the_package_loads_no_interpreter():
    code = "import kprune.export, sys; sys.exit('ai_edge_litert' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True)

    assert done.returncode == 0, done.stderr.decode()
