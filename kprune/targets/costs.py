"""How often a layer applies its kernels to one example, where that is known."""

from kprune.multiply_adds import works


def applications(graph, kernels):
    """Counts how often each call of a graph applies the kernels of its layer.

    Args:
        graph: A `LayerGraph`.
        kernels: Sequence of pairs (layer, variable), the kernels of the model that
            can be read.

    Returns:
        List of pairs (call, times). The times are for one example; 0 for what has no
        multiply-adds worth counting, such as activations, normalization and the
        rows that an embedding looks up, and `None` where they are not known, or not
        those of a layer's own kernels alone: layers around others (recurrent
        layers, attention, wrappers), products of two activations, and open sizes.

    Example:
    >>> import keras
    >>> from keras import layers
    >>> from kprune.layer_graph import read_graph
    >>> inputs = keras.Input((5, 3))
    >>> dense, gru = layers.Dense(4, name="dense"), layers.GRU(2, name="gru")
    >>> model = keras.Model(inputs, gru(dense(inputs)))
    >>> counts = applications(read_graph(model), [(dense, dense.kernel)])
    >>> [(call.name, times) for call, times in counts]
    [('dense', 5), ('gru', None)]
    """
    owners = {id(layer) for layer, _ in kernels}
    calls = zip(graph.calls, works(graph), strict=True)
    return [(call, _times(call, work, owners)) for call, work in calls]


def _times(call, work, owners):
    if work is None or work.products:
        return None
    times = {times for _, times in work.kernels}
    if not times:
        return 0
    is_read = id(call.operation) in owners and len(times) == 1
    return times.pop() if is_read else None
