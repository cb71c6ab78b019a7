"""A SavedModel as loaded from disk: run, and compared with what it is to hold."""

import contextlib

import tensorflow as tf

from kprune.export.base import ExportError
from kprune.export.endpoints import DEFAULT


class LoadedModel:
    """Runs a signature of a loaded SavedModel on arrays.

    Args:
        loaded: What `tf.saved_model.load` returned. It owns the variables and has to
            live as long as its signatures are used.
        signature: String, the name of the signature.
    """

    def __init__(self, loaded, signature=DEFAULT):
        self.loaded = loaded
        self.signature = signature

    def __call__(self, inputs):
        """Returns a dict of arrays by output name, given one by input name."""
        tensors = {name: tf.constant(x) for name, x in inputs.items()}
        outputs = self.loaded.signatures[self.signature](**tensors)
        return {name: x.numpy() for name, x in outputs.items()}

    @property
    def batch(self):
        """Int, the only batch size that the signature takes, or `None` for any."""
        signature = self.loaded.signatures[self.signature]
        return next(iter(signature.structured_input_signature[1].values())).shape[0]


def compare_content(loaded, content, label):
    """Compares all of a loaded file with what it is to hold.

    Weights and lookup tables bit for bit, since a few samples say little of a small
    weight, or of a word that is in none of them; and the types of all outputs.

    Args:
        loaded: What `tf.saved_model.load` returned, before anything was run.
        content: `kprune.export.saved_content.Content`.
        label: String, what errors call the file.

    Raises:
        ExportError: If anything differs.
    """
    for name, endpoint in content.endpoints.items():
        subject = f"Signature {name!r} of {label}"
        _compare_types(loaded.signatures[name], endpoint, subject)
    _compare_weights(loaded, content, label)
    for table, ours in zip(loaded.tables, content.tables, strict=True):
        if hasattr(ours, "key_dtype") and not _is_same_table(table, ours):
            raise ExportError(
                f"A lookup table of {label} has other entries than the Keras model's."
            )


def _compare_types(signature, endpoint, subject):
    found = {n: spec.dtype.name for n, spec in signature.structured_outputs.items()}
    expected = {name: spec.dtype.name for name, spec in endpoint.outputs.items()}
    if found != expected:
        raise ExportError(f"{subject} gives {found}, the Keras model {expected}.")


def _compare_weights(loaded, content, label):
    paths = {id(weight.value): weight.path for weight in content.weights}
    is_packed = hasattr(loaded, "decoder")
    plain = content.plain if is_packed else content.variables
    expected = [(paths.get(id(v), v.name), v.numpy()) for v in plain]
    found = list(loaded.state)
    if is_packed:
        expected += [(variable.path, array) for variable, array in content.packed]
        found += loaded.weights
    if len(found) != len(expected):
        raise ExportError(
            f"{label} holds {len(found)} variables, the Keras model {len(expected)}."
        )
    for variable, (path, array) in zip(found, expected, strict=True):
        if not _is_same(variable.numpy(), array):
            raise ExportError(
                f"Weight {path!r} of {label} is not what was to be stored, shape "
                f"{array.shape} of {array.dtype.name}. Export again; if the disk and "
                "the memory are sound, report it to the authors of kprune."
            )


@contextlib.contextmanager
def state_kept(loaded):
    """Puts the variables back on exit, since calls of a stateful model move them.

    Args:
        loaded: What `tf.saved_model.load` returned.
    """
    before = [variable.numpy() for variable in loaded.state]
    yield
    for variable, value in zip(loaded.state, before, strict=True):
        variable.assign(value)


def _is_same(found, expected):
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    return found.tobytes() == expected.tobytes()


def _is_same_table(table, expected):
    def entries(handle):
        keys, values = tf.raw_ops.LookupTableExportV2(
            table_handle=handle,
            Tkeys=expected.key_dtype,
            Tvalues=expected.value_dtype,
        )
        pairs = zip(keys.numpy().tolist(), values.numpy().tolist(), strict=True)
        return dict(pairs)

    return entries(table.resource_handle) == entries(expected.resource_handle)
