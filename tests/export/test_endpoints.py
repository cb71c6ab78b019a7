import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kprune
from kprune.export import ExportError, SavedModel, export
from kprune.export.endpoints import find_endpoints
from kprune.export.forward import Forward
from tests.export import models
from tests.export.test_packed_saved_model import sparse, stateful


def classifier():
    return keras.Sequential(
        [
            keras.Input((64,), name="x"),
            layers.Dense(96, activation="relu", name="wide"),
            layers.Dense(64, name="features"),
            layers.Dense(5, name="logits"),
        ],
        name="classifier",
    )


def two_towers():
    user = keras.Input((64,), name="user")
    film = keras.Input((2,), dtype="int32", name="film")
    left = layers.Dense(64, name="left")(user)
    right = layers.Embedding(50, 32, name="embedding")(film)
    right = layers.Flatten(name="right")(right)
    score = layers.Dot(1, name="score")([left, right])
    return keras.Model({"user": user, "film": film}, score)


def best(model):
    outputs = {"label": keras.ops.argmax(model.outputs[0], axis=-1)}
    return keras.Model(model.inputs[0], outputs)


def loaded_from(path):
    return tf.saved_model.load(path / "saved_model")


def weight_bytes(path):
    file = path / "saved_model" / "variables" / "variables.data-00000-of-00001"
    return file.stat().st_size


@pytest.mark.parametrize(  # a packed file has all that a plain one has
    "packed", [pytest.param(None, marks=pytest.mark.slow), "lossless"]
)
def test_layers_and_functions_are_served_beside_the_model(packed, tmp_path):
    model = sparse(classifier())
    signatures = {"hidden": "features", "both": ["wide", "features"], "top": best}
    x = np.random.default_rng(0).normal(size=(3, 64)).astype("float32")
    wide = np.maximum(x @ model.layers[0].kernel.numpy(), 0)
    features = wide @ model.layers[1].kernel.numpy()
    logits = features @ model.layers[2].kernel.numpy()

    export(model, tmp_path, SavedModel(packed, signatures=signatures))

    served = loaded_from(tmp_path).signatures
    outputs = {name: run(x=tf.constant(x)) for name, run in served.items()}
    assert set(outputs) == {"serving_default", "hidden", "both", "top"}
    assert [sorted(outputs[name]) for name in ("hidden", "both", "top")] == [
        ["features"],
        ["features", "wide"],
        ["label"],
    ]
    for found, expected in [
        (outputs["serving_default"]["logits"], logits),
        (outputs["hidden"]["features"], features),
        (outputs["both"]["wide"], wide),
        (outputs["both"]["features"], features),
    ]:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(outputs["top"]["label"], logits.argmax(-1))


@pytest.mark.parametrize("packed", [None, "codebook4"])
def test_all_signatures_share_one_copy_of_the_weights(packed, tmp_path):
    model = sparse(classifier())
    signatures = {"a": "features", "b": ["wide", "logits"], "c": best}

    one = export(model, tmp_path / "one", SavedModel(packed)).records[0]
    several = export(
        model, tmp_path / "several", SavedModel(packed, signatures=signatures)
    ).records[0]

    assert several.bound == one.bound
    assert weight_bytes(tmp_path / "several") - weight_bytes(tmp_path / "one") < 1500
    loaded = loaded_from(tmp_path / "several")
    assert len(loaded.state) + len(getattr(loaded, "weights", [])) == 6


def test_a_signature_is_a_method_that_takes_what_its_model_does(tmp_path):
    model = sparse(classifier())
    export(model, tmp_path, SavedModel(signatures={"hidden": "wide"}))
    x = np.ones((2, 64), "float32")

    loaded = loaded_from(tmp_path)

    np.testing.assert_allclose(loaded.hidden(x), model.layers[0](x), rtol=1e-6)


def test_inputs_that_do_not_matter_are_left_out(tmp_path):
    model = two_towers()
    signatures = {"user_tower": "left", "film_tower": "right"}
    x = np.random.default_rng(0).normal(size=(2, 64)).astype("float32")

    export(model, tmp_path, SavedModel(None, signatures=signatures))

    loaded = loaded_from(tmp_path)
    specs = {
        name: signature.structured_input_signature[1]
        for name, signature in loaded.signatures.items()
    }
    assert {name: sorted(s) for name, s in specs.items()} == {
        "serving_default": ["film", "user"],
        "user_tower": ["user"],
        "film_tower": ["film"],
    }
    assert specs["film_tower"]["film"].shape.as_list() == [None, 2]
    output = loaded.user_tower({"user": x})
    left = model.get_layer("left")
    np.testing.assert_allclose(output, x @ left.kernel.numpy(), rtol=1e-5, atol=1e-6)


def test_lookup_tables_are_shared_too(tmp_path):
    signatures = {"number": "lookup"}

    export(models.word_lookup(), tmp_path, SavedModel(signatures=signatures))

    loaded = loaded_from(tmp_path)
    words = tf.constant([["pepper"], ["sugar"]])
    np.testing.assert_array_equal(loaded.number(words), [[2], [0]])
    assert len(loaded.tables) == 1


def test_a_stateful_model_has_one_state_for_all_signatures(tmp_path):
    model = stateful()
    (name,) = (layer.name for layer in model.layers)
    x = np.full((2, 4, 32), 0.5, "float32")

    export(model, tmp_path, SavedModel(signatures={"again": name}))

    loaded = loaded_from(tmp_path)
    for run in (loaded.serve, loaded.again, loaded.serve):
        np.testing.assert_allclose(run(x), model(x), atol=1e-6)


