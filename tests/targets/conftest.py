"""gdb runs `hide_avx.py`; elsewhere its module `gdb` does not exist."""

collect_ignore = ["hide_avx.py"]
