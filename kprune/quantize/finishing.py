"""`finish` and `dequantize`: what a quantization-aware model becomes after training."""

from kprune import cloning
from kprune.copier import with_activation
from kprune.inspection import check_keras_model
from kprune.quantize.wrapper import QuantizationWrapper, wrappers
from kprune.rebuilding import rebuilt, unchanged


def finish(model):
    """Makes the model that the TFLite converter turns into an int8 file.

    Its ranges stand still and are what the converter reads. It predicts what `model`
    predicts, and is not for training.

    Args:
        model: A trained model that `quantize_aware` has made. It is not changed.

    Returns:
        A model of the same layer names, with all weights frozen.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is not quantization-aware, or has seen no data yet.

    Example:
    >>> import keras, kprune.quantize
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> aware = kprune.quantize.quantize_aware(model)
    >>> _ = aware(keras.ops.ones((1, 3)), training=True)
    >>> finish(aware).layers[0].static
    True
    """
    check_keras_model(model)
    _check_aware(model)
    for wrapper in wrappers(model):
        if not all(r.is_known for r in wrapper.ranges):
            raise ValueError(
                f"The layer {wrapper.name!r} has seen no data, so that the ranges of "
                "its activations are unknown. Train the model with `fit`, or call it "
                "on a few batches with `model(x, training=True)`."
            )
    result = rebuilt(model, _static_stand_in)
    result.trainable = False
    return result


def dequantize(model):
    """Makes a plain Keras model whose kernels hold what int8 can hold.

    Activations are not rounded any more, and no class of kprune is left. Zeros and
    clusters are those of the int8 file.

    Args:
        model: A model that `quantize_aware` has made. It is not changed.

    Returns:
        A plain model of the same layer names and compile arguments.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is not quantization-aware.

    Example:
    >>> import keras, kprune.quantize
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> aware = kprune.quantize.quantize_aware(model)
    >>> [type(layer).__name__ for layer in dequantize(aware).layers]
    ['Dense']
    """
    check_keras_model(model)
    _check_aware(model)
    return rebuilt(model, _plain_stand_in)


def _static_stand_in(layer, parents, copier):
    if not isinstance(layer, QuantizationWrapper):
        return unchanged(layer, parents, copier)
    config = layer.get_config()
    new = QuantizationWrapper(
        copier.copy(layer.layer),
        activation=layer.separate_activation,
        inputs=config["inputs"],
        output=config["output"],
        static=True,
    )

    def finish():
        cloning.copy_state(layer.layer, new.layer)
        new.settle(layer)

    return new, finish


def _plain_stand_in(layer, parents, copier):
    if not isinstance(layer, QuantizationWrapper):
        return unchanged(layer, parents, copier)
    if layer.separate_activation:
        new = with_activation(layer.layer, layer.separate_activation)
    else:
        new = copier.copy(layer.layer)

    def finish():
        cloning.copy_state(layer.layer, new)
        if layer.rule.kernel:
            getattr(new, layer.rule.kernel).assign(layer.quantized_kernel())

    return new, finish


def _check_aware(model):
    if not wrappers(model):
        raise ValueError(
            f"The model {model.name!r} is not quantization-aware. Pass the model that "
            "`kprune.quantize_aware` returned."
        )
