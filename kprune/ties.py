"""Which weights of a model lose their units together."""

import keras
from keras import layers

from kprune import registry
from kprune.cloning import is_graph
from kprune.coupling import Coupling
from kprune.granularity import Tie
from kprune.prunable import find_weights
from kprune.whole_model import stores


def ties_of(model, granularities, variables):
    """Returns how weights hang together, as their granularities ask for.

    A granularity's `tied_by` names a family of rules by layer type. A rule is a
    function of a layer that yields triples: a variable, the axis that is cut in the
    layout `(..., inputs, outputs)`, and into how many parts. All that one layer's rule
    yields is tied. Where a granularity is `coupled`, the graph says what is tied, for
    the weights that `kprune.prune` has prepared for it.

    Args:
        model: The layer or model that holds the weights.
        granularities: Sequence of `Granularity`, one a weight.
        variables: Sequence of the weights, Keras variables.

    Returns:
        List of `Tie`, `None` for a weight that stands alone.

    Raises:
        ValueError: If a granularity needs ties and a weight has none, or is tied to
            others that are not among the weights.

    Example:
    >>> from kprune.granularity import AttentionHead
    >>> layer = layers.MultiHeadAttention(num_heads=2, key_dim=3, use_bias=False)
    >>> layer.build((None, 5, 4), (None, 5, 4))
    >>> ties = ties_of(layer, [AttentionHead()] * 4, layer.weights)
    >>> [(tuple(w.shape), t.axis, t.number) for w, t in zip(layer.weights, ties)]
    [((4, 2, 3), -1, 2), ((4, 2, 3), -1, 2), ((4, 2, 3), -1, 2), ((2, 3, 4), -2, 2)]
    """
    ties = [None] * len(variables)
    for granularity in {g for g in granularities if g.tied_by is not None}:
        places = [i for i, g in enumerate(granularities) if g == granularity]
        found = _find(model, granularity, {id(variables[i]) for i in places})
        for i in places:
            ties[i] = found.get(id(variables[i]))
            if ties[i] is None:
                raise ValueError(_stands_alone(granularity, variables[i]))
    coupled = {id(variable) for variable in coupled_kernels(model)}
    places = [i for i, g in enumerate(granularities) if g.coupled]
    ranked = [variables[i] for i in places if id(variables[i]) in coupled]
    if ranked:
        found = {}
        for coupling in couplings(model):
            found |= coupling.ties(ranked)
        for i in places:
            ties[i] = found.get(id(variables[i]))
    return ties


def coupled_kernels(model):
    """Lists the kernels whose channels go with all that hangs on them.

    Args:
        model: A layer or model, pruned or not.

    Returns:
        List of Keras variables, frozen ones too.
    """
    return [
        entry.variable
        for store in stores(model)
        if store.coupled and store.granularity.coupled
        for entry in store.entries
    ]


def kept_whole(model):
    """Tells which kernels keep all their channels because of what hangs on them.

    Args:
        model: A pruned model.

    Returns:
        Dict from the id of a kernel, pruned or not, to the reason. Empty where no
        channels are coupled.
    """
    ranked, found = coupled_kernels(model), {}
    known = {id(variable) for variable in ranked}
    others = [w.variable for w in find_weights(model) if not w.reason]
    others = [[variable] for variable in others if id(variable) not in known]
    trained = [variable for variable in ranked if variable.trainable]
    for coupling in couplings(model) if ranked else ():
        # If it were pruned, could any channel of this other kernel go?
        for asked, beside in ((trained, []), *((other, ranked) for other in others)):
            reasons = coupling.dense([*asked, *beside])
            found |= {
                id(variable): reasons[id(variable)]
                for variable in asked
                if id(variable) in reasons and not coupling.is_of_outputs(variable)
            }
    return found


def couplings(model):
    """Returns a `Coupling` for each graph in a model; for one alone, if it is a graph.

    A pruned graph is followed once and then remembered.

    Args:
        model: A layer or model.

    Returns:
        List of `Coupling`, empty if nothing in it is a graph that is built.
    """
    return [_coupling_of(graph) for graph in dict.fromkeys(_graphs(model))]


def _graphs(layer):
    if isinstance(layer, keras.Model) and is_graph(layer):
        if layer.built:
            yield layer
        return
    for child in layer._layers:
        yield from _graphs(child)


def _coupling_of(model):
    graph = getattr(model, "_functional", model)  # A Sequential may be added to.
    known = vars(graph).get(_KNOWN)
    if known is None:
        known = Coupling(model)
        if stores(model):  # and none of the user's own models, which are not changed
            object.__setattr__(graph, _KNOWN, known)  # Keras would look into it.
    return known


_KNOWN = "_kprune_coupling"


def _find(model, granularity, pruned):
    """Returns the ties by the ids of the variables."""
    found = {}
    for layer in model._flatten_layers():
        rule = registry.lookup(granularity.tied_by, type(layer))
        tied = list(rule(layer)) if rule is not None and layer.built else []
        absent = [v.path for v, _, _ in tied if id(v) not in pruned]
        if len(absent) == len(tied):
            continue
        if absent:
            raise ValueError(
                f"{granularity!r} removes parts of all kernels of {layer.name!r} "
                f"together, and {', '.join(map(repr, absent))} can't be pruned now. "
                "Let `only` and `skip` select the whole layer, and freeze or train "
                "all of it."
            )
        for variable, axis, number in tied:
            found[id(variable)] = Tie(id(layer), axis, number)
    return found


def _stands_alone(granularity, variable):
    known = (layer_type.__name__ for layer_type in registry.keys(granularity.tied_by))
    return (
        f"{granularity!r} can't prune the weight {variable.path!r} of shape "
        f"{tuple(variable.shape)}, which has no such units. It can prune "
        f"{', '.join(known)}: select them with `only`, and prune other layers by "
        "another granularity with a second `kprune.prune`."
    )


def _attention_heads(layer, number):
    for kind in ("query", "key", "value", "gate", "output"):
        dense = getattr(layer, f"_{kind}_dense", None)
        if dense is not None:
            yield dense._kernel, -2 if kind == "output" else -1, number


@registry.register("attention_heads", layers.MultiHeadAttention)
def _heads(layer):
    return _attention_heads(layer, layer._num_heads)


@registry.register("attention_heads", layers.GroupQueryAttention)
def _heads_with_their_queries(layer):
    return _attention_heads(layer, layer.num_key_value_heads)
