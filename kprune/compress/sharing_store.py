"""Where the clusters of shared weights live, and how sharing is held.

A `SharingStore` is a `MaskStore` with one more variable for each shared weight: the
index of the cluster of every element. It sits where the mask store would, inside a
`SharingWrapper` or a `SharedModel`, so that whatever saves masks saves clusters.

Sharing is held by the constraint of the variable, inside the compiled step.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from kprune.mask_store import MaskStore
from kprune.masked_weight import MaskedWeight
from kprune.pruned_model import PrunedModel, class_for, plain_class
from kprune.registry import register
from kprune.whole_model import stores
from kprune.wrapper import PruningWrapper


@dataclasses.dataclass
class SharedWeight(MaskedWeight):
    """A masked weight with the clusters of its elements.

    Attributes:
        indices: Keras variable of its shape, uint8 or uint16; 0 for zeros.
        size: Int, number of entries of the codebook, zero among them.
    """

    indices: object = None
    size: int = 0

    def __post_init__(self):
        # Compiled, it takes a third of the time, but a fraction of a second at first.
        # One function a weight: shapes differ, and TensorFlow warns of many tracings.
        is_large = math.prod(self.variable.shape) >= _LARGE
        compiled = tf.function(shared, jit_compile=True, autograph=False)
        self._share = compiled if is_large else shared

    def held(self, weight):
        """Returns a weight with the members of each cluster at their mean."""
        parts = (weight, self.indices, self.mask)
        # Outside of a training step, compiling takes longer than it saves.
        share = shared if tf.executing_eagerly() else self._share
        return share(*map(tf.convert_to_tensor, parts), self.size)

    def set(self, centroids, indices):
        """Sets variable, mask and indices to what a codebook says."""
        self.indices.assign(indices)
        self.mask.assign(indices != 0)
        self.variable.assign(centroids[indices])

    def check(self, indices):
        """Raises a `ValueError` if an index to be loaded is beyond the codebook."""
        largest = int(np.max(indices, initial=0))
        if largest >= self.size:
            raise ValueError(
                f"What was loaded has {largest} shared values in {self.path!r} of "
                f"{self.layer.name!r}; the model has room for {self.size - 1} there. "
                "Share it with as many bits as the model that was saved."
            )


@register("layers")
class SharingStore(MaskStore):
    """A mask store that holds the clusters of weights as well.

    Attributes:
        sizes: Dict from weight path to the size of its codebook, for the weights
            that are shared.
    """

    def attach(self, root, paths):
        """Makes masks and indices of a layer's weights and sets their constraints."""
        super().attach(root, paths)
        self.share()

    def share(self):
        """Makes the indices of the weights in `sizes` and sets their constraints."""
        for i, entry in enumerate(self.entries):
            if entry.path not in self.sizes:
                continue
            size = self.sizes[entry.path]
            indices = self.add_weight(
                shape=entry.variable.shape,
                dtype="uint8" if size <= 256 else "uint16",
                initializer="ones",
                trainable=False,
                aggregation="only_first_replica",
                name=f"indices_{i}",
            )
            setattr(self, indices.name, indices)  # for tf.train.Checkpoint
            shared_entry = SharedWeight(**vars(entry), indices=indices, size=size)
            entry.variable.constraint.entry = self.entries[i] = shared_entry

    def load_own_variables(self, store):
        """Loads masks and indices; refuses those of a larger codebook, unchanged."""
        places = {id(v): str(i) for i, v in enumerate(self._non_trainable_variables)}
        for entry in self.entries:
            place = places.get(id(getattr(entry, "indices", None)))
            if place is not None and place in store:
                entry.check(np.asarray(store[place]))
        super().load_own_variables(store)


_LARGE = 1 << 14


