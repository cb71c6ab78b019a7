"""What a SavedModel of a model is to hold: signatures, variables, arrays to pack."""

import numpy as np

from kprune import inspection
from kprune.export.base import ExportError
from kprune.export.endpoints import find_endpoints
from kprune.export.packing import bound_bytes, rounded
from kprune.export.provenance import arrays_sha256

_FLOATS = ("float16", "bfloat16", "float32", "float64")
# A packed weight takes some three hundred bytes more of the graph than a plain one.
_LEAST_SAVING = 1024


class Content:
    """What a SavedModel of a model is to hold.

    Args:
        forward: The model's `kprune.export.forward.Forward`.
        signatures: Dict of what is served beside the model, see `kprune.SavedModel`.
        packing: String, one of `kprune.export.packing.PACKINGS`, or `None` if nothing
            is to be packed.

    Attributes:
        endpoints: Dict, see `kprune.export.endpoints.find_endpoints`.
        packed: List of pairs, a Keras variable to be packed and the array to be stored
            for it, as `refresh` found them.
    """

    def __init__(self, forward, signatures, packing):
        self.endpoints = find_endpoints(forward, signatures)
        self._packing = packing
        self._digest, self.packed = None, []

    def refresh(self):
        """Finds out what is to be packed, unless the weights are as they were before.

        A file is written and later verified, each time against the weights as they
        are; looking for codebooks takes long.

        Raises:
            ExportError: If the packing cannot hold a value.
        """
        if self._packing is not None:
            digest = arrays_sha256(self.weights)
            if digest != self._digest:
                self._digest, self.packed = digest, list(self._to_pack())

    @property
    def variables(self):
        """The `tf.Variable`s that any of the endpoints reads, each once."""
        every = (v for f in self.endpoints.values() for v in f.variables())
        return list({id(variable): variable for variable in every}.values())

    @property
    def tables(self):
        """The lookup tables that any of the endpoints reads, each once."""
        every = (t for f in self.endpoints.values() for _, t in f.tables())
        return list({id(table): table for table in every}.values())

    @property
    def weights(self):
        """The Keras variables of all endpoints' models, each once."""
        models = (forward.model for forward in self.endpoints.values())
        every = (v for model in models for v in inspection.own_weights(model))
        return list({id(variable): variable for variable in every}.values())

    @property
    def plain(self):
        """The `tf.Variable`s that are not packed, in the order of `variables`."""
        packed = {id(variable.value) for variable, _ in self.packed}
        return [v for v in self.variables if id(v) not in packed]

    @property
    def bound(self):
        """Float, the bytes of all weights with positions coded at their entropy."""
        packed = sum(bound_bytes(a, self._packing_of(a)) for _, a in self.packed)
        return bytes_of(self.plain) + packed

    @property
    def vanished(self):
        """Dict from paths of weights to how many of their values rounding made zero."""
        counts = {
            v.path: int(np.count_nonzero(v) - np.count_nonzero(a))
            for v, a in self.packed
        }
        return {path: count for path, count in counts.items() if count}

    def _to_pack(self):
        read = {id(variable) for variable in self.variables}
        for variable in self.weights:
            if variable.dtype not in _FLOATS or id(variable.value) not in read:
                continue
            array = np.asarray(variable.value)
            packing = self._packing_of(array)
            if array.nbytes - bound_bytes(array, packing) >= _LEAST_SAVING:
                yield variable, _rounded(variable.path, array, packing)

    def _packing_of(self, array):
        return self._packing if array.ndim > 1 else "lossless"


def _rounded(path, array, packing):
    result = rounded(array, packing)
    if packing != "lossless" and not np.isfinite(result).all():
        raise ExportError(
            f"Weight {path!r} has values up to {np.max(np.abs(array)):.3g}, which "
            f"packed={packing!r} cannot hold. Use packed='lossless'."
        )
    # Masks that multiply leave zeros of either sign.
    return np.where(result == 0, np.zeros_like(result), result)


def bytes_of(variables):
    """Returns the bytes that `tf.Variable`s take."""
    return sum(v.shape.num_elements() * v.dtype.size for v in variables)
