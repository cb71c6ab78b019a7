"""Weight sharing: kernels of a few distinct values, held while they train.

A model with shared weights is a pruned model that knows one thing more: for each
weight, the index of its cluster. Indices lie beside the masks in the same store,
so that whatever saves masks saves them, and `kprune.strip` makes a plain model of
it. Sharing is not read off the values of plain layers, since a model that was
loaded would then lose it in its next `fit` without a word.

After each optimizer update the constraint of the variable, which holds zeros at
zero, also sets the members of a cluster to their mean. No Python runs per batch.
"""

import dataclasses
import fnmatch

import numpy as np

from kprune.compress.codebooks import check_bits, codebook, existing_codebook
from kprune.compress.sharing_store import SharedWeight, is_shared, share, store_of
from kprune.inspection import check_built, check_keras_model, own_weights
from kprune.layer_choice import Selection
from kprune.naming import named_children
from kprune.prunable import find_weights
from kprune.pruned_model import PrunedModel
from kprune.surgery import prune, stripped
from kprune.weight_access import as_array, zeroed
from kprune.whole_model import clock_of, set_clock, stores
from kprune.wrapper import PruningWrapper


def share_weights(
    model, bits=5, *, initialization="linear", only=None, skip=None, seed=0
):
    """Makes a copy of a model whose kernels hold `2**bits` values at most, and zero.

    The second stage of Deep Compression: prune, train, share, train a little more,
    then `kprune.strip` and write the file. The values of each kernel are found by
    k-means; a plain `fit` then moves them, and weights of one cluster stay equal.
    Exact zeros stay zero, whether masks held them or not.

    An update moves each weight by the optimizer's rule and then sets each cluster
    to the mean of its members. For SGD this is the paper's step, divided by the size
    of the cluster: the paper subtracts the learning rate times the sum of the
    members' gradients. A sum needs a learning rate that is smaller by the size of
    the cluster, mostly thousands and different for each; with the mean, the one
    that served before serves here. With Adam the mean is that of the members' steps.

    The model that is returned saves and loads with its clusters, and goes on being
    shared in any later `fit`. In pure bfloat16 or float16 (not the mixed policies)
    steps that are small beside a weight are rounded away, as they always are there.

    Args:
        model: A built `keras.Model`, pruned, stripped or neither. It is not changed
            unless its class can't make a second one (see `kprune.prune`). Masks and
            clock of a pruned model are carried over. Of one whose weights are
            shared, those that are selected are shared anew, and all others keep
            their clusters and masks.
        bits: Int from 1 to 12, or a dict from layer name or glob pattern to such
            ints. The first pattern counts that the layer or a layer or model
            around it matches. `None` keeps the sharing that the weights have, as
            those of a loaded archive. Defaults to 5.
        initialization: Name or object, where k-means starts: `"linear"`,
            `"density"` or `"random"` as in the paper, or `"cube_root"`, which mostly
            loses the least. Defaults to `"linear"`.
        only: Layers whose weights to share, as for `kprune.prune`. Defaults to all.
        skip: Layers to leave out, likewise. Defaults to none.
        seed: Int, for the random initialisation. Defaults to 0.

    Returns:
        A pruned model (`kprune.is_pruned`) of the same layer names, inputs and
        compile arguments. What is not shared (biases, normalization, frozen
        layers) is listed by `kprune.summary`.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is not built, if nothing in it can be shared, if a weight
            is NaN, or if an argument is out of range or matches nothing.

    Example:
    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(9)])
    >>> shared = share_weights(model, bits=2)
    >>> np.unique(shared.layers[0].kernel).size
    4

    Reference:
        Han, Mao and Dally, "Deep Compression", ICLR 2016, section 3.
    """
    check_keras_model(model)
    check_built(model)
    bits = _Bits(bits, model)

    def find(weights, names):
        number = bits.of(names)
        if number is None:
            return existing_codebook(weights)
        return codebook(weights, number, initialization, seed=seed)

    return share_by(find, model, only, skip)


