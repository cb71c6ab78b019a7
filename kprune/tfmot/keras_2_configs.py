"""What the arguments of layers are called in Keras 2 and in Keras 3.

They are nearly the same. What one of the two does not know is left out where it means
nothing, and refused where it means something.
"""

import inspect

import keras
from keras import saving

from kprune.copier import without_unknown_arguments

_ANYTHING = object()

# Keys that Keras 3 does not know, with the values that mean nothing to it: how a layer
# was computed, what shapes it was built for, arguments that its class never used.
_TO_KERAS_3 = {
    "adjustment": (None,),
    "batch_input_shape": _ANYTHING,
    "dynamic": (False,),
    "fused": _ANYTHING,
    "groups": (1,),
    "implementation": _ANYTHING,
    "input_length": _ANYTHING,
    "kernel_constraint": _ANYTHING,
    "kernel_initializer": _ANYTHING,
    "kernel_regularizer": _ANYTHING,
    "key_shape": _ANYTHING,
    "noise_shape": (None,),
    "query_shape": _ANYTHING,
    "renorm": (False,),
    "rng_type": _ANYTHING,
    "robust_masking": (None, False),
    "softmax_robust_masking": (None, False),
    "sparse": (False,),
    "time_major": (False,),
    "trainable": _ANYTHING,
    "value_shape": _ANYTHING,
    "virtual_batch_size": (None,),
    "vocabulary_size": _ANYTHING,
}

# The other way round.
_TO_KERAS_2 = {
    "antialias": (False,),
    "data_format": ("channels_last",),
    "fill_mode": ("constant",),
    "fill_value": _ANYTHING,
    "flash_attention": (None, False),
    "key_shape": _ANYTHING,
    "oov_method": ("floormod",),
    "pad_to_aspect_ratio": (False,),
    "quantization_config": (None,),
    "query_shape": _ANYTHING,
    "rms_scaling": (False,),
    "salt": (None,),
    "seed": _ANYTHING,
    "sliding_window": (None,),
    "trainable": _ANYTHING,
    "use_cudnn": _ANYTHING,
    "use_gate": (False,),
    "value_range": _ANYTHING,
    "value_shape": _ANYTHING,
    "vocabulary_size": _ANYTHING,
    "zero_output_for_mask": (False,),
}


@saving.register_keras_serializable("kprune", "keras_2_hard_sigmoid")
def hard_sigmoid(x):
    """Computes `clip(0.2 * x + 0.5, 0, 1)`, the hard sigmoid of Keras 2.

    That of Keras 3 rises over another range.

    Example:
    >>> hard_sigmoid(keras.ops.array([-3.0, 1.0])).numpy()
    array([0. , 0.7], dtype=float32)
    """
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


def translated(layer, to_keras_3):
    """Returns a layer's config in the words of the other Keras.

    Args:
        layer: A layer.
        to_keras_3: Bool, whether it is one of Keras 2.

    Returns:
        Dict. Layers within it are not translated.

    Raises:
        ValueError: If the other Keras means something else by its activation.
    """
    config = _plain(layer.get_config())
    config = _as_keras_3(layer, config) if to_keras_3 else _as_keras_2(layer, config)
    if "vocabulary" in config and config["vocabulary"] is None:  # learnt from data
        config["vocabulary"] = layer.get_vocabulary(include_special_tokens=False)
        config |= _frequencies(layer, len(config["vocabulary"]))
    return config


def _frequencies(layer, count):
    """Returns what a vocabulary has learnt of its words for `tf_idf`, as arguments."""
    lookup = getattr(layer, "_lookup_layer", layer)
    if getattr(lookup, "idf_weights", None) is None:
        return {}
    first = lookup._token_start_index()
    return {"idf_weights": lookup.idf_weights.numpy()[first : first + count].tolist()}


def without_unknown(config, layer, target_class, to_keras_3):
    """Leaves out what a class does not know and what means nothing to it.

    Args:
        config: Dict, as `translated` has made it. It is changed.
        layer: The layer that it is the config of.
        target_class: The class of the other Keras.
        to_keras_3: Bool, whether that is Keras 3.

    Returns:
        Dict that the constructor takes.

    Raises:
        ValueError: If something else is unknown.
    """
    meaningless = _TO_KERAS_3 if to_keras_3 else _TO_KERAS_2
    known = _arguments(target_class) | {"dtype", "activity_regularizer"}
    if config.get("zero_output_for_mask"):  # tf_keras takes it among other arguments
        known.add("zero_output_for_mask")
    for key in config.keys() - known:
        value = config.pop(key)
        allowed = meaningless.get(key, ())
        if allowed is not _ANYTHING and value not in allowed:
            raise ValueError(
                f"The layer {layer.name!r} ({type(layer).__name__}) has "
                f"{key}={value!r}, which {target_class.__module__}."
                f"{target_class.__name__} does not know. Replace the layer, or pass a "
                "class of your own in `custom_objects`."
            )
    return without_unknown_arguments(target_class, config)


def _plain(value):
    """Returns a config without the containers by which TensorFlow tracks attributes.

    In the configs of initializers and the like, what is `None` is left out: it is the
    default, and the other Keras may not know the name.
    """
    if isinstance(value, dict):
        found = {key: _plain(one) for key, one in value.items()}
        if "class_name" in found and isinstance(found["config"], dict):
            own = found["config"].items()
            found["config"] = {key: one for key, one in own if one is not None}
        return found
    if type(value).__name__ == "ListWrapper":
        return [_plain(one) for one in value]
    return value


def _as_keras_3(layer, config):
    """Says in the words of Keras 3 what is said otherwise in Keras 2."""
    name = type(layer).__name__
    if name == "LeakyReLU":
        config["negative_slope"] = float(config.pop("alpha"))
    elif name == "ThresholdedReLU":
        config["threshold"] = float(config.pop("theta"))
    elif name == "SyncBatchNormalization":
        config["synchronized"] = True
    if name.endswith("BatchNormalization") and isinstance(config["axis"], list):
        (config["axis"],) = config["axis"]
    for key in config:
        if key.endswith("activation") and config[key] == "hard_sigmoid":
            config[key] = hard_sigmoid
    return config


def _as_keras_2(layer, config):
    """The other way round."""
    if type(layer).__name__ == "LeakyReLU":
        config["alpha"] = config.pop("negative_slope")
    for key in config:
        if getattr(layer, key, None) is hard_sigmoid:
            config[key] = "hard_sigmoid"
        elif key.endswith("activation") and config[key] == "hard_sigmoid":
            raise ValueError(
                f"The layer {layer.name!r} has a hard sigmoid, which is another "
                "function in Keras 2. Build it there of `ReLU(6.0)` and `Rescaling`, "
                "or take another activation."
            )
    return config


def _arguments(layer_class):
    """Returns the arguments of a constructor, and what it passes to its base."""
    names = set()
    for one in layer_class.__mro__:
        if "__init__" in vars(one):
            parameters = inspect.signature(one.__init__).parameters
            names |= parameters.keys()
            if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                break
    return names
