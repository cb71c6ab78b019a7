"""TFMOT's clustering by its names: weights of a few distinct values."""

import enum

import keras
import numpy as np
from keras import saving

from kprune.compress.codebooks import codebook_of
from kprune.compress.sharing import share_by
from kprune.compress.sharing_store import SharingWrapper, share
from kprune.inspection import check_built
from kprune.prunable import find_weights
from kprune.tfmot.wrapping import OF_KERAS_2, copied, strip_pruning
from kprune.weight_access import as_array
from kprune.wrapper import PruningWrapper

_MOST = 4096
_MOST_OF_ALL = 65_535  # what uint16 indices can tell apart, beside zero


class CentroidInitialization(enum.StrEnum):
    """Where k-means starts; `kprune.share_weights` has the same under other names.

    `LINEAR`: evenly from the smallest weight to the largest. `RANDOM`: weights drawn at
    random. `DENSITY_BASED`: equally many weights around each. `KMEANS_PLUS_PLUS`:
    weights drawn far from each other.
    """

    LINEAR = "CentroidInitialization.LINEAR"
    RANDOM = "CentroidInitialization.RANDOM"
    DENSITY_BASED = "CentroidInitialization.DENSITY_BASED"
    KMEANS_PLUS_PLUS = "CentroidInitialization.KMEANS_PLUS_PLUS"


_STARTS = {
    CentroidInitialization.LINEAR: "linear",
    CentroidInitialization.RANDOM: "random",
    CentroidInitialization.DENSITY_BASED: "density",
    CentroidInitialization.KMEANS_PLUS_PLUS: "kmeans_plus_plus",
}


def cluster_weights(
    to_cluster,
    number_of_clusters,
    cluster_centroids_init=CentroidInitialization.KMEANS_PLUS_PLUS,
    preserve_sparsity=False,
    cluster_per_channel=False,
):
    """Makes a copy of a model whose kernels have a few distinct values each.

    What `kprune.share_weights` does, by the number of values. Training moves them,
    and weights of one cluster stay equal. Other than in TFMOT, exact zeros always stay
    zero, layers that can't be clustered are left as they are, and clusters are made of
    the weights that are there, so that a layer has to be built.

    Args:
        to_cluster: A built Keras 3 model, pruned or not, or a built layer, or a list of
            layers. It is not changed.
        number_of_clusters: Int from 2 to 4,096, the most distinct values of a kernel,
            zero among them.
        cluster_centroids_init: `CentroidInitialization`. Defaults to
            `KMEANS_PLUS_PLUS`.
        preserve_sparsity: Bool. Zeros stay zero whatever it is; TFMOT moves them
            unless it is set. Defaults to `False`.
        cluster_per_channel: Bool, whether each output channel of a kernel of rank 4,
            such as that of `Conv2D`, has values of its own. Defaults to `False`.

    Returns:
        A model that is trained on, and made plain by `strip_clustering`; or a layer to
        be put into one; or a list of such.

    Raises:
        ValueError: If an argument is none of these, or nothing can be clustered.

    Example:
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(9)])
    >>> clustered = cluster_weights(model, number_of_clusters=3)
    >>> len(np.unique(clustered.layers[0].kernel))
    3
    """
    if isinstance(to_cluster, (list, tuple)):
        options = number_of_clusters, cluster_centroids_init, preserve_sparsity
        return [
            cluster_weights(layer, *options, cluster_per_channel)
            for layer in to_cluster
        ]
    if not isinstance(to_cluster, keras.Layer):
        raise ValueError(
            f"Expected a Keras 3 model, a layer or a list of layers, got "
            f"{to_cluster!r}. {OF_KERAS_2}"
        )
    if type(number_of_clusters) is not int or not 2 <= number_of_clusters <= _MOST:
        raise ValueError(
            f"number_of_clusters={number_of_clusters!r} must be an int from 2 to "
            f"{_MOST:,}."
        )
    start = _STARTS[CentroidInitialization(cluster_centroids_init)]

    def find(weights, names):
        by_channel = cluster_per_channel and weights.ndim == 4
        return (_codebooks if by_channel else _codebook)(
            weights, number_of_clusters, start
        )

    if isinstance(to_cluster, keras.Model):
        check_built(to_cluster)
        return share_by(find, to_cluster)
    return _clustered(to_cluster, find)


def _codebook(weights, number, start):
    """Returns values, zero among them where weights are zero, and their indices."""
    has_zeros = bool(np.any(weights == 0))
    return codebook_of(weights, number - has_zeros, start)


def _codebooks(weights, number, start):
    """Returns the codebooks of all output channels as one, the channels in turn."""
    channels = weights.shape[-1]
    if number * channels > _MOST_OF_ALL:
        raise ValueError(
            f"cluster_per_channel asks for up to {number} values in each of {channels} "
            f"channels, and a kernel has {_MOST_OF_ALL:,} at most. Lower "
            "number_of_clusters."
        )
    centroids, indices = np.zeros(1, weights.dtype), np.zeros(weights.shape, "uint16")
    for channel in range(channels):
        own, places = _codebook(weights[..., channel], number, start)
        shift = np.uint16(centroids.size - 1)
        indices[..., channel] = np.where(places, places + shift, 0)
        centroids = np.append(centroids, own[1:])
    return centroids, indices


def _clustered(layer, find):
    """Returns a layer with clusters, or the layer itself if it has nothing to share."""
    if isinstance(layer, PruningWrapper):
        raise ValueError(
            f"The layer {layer.name!r} is wrapped for pruning. Cluster the model that "
            "holds it, which keeps its masks, or the plain layer."
        )
    if not layer.built:
        raise ValueError(
            f"The layer {layer.name!r} is not built, and clusters are made of the "
            "weights that are there. Build it, or cluster the model that holds it."
        )
    if all(weight.reason for weight in find_weights(layer)):
        return layer
    wrapper = PruningWrapper(copied(layer))
    entries = wrapper.store.entries
    share(wrapper, {e.path: find(as_array(e.variable), ()) for e in entries})
    return wrapper


def strip_clustering(model):
    """Makes a plain model, as `kprune.strip` does, with the values that are shared.

    Args:
        model: A Keras 3 model, clustered or not. It is not changed.

    Returns:
        A plain model.

    Raises:
        TypeError: If `model` is no Keras 3 model.

    Example:
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(9)])
    >>> plain = strip_clustering(cluster_weights(model, 4))
    >>> type(plain.layers[0]).__name__
    'Dense'
    """
    return strip_pruning(model)


def cluster_scope():
    """Provides a scope within which clustered models are loaded; not needed here."""
    return saving.custom_object_scope({"ClusterWeights": SharingWrapper})


class ClusterableLayer:
    """What a layer may derive from, to say which of its weights are clustered."""

    def get_clusterable_weights(self):
        """Returns a list of pairs of a name and a weight of the layer."""
        raise NotImplementedError(
            f"{type(self).__name__} defines no `get_clusterable_weights`."
        )

    def get_prunable_weights(self):
        """Returns the weights among these, by which kprune knows what is shared."""
        return [weight for _, weight in self.get_clusterable_weights()]
