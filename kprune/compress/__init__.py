"""Deep Compression: shared weights, entropy-coded indices, one archive."""

from kprune.compress.archive import load_archive, save_archive
from kprune.compress.archive_report import ArchiveReport
from kprune.compress.coders import Coder, entropy_bits
from kprune.compress.packing import ArchiveError

__all__ = [
    "ArchiveError",
    "ArchiveReport",
    "Coder",
    "entropy_bits",
    "load_archive",
    "save_archive",
]
