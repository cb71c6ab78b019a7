"""tf_keras (Keras 2) and TFMOT: imported late, without a trace in `tf.keras`.

Importing TFMOT sets an environment variable by which `tf.keras`, if nobody has looked
at it yet, becomes tf_keras for the whole process. So `tf.keras` is looked at first, and
the variable is put back: whichever Keras it is, which may be tf_keras already, it
stays that.
"""

import contextlib
import importlib
import json
import os
import pathlib
import warnings
import zipfile

import h5py
import tensorflow as tf

from kprune.copier import in_short
from kprune.tfmot.twins import Call

_SWITCH = "TF_USE_LEGACY_KERAS"


def import_tf_keras():
    """Returns the module tf_keras.

    Raises:
        ImportError: If it is not installed, with what to install.
    """
    return _imported("tf_keras")


def import_tfmot():
    """Returns the module tensorflow_model_optimization.

    Raises:
        ImportError: If it is not installed, with what to install.
    """
    return _imported("tensorflow_model_optimization")


def _imported(name):
    with _settled():
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"Models of Keras 2 need the package {name}, which can't be imported: "
                f"{error}. Install it: pip install 'kprune[tfmot]'"
            ) from error
        # By these names tf_keras and TFMOT look for tf_keras' own classes.
        _ = tf.compat.v1.keras.layers, tf.compat.v2.keras.layers
    return module


@contextlib.contextmanager
def _settled():
    """Lets imports leave `tf.keras` and the environment as they are."""
    _ = tf.keras.layers  # from here on it stays what it is
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "1"
    try:
        yield
    finally:
        del os.environ[_SWITCH]
        if before is not None:
            os.environ[_SWITCH] = before


def opened(model_or_path):
    """Returns a tf_keras model, loaded if a path is given.

    Args:
        model_or_path: A live tf_keras model, or the path of a `.h5` or `.keras` file.

    Returns:
        A Sequential or Functional tf_keras model. One that was given is returned as
        it is.

    Raises:
        ImportError: If tf_keras or TFMOT is not installed.
        TypeError: If it is no tf_keras model and no path.
        ValueError: If it can't be loaded, or is no graph of layers.
    """
    tf_keras = import_tf_keras()
    if isinstance(model_or_path, (str, os.PathLike)):
        model_or_path = _loaded(pathlib.Path(model_or_path))
    if not isinstance(model_or_path, tf_keras.Model):
        kind = type(model_or_path)
        raise TypeError(
            f"Expected a tf_keras model or the path of one, got {kind.__module__}."
            f"{kind.__name__}. A Keras 3 model needs no translation: pass it to "
            "`kprune.prune`."
        )
    check_graph(model_or_path, getattr(model_or_path, "_is_graph_network", False))
    return model_or_path


def check_graph(model, is_graph):
    """Raises a `ValueError` if a model is not known by its graph of layers.

    Args:
        model: A model, of Keras 2 or 3.
        is_graph: Bool, whether it is.
    """
    if is_graph and model.inputs:
        return
    raise ValueError(
        f"The model {model.name!r} ({type(model).__name__}) is no Sequential or "
        "Functional model that is built, so that its layers can't be read off it. Give "
        "a Sequential an Input, or call it once on a batch; write the class of a "
        "subclassed model anew and carry its weights over with `set_weights`."
    )


def _loaded(path):
    if not path.is_file():
        raise ValueError(
            f"{str(path)!r} is no file. Expected a `.h5` or `.keras` file; open a "
            "SavedModel folder with `tf_keras.models.load_model` and pass the model."
        )
    tf_keras, tfmot = import_tf_keras(), import_tfmot()
    _check_file(path)
    failures = []
    for compile in (True, False):
        try:
            with tfmot.sparsity.keras.prune_scope():
                model = tf_keras.models.load_model(path, compile=compile)
        except Exception as error:  # any that a layer's constructor thinks of
            failures.append(error)
        else:
            if failures:
                _warn_not_compiled(path, failures[0])
            return model
    raise ValueError(
        f"tf_keras can't load {str(path)!r}: {in_short(failures[-1])} Where it misses "
        "a class, register that for tf_keras, or load the model yourself with "
        "`custom_objects` within `tfmot.sparsity.keras.prune_scope()`, and pass it."
    ) from failures[-1]


