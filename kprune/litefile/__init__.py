"""TFLite files: what is inside, and what is added to them."""

from kprune.litefile.contents import Contents, Operator, Subgraph
from kprune.litefile.reader import read, read_bytes, read_metadata
from kprune.litefile.tensor import Tensor
from kprune.litefile.writer import add_metadata, replace_constants

__all__ = [
    "Contents",
    "Operator",
    "Subgraph",
    "Tensor",
    "add_metadata",
    "read",
    "read_bytes",
    "read_metadata",
    "replace_constants",
]
