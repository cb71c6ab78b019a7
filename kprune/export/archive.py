"""The Archive format: one `.kpz` file for shipping and storage."""

import numpy as np

from kprune.compress.archive import load_archive, save_archive
from kprune.compress.packing import ArchiveError
from kprune.export.base import ExportError, Format, Written
from kprune.export.forward import Forward
from kprune.registry import register


@register("formats")
class Archive(Format):
    """A `.kpz` file, which `kprune.load_archive` turns into a Keras model again.

    The smallest of the formats, and no runtime's: it is loaded with kprune, once, and
    holds the Keras model with the same weights, bit for bit. See
    `kprune.save_archive`.

    Args:
        tolerance: Float above 0 or `None`, see `kprune.export.Format`.
        coder: Name of a coder, or list of names, see `kprune.save_archive`. Defaults
            to `"rans"`.
        float16: Bool, whether weights are rounded to float16, see there. Defaults to
            `False`. If so, the tolerance is 2e-2 unless given.

    Example:
    >>> import keras, kprune, os, tempfile
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = kprune.export(model, folder, Archive())
    ...     load_archive(folder + "/model.kpz").count_params()
    8
    """

    file = "model.kpz"

    def __init__(self, tolerance=None, *, coder="rans", float16=False):
        super().__init__(tolerance)
        self.coder = coder
        self.float16 = float16

    def write(self, forward, path):
        """Writes the file; see `Format.write`."""
        try:
            report = save_archive(
                forward.model, path, coder=self.coder, float16=self.float16
            )
        except ArchiveError as error:
            raise ExportError(str(error)) from error
        stored = report.parts.get("codebooks", 0) + report.parts.get("values", 0)
        return Written(
            notes=("a Keras model, read it with kprune.load_archive",),
            bound=round(sum(report.bounds.values())) + stored,
            overhead_bytes=report.parts["architecture"] + report.parts["header"],
        )

    def load(self, path):
        """Loads the file as a Keras model; see `Format.load`."""
        forward = Forward(load_archive(path, max_bytes=1 << 62))

        def run(inputs):
            return {name: np.asarray(x) for name, x in forward(inputs).items()}

        return run, forward.fixed_batch

    def default_tolerance(self, forward):
        """Returns the tolerance where none was given; see the base class."""
        return max(super().default_tolerance(forward), 2e-2 * self.float16)

    def get_config(self):
        """Returns all constructor arguments, by name."""
        return {
            **super().get_config(),
            "coder": self.coder,
            "float16": self.float16,
        }
