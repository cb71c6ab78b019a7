"""A module whose weights are stored packed and decoded once, when it is loaded.

Nothing but stock operations of TensorFlow: the weights are variables that a file has
no values of, and one initializer inflates the streams and fills them all, as the
initializer of a lookup table fills the table. Functions read them like any variable,
and they are freed like any variable.
"""

import hashlib
import math

import tensorflow as tf

_ESCAPE = 255
# Bytes are moved, never numbers: a sum would lose the sign of a zero, and TensorFlow
# flushes subnormal numbers.
_WORDS = {2: tf.int16, 4: tf.int32, 8: tf.int64}


class Decoder(tf.saved_model.experimental.TrackableResource):
    """Fills weights when a file is loaded.

    A module that is to be saved has to track `streams`, `weights` and `is_decoded`
    beside it: resources do not track what they hold.

    Args:
        packed: List of `kprune.export.packing.PackedWeight`s, at least one.
        trainable: List of bools, whether each weight is to be trained. Defaults to
            `None`, all.

    Attributes:
        streams: `tf.Variable` of strings, what a file holds.
        is_decoded: `tf.Variable` of a bool. A model that is loaded and saved again
            holds its weights plain, which may have changed: nothing is decoded then.
        weights: List of `tf.Variable`s, in the order of `packed`.
    """

    def __init__(self, packed, trainable=None):
        super().__init__()
        trainable = trainable or [True] * len(packed)
        streams = [weight.stream for weight in packed]
        with tf.device("CPU"):
            self.streams = tf.Variable(streams, trainable=False)
            self.is_decoded = tf.Variable(False, trainable=False)
        self.weights = [
            _unsaved_variable(w.dtype, w.shape, is_trained)
            for w, is_trained in zip(packed, trainable, strict=True)
        ]
        self._packed = packed
        self._name = f"kprune_{hashlib.sha256(b''.join(streams)).hexdigest()[:16]}"

    def _create_resource(self):
        # Every resource has a handle; nothing is ever stored behind this one.
        return tf.raw_ops.VarHandleOp(dtype=tf.bool, shape=[], shared_name=self._name)

    def _initialize(self):
        # Decoding returns what a branch may return.
        tf.cond(self.is_decoded, lambda: True, self._decode)

    def _decode(self):
        streams = self.streams.read_value()
        by_encoding = {}
        for index, weight in enumerate(self._packed):
            encoding = weight.positions, weight.values, weight.dtype
            by_encoding.setdefault(encoding, []).append(index)
        for encoding, indices in by_encoding.items():
            packed = [self._packed[index] for index in indices]
            words = _decoded(streams, indices, packed, *encoding)
            for place, index in enumerate(indices):
                variable = self.weights[index]
                value = tf.bitcast(words.read(place), variable.dtype)
                variable.assign(tf.reshape(value, variable.shape))
        return self.is_decoded.assign(True)


def _unsaved_variable(dtype, shape, trainable):
    """Returns a variable that a SavedModel declares and holds no value of."""
    variable = tf.Variable(tf.zeros(shape, dtype), trainable=trainable)
    export = variable._export_to_saved_model_graph

    def export_unsaved(object_map, **kwargs):
        resources = export(object_map=object_map, **kwargs)
        # Saving and restoring is traced on this copy.
        _leave_out(object_map[variable])
        return resources

    _leave_out(variable)
    variable._export_to_saved_model_graph = export_unsaved
    return variable


def _leave_out(variable):
    variable._serialize_to_tensors = dict
    variable._restore_from_tensors = lambda tensors: None


def _decoded(streams, indices, packed, positions, values, dtype):
    """Undoes `kprune.export.packing.pack` for all weights of one encoding.

    In a loop: operations of their own for each weight would be small work for
    TensorFlow's kernels and much for its optimizer of graphs, which sees them first.

    Returns:
        `tf.TensorArray` of the weights' bits as whole numbers, flat.
    """
    itemsize = tf.as_dtype(dtype).size
    word = _WORDS[itemsize]
    numbers = tf.constant(
        [
            (index, weight.position_bytes, weight.entries, math.prod(weight.shape))
            for index, weight in zip(indices, packed, strict=True)
        ],
        tf.int64,
    )

    def decode(step, found):
        index, position_bytes, entries, size = tf.unstack(numbers[step])
        content = tf.io.decode_compressed(streams[index], "ZLIB")
        content = tf.io.decode_raw(content, tf.uint8)
        head, tail = content[:position_bytes], content[position_bytes:]
        places = _PLACES[positions](head, size)
        bits = _BITS[values](tail, entries, itemsize, word)
        return step + 1, found.write(step, tf.scatter_nd(places, bits, size[None]))

    found = tf.TensorArray(word, len(packed), infer_shape=False, element_shape=[None])
    _, found = tf.while_loop(
        lambda step, found: step < len(packed), decode, (tf.constant(0), found)
    )
    return found


def _places_from_gaps(head, size):
    is_value = head < _ESCAPE
    steps = tf.cast(head, tf.int64) + tf.cast(is_value, tf.int64)
    return tf.boolean_mask(tf.cumsum(steps) - 1, is_value)[:, None]


def _places_from_mask(head, size):
    shifts = tf.constant([7, 6, 5, 4, 3, 2, 1, 0], tf.uint8)
    bits = tf.bitwise.right_shift(head[:, None], shifts)
    bits = tf.bitwise.bitwise_and(bits, tf.constant(1, tf.uint8))
    return tf.where(tf.reshape(bits, [-1])[:size] > 0)


def _bits_from_planes(tail, entries, itemsize, word):
    return tf.bitcast(tf.transpose(tf.reshape(tail, [itemsize, -1])), word)


def _bits_from_codebook(tail, entries, itemsize, word):
    codebook = tf.reshape(tail[: entries * itemsize], [-1, itemsize])
    indices = tf.cast(tail[entries * itemsize :], tf.int32)
    return tf.gather(tf.bitcast(codebook, word), indices)


_PLACES = {"gaps": _places_from_gaps, "mask": _places_from_mask}
_BITS = {"planes": _bits_from_planes, "codebook": _bits_from_codebook}
