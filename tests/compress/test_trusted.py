import json
import os

import keras
import numpy as np
import pytest
from keras import layers

from kprune.compress import ArchiveError, load_archive, save_archive
from kprune.compress.architecture import _DICTIONARY, full_config
from kprune.compress.container import frame, largest_size
from kprune.compress.packing import Writer, deflate
from kprune.compress.trusted import check_config


def dense_config():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="head")])
    return full_config(model)


def functional_config():
    inputs = keras.Input((4,), name="in")
    x = layers.Dense(4, name="first")(inputs)
    return full_config(keras.Model(inputs, layers.Dense(4, name="second")(x)))


def load(config, path, weights=b"", **arguments):
    """Loads an archive of a crafted architecture, whose checksum is right."""
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    writer = Writer()
    writer.bytes(weights, "values")
    path.write_bytes(frame(deflate(text, _DICTIONARY), writer).data)
    return load_archive(path, **arguments)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.kpz"


FOREIGN = {
    "a function of os": {"module": "os", "class_name": "system", "config": "true"},
    "a function": {"module": "os", "class_name": "function", "config": "system"},
    "a module of ours": {"module": "tests", "class_name": "Layer", "config": {}},
    "keras' own os": {"module": "keras.src.os", "class_name": "system", "config": {}},
    "a lambda": {"class_name": "__lambda__", "config": {"value": "AAAA"}},
    "a type": {"class_name": "__typespec__", "spec_name": "x", "config": []},
    "a Lambda layer": {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"function": "tanh"},
    },
    "a SavedModel": {
        "module": "keras.layers",
        "class_name": "TFSMLayer",
        "config": {"filepath": "/tmp"},
    },
    "a download": {
        "module": "keras.utils",
        "class_name": "function",
        "config": "get_file",
        "registered_name": "get_file",
    },
    "a loader": {"module": "keras.models", "class_name": "load_model", "config": {}},
    "an optimizer": {"module": "keras.optimizers", "class_name": "Adam", "config": {}},
    "a huge constant": {
        "class_name": "__numpy__",
        "config": {"value": [1], "dtype": "S1000000000"},
    },
    "no name": {"module": "keras.layers", "class_name": None, "config": {}},
    "a list as name": {"module": "keras.layers", "class_name": [], "config": {}},
    "a dunder": {"module": "keras.layers", "class_name": "__class__", "config": {}},
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("place", ["layer", "argument", "model"])
def test_nothing_foreign_is_made(foreign, place, path, monkeypatch):
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("code was run"))
    config = dense_config()
    if place == "layer":
        config["config"]["layers"][1] = foreign
    elif place == "argument":
        config["config"]["layers"][1]["config"]["kernel_initializer"] = foreign
    else:
        config = foreign

    with pytest.raises(ArchiveError, match="The archive"):
        load(config, path)


