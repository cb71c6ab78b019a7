"""A module whose weights are stored packed and decoded once, when it is loaded.

Nothing but stock operations of TensorFlow: a weight is a resource of the saved
graph, as a lookup table is, and one initializer inflates the streams and fills them
all. Functions read the weights as they read variables.
"""

import functools
import hashlib

import tensorflow as tf

_ESCAPE = 255


def packed_module(forward, plain, weights):
    """Makes a module of a model with some of its weights packed.

    Args:
        forward: The model's `kprune.export.forward.Forward`.
        plain: The module that `forward.module()` returned.
        weights: List of pairs, a `tf.Variable` of `plain` and the
            `kprune.export.packing.PackedWeight` stored in its place; at least one.

    Returns:
        What `Forward.module` does: a `tf.Module` ready to be saved, and the
        concrete function of the named signature.
    """
    module = tf.Module()
    module.decoder = _Decoder([packed for _, packed in weights])
    # Resources do not track what they hold.
    module.streams, module.weights = module.decoder.streams, module.decoder.weights
    handles = {
        id(variable.handle): weight.resource_handle
        for (variable, _), weight in zip(weights, module.weights, strict=True)
    }
    module.state = [v for v in plain.state if id(v.handle) not in handles]
    module.tables = plain.tables
    serve = _reading(handles, plain.serve.get_concrete_function())
    module.serve = tf.function(
        serve, input_signature=forward.arguments, autograph=False
    )
    return module, _signature(serve, forward)


def _reading(handles, traced):
    """Returns a function that does what the traced one does with other resources."""
    captured = [handles.get(id(tensor), tensor) for tensor in traced.captured_inputs]

    def serve(*arguments):
        return traced._call_flat(tf.nest.flatten(arguments), captured)

    return serve


def _signature(serve, forward):
    def serving_default(**arrays):
        return forward._named(serve(*forward._pack(arrays)))

    specs = {spec.name: spec for spec in forward.inputs}
    signature = tf.function(serving_default, autograph=False)
    return signature.get_concrete_function(**specs)


class _Weight(tf.saved_model.experimental.TrackableResource):
    """A variable that a SavedModel does not hold; `_Decoder` fills it."""

    def __init__(self, packed, name):
        super().__init__()
        self.dtype, self.shape, self._shared_name = packed.dtype, packed.shape, name

    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(
            dtype=self.dtype, shape=self.shape, shared_name=self._shared_name
        )

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        # There has to be an initializer. One that does nothing serves all weights;
        # functions of their own would take two kilobytes each.
        children = super()._trackable_children(save_type, **kwargs)
        if "_initialize" in children:
            children["_initialize"] = _nothing()
            del children["_destroy_resource"]
        return children


@functools.cache
def _nothing():
    return tf.function(lambda: 1, input_signature=[], autograph=False)


class _Decoder(tf.saved_model.experimental.TrackableResource):
    """Fills all weights when a file is loaded, and frees them in the end.

    Args:
        packed: List of `PackedWeight`s.
    """

    def __init__(self, packed):
        super().__init__()
        with tf.device("CPU"):
            self.streams = tf.Variable([weight.stream for weight in packed])
        # Sessions find the weights by name; loaders of TensorFlow 2 add a number to
        # the name, so that a file loaded twice has its weights twice.
        content = hashlib.sha256(b"".join(weight.stream for weight in packed))
        self._name = f"kprune_{content.hexdigest()[:16]}"
        self._packed = packed
        self.weights = [
            _Weight(weight, f"{self._name}_{index}")
            for index, weight in enumerate(packed)
        ]

    def _create_resource(self):
        # Every resource has a handle; nothing is ever stored behind this one.
        return tf.raw_ops.VarHandleOp(dtype=tf.bool, shape=[], shared_name=self._name)

    def _initialize(self):
        streams = self.streams.read_value()
        for index, packed in enumerate(self._packed):
            decode = decoder(packed.positions, packed.values, packed.dtype)
            numbers = index, packed.position_bytes, packed.entries
            value = decode(streams, numbers, packed.shape)
            handle = self.weights[index].resource_handle
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)


@functools.cache
def decoder(positions, values, dtype):
    """Returns the function that undoes `kprune.export.packing.pack`.

    All weights of one encoding share it, and so do all files.
    """
    itemsize = tf.as_dtype(dtype).size

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([3], tf.int64),
            tf.TensorSpec([None], tf.int64),
        ],
        autograph=False,
    )
    def decode(streams, numbers, shape):
        index, position_bytes, entries = tf.unstack(numbers)
        content = tf.io.decode_compressed(streams[index], "ZLIB")
        content = tf.io.decode_raw(content, tf.uint8)
        head, tail = content[:position_bytes], content[position_bytes:]
        size = tf.reduce_prod(shape)
        places = _PLACES[positions](head, size)
        rows = _ROWS[values](tail, entries, itemsize)
        # Bytes are moved, never numbers: a sum would lose the sign of a zero, and
        # TensorFlow flushes subnormal numbers.
        rows = tf.scatter_nd(places, rows, tf.stack([size, itemsize]))
        return tf.reshape(tf.bitcast(rows, dtype), shape)

    return decode


def _places_from_gaps(head, size):
    is_value = head < _ESCAPE
    steps = tf.cast(head, tf.int64) + tf.cast(is_value, tf.int64)
    return tf.boolean_mask(tf.cumsum(steps) - 1, is_value)[:, None]


def _places_from_mask(head, size):
    shifts = tf.constant([7, 6, 5, 4, 3, 2, 1, 0], tf.uint8)
    bits = tf.bitwise.right_shift(head[:, None], shifts)
    bits = tf.bitwise.bitwise_and(bits, tf.constant(1, tf.uint8))
    return tf.where(tf.reshape(bits, [-1])[:size] > 0)


def _rows_from_planes(tail, entries, itemsize):
    return tf.transpose(tf.reshape(tail, [itemsize, -1]))


def _rows_from_codebook(tail, entries, itemsize):
    codebook = tf.reshape(tail[: entries * itemsize], [-1, itemsize])
    return tf.gather(codebook, tf.cast(tail[entries * itemsize :], tf.int32))


_PLACES = {"gaps": _places_from_gaps, "mask": _places_from_mask}
_ROWS = {"planes": _rows_from_planes, "codebook": _rows_from_codebook}
