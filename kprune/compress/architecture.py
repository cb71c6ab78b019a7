"""The layers of a model as a few bytes of JSON, and back.

What most models have anyway is left out (see `defaults.py`), and what models have in
common is in a dictionary that both sides know.
"""

import copy
import json

from keras import saving
from keras.src.saving.serialization_lib import ObjectSharingScope

from kprune import cloning
from kprune.compress.defaults import DEFAULTS
from kprune.compress.packing import ArchiveError, deflate, inflate
from kprune.compress.trusted import check_config, is_layer, resolve

_SMALL_JSON = 1 << 18
_LARGEST_RATIO = 50
_KEYS = ("module", "class_name", "config", "registered_name")
_TENSOR, _AS_IT_IS = "@", "="
_KERAS_TENSOR, _SHARED = "__keras_tensor__", "shared_object_id"
# Endings count most: zlib refers to what is near in fewer bits.
_DICTIONARY = (
    b'"kernel_regularizer":{"module":"keras.regularizers","class_name":"L2","config":'
    b'{"l2":0.0001}},"groups":1,"mask_zero":true,"return_sequences":true,'
    b'"class_name":"LSTM","config":{"units":"class_name":"GRU","config":{"units":'
    b'"class_name":"Embedding","config":{"input_dim":"output_dim":'
    b'"class_name":"GlobalAveragePooling2D","keepdims":true,"class_name":"Add",'
    b'"class_name":"Concatenate","class_name":"Reshape","config":{"target_shape":['
    b'"class_name":"ZeroPadding2D","config":{"padding":[[0,1],[0,1]]},'
    b'"class_name":"DepthwiseConv2D","config":{"kernel_size":[3,3],"strides":[2,2],'
    b'"padding":"same","activation":"softmax","use_bias":false},"name":"conv_dw_'
    b'"class_name":"BatchNormalization","config":{"axis":-1,"momentum":0.99,'
    b'"epsilon":0.001},"class_name":"ReLU","config":{"max_value":6.0},"name":"re_lu_'
    b'"class_name":"Activation","config":{"activation":"relu"},"name":"activation_'
    b'"class_name":"LayerNormalization","class_name":"AveragePooling2D",'
    b'"class_name":"Dropout","config":{"rate":0.5},"name":"dropout_1",'
    b'"class_name":"Conv2D","config":{"filters":32,"kernel_size":[5,5],"activation":'
    b'"relu"},"name":"conv2d_1","class_name":"MaxPooling2D","config":{"pool_size":[2,2]'
    b',"strides":[2,2]},"name":"max_pooling2d_1","class_name":"Flatten","name":"flatten"'
    b',"config":{"batch_shape":[null,28,28,1]},"name":"keras_tensor"'
    b'"inbound_nodes":[{"args":[{"@":["input_layer",0,0]}],"kwargs":{}}]},'
    b'"input_layers":[["input_layer",0,0]],"output_layers":[["dense",0,0]]'
    b'{"module":"keras","class_name":"Functional","config":{"name":"functional",'
    b'"trainable":true,"layers":[{"class_name":"InputLayer","config":{"batch_shape":['
    b'{"module":"keras","class_name":"Sequential","config":{"name":"sequential",'
    b'"layers":[{"class_name":"InputLayer","config":{"batch_shape":[null,784],"name":'
    b'"input_layer"}},{"class_name":"Dense","config":{"units":300,"name":"dense",'
    b'"activation":"relu"}},{"class_name":"Dense","config":{"units":100,"name":'
    b'"dense_1","activation":"relu"}},{"class_name":"Dense","config":{"units":10,'
    b'"name":"dense_2","activation":"softmax"}}],"build_input_shape":[null,784]}}'
)


def full_config(model):
    """Returns everything that Keras would save of a model's architecture.

    Args:
        model: A Keras model.

    Returns:
        Nested dicts and lists, as JSON gives them back.

    Raises:
        ArchiveError: If some part of the model has no config.
    """
    try:
        with ObjectSharingScope():
            config = saving.serialize_keras_object(model)
        return json.loads(json.dumps(_without_training(config, model)))
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ArchiveError(
            f"Model {model.name!r} has no complete config, which an archive needs: "
            f"{error} Give its classes `get_config` methods."
        ) from error


def _without_training(config, model):
    """Drops how it was compiled, and how its layers were built if the graph tells."""
    config = {key: value for key, value in config.items() if key != "compile_config"}
    return _essential(config, {}, keep_build=not cloning.is_graph(model))