def test_modules_named_in_a_file_are_not_imported(path, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("trap", "keras.trap", "keras.src.backend.torch.core"):
        config = dense_config()
        config["config"]["layers"][1].update(module=module, class_name="Trap")

        with pytest.raises(ArchiveError, match="No module is imported because"):
            load(config, path)


def test_a_file_named_as_a_vocabulary_is_not_read(path):
    lookup = layers.StringLookup(vocabulary=["a", "b"])
    config = full_config(keras.Sequential([keras.Input((1,), dtype="string"), lookup]))
    assert load(config, path).layers[0].vocabulary_size() == 3
    config["config"]["layers"][1]["config"]["vocabulary"] = "/etc/passwd"

    with pytest.raises(ArchiveError, match="read the file '/etc/passwd'"):
        load(config, path)


HUGE = {
    "units": lambda layer: layer.update(units=10**11),
    "a product of two": lambda layer: layer.update(units=10**9),
    "more than an int holds": lambda layer: layer.update(units=10**30),
    "a negative number": lambda layer: layer.update(units=-5),
    "text": lambda layer: layer.update(units="many"),
    "a list": lambda layer: layer.update(units=[[]]),
    "a float": lambda layer: layer.update(units=1e300),
}


@pytest.mark.parametrize("change", HUGE.values(), ids=HUGE)
def test_huge_and_senseless_layers_are_refused_before_memory_is_taken(change, path):
    config = dense_config()
    change(config["config"]["layers"][1]["config"])

    with pytest.raises(ArchiveError):
        load(config, path)

    assert peak_after() < 100


def peak_after():
    """Returns the MB that the largest array would take that Keras is waiting for."""
    from keras.src.backend.common import global_state

    pending = global_state.get_global_attribute("uninitialized_variables") or []
    return sum(np.prod(variable.shape) for variable in pending) / 1e6


def test_what_an_archive_asks_for_is_bounded_by_its_size_or_the_caller(path):
    config = dense_config()
    config["config"]["layers"][0]["config"]["batch_shape"] = [None, 49]
    config["config"]["layers"][1]["config"]["units"] = 1_000_000

    with pytest.raises(ArchiveError, match=r"asks for 200,000,000 bytes.*max_bytes="):
        load(config, path)
    with pytest.raises(ArchiveError, match="more than 1,000,000"):
        load(config, path, max_bytes=1_000_000)
    with pytest.raises(ArchiveError, match="ends too early"):
        load(config, path, max_bytes=200_000_000)


SIZES = {
    "a window": lambda: layers.AveragePooling1D(5),
    "a shape": lambda: layers.Reshape((5, -1)),
    "padding": lambda: layers.ZeroPadding1D(5),
    "repetition": lambda: layers.UpSampling1D(5),
}


@pytest.mark.parametrize("build", SIZES.values(), ids=SIZES)
def test_a_size_out_of_proportion_is_refused_unless_the_caller_lifts_it(build, path):
    layer = build()
    config = full_config(keras.Sequential([keras.Input((10, 2)), layer]))
    text = json.dumps(config).replace("5", "5000000")

    with pytest.raises(ArchiveError, match="=5000000, at most 1,0.* larger max_bytes"):
        load(text.encode(), path)
    check_config(json.loads(text), largest=largest_size(len(text), 10_000_000))


def test_values_may_be_of_any_size(path):
    table = layers.IntegerLookup(vocabulary=[3, 10**15])
    scale = layers.Rescaling(10**9, name="scale")
    model = keras.Sequential([keras.Input((1,), dtype="int64"), table, scale])
    dropout = layers.Dropout(0.5, seed=2**60)
    model.add(dropout)

    loaded = load(full_config(model), path)

    assert full_config(loaded) == full_config(model)


def test_a_deep_sequential_is_made_in_a_time_that_grows_with_its_layers(path):
    calls = []

    @keras.saving.register_keras_serializable("counting")
    class Counting(layers.Layer):
        def call(self, x):
            calls.append(self.name)
            return x

    def config(number):
        model = keras.Sequential([keras.Input((4,))])
        for _ in range(number):
            model.add(Counting(), rebuild=False)
        model.build((None, 4))
        calls.clear()
        return full_config(model)

    for number in (5, 20):
        saved = config(number)
        loaded = load(saved, path)

        assert type(loaded) is keras.Sequential
        assert len(calls) == number
        assert full_config(loaded) == saved


def test_layers_listed_in_reverse_are_refused_where_there_are_many():
    config = functional_config()
    config["config"]["layers"].reverse()  # the second, the first, the input
    first, last = (config["config"]["layers"][i] for i in (0, -1))
    config["config"]["layers"] = [first] * 500 + [last]

    with pytest.raises(ArchiveError, match="500 of the 501 layers .* listed after"):
        check_config(config)


def test_more_layers_than_any_model_has_are_refused():
    config = dense_config()
    config["config"]["layers"] *= 10_000

    with pytest.raises(ArchiveError, match="20,001 layers, at most 10,000"):
        check_config(config)


def test_a_graph_that_feeds_itself_is_refused(path):
    config = functional_config()
    first = next(x for x in config["config"]["layers"] if x["name"] == "first")
    tensor = first["inbound_nodes"][0]["args"][0]["config"]
    tensor["keras_history"] = ["second", 0, 0]

    with pytest.raises(ArchiveError, match="loops or disconnected nodes"):
        load(config, path)


def test_deep_nesting_is_refused(path):
    with pytest.raises(ArchiveError, match="no JSON|nested over 100 deep"):
        load(b"[" * 100_000, path)
    with pytest.raises(ArchiveError, match="no JSON|nested over 100 deep"):
        load(b"[" * 5000 + b"]" * 5000, path)
    with pytest.raises(ArchiveError, match="nested over 100 deep"):
        load(b"[" * 300 + b"]" * 300, path)


def test_an_architecture_that_unpacks_to_far_more_is_refused(path):
    bomb = b'{"x":"' + b"a" * 50_000_000 + b'"}'

    with pytest.raises(ArchiveError, match="unpacks to more than"):
        load(bomb, path)


@pytest.mark.parametrize(
    "text", [b"", b"3", b"null", b"[]", b"{}", b"\xff\xfe", b"{", b'"x"', b"NaN"]
)
def test_json_that_is_no_model_is_refused(text, path):
    with pytest.raises(ArchiveError):
        load(text, path)


def test_loops_unrolled_for_ever_are_refused(path):
    lstm = layers.LSTM(2, unroll=True)
    config = full_config(keras.Sequential([keras.Input((5, 3)), lstm]))
    config["config"]["layers"][0]["config"]["batch_shape"] = [None, 10**6, 3]

    with pytest.raises(ArchiveError, match="batch_shape=1000000 .* at most 4096 is"):
        load(config, path)


def test_a_loaded_model_is_not_compiled_whatever_the_file_says(path):
    save_archive(keras.Sequential([keras.Input((2,)), layers.ReLU()]), path)
    config = full_config(load_archive(path))
    config["compile_config"] = {"optimizer": "adam", "loss": "mse"}

    assert not load(config, path).compiled


def test_a_layer_instead_of_a_model_is_refused(path):
    config = dense_config()["config"]["layers"][1]

    with pytest.raises(ArchiveError, match="no model, but a Dense"):
        load(config, path)


def test_a_layer_called_on_a_constant_is_refused_before_it_runs(path):
    constant = {
        "class_name": "__numpy__",
        "config": {"value": [[[1.0]]], "dtype": "float32"},
    }
    model = keras.Sequential([keras.Input((8, 1)), layers.ZeroPadding1D(1 << 20)])
    config = full_config(keras.Model(model.inputs, model.outputs))
    config["config"]["layers"][1]["inbound_nodes"] = [
        {"args": [constant], "kwargs": {}}
    ]
    packed = deflate(json.dumps(config).encode(), _DICTIONARY)
    path.write_bytes(frame(packed, Writer()).data)

    with pytest.raises(ArchiveError, match="calls a layer on constants alone"):
        load_archive(path)


@pytest.mark.parametrize("options", [{}, {"mean": 0.0, "variance": 1.0}])
def test_normalization_of_a_huge_product_of_axes_is_refused(options, path):
    norm = layers.Normalization(axis=[1, 2], **options)
    model = keras.Sequential([keras.Input((4, 8)), norm])
    text = json.dumps(full_config(model)).replace("4, 8", "50000, 20000")

    save_archive(model, path)
    loaded = load_archive(path)

    assert type(loaded.layers[0]) is layers.Normalization
    np.testing.assert_array_equal(loaded.layers[0].mean, model.layers[0].mean)
    with pytest.raises(ArchiveError, match="normalizes 1,000,000,000 values"):
        load(text.encode(), path)


def test_the_reason_is_not_that_of_an_error_that_is_being_handled(path):
    config = dense_config()
    config["config"]["layers"][1]["config"]["units"] = "many"

    try:
        raise ArchiveError("of another file")
    except ArchiveError:
        with pytest.raises(ArchiveError, match="cannot make the model of this archive"):
            load(config, path)


def test_what_all_normalizations_of_an_archive_take_is_counted(path):
    norms = [layers.Normalization(axis=1, mean=0.0, variance=1.0) for _ in range(5)]
    config = full_config(keras.Sequential([keras.Input((4, 1)), *norms]))
    text = json.dumps(config).replace("4, 1", "1000000, 1")

    with pytest.raises(ArchiveError, match="normalizes 5,000,000 values, at most 4,"):
        load(text.encode(), path)
    assert len(load(text.encode(), path, max_bytes=5_000_000).layers) == 5


@pytest.mark.parametrize("part", ["split", "unstack"])
def test_a_tensor_taken_apart_into_too_many_is_refused(part, path):
    inputs = keras.Input((4, 3))
    function = getattr(keras.ops, part)
    parts = [function(inputs, 4, 1), function(inputs, 4, 1)]
    model = keras.Model(inputs, [parts[0][0], parts[1][1]])
    text = json.dumps(full_config(model))
    name = {"split": "indices_or_sections", "unstack": "num"}[part]
    assert text.count(f'"{name}": 4') == 2

    load(text.encode(), path)
    with pytest.raises(ArchiveError, match="into 6,000 parts in all, at most 4,096"):
        load(text.replace(f'"{name}": 4', f'"{name}": 3000').encode(), path)


def test_a_long_axis_unstacked_without_a_number_is_refused(path):
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, keras.ops.unstack(inputs, axis=1)[0])
    text = json.dumps(full_config(model))

    load(text.encode(), path)
    with pytest.raises(ArchiveError, match="batch_shape=5000 .* at most 4096 is"):
        load(text.replace("[null, 4, 3]", "[null, 5000, 3]").encode(), path)


def test_a_table_of_many_hashes_is_taken_from_those_who_are_trusted(tmp_path):
    hashing = layers.Hashing(num_bins=3 << 20)
    model = keras.Sequential([keras.Input((1,), dtype="string"), hashing])

    report = save_archive(model, tmp_path / "m.kpz")

    assert "load it with `max_bytes`" in str(report)
    with pytest.raises(ArchiveError, match="num_bins=3145728, at most 1,048,576"):
        load_archive(tmp_path / "m.kpz")
    loaded = load_archive(tmp_path / "m.kpz", max_bytes=3 << 20)
    assert loaded.layers[0].num_bins == 3 << 20


def test_a_lookup_with_a_million_unknown_words_is_refused(path):
    model = keras.Sequential(
        [keras.Input((1,), dtype="string"), layers.StringLookup(vocabulary=["a"])]
    )
    config = full_config(model)
    config["config"]["layers"][1]["config"]["num_oov_indices"] = 1 << 30
    packed = deflate(json.dumps(config).encode(), _DICTIONARY)
    path.write_bytes(frame(packed, Writer()).data)

    with pytest.raises(ArchiveError, match="num_oov_indices"):
        load_archive(path)
