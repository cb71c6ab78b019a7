import re
import shutil
import subprocess

import keras
import numpy as np
import pytest

from kprune.targets import write_c_array
from tests.targets.files import to_tflite

PROGRAM = """\
#include <stdio.h>
#include "{name}.h"
int main(void) {{
  if ((unsigned long long){name} % 16) return 1;
  return fwrite({name}, 1, {name}_len, stdout) != {name}_len;
}}
"""


def content(size=100):
    values = np.random.default_rng(0).integers(0, 256, size, dtype="uint8")
    return bytes(4) + b"TFL3" + values.tobytes()


@pytest.mark.parametrize("size", [0, 4, 5, 1000])
def test_the_bytes_can_be_read_back_from_the_text(tmp_path, size):
    source, header = write_c_array(content(size), tmp_path, "net")

    text = (tmp_path / "net.c").read_text()
    assert (source, header) == (str(tmp_path / "net.c"), str(tmp_path / "net.h"))
    values = re.findall(r"0x([0-9a-f]{2}),", text)
    assert bytes(int(value, 16) for value in values) == content(size)
    assert "alignas(16) const unsigned char net[]" in text
    assert f"net_len = {size + 8};" in text
    assert "extern const unsigned char net[];" in (tmp_path / "net.h").read_text()


@pytest.mark.parametrize(
    ("compiler", "standard"), [("gcc", "c11"), ("g++", "c++11"), ("gcc", "c2x")]
)
def test_a_program_gives_the_file_back(tmp_path, compiler, standard):
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    file = tmp_path / "model.tflite"
    file.write_bytes(to_tflite(model, as_bytes=True))
    source, _ = write_c_array(file, tmp_path / "c", "tiny_model")
    main = tmp_path / "c" / "main.c"
    main.write_text(PROGRAM.format(name="tiny_model"))
    flags = ["-Wall", "-Wextra", "-Werror", "-pedantic", f"-std={standard}"]

    program = str(tmp_path / "program")
    subprocess.run([compiler, *flags, source, main, "-o", program], check=True)

    output = subprocess.run([program], check=True, capture_output=True).stdout
    assert output == file.read_bytes()


@pytest.mark.parametrize("name", ["", "2nd", "my-model", "a b", "name;"])
def test_a_name_that_is_none_in_c_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="expected a name in C"):
        write_c_array(content(), tmp_path, name)


@pytest.mark.parametrize("name", ["int", "alignas", "class", "main", "xor", "unix"])
def test_a_name_that_c_keeps_for_itself_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"Take another, such as '{name}_model'"):
        write_c_array(content(), tmp_path / "c", name)

    assert not (tmp_path / "c").exists()


def test_another_file_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(ValueError, match="no TFLite file"):
        write_c_array(b"something else", tmp_path / "c")

    assert not (tmp_path / "c").exists()
