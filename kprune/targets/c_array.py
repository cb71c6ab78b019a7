"""A file as a C array, for programs without a file system."""

import os
import re

from kprune.litefile import read_bytes

_PER_LINE = 12
_HEADER = """\
#ifndef {guard}
#define {guard}

#ifdef __cplusplus
extern "C" {{
#endif

extern const unsigned char {name}[];
extern const unsigned int {name}_len;

#ifdef __cplusplus
}}
#endif

#endif  /* {guard} */
"""
_SOURCE = """\
#include "{name}.h"

#ifndef __cplusplus
#include <stdalign.h>
#endif

alignas(16) const unsigned char {name}[] = {{
{rows}
}};
const unsigned int {name}_len = {length};
"""


def write_c_array(path, directory, name="model"):
    """Writes a .tflite file as C source and header, for TensorFlow Lite Micro.

    The array is constant, so that linkers keep it in flash, and aligned to 16 bytes,
    as the interpreter wants. Both files compile as C11 and as C++11.

    Args:
        path: String, path or bytes: the .tflite file.
        directory: String or path of the folder to write to; it is made if missing.
        name: String, name of the array and of both files. Defaults to `"model"`.

    Returns:
        Pair of strings, the paths of `<name>.c` and `<name>.h`.

    Raises:
        ValueError: If `name` is no name in C, or the file no TFLite file.

    Example:
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     source, _ = write_c_array(bytes(4) + b"TFL3", folder, "tiny")
    ...     lines = pathlib.Path(source).read_text().splitlines()
    >>> for line in lines[-4:]:
    ...     print(line)
    alignas(16) const unsigned char tiny[] = {
      0x00, 0x00, 0x00, 0x00, 0x54, 0x46, 0x4c, 0x33,
    };
    const unsigned int tiny_len = 8;
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(
            f"name is {name!r}, expected a name in C: letters, digits and underscores, "
            "a letter first."
        )
    content = read_bytes(path)
    lines = (content[i : i + _PER_LINE] for i in range(0, len(content), _PER_LINE))
    rows = "\n".join("  " + " ".join(f"0x{b:02x}," for b in line) for line in lines)
    guard = f"KPRUNE_{name.upper()}_H_"
    os.makedirs(directory, exist_ok=True)
    source = _SOURCE.format(name=name, rows=rows, length=len(content))
    return (
        _write(directory, f"{name}.c", source),
        _write(directory, f"{name}.h", _HEADER.format(name=name, guard=guard)),
    )


def _write(directory, file, text):
    path = os.path.join(os.fspath(directory), file)
    with open(path, "w", encoding="ascii", newline="\n") as stream:
        stream.write(text)
    return path
