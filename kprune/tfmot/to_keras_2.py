"""`to_tf_keras`: a Keras 3 model as one of tf_keras, for TFMOT's quantization."""

import keras

from kprune.cloning import is_graph
from kprune.inspection import check_keras_model, is_pruned
from kprune.layer_graph import nodes_of
from kprune.surgery import strip
from kprune.tfmot import keras_2, keras_3_operations
from kprune.tfmot.keras_2_layers import LayerMaker
from kprune.tfmot.same_outputs import check_same
from kprune.tfmot.twins import Call, Twins


def to_tf_keras(model, custom_objects=None):
    """Makes a tf_keras (Keras 2) model of one of Keras 3.

    Wanted where TFMOT's quantization-aware training shall follow on pruning here:
    `tfmot.quantization.keras.quantize_model(to_tf_keras(model))`. It trains in int8
    and keeps no zeros: `kprune.quantize_aware` does both in Keras 3.

    Before the model is returned, its outputs are compared with those of the original on
    random inputs, as `from_tf_keras` does.

    Args:
        model: A Sequential or Functional Keras 3 model. One that is pruned is stripped
            first. It is not changed.
        custom_objects: Dict of what tf_keras can't know: from the name of a layer class
            to a class of tf_keras, from that of a function such as an activation, or of
            a `Lambda` layer, to the function to use. Defaults to none.

    Returns:
        A plain tf_keras model with the same layer names and weights, not compiled. An
        operation of `keras.ops` becomes the layer that computes it.

    Raises:
        ImportError: If tf_keras is not installed.
        TypeError: If it is no Keras 3 model.
        ValueError: If something in it has no counterpart in tf_keras, or if the outputs
            would not be the same; with the layer's name.

    Example:
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> to_tf_keras(model).save("for_tfmot.h5")  # doctest: +SKIP
    """
    check_keras_model(model)
    tf_keras = keras_2.import_tf_keras()
    if is_pruned(model):
        model = strip(model)
    keras_2.check_graph(model, is_graph(model) and model.built)
    keras_3_operations.check_operations(model, _calls_of)

    def convert(operation):
        if not isinstance(operation, keras.Layer):
            return keras_3_operations.function_for(operation, tf_keras.layers)
        return make(operation)

    twins = Twins(keras, tf_keras, _calls_of, convert, _unchanged)
    make = LayerMaker(keras, tf_keras, dict(custom_objects or {}), twins.of)
    new = twins.of(model)
    twins.carry_state()
    check_same(model, twins)
    return new


def _calls_of(model):
    """Lists the calls of a Keras 3 model, without those that only compute masks.

    Where a layer passes on a mask of padding, Keras 3 has it in the graph, and whether
    it is training, which the call of the model decides; tf_keras passes on both itself.
    """
    needed, calls = {id(tensor) for tensor in model.outputs}, []
    for node in reversed(nodes_of(model)):
        if needed.isdisjoint(map(id, node.output_tensors)):
            continue
        args, kwargs = node.arguments.args, node.arguments.kwargs
        kwargs = {name: part for name, part in kwargs.items() if name not in _IMPLIED}
        needed |= set(map(id, keras.tree.flatten((args, kwargs))))
        calls.append(Call(node.operation, args, kwargs, node.output_tensors))
    return calls[::-1]


_IMPLIED = ("mask", "query_mask", "value_mask", "key_mask", "training")


def _unchanged(operation, args, kwargs):
    return args, kwargs
