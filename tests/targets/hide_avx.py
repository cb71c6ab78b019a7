"""Runs a program under gdb with AVX hidden from LiteRT; gdb reads this file.

XNNPACK keeps its sparse kernels switched off on processors with AVX, and asks the
processor through the instruction `cpuid`. A breakpoint on each of them in LiteRT's
library clears the bits of AVX and what builds on it from the answers. The program
stops by itself, with SIGTRAP, once the library is loaded.
"""

import os
import subprocess

import gdb

LIBRARY = os.environ["KPRUNE_LIBRARY"]
# In leaf 1 FMA, XSAVE, OSXSAVE, AVX and F16C.
HIDDEN_OF_LEAF_1 = 1 << 12 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29
leaf = [None]


def set_register(name, value):
    gdb.execute(f"set ${name} = {value}", to_string=True)


class Before(gdb.Breakpoint):
    def stop(self):
        leaf[0] = int(gdb.parse_and_eval("(unsigned int)$eax"))
        return False


class After(gdb.Breakpoint):
    def stop(self):
        if leaf[0] == 1:
            features = int(gdb.parse_and_eval("(unsigned int)$ecx"))
            set_register("rcx", features & ~HIDDEN_OF_LEAF_1)
        elif leaf[0] == 7:
            for name in ("rbx", "rcx", "rdx"):
                set_register(name, 0)
        return False


def load_address():
    mappings = gdb.execute("info proc mappings", to_string=True).splitlines()
    return min(int(line.split()[0], 16) for line in mappings if LIBRARY in line)


def offsets():
    command = ["objdump", "-d", "--no-show-raw-insn", LIBRARY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.rstrip().endswith("cpuid"):
                yield int(line.split(":")[0], 16)


for command in ("pagination off", "confirm off", "debuginfod enabled off"):
    gdb.execute(f"set {command}")
gdb.execute("handle SIGTRAP stop print nopass")
gdb.execute("run")
base = load_address()
for offset in offsets():
    Before(f"*{base + offset}", internal=True)
    After(f"*{base + offset + 2}", internal=True)  # cpuid is two bytes long
gdb.execute("continue")
