"""A file as a C array, for programs without a file system."""

import os
import re

from kprune.litefile import read_bytes

_PER_LINE = 12
# Words of C and C++ up to C2x and C++20, and what compilers and programs name so.
_WORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char
    char16_t char32_t char8_t class co_await co_return co_yield compl concept const
    const_cast consteval constexpr constinit continue decltype default delete do
    double dynamic_cast else enum explicit export extern false float for friend goto
    if inline int linux long main mutable namespace new noexcept not not_eq nullptr
    operator or or_eq private protected public register reinterpret_cast requires
    restrict return short signed sizeof static static_assert static_cast std struct
    switch template this thread_local throw true try typedef typeid typename typeof
    typeof_unqual union unix unsigned using virtual void volatile wchar_t while xor
    xor_eq
"""
_TAKEN = frozenset(_WORDS.split())
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
        ValueError: If `name` is no name in C, or one that C or C++ takes for
            itself, or the file no TFLite file.

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
    if name in _TAKEN:
        raise ValueError(
            f"name is {name!r}, a word that C or C++ keeps for itself, so that the "
            f"files would not compile. Take another, such as '{name}_model'."
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