def share_by(find, model, only=None, skip=None):
    """Makes a copy of a model with the codebooks that a function finds.

    Args:
        find: Function of a weight, a float array, and a tuple of the names of its layer
            and of the layers and models around it. It returns a codebook, as
            `codebooks.codebook` does.
        model: As for `share_weights`, and so are the others.
        only: Layers whose weights to share. Defaults to all.
        skip: Layers to leave out. Defaults to none.

    Returns:
        A pruned model (`kprune.is_pruned`).
    """
    selected = _selected_places(model, Selection(only, skip))
    earlier = _Earlier.of(model) if is_shared(model) else _Earlier()
    if is_shared(model):
        model = stripped(model)
        only, skip = _layers_at(model, {*selected, *earlier.entries}), None
    shared = prune(model, only=only, skip=skip)
    places = {id(v): i for i, v in enumerate(own_weights(shared))}
    names = dict(_names_around(shared))
    is_any_shared = False
    with shared.distribute_strategy.scope():
        for holder in _holders(shared):
            found = earlier.restored(store_of(holder), places)
            for entry in store_of(holder).trained_entries():
                if places[id(entry.variable)] in selected:
                    found[entry.path] = _codebook(
                        entry, find, names[id(entry.variable)]
                    )
                    is_any_shared = True
            if found:
                share(holder, found)
    if earlier.entries:
        set_clock(shared, earlier.step)
    if not is_any_shared:
        raise ValueError(
            f"Nothing in the model {model.name!r} can be shared: all of its prunable "
            "layers are frozen. Set `trainable = True` on those to share."
        )
    # One that was changed in place may have a step that knows no constraint yet.
    shared.train_function = None
    return shared


@dataclasses.dataclass(frozen=True)
class _Earlier:
    """What a model that was shared already held in place, before it was stripped.

    Attributes:
        step: Int, its clock.
        entries: Dict from the place of a weight among the model's weights to its
            `MaskedWeight` and the granularity of its masks.
    """

    step: int = 0
    entries: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, model):
        """Notes what is held in a model."""
        places = {id(v): i for i, v in enumerate(own_weights(model))}
        entries = {
            places[id(entry.variable)]: (entry, store.granularity)
            for store in stores(model)
            for entry in store.entries
        }
        return cls(clock_of(model), entries)

    def restored(self, store, places):
        """Sets the masks of a store to what they were.

        Args:
            store: `MaskStore` of the stripped model, pruned again.
            places: Dict from the id of a variable to its place.

        Returns:
            Dict from weight path to codebook, for the weights that were shared.
        """
        found = {}
        for new in store.entries:
            old, granularity = self.entries.get(places[id(new.variable)], (None, None))
            if old is None:
                continue
            store.granularity = granularity
            mask = as_array(old.mask)
            new.mask.assign(mask)
            if isinstance(old, SharedWeight):
                indices = as_array(old.indices) * mask
                values = as_array(new.variable)
                centroids = np.zeros(old.size, values.dtype)
                centroids[indices] = values
                found[new.path] = centroids, indices
        return found


def _layers_at(model, places):
    """Lists the layers that own the weights at some places."""
    wanted = {id(v) for i, v in enumerate(own_weights(model)) if i in places}
    return [w.layer for w in find_weights(model) if id(w.variable) in wanted]


def _holders(model):
    """Lists the parts of a pruned model that hold masks."""
    kinds = (PruningWrapper, PrunedModel)
    return [part for part in model._flatten_layers() if isinstance(part, kinds)]


class _Bits:
    """How many bits each weight gets.

    Args:
        bits: Int, dict from pattern to int, or `None`; see `share_weights`.
        model: The model, whose layers the patterns name.
    """

    def __init__(self, bits, model):
        self._patterns = bits if isinstance(bits, dict) else {"*": bits}
        for number in self._patterns.values():
            if number is not None:
                check_bits(number)
        names = [part.name for part in model._flatten_layers()]
        for pattern in self._patterns:
            if not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"bits got {pattern!r}, which matches no layer. The model's layers "
                    f"are {', '.join(map(repr, dict.fromkeys(names)))}. Mend the name, "
                    "or use a pattern such as 'block_*'."
                )

    def of(self, names):
        """Returns the bits of a weight.

        Args:
            names: Tuple of strings, the layer of the weight and what is around it.

        Returns:
            Int, or `None` to keep the sharing that there is.
        """
        for pattern, bits in self._patterns.items():
            if fnmatch.filter(names, pattern):
                return bits
        raise ValueError(
            f"bits says nothing of the layer {names[-1]!r}. Add it, add '*' with the "
            "bits of all other layers, or leave the layer out with `skip`."
        )


def _names_around(layer, above=()):
    """Yields the id of each variable with the names of the layers that hold it."""
    for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
        yield id(variable), above or (layer.name,)
    for _, child in named_children(layer):
        yield from _names_around(child, (*above, child.name))


def _selected_places(model, selection):
    """Returns the places, among a model's weights, of those that are selected.

    The copy of the model has them in the same places, while `only` and `skip` may
    hold layers that it does not have.
    """
    selection.check(model)
    places = {id(v): i for i, v in enumerate(own_weights(model))}
    found = find_weights(model, selection, parents=None)
    return {places[id(w.variable)] for w in found if not w.reason}


def _codebook(entry, find, names):
    """Returns the codebook of a weight, and says which weight if there is none."""
    weights = zeroed(as_array(entry.variable), as_array(entry.mask))
    try:
        return find(weights, names)
    except ValueError as error:
        raise ValueError(f"{entry.path!r} of {entry.layer.name!r}: {error}") from error