def test_a_pruned_model_gives_its_functions_the_stripped_one(tmp_path):
    model = kprune.prune(classifier())
    seen = []

    def features(exported):
        seen.append(kprune.is_pruned(exported))
        return keras.Model(exported.inputs, exported.get_layer("features").output)

    with pytest.warns(UserWarning, match="kprune"):
        export(model, tmp_path, SavedModel(signatures={"features": features}))

    assert seen == [False]


def test_a_model_with_a_call_of_its_own_is_served_by_functions(tmp_path):
    model = models.subclassed()

    def heights(model):
        x = keras.Input((4,), name="x")
        return keras.Model(x, model.dense(x))

    export(model, tmp_path, SavedModel(signatures={"heights": heights}))

    x = np.ones((3, 4), "float32")
    loaded = loaded_from(tmp_path)
    np.testing.assert_allclose(loaded.heights(x), model.dense(x), rtol=1e-6)


def test_a_layer_inside_a_nested_model_is_reached_by_a_function(tmp_path):
    model = keras.Sequential([keras.Input((64,)), classifier(), layers.Dense(2)])

    def hidden(model):
        inner = model.get_layer("classifier")
        return keras.Model(inner.inputs[0], inner.get_layer("wide").output)

    signatures = {"hidden": hidden, "inner": "classifier"}
    export(model, tmp_path, SavedModel(signatures=signatures))

    loaded = loaded_from(tmp_path)
    x = np.ones((1, 64), "float32")
    inner = model.get_layer("classifier")
    np.testing.assert_allclose(loaded.inner(x), inner(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loaded.hidden(x), inner.layers[0](x), rtol=1e-5)


class Shifted(SavedModel):
    """Loads a file one of whose signatures answers a little more than it should."""

    def load(self, path):
        run, batch = super().load(path)
        right = run.loaded.signatures["hidden"]

        def shifted(**x):
            return {name: y + 0.01 for name, y in right(**x).items()}

        shifted.structured_input_signature = right.structured_input_signature
        shifted.structured_outputs = right.structured_outputs
        run.loaded.signatures = {**run.loaded.signatures, "hidden": shifted}
        return run, batch


@pytest.mark.parametrize(  # signatures are compared alike, packed or not
    "packed", [None, pytest.param("codebook4", marks=pytest.mark.slow)]
)
def test_each_signature_is_compared_before_export_returns(packed, tmp_path):
    model = sparse(classifier())
    signatures = {"top": best, "hidden": "features"}

    with pytest.raises(ExportError, match="of signature 'hidden' of the Shifted file"):
        export(model, tmp_path / "out", Shifted(packed, signatures=signatures))

    assert list(tmp_path.iterdir()) == []


def test_the_loader_of_tensorflow_1_runs_every_signature(tmp_path):
    model = sparse(classifier())
    format = SavedModel("lossless", signatures={"hidden": "features", "top": best})
    export(model, tmp_path, format)
    x = np.random.default_rng(0).normal(size=(3, 64)).astype("float32")

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.loader.load(
            session, ["serve"], str(tmp_path / "saved_model")
        )
        outputs = {}
        for name in ("serving_default", "hidden", "top"):
            signature = loaded.signature_def[name]
            fetches = {key: info.name for key, info in signature.outputs.items()}
            outputs[name] = session.run(fetches, {signature.inputs["x"].name: x})

    for name, endpoint in find_endpoints(Forward(model), format.signatures).items():
        for key, expected in endpoint({"x": x}).items():
            np.testing.assert_allclose(outputs[name][key], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("featres", "names the layer 'featres'.*calls 0 times.*'wide', 'features'"),
        (["wide", "x"], "names the layer 'x', which model 'classifier' calls 0 times"),
        (lambda model: 3, "is a function that returned 3, expected a keras.Model"),
        (lambda model: keras.Sequential([layers.Dense(2)]), "has no weights yet"),
        (lambda model: kprune.prune(model), "is a model that still holds masks"),
    ],
)
def test_a_part_that_is_not_there_is_refused_before_writing(given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(classifier(), tmp_path / "out", SavedModel(signatures={"part": given}))

    assert list(tmp_path.iterdir()) == []


def test_layers_called_twice_and_models_without_a_graph_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'sequential.*calls 2 times, expected once"):
        model = models.nested()
        format = SavedModel(signatures={"inner": model.layers[1].name})
        export(model, tmp_path / "out", format)
    with pytest.raises(ValueError, match="TwoHeads .* is no graph of layers"):
        export(
            models.subclassed(), tmp_path / "out", SavedModel(signatures={"a": "dense"})
        )


@pytest.mark.parametrize(
    "name",
    [
        "serving_default",
        "serve",
        "1st",
        "a-b",
        "_a",
        "class",
        "variables",
        "signatures",
        "",
        3,
    ],
)
def test_names_that_cannot_be_served_are_refused(name):
    with pytest.raises(ValueError, match=r"signatures has the name .*expected letters"):
        SavedModel(signatures={name: "features"})


@pytest.mark.parametrize("given", [None, 3, [], ["a", 3]])
def test_values_that_stand_for_no_model_are_refused(given):
    with pytest.raises(TypeError, match=r"signatures\['a'\] is .*the name of a layer"):
        SavedModel(signatures={"a": given})


def test_signatures_are_a_dict():
    with pytest.raises(ValueError, match="expected a dict from the name"):
        SavedModel(signatures=["features"])