def _essential(part, numbers, keep_build=False):
    """Drops what does not survive `from_config` anyway.

    Layers that stand in several places, which Keras marks by their addresses, get
    small numbers instead: `numbers` is a dict from one to the other.
    """
    if isinstance(part, (list, tuple)):
        return [_essential(value, numbers) for value in part]
    if not isinstance(part, dict):
        return part
    if part.get("class_name") == _KERAS_TENSOR:
        return _tensor(part["config"]["keras_history"])
    part = {key: _essential(value, numbers) for key, value in part.items()}
    address = part.pop(_SHARED, None)
    if address is not None and is_layer(resolve(part)):
        part[_SHARED] = numbers.setdefault(address, len(numbers))
    if "class_name" in part and not keep_build:
        part.pop("build_config", None)
    if part.get("class_name") == "Sequential":
        # Its layers have their own.
        part["config"].pop("dtype", None)
        part["config"].pop("trainable", None)
    return part


def _tensor(history):
    """Returns the config of a layer's output; its shape follows from the layers."""
    config = {"shape": [], "dtype": "float32", "keras_history": history}
    return {"class_name": _KERAS_TENSOR, "config": config}


def pack_config(config):
    """Compresses a config.

    Args:
        config: From `full_config`.

    Returns:
        Bytes, from which `unpack_config` gives the same config.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)])
    >>> config = full_config(model)
    >>> len(json.dumps(config)) > 800, len(pack_config(config)) < 120
    (True, True)
    """
    slim = _slim(config)
    if not _same(_expand(slim), config):
        slim = {_AS_IT_IS: config}  # A key of the user's own looks like one of ours.
    text = json.dumps(slim, separators=(",", ":"), ensure_ascii=False)
    return deflate(text.encode(), _DICTIONARY)


def unpack_config(data, largest, allowed=0):
    """Decompresses a config and checks that all it names may be trusted.

    Args:
        data: Bytes-like, from `pack_config`.
        largest: Int, the largest size that a layer may name.
        allowed: Int, up to where the caller trusts any number. Defaults to 0.

    Returns:
        Nested dicts and lists, from which Keras can make the model.

    Raises:
        ArchiveError: If it is damaged, or asks for what an archive must not.
    """
    text = inflate(data, _SMALL_JSON + _LARGEST_RATIO * len(data), _DICTIONARY)
    try:
        config = json.loads(bytes(text).decode())
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"The archive's architecture is no JSON: {error}") from error
    check_depth(config)
    config = _expand(config)
    # No archive of ours says how to compile.
    if isinstance(config, dict):
        config.pop("compile_config", None)
    check_config(config, largest, allowed)
    return config


def check_depth(config, deepest=100):
    """Refuses nesting that no model has.

    Args:
        config: Nested dicts and lists.
        deepest: Int, how many levels are allowed.

    Raises:
        ArchiveError: If there are more.
    """
    level = [config]
    for _ in range(deepest + 1):
        level = [x for x in level if isinstance(x, (dict, list))]
        if not level:
            return
        parts = [x.values() if isinstance(x, dict) else x for x in level]
        level = [x for part in parts for x in part]
    raise ArchiveError(f"The archive's architecture is nested over {deepest} deep.")


def _slim(part):
    if isinstance(part, list):
        return [_slim(value) for value in part]
    if not isinstance(part, dict):
        return part
    if part.get("class_name") == _KERAS_TENSOR:
        return {_TENSOR: part["config"]["keras_history"]}
    if not set(_KEYS) <= set(part) or not isinstance(part["config"], dict):
        return {key: _slim(value) for key, value in part.items()}
    defaults = _defaults_of(part)
    if not set(defaults) <= set(part["config"]):
        return {_AS_IT_IS: part}
    slim = dict(part, config=_without(defaults, part["config"]))
    if slim["config"].get("name", _TENSOR) == slim.get("name"):
        del slim["config"]["name"]
    if slim["registered_name"] is None:
        del slim["registered_name"]
    if slim["module"] == "keras.layers":
        del slim["module"]
    if not slim["config"]:
        del slim["config"]
    return {key: _slim(value) for key, value in slim.items()}


def _without(defaults, config):
    return {
        key: value
        for key, value in config.items()
        if key not in defaults or not _same(value, defaults[key])
    }


def _defaults_of(part):
    is_of_keras = part["module"] == "keras.layers" and part["registered_name"] is None
    return DEFAULTS.get(part["class_name"], {}) if is_of_keras else {}


def _same(one, other):
    """Tells whether two configs are equal, also in the types of numbers."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _expand(part):
    if isinstance(part, list):
        return [_expand(value) for value in part]
    if not isinstance(part, dict):
        return part
    if set(part) == {_TENSOR}:
        return _tensor(part[_TENSOR])
    if set(part) == {_AS_IT_IS}:
        return part[_AS_IT_IS]
    part = {key: _expand(value) for key, value in part.items()}
    if "class_name" in part and not str(part["class_name"]).startswith("__"):
        part = {"module": "keras.layers", "registered_name": None, "config": {}, **part}
        if isinstance(part["config"], dict) and isinstance(part["class_name"], str):
            if "name" in part:
                part["config"].setdefault("name", part["name"])
            # Copies, since Keras changes the configs that it is given.
            defaults = copy.deepcopy(_defaults_of(part))
            part["config"] = {**defaults, **part["config"]}
    return part
