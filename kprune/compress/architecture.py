"""The layers of a model as a few bytes of JSON, and back.

What Keras would fill in anyway is left out, and what models have in common is in a
dictionary that both sides know.
"""

import inspect
import json

import keras
from keras import saving

from kprune import cloning
from kprune.compress.building import standard_defaults
from kprune.compress.packing import ArchiveError, deflate, inflate
from kprune.compress.trusted import check_config, resolve

_SMALL_JSON = 1 << 18
_LARGEST_RATIO = 50
_KEYS = ("module", "class_name", "config", "registered_name")
_TENSOR, _KEEP_ALL = "@", "="
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
    return _essential(config, keep_build=not cloning.is_graph(model))


def _essential(part, keep_build=False):
    """Drops what does not survive `from_config` anyway."""
    if isinstance(part, (list, tuple)):
        return [_essential(value) for value in part]
    if not isinstance(part, dict):
        return part
    part = {key: _essential(value) for key, value in part.items()}
    if "class_name" in part and not keep_build:
        part.pop("build_config", None)
    if part.get("class_name") == "Sequential":
        # Its layers have their own.
        part["config"].pop("dtype", None)
        part["config"].pop("trainable", None)
    return part


def pack_config(config, slim=True):
    """Compresses a config.

    Args:
        config: From `full_config`.
        slim: Bool, whether what a class' constructor gives by itself is left out.

    Returns:
        Bytes.

    Example:
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10)])
    >>> config = full_config(model)
    >>> len(json.dumps(config)) > 800, len(pack_config(config)) < 120
    (True, True)
    """
    if slim:
        with standard_defaults():
            config = _slim(config)
    text = json.dumps(config, separators=(",", ":"), ensure_ascii=False)
    return deflate(text.encode(), _DICTIONARY)


def unpack_config(data):
    """Decompresses a config and checks that all it names may be trusted.

    Args:
        data: Bytes-like, from `pack_config`.

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
    check_config(config)
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
    if part.get("class_name") == "__keras_tensor__":
        return {_TENSOR: part["config"]["keras_history"]}
    if not set(_KEYS) <= set(part) or not isinstance(part["config"], dict):
        return {key: _slim(value) for key, value in part.items()}
    slim = dict(part, config=_without_defaults(part))
    if slim["config"].get("name", _KEEP_ALL) == slim.get("name"):
        del slim["config"]["name"]
    if slim["registered_name"] is None:
        del slim["registered_name"]
    if slim["module"] == "keras.layers":
        del slim["module"]
    if not slim["config"]:
        del slim["config"]
    return {key: _slim(value) for key, value in slim.items()}


def _without_defaults(part):
    """Leaves out the arguments whose default gives the same layer."""
    config = part["config"]
    cls = resolve(part)
    if not (isinstance(cls, type) and issubclass(cls, keras.Layer)):
        return dict(config)
    if issubclass(cls, keras.Model):
        return dict(config)
    parameters = inspect.signature(cls.__init__).parameters.values()
    needed = {p.name for p in parameters if p.default is p.empty} | {"name"}
    try:
        given = {key: config[key] for key in config if key in needed}
        default = _config_again(cls, given)
        slim = {
            key: value
            for key, value in config.items()
            if key in needed or key not in default or default[key] != value
        }
        return slim if _config_again(cls, slim) == config else dict(config)
    except Exception:  # Any constructor may have any reason to want it all.
        return dict(config)


def _config_again(cls, config):
    layer = cls.from_config(json.loads(json.dumps(config)))
    again = json.loads(json.dumps(saving.serialize_keras_object(layer)["config"]))
    return _essential(again)


def _expand(part):
    if isinstance(part, list):
        return [_expand(value) for value in part]
    if not isinstance(part, dict):
        return part
    if set(part) == {_TENSOR}:
        config = {"shape": [], "dtype": "float32", "keras_history": part[_TENSOR]}
        return {"class_name": "__keras_tensor__", "config": config}
    part = {key: _expand(value) for key, value in part.items()}
    if "class_name" in part and not str(part["class_name"]).startswith("__"):
        part = {"module": "keras.layers", "registered_name": None, "config": {}, **part}
        if "name" in part and isinstance(part["config"], dict):
            part["config"].setdefault("name", part["name"])
    return part
