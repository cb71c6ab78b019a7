"""Recurrent layers, attention, and layers that call another one."""

from keras import layers
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

from kprune.multiply_adds.base import Work, count, known
from kprune.registry import register


def _recurrent(layer, use):
    """Calls a cell once a step."""
    rows, steps, *sizes = use.inputs[0].sizes
    return known(layer.cell, use.of((count((rows, steps)), *sizes)))


for _type in (
    layers.RNN,
    layers.SimpleRNN,
    layers.GRU,
    layers.LSTM,
    layers.ConvLSTM1D,
    layers.ConvLSTM2D,
    layers.ConvLSTM3D,
):
    register("multiply_adds", _type)(_recurrent)


@register("multiply_adds", layers.SimpleRNNCell)
@register("multiply_adds", layers.GRUCell)
@register("multiply_adds", layers.LSTMCell)
def _cell(cell, use):
    times = count(use.inputs[0][:1])
    return Work(((cell.kernel, times), (cell.recurrent_kernel, times)))


@register("multiply_adds", ConvLSTMCell)
def _convolutional_cell(cell, use):
    """Convolves the input, and the state at as many places as that leaves."""
    made = cell.compute_output_shape(use.inputs[0].sizes)[0]
    places = made[2:] if cell.data_format == "channels_first" else made[1:-1]
    times = count((made[0], *places))
    return Work(((cell.kernel, times), (cell.recurrent_kernel, times)))


@register("multiply_adds", layers.StackedRNNCells)
def _stacked_cells(stack, use):
    """Calls cells one after the other, of which the state's width is not asked."""
    found = (known(cell, use) for cell in stack.cells)
    return sum(found, Work())


@register("multiply_adds", layers.Bidirectional)
def _bidirectional(layer, use):
    found = (known(one, use) for one in (layer.forward_layer, layer.backward_layer))
    return sum(found, Work())


@register("multiply_adds", layers.TimeDistributed)
def _time_distributed(layer, use):
    """Calls a layer on each step, as on an example of its own."""
    rows, steps, *sizes = use.inputs[0].sizes
    return known(layer.layer, use.of((count((rows, steps)), *sizes)))


@register("multiply_adds", layers.MultiHeadAttention)
@register("multiply_adds", layers.GroupQueryAttention)
def _attention_of_heads(layer, use):
    """Projects, compares each target with each source, mixes, and projects again."""
    query, value = use.argument(0, "query"), use.argument(1, "value")
    key = use.argument(2, "key") or value
    targets, sources = count(query[:-1]), count(value[:-1])
    asked, told = layer._query_dense.kernel, layer._value_dense.kernel
    kernels = [
        (asked, targets),
        (layer._key_dense.kernel, count(key[:-1])),
        (told, sources),
        (layer._output_dense.kernel, targets),
    ]
    if hasattr(layer, "_gate_dense"):
        kernels.append((layer._gate_dense.kernel, targets))
    axes = getattr(layer, "attention_axes", (1,))
    compared = count(size for axis, size in enumerate(value.sizes) if axis in axes)
    _, heads, width = use.shape_of(asked)
    width_told = use.shape_of(told)[-1]
    products = targets * compared * heads * (width + width_told)
    return Work(tuple(kernels), products)


@register("multiply_adds", layers.Attention)
@register("multiply_adds", layers.AdditiveAttention)
def _attention(layer, use):
    """Mixes values by scores, which are dot products, or sums that may be scaled."""
    query, value, *_ = use.argument(0, "inputs")
    is_additive = isinstance(layer, layers.AdditiveAttention)
    has_products = layer.use_scale if is_additive else layer.score_mode == "dot"
    pairs = (*query[:-1], value[1])
    scores = count((*pairs, query[-1])) if has_products else 0
    return Work(products=scores + count((*pairs, value[-1])))