def _warn_not_compiled(path, error):
    warnings.warn(
        f"tf_keras can't compile the model in {str(path)!r} as it was: "
        f"{in_short(error)} The new model is therefore not compiled, and its optimizer "
        "would begin anew: call `compile` on it. If a loss or a metric of your own is "
        "missing, load the model yourself with "
        "`tf_keras.models.load_model(path, custom_objects=...)` within "
        "`tfmot.sparsity.keras.prune_scope()`, and pass it.",
        stacklevel=5,
    )


def _check_file(path):
    """Refuses files that tf_keras can't read, with the way to read them."""
    version, has_architecture = _contents(path)
    if version.startswith("3"):
        raise ValueError(
            f"{str(path)!r} was written by Keras {version}. Load it with "
            "`keras.saving.load_model`; it needs no translation."
        )
    if not has_architecture:
        raise ValueError(
            f"{str(path)!r} holds weights and no architecture. Build the tf_keras "
            "model (wrapped, if it was), call `load_weights` on it, and pass it."
        )


def _contents(path):
    """Returns which Keras wrote a file, a string, and whether it holds a model."""
    is_zip = zipfile.is_zipfile(path)
    if not is_zip and not h5py.is_hdf5(path):
        raise ValueError(
            f"{str(path)!r} is neither an HDF5 (`.h5`) nor a zipped (`.keras`) file."
        )
    try:
        return _contents_of_zip(path) if is_zip else _contents_of_hdf5(path)
    except Exception as error:  # any that half a file leads to
        raise ValueError(
            f"{str(path)!r} can't be read as a file of Keras, or only in part: "
            f"{in_short(error)} Expected a whole `.h5` or `.keras` file."
        ) from error


def _contents_of_zip(path):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "metadata.json" not in names:
            raise ValueError("It is a zip file that holds no `metadata.json`.")
        metadata = json.loads(archive.read("metadata.json"))
        if not isinstance(metadata, dict):
            raise ValueError(f"Its `metadata.json` holds {metadata!r}, no dict.")
        return str(metadata["keras_version"]), "config.json" in names


def _contents_of_hdf5(path):
    with h5py.File(path) as file:
        version = file.attrs.get("keras_version", "")
        version = version.decode() if isinstance(version, bytes) else str(version)
        return version, "model_config" in file.attrs


def calls_of(model):
    """Lists the calls in one tf_keras model, nested models unopened, in running order.

    Args:
        model: A Sequential or Functional tf_keras model.

    Returns:
        List of `Call`.
    """
    by_depth = model._nodes_by_depth
    nodes = [node for depth in sorted(by_depth) for node in reversed(by_depth[depth])]
    return [
        Call(node.layer, node.call_args, _given(node), tf.nest.flatten(node.outputs))
        for node in reversed(nodes)
        if not node.is_input
    ]


def _given(node):
    return {name: part for name, part in node.call_kwargs.items() if part is not None}


@contextlib.contextmanager
def unchanged(model):
    """Puts the weights and states of a tf_keras model back on exit.

    TFMOT's wrappers write weights at inference, too, and can do so only in the scope
    of the strategy that the model was made under. States of recurrent layers begin at
    zero, as those of a new model do.

    Args:
        model: A tf_keras model.
    """
    # Among the others are vocabularies, which no call changes.
    variables = [v for v in model.variables if isinstance(v, tf.Variable)]
    with _put_back(variables), with_states_put_back(model):
        for state in _states(model):
            state.assign(tf.zeros_like(state))
        with model.distribute_strategy.scope():
            yield


def with_states_put_back(model):
    """Returns a context on whose exit recurrent layers have the states of before.

    Args:
        model: A tf_keras model.
    """
    return _put_back(_states(model))


@contextlib.contextmanager
def _put_back(variables):
    before = [(variable, variable.numpy()) for variable in variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def _states(model):
    parts = (part for part in model._flatten_layers() if _is_stateful(part))
    return [state for part in parts for state in tf.nest.flatten(part.states)]


def _is_stateful(layer):
    states = tf.nest.flatten(getattr(layer, "states", None))
    return bool(states) and all(isinstance(state, tf.Variable) for state in states)