def shared(weight, indices, mask, size):
    """Returns a weight with each member of a cluster set to the cluster's mean.

    Args:
        weight: Float tensor.
        indices: Tensor of its shape, integers below `size`.
        mask: Boolean tensor of its shape; `False` leaves a weight out.
        size: Int, number of clusters; that of index 0 stays zero.

    Returns:
        Tensor like `weight`.

    Example:
    >>> weight, indices = tf.constant([1.0, 2.0, 5.0, 7.0]), tf.constant([1, 1, 0, 2])
    >>> shared(weight, indices, tf.ones(4, bool), size=3).numpy()
    array([1.5, 1.5, 0. , 7. ], dtype=float32)
    """
    members = tf.cast(indices, "int32") * tf.cast(mask, "int32")
    counts = _sums(tf.ones_like(members), members, size)
    # In double precision the mean of equal numbers is that number, however many
    # there are, so that a step that changes nothing changes nothing here.
    sums = _sums(tf.cast(weight, "float64"), members, size)
    means = tf.math.divide_no_nan(sums, tf.cast(counts, "float64"))
    means = tf.concat([tf.zeros(1, "float64"), means[1:]], 0)
    return tf.gather(tf.cast(means, weight.dtype), members)


def _sums(values, members, size):
    """Returns the sum of each cluster."""
    # Neighbours are added up in lanes of their own: one sum that is added to again
    # and again, as that of the zeros is, would have each addition wait for the last.
    members = tf.reshape(members, [-1])
    lanes = members + size * (tf.range(tf.size(members)) % _LANES)
    sums = tf.math.unsorted_segment_sum(tf.reshape(values, [-1]), lanes, size * _LANES)
    return tf.reduce_sum(tf.reshape(sums, [_LANES, size]), axis=0)


_LANES = 8


@register("layers")
class SharingWrapper(PruningWrapper):
    """Wraps a layer and holds masks and clusters for its weights.

    `share_weights` makes these.

    Args:
        layer: As for `PruningWrapper`, and so are the others.
        granularity: What is removed together.
        weights: List of strings, the paths of the weights to mask.
        clock: The `Clock` that it shares with others.
        codebook_sizes: Dict from weight path to the number of values, zero among
            them, for the weights that are shared. Defaults to none.
        **kwargs: What every Keras layer takes.
    """

    def __init__(
        self,
        layer,
        granularity="element",
        weights=None,
        clock=None,
        codebook_sizes=None,
        **kwargs,
    ):
        super().__init__(layer, granularity, weights, clock, **kwargs)
        _share_store(self.store, codebook_sizes or {})

    def get_config(self):
        """Returns the config of the pruned layer and the sizes of the codebooks."""
        return {**super().get_config(), "codebook_sizes": dict(self.store.sizes)}


@register("layers")
class SharedModel(PrunedModel):
    """What a subclassed model is as well, while its weights are shared."""

    def get_config(self):
        """Returns the config of the pruned model and the sizes of the codebooks."""
        sizes = dict(self.kprune_store.sizes)
        return {**super().get_config(), "codebook_sizes": sizes}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the pruned model, then the indices."""
        model = PrunedModel.from_config(config, custom_objects)
        return _share_model(model, config["codebook_sizes"])


def share(holder, codebooks):
    """Turns a wrapped layer or pruned model into one that shares weights, in place.

    Args:
        holder: `PruningWrapper` or `PrunedModel`, built.
        codebooks: Dict from weight path to `(centroids, indices)`, as
            `codebooks.codebook` returns them.
    """
    sizes = {path: len(centroids) for path, (centroids, _) in codebooks.items()}
    if isinstance(holder, PruningWrapper):
        holder.__class__ = SharingWrapper
        _share_store(holder.store, sizes)
    else:
        _share_model(holder, sizes)
    for entry in store_of(holder).entries:
        if entry.path in codebooks:
            entry.set(*codebooks[entry.path])


def store_of(holder):
    """Returns the mask store of a `PruningWrapper` or a `PrunedModel`."""
    return holder.store if isinstance(holder, PruningWrapper) else holder.kprune_store


def _share_model(model, sizes):
    model.__class__ = class_for(SharedModel, plain_class(model))
    _share_store(model.kprune_store, sizes)
    return model


def _share_store(store, sizes):
    store.__class__ = SharingStore
    # Not tracked, as `entries` is not: Keras would turn it into a dict of its own.
    object.__setattr__(store, "sizes", dict(sizes))
    store.share()


def is_shared(model):
    """Tells whether sharing is held in a model while it trains.

    Args:
        model: A layer or model.

    Returns:
        Bool.

    Example:
    >>> import keras
    >>> from kprune.compress.sharing import share_weights
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(9)])
    >>> is_shared(model), is_shared(share_weights(model))
    (False, True)
    """
    return any(isinstance(store, SharingStore) for store in stores(model))
