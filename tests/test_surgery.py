import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import kprune
from kprune import whole_model
from tests.checks import (
    assert_equal,
    assert_plain,
    assert_shares_nothing,
    entries,
    pruned_at_once,
    values,
    zeros_of,
)
from tests.layer_cases import normal, tokens
from tests.processes import run_script
from tests.subclassed_models import bare
from tests.training_helpers import OwnStep, build_optimizer

X, Y = normal(6)(32), normal(3)(32)


def two_layers(**kwargs):
    inputs = keras.Input((6,), name="features")
    x = layers.Dense(8, "relu", name="first")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="second")(x), **kwargs)


def train(model, sparsity=0.75, epochs=2):
    """Trains four steps an epoch, to the target at the sixth."""
    if not model.compiled:
        model.compile("adam", "mse", run_eagerly=True)  # tracing takes longer
    build_optimizer(model)
    schedule = kprune.PolynomialSchedule(sparsity, end_step=6, frequency=4)
    return model.fit(
        X,
        Y,
        epochs=epochs,
        batch_size=8,
        verbose=0,
        callbacks=[kprune.PruningCallback(schedule)],
    )


def sparsities(model):
    """Returns the fraction of zeros by layer and path of each masked weight."""
    masked = kprune.summary(model, None).masked
    return {f"{w.layer}/{w.weight}": w.sparsity for w in masked}


def assert_round_trip(model, x, tmp_path=None, **kwargs):
    """Prunes, stores and strips a model and compares outputs and structure."""
    before, expected = values(model), model(x)

    pruned = kprune.prune(model, **kwargs)
    assert type(model) in type(pruned).__mro__
    assert_equal(pruned(x), expected)
    assert_shares_nothing(pruned, model)

    pruner = kprune.Pruner(pruned, kprune.ConstantSchedule(0.5))
    pruner.step()
    expected = pruned(x)
    loaded = pruned
    if tmp_path is not None:
        pruned.save(tmp_path / "pruned.keras")
        loaded = keras.saving.load_model(tmp_path / "pruned.keras")
        assert_equal(loaded(x), expected)
    stripped = kprune.strip(loaded)

    assert_plain(stripped)
    assert type(stripped) is type(model)
    assert_equal(stripped(x), expected)
    assert_equal(values(model), before)
    assert_shares_nothing(stripped, model)
    for new, old in ((pruned, model), (stripped, loaded)):
        assert _names(new) == _names(old)
        assert len(new.trainable_variables) == len(model.trainable_variables)
    for entry in entries(loaded):
        zeros = entry.mask.numpy().size - entry.mask.numpy().sum()
        assert zeros == zeros_of(entry.mask.numpy().size, 0.5)
    return pruned, stripped


def _names(model):
    return [layer.name for layer in model.layers if layer.name != "kprune_store"]


# Kinds of models


@pytest.mark.parametrize("inputs", [[], [keras.Input((6,), name="features")]])
def test_sequential_is_pruned_built_or_not(inputs):
    model = keras.Sequential(
        [
            *inputs,
            layers.Dense(8, "relu", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.2, name="drop"),
            layers.Dense(3, name="second"),
        ],
        name="net",
    )

    pruned = kprune.prune(model)
    train(pruned)
    stripped = kprune.strip(pruned)

    assert model.built is bool(inputs)
    assert [x.name for x in pruned.layers] == ["first", "norm", "drop", "second"]
    kinds = [type(layer).__name__ for layer in pruned.layers]
    assert kinds == ["PruningWrapper", "BatchNormalization", "Dropout"] + kinds[:1]
    assert pruned.name == stripped.name == "net"
    assert sparsities(pruned) == {"first/kernel": 0.75, "second/kernel": 0.75}
    assert_plain(stripped)
    assert_equal(stripped(X), pruned(X))


def test_selection_holds_for_a_sequential_that_is_built_later():
    model = keras.Sequential([layers.Dense(8, name="a"), layers.Dense(3, name="b")])

    pruned = kprune.prune(model, skip="b")
    train(pruned)

    assert sparsities(pruned) == {"a/kernel": 0.75}


def test_structures_of_inputs_and_outputs_survive(tmp_path):
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    outputs = {
        "sum": [layers.Dense(3, name="d")(a), layers.Add(name="add")([a, b])],
        "one": layers.Dense(2, name="e")(b),
    }
    model = keras.Model({"pair": [a, b]}, outputs, name="structured")

    pruned, stripped = assert_round_trip(model, {"pair": [X, 2 * X]}, tmp_path)

    for new in (pruned, stripped):
        keras.tree.assert_same_structure(new.input, model.input)
        assert [t.name for t in new.inputs] == ["a", "b"]


def test_several_inputs_and_outputs_in_lists(tmp_path):
    a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b", dtype="float32")
    x = layers.Dense(5, name="d")(layers.Concatenate(name="c")([a, b]))
    model = keras.Model([a, b], [x, layers.Dense(1, name="e")(b)])

    assert_round_trip(model, [X, X[:, :2]], tmp_path)


def test_nested_models_of_three_levels(tmp_path):
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, "relu", name="deep")], name="inner"
    )
    inputs = keras.Input((6,), name="inputs")
    middle = keras.Model(
        inputs, layers.Dense(6, name="mid")(inner(inputs)), name="middle"
    )
    model = keras.Sequential(
        [keras.Input((6,)), middle, layers.Dense(3, name="top")], name="outer"
    )

    pruned, stripped = assert_round_trip(model, X, tmp_path)

    assert set(sparsities(pruned)) == {"deep/kernel", "mid/kernel", "top/kernel"}
    assert stripped.get_layer("middle").get_layer("inner").name == "inner"
    only = kprune.prune(model, only="inner")
    assert set(sparsities(only)) == {"deep/kernel"}
    skip = kprune.prune(model, skip="middle")
    assert set(sparsities(skip)) == {"top/kernel"}


def test_nested_model_used_twice_keeps_one_set_of_weights(tmp_path):
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, name="d")], name="inner"
    )
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    x = layers.Concatenate(name="c")([inner(a), inner(b)])
    model = keras.Model([a, b], layers.Dense(3, name="head")(x))

    pruned, stripped = assert_round_trip(model, [X, 2 * X], tmp_path)

    assert len(entries(pruned)) == 2
    assert len(stripped.trainable_variables) == 4


def test_layer_shared_between_models_of_a_nest():
    shared = layers.Dense(6, name="shared")
    inner = keras.Sequential([keras.Input((6,)), shared], name="inner")
    inputs = keras.Input((6,), name="inputs")
    model = keras.Model(inputs, layers.Dense(3, name="head")(inner(shared(inputs))))

    pruned, _ = assert_round_trip(model, X)  # Keras itself can't load such a file

    assert len(entries(pruned)) == 2


def test_functional_subclass_keeps_class_and_train_step():
    inputs = keras.Input((6,), name="inputs")
    model = OwnStep(inputs, layers.Dense(3, name="d")(inputs), name="own")

    pruned, stripped = assert_round_trip(model, X)
    history = train(pruned)

    assert type(pruned) is type(stripped) is OwnStep
    assert history.history["own"] == [1.0, 1.0]
    assert sparsities(pruned) == {"d/kernel": pytest.approx(14 / 18)}


@keras.saving.register_keras_serializable("kprune_tests")
class Backbone(keras.Model):
    """The pattern of KerasHub: a Functional constructor, a config of its own."""

    def __init__(self, depth=2, **kwargs):
        self_blocks = [layers.Dense(6, name=f"block_{i}") for i in range(depth)]
        inputs = keras.Input((6,), name="tokens")
        x = inputs
        for block in self_blocks:
            x = block(x)
        super().__init__(inputs=inputs, outputs={"all": x, "one": x[:, :1]}, **kwargs)
        self.depth, self.blocks = depth, self_blocks

    def get_config(self):
        return {"depth": self.depth, "name": self.name, "trainable": self.trainable}

    def train_step(self, data):
        return {**super().train_step(data), "own": 1.0}


def test_backbone_is_pruned_alone_and_nested(tmp_path):
    model = Backbone(name="backbone")

    pruned, stripped = assert_round_trip(model, X, tmp_path)

    assert type(stripped) is Backbone
    assert isinstance(pruned, Backbone)
    assert pruned.depth == stripped.depth == 2
    inputs = keras.Input((6,), name="inputs")
    task = keras.Model(inputs, layers.Dense(3, name="head")(model(inputs)["all"]))
    pruned, stripped = assert_round_trip(task, X, tmp_path)
    train(pruned)
    assert type(stripped.get_layer("backbone")) is Backbone
    assert sparsities(pruned) == {
        "backbone/block_0/kernel": 0.75,
        "backbone/block_1/kernel": 0.75,
        "head/kernel": pytest.approx(14 / 18),
    }


@keras.saving.register_keras_serializable("kprune_tests")
class Subclassed(keras.Model):
    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.stem = layers.Dense(units, "relu", name="stem")
        self.blocks = [layers.Dense(units, "relu") for _ in range(2)]
        self.mlp = keras.Sequential([layers.Dense(units), layers.Dense(3)])
        self.seen = keras.metrics.Mean(name="seen")

    def build(self, input_shape):
        self.stem.build(input_shape)
        hidden = (*input_shape[:-1], self.units)
        for part in (*self.blocks, self.mlp):
            part.build(hidden)

    def call(self, inputs, training=False):
        x = self.stem(inputs)
        for block in self.blocks:
            x = block(x)
        return self.mlp(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_subclassed_model_is_pruned_saved_and_stripped(tmp_path):
    model = Subclassed(name="sub")
    model(X)

    pruned, _ = assert_round_trip(model, X, tmp_path)
    pruned = kprune.prune(model)
    train(pruned)
    pruned.save(tmp_path / "trained.keras")
    loaded = keras.saving.load_model(tmp_path / "trained.keras")

    assert isinstance(pruned, Subclassed)
    assert sparsities(loaded) == {
        "sub/stem/kernel": 0.75,
        "sub/blocks.0/kernel": 0.75,
        "sub/blocks.1/kernel": 0.75,
        "sub/mlp/layers.0/kernel": 0.75,
        "sub/mlp/layers.1/kernel": 0.75,
    }
    assert whole_model.clock_of(loaded) == 8
    assert type(kprune.strip(loaded)) is Subclassed
    assert set(sparsities(kprune.prune(model, only="stem"))) == {"sub/stem/kernel"}


def test_subclassed_model_within_a_functional_one(tmp_path):
    inputs = keras.Input((6,), name="inputs")
    x = Subclassed(name="sub")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))

    pruned, _ = assert_round_trip(model, X, tmp_path)

    assert len(entries(pruned)) == 6


def test_subclassed_model_loads_in_another_process(tmp_path):
    """Automatic layer names differ there, and paths must not depend on them."""
    (tmp_path / "user.py").write_text(textwrap.dedent(USER_MODULE))
    common = """
        import user, keras, kprune, numpy as np
        x = np.ones((2, 6), "float32")
    """
    save = """
        [keras.layers.Dense(2) for _ in range(5)]
        model = user.Net()
        model(x)
        model = kprune.prune(model)
        kprune.Pruner(model, kprune.ConstantSchedule(0.5)).step()
        model.save("m.keras")
        np.save("y.npy", model(x))
    """
    load = """
        model = keras.saving.load_model("m.keras")
        np.testing.assert_array_equal(model(x), np.load("y.npy"))
        print("sparsity", kprune.summary(model, None).sparsity)
    """

    run_script(common + save, folder=tmp_path)
    done = run_script(common + load, folder=tmp_path)

    assert "sparsity 0.5" in done.stdout, done.stderr


USER_MODULE = """
    import keras

    @keras.saving.register_keras_serializable("user")
    class Net(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            layers = [keras.layers.Dense(8), keras.layers.Dense(3)]
            self.mlp = keras.Sequential(layers)

        def build(self, shape):
            self.mlp.build(shape)

        def call(self, x):
            return self.mlp(x)

        def get_config(self):
            return super().get_config()
"""


class WithoutConfig(keras.Model):
    def __init__(self, body):
        super().__init__(name="plain")
        self.body, self.head = body, layers.Dense(3, name="head")

    def call(self, inputs):
        return self.head(self.body(inputs))


def test_model_without_config_is_pruned_and_stripped_in_place(tmp_path):
    model = WithoutConfig(layers.Dense(4, name="body"))
    expected = model(X)

    with pytest.warns(UserWarning, match="'plain' is therefore pruned in place"):
        pruned = kprune.prune(model)

    assert pruned is model
    assert_equal(pruned(X), expected)
    train(pruned)
    assert sparsities(pruned) == {"plain/body/kernel": 0.75, "plain/head/kernel": 0.75}
    expected = pruned(X)
    pruned.save_weights(tmp_path / "w.weights.h5")
    pruned.load_weights(tmp_path / "w.weights.h5")
    assert_equal(pruned(X), expected)
    with pytest.raises(ValueError, match="give its class a `get_config`"):
        pruned.save(tmp_path / "m.keras")

    with pytest.warns(UserWarning, match="stripped in place"):
        stripped = kprune.strip(pruned)

    assert stripped is model
    assert type(stripped) is WithoutConfig
    assert_plain(stripped)
    assert_equal(stripped(X), expected)
    stripped.fit(X, Y, verbose=0)


class Renaming(keras.Model):
    """Each instance keeps its layer under another attribute."""

    made = 0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        Renaming.made += 1
        self.place = f"dense_{self.made}"
        setattr(self, self.place, layers.Dense(3))

    def call(self, inputs):
        return getattr(self, self.place)(inputs)

    def get_config(self):
        return super().get_config()


def test_model_whose_copy_has_other_paths_is_pruned_in_place():
    model = Renaming(name="net")
    model(X)

    with pytest.warns(UserWarning) as warned:
        pruned = kprune.prune(model)

    messages = " ".join(str(warning.message) for warning in warned)
    assert "does not have all of the weights 'dense_1/kernel'" in messages
    assert pruned is model
    assert len(entries(pruned)) == 1


def test_subclassed_model_without_weights_is_an_error():
    with pytest.raises(ValueError, match=r"'sub' \(Subclassed\).*Call it once on a"):
        kprune.prune(Subclassed(name="sub"))


# What layers hold


def test_adapted_preprocessing_keeps_its_state(tmp_path):
    table = tf.constant([["a"], ["b"], ["q"], ["a"]])
    text = tf.constant([["u v"], ["w"], ["none of it"], [""]])
    numbers = np.arange(4).reshape(4, 1)
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(X)
    bins = layers.Discretization(num_bins=4, output_mode="one_hot", name="bins")
    bins.adapt(X[:, :1])
    strings = layers.StringLookup(output_mode="multi_hot", name="strings")
    strings.adapt(["a", "b"])
    integers = layers.IntegerLookup(output_mode="one_hot", name="integers")
    integers.adapt(np.arange(3))
    words = layers.TextVectorization(output_mode="tf_idf", name="words")
    words.adapt(["u v w", "u v", "u"])
    inputs = [
        keras.Input((6,), name="x"),
        keras.Input((1,), dtype="string", name="s"),
        keras.Input((1,), dtype="int64", name="i"),
        keras.Input((1,), dtype="string", name="t"),
    ]
    parts = [
        normalization(inputs[0]),
        bins(inputs[0][:, :1]),
        strings(inputs[1]),
        integers(inputs[2]),
        layers.Flatten(name="flat")(words(inputs[3])),
    ]
    x = layers.Concatenate(name="all")(parts)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))

    pruned, stripped = assert_round_trip(
        model, [tf.constant(X[:4]), table, tf.constant(numbers), text]
    )

    for new in (pruned, stripped):
        vocabulary = new.get_layer("strings").get_vocabulary()
        assert vocabulary == strings.get_vocabulary()
        assert set(vocabulary) == {"[UNK]", "a", "b"}
        assert new.get_layer("bins").bin_boundaries == bins.bin_boundaries
        assert_equal(new.get_layer("normalization").mean, normalization.mean)


def twice(x):
    return 2 * ops.relu(x)


def scaled(factor):
    def activation(x):
        return factor * x

    return activation


class NoKeywords(layers.Layer):
    """A class that is not registered and takes none of Keras' arguments."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), name="kernel"
        )

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel)

    def get_config(self):
        return {"units": self.units}


class FirstColumns(layers.Layer):
    """A class without weights and without a config."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def call(self, inputs):
        return inputs[:, : self.number]


def test_functions_and_unregistered_classes_are_carried_over():
    inputs = keras.Input((6,), name="inputs")
    x = layers.Dense(8, activation=lambda t: ops.tanh(t) * 3, name="a")(inputs)
    x = layers.Dense(
        8, twice, kernel_initializer=lambda s, dtype: ops.ones(s), name="b"
    )(x)
    x = layers.Lambda(lambda t: ops.sin(t), name="lambda")(x)
    x = layers.Activation(twice, name="activation")(x)
    x = NoKeywords(6)(x)
    x = FirstColumns(4)(x)
    x = layers.Reshape((2, 2))(x)
    for i, activation in enumerate([twice, scaled(2), scaled(3), lambda t: ops.cos(t)]):
        dense = layers.Dense(3, activation, name=f"dense_{i}")
        x = layers.TimeDistributed(dense, name=f"each_{i}")(x)
    model = keras.Model(inputs, layers.Flatten(name="flatten")(x))

    pruned, stripped = assert_round_trip(model, X)

    assert pruned.get_layer("a").activation is model.get_layer("a").activation
    assert twice.__name__ == "twice"
    assert scaled(1).__name__ == "activation"
    assert isinstance(stripped.layers[5], NoKeywords)
    assert len(entries(pruned)) == 7


def test_operations_and_constants_of_the_graph_are_kept(tmp_path):
    inputs = keras.Input((6,), name="inputs")
    x = ops.concatenate([inputs * np.arange(6, dtype="float32"), ops.abs(inputs)])
    x = layers.Dense(4, name="d")(x + 2.0)[:, 1:]
    x = ops.where(x > 0, x, 0.1 * x)
    model = keras.Model(inputs, ops.split(x, 3, axis=-1))

    assert_round_trip(model, X, tmp_path)


def test_calls_with_several_tensors_and_states(tmp_path):
    inputs = [keras.Input((5, 4), name="x"), keras.Input((3,), name="h")]
    c = keras.Input((3,), name="c")
    lstm = layers.LSTM(3, return_state=True, return_sequences=True, name="lstm")
    sequence, h, c_out = lstm(inputs[0], initial_state=[inputs[1], c])
    decoded = layers.GRU(3, name="gru")(sequence, initial_state=h)
    both, *states = layers.Bidirectional(layers.GRU(3, return_state=True), name="both")(
        sequence
    )
    again = layers.Bidirectional(layers.GRU(3), name="again")(
        inputs[0], initial_state=states
    )
    model = keras.Model([*inputs, c], [decoded, h, c_out, both, again])

    assert_round_trip(model, [normal(5, 4)(8), X[:8, :3], X[:8, 3:]], tmp_path)


def test_masks_of_padding_pass_through_wrappers(tmp_path):
    inputs = keras.Input((None,), dtype="int32", name="inputs")
    x = layers.Embedding(5, 4, mask_zero=True, name="embedding")(inputs)
    x = layers.TimeDistributed(layers.Dense(4), name="each")(x)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D(name="pool")(x))

    pruned, _ = assert_round_trip(model, tokens(6, 5)(16), tmp_path)

    assert pruned.get_layer("embedding").supports_masking
    padded = np.array([[1, 2, 0, 0, 0, 0]])
    cut = kprune.prune(model)(padded[:, :2])
    np.testing.assert_allclose(kprune.prune(model)(padded), cut, rtol=1e-5)


def test_stateful_rnn_can_be_reset():
    inputs = keras.Input(batch_shape=(4, 5, 4), name="inputs")
    model = keras.Model(inputs, layers.LSTM(3, stateful=True, name="rnn")(inputs))
    pruned, x = kprune.prune(model), normal(5, 4)(4)
    first = np.array(pruned(x))
    second = np.array(pruned(x))

    pruned.get_layer("rnn").reset_state()

    assert (first != second).any()
    assert_equal(pruned(x), first)
    assert_equal(pruned(x), second)


def test_seeds_are_carried_over():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8),
            layers.Dropout(0.5),
            layers.GaussianNoise(0.1),
            layers.Dense(3),
        ]
    )
    model(X, training=True)  # the seeds are no longer what they were at first

    pruned = kprune.prune(model)
    stripped = kprune.strip(pruned)

    expected = model(X, training=True)
    assert_equal(pruned(X, training=True), expected)
    assert_equal(stripped(X, training=True), expected)


def test_losses_of_layers_are_the_same():
    class Penalised(layers.Dense):
        def call(self, inputs):
            outputs = super().call(inputs)
            self.add_loss(ops.mean(outputs**2))
            return outputs

    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(
                4, kernel_regularizer="l2", activity_regularizer="l1", name="a"
            ),
            Penalised(4, bias_regularizer="l1", name="b"),
        ]
    )
    pruned = kprune.prune(model)
    stripped = kprune.strip(pruned)

    for new in (model, pruned, stripped):
        new(X)

    expected = sorted(map(float, model.losses))
    assert len(expected) == 4
    assert sorted(map(float, pruned.losses)) == expected
    assert sorted(map(float, stripped.losses)) == expected


def test_metrics_of_layers_are_logged_and_not_counted_twice():
    class Watched(layers.Dense):
        def build(self, input_shape):
            super().build(input_shape)
            self.watch = keras.metrics.Mean(name="watched")

        def call(self, inputs):
            outputs = super().call(inputs)
            self.watch.update_state(ops.mean(outputs))
            return outputs

    model = keras.Sequential([keras.Input((6,)), Watched(3, name="w")])
    pruned = kprune.prune(model)
    model.compile("sgd", "mse")
    pruned.compile("sgd", "mse")

    logs = [m.evaluate(X, Y, verbose=0, return_dict=True) for m in (model, pruned)]

    assert logs[0] == logs[1]


# Which weights


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"only": "query"}, {"mha/query_dense/kernel"}),
        ({"only": ["que*", "head"]}, {"mha/query_dense/kernel", "head/kernel"}),
        ({"only": "forward_l"}, {f"bi/forward_layer/{w}" for w in ("w", "r")}),
        ({"only": layers.Bidirectional}, {f"bi/{s}/{w}" for s in "fb" for w in "wr"}),
        ({"only": layers.Dense}, {"head/kernel"}),
        ({"only": lambda layer: layer.name == "head"}, {"head/kernel"}),
        ({"skip": ["mha", layers.Bidirectional]}, {"head/kernel"}),
        ({"only": "mha", "skip": ["key", "value", "att*"]}, {"mha/query_dense/kernel"}),
    ],
)
def test_only_and_skip(arguments, expected):
    inputs = keras.Input((5, 8), name="inputs")
    x = layers.MultiHeadAttention(2, 4, name="mha")(inputs, inputs)
    x = layers.Bidirectional(layers.LSTM(3, name="l"), name="bi")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    short = {
        "forward_layer": "f",
        "backward_layer": "b",
        "cell/kernel": "w",
        "cell/recurrent_kernel": "r",
    }

    found = set(sparsities(kprune.prune(model, **arguments)))

    if any("bi/" in path for path in expected):
        found = {_abbreviated(path, short) for path in found}
        expected = {_abbreviated(path, short) for path in expected}
    assert found == expected


def _abbreviated(path, short):
    for name, letter in short.items():
        path = path.replace(name, letter)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": "thrid"}, "only got 'thrid', which matches no layer. The model's"),
        ({"skip": ["first", "q*"]}, r"skip got 'q\*', which matches no layer"),
        ({"only": 3}, "only got 3. Expected layer names, glob patterns"),
        ({"only": layers.Conv2D}, "Nothing in the model 'net' can be pruned"),
        ({"skip": layers.Dense}, "a bias; left out by `only` or `skip`"),
        ({"granularity": "blok"}, "'blok' is none of the registered granularities"),
    ],
)
def test_bad_selection_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kprune.prune(two_layers(name="net"), **arguments)


def test_model_without_prunable_weights_is_refused_with_reasons():
    model = keras.Sequential([keras.Input((6,)), layers.LayerNormalization()])

    with pytest.raises(ValueError, match="the rule for LayerNormalization leaves it"):
        kprune.prune(model)
    with pytest.raises(ValueError, match="there are none"):
        kprune.prune(keras.Sequential([keras.Input((6,)), layers.ReLU()]))


@pytest.mark.parametrize("thing", [None, 3, "model", layers.Dense(3), [1]])
@pytest.mark.parametrize("function", [kprune.prune, kprune.strip, kprune.summary])
def test_something_that_is_no_model_is_refused(function, thing):
    with pytest.raises(TypeError, match=f"Expected a keras.Model, got {_name(thing)}"):
        function(thing)


def _name(thing):
    return type(thing).__name__


def test_stripping_a_plain_model_is_refused():
    with pytest.raises(ValueError, match="'net' holds no masks, so there is nothing"):
        kprune.strip(two_layers(name="net"))


# Going on


def test_pruning_again_goes_on_from_masks_and_clock():
    pruned = kprune.prune(two_layers(), only="first")
    train(pruned)

    again = kprune.prune(pruned)

    assert sparsities(again) == {"first/kernel": 0.75, "second/kernel": 0.0}
    assert whole_model.clock_of(again) == 8
    assert_equal(entries(again)[0].mask.numpy(), entries(pruned)[0].mask.numpy())
    assert_equal(again(X), pruned(X))
    assert_shares_nothing(again, pruned)
    train(again, sparsity=0.875, epochs=1)
    assert sparsities(again) == {"first/kernel": 0.875, "second/kernel": 0.875}
    removed = ~entries(pruned)[0].mask.numpy()
    assert not entries(again)[0].mask.numpy()[removed].any()


def test_pruning_again_goes_on_in_a_subclassed_model():
    model = Subclassed(name="sub")
    model(X)
    pruned = kprune.prune(model, only="stem")
    train(pruned)

    again = kprune.prune(pruned, only="stem")
    more = kprune.prune(pruned)

    assert sparsities(again) == {"sub/stem/kernel": 0.75}
    assert sparsities(more)["sub/stem/kernel"] == 0.75
    assert len(sparsities(more)) == 5
    assert whole_model.clock_of(more) == 8
    assert_equal(more(X), pruned(X))


def test_compiled_state_is_carried_over():
    def loss(y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred))

    class Custom(keras.metrics.Mean):
        def __init__(self, name="custom"):
            super().__init__(name=name)

        def update_state(self, y_true, y_pred, sample_weight=None):
            super().update_state(ops.max(y_pred))

        def get_config(self):
            return {"name": self.name}

    rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
    inner = keras.optimizers.AdamW(rate, weight_decay=0.1, clipnorm=1.0)
    model = two_layers()
    model.compile(
        keras.optimizers.LossScaleOptimizer(inner),
        loss=loss,
        metrics=["mse", keras.metrics.MeanAbsoluteError(), Custom()],
        steps_per_execution=2,
    )
    model.fit(X, Y, batch_size=8, verbose=0)

    pruned = kprune.prune(model)
    stripped = kprune.strip(pruned)

    expected = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert {"loss", "custom", "mean_absolute_error"} <= expected.keys()
    for new in (pruned, stripped):
        assert new.evaluate(X, Y, verbose=0, return_dict=True) == expected
        assert new.steps_per_execution == 2
        assert isinstance(new.optimizer, keras.optimizers.LossScaleOptimizer)
        assert new.optimizer.inner_optimizer is not inner
        assert new.optimizer.inner_optimizer.weight_decay == 0.1
        assert new.optimizer.inner_optimizer.clipnorm == 1.0
        assert int(new.optimizer.iterations) == 0
        new.fit(X, Y, batch_size=8, verbose=0)
    assert int(model.optimizer.iterations) == 4


def test_metric_that_cannot_be_copied_leaves_the_model_uncompiled():
    class Needy(keras.metrics.Mean):
        def __init__(self, threshold, name="needy"):
            super().__init__(name=name)

    model = two_layers(name="net")
    model.compile("adam", "mse", metrics=[Needy(0.5)])

    with pytest.warns(UserWarning, match="'net' is compiled with an object that can't"):
        pruned = kprune.prune(model)

    assert not pruned.compiled
    assert model.compiled


def test_frozen_flags_are_kept_both_ways():
    bi = layers.Bidirectional(layers.LSTM(3), name="bi")
    body = keras.Sequential(
        [layers.Dense(4, name="a"), layers.Dense(4, name="b")], name="body"
    )
    inputs = keras.Input((5, 4), name="inputs")
    x = layers.BatchNormalization(name="norm")(bi(body(inputs)))
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))

    def flags(model):
        own = [x for x in model._flatten_layers() if not _is_ours(x)]
        return [layer.trainable for layer in own]

    def assert_kept():
        pruned = kprune.prune(model)
        stripped = kprune.strip(pruned)
        assert flags(pruned) == flags(stripped) == flags(model)
        for new in (pruned, stripped):
            assert len(new.trainable_variables) == len(model.trainable_variables)
        return pruned

    bi.forward_layer.trainable = False
    body.layers[0].trainable = False
    assert_kept()
    body.trainable = False
    pruned = assert_kept()
    pruned.get_layer("body").trainable = True
    assert flags(kprune.strip(pruned)) == flags(pruned)
    model.trainable = False
    assert_kept().trainable = True


def _is_ours(layer):
    return type(layer).__module__.startswith("kprune.")


# What is refused

# Keras says so of every layer that it passes by.
quantizes = pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")


@quantizes
def test_conversions_are_refused_until_the_model_is_stripped():
    pruned = pruned_at_once(two_layers())
    first, before = pruned.get_layer("first"), values(pruned)

    for convert in (
        lambda: pruned.quantize("int8"),
        lambda: first.quantize("int8"),
        lambda: first.layer.quantize("int8"),
        lambda: first.enable_lora(2),
    ):
        with pytest.raises(
            ValueError, match=r"is pruned.* kprune.strip\(model\)` first"
        ):
            convert()
    assert_equal(values(pruned), before)

    kprune.strip(pruned).quantize("int8")
    kprune.strip(pruned).get_layer("first").enable_lora(2)
    pruned.compile("adam", "mse", run_eagerly=True)
    pruned.fit(X, Y, verbose=0)


@quantizes
def test_conversions_of_a_subclassed_model_are_refused():
    model = Subclassed(name="sub")
    model(X)
    pruned = kprune.prune(model)

    with pytest.raises(ValueError, match="on 'sub', in a model that is pruned"):
        pruned.quantize("int8")
    with pytest.raises(ValueError, match="on 'stem', in a model that is pruned"):
        pruned.stem.enable_lora(2)

    kprune.strip(pruned).quantize("int8")


@quantizes
def test_quantize_of_a_partly_pruned_model_is_refused_before_it_begins():
    pruned = kprune.prune(two_layers(), only="second")
    before = [v.dtype for v in pruned.variables]

    with pytest.raises(ValueError, match="kprune.strip"):
        pruned.quantize("int8")

    assert [v.dtype for v in pruned.variables] == before


def test_quantized_and_adapted_layers_stay_dense():
    model = two_layers()
    model.get_layer("first").enable_lora(2)
    model.get_layer("first").lora_kernel_b.assign(np.ones((2, 8)))

    pruned = kprune.prune(model)

    assert_equal(pruned(X), model(X))
    assert set(sparsities(pruned)) == {"second/kernel"}
    reasons = {w.reason for w in kprune.summary(pruned, None).dense}
    assert "its layer is adapted by LoRA; merge the adapter first" in reasons


# Other libraries and strategies


def test_a_model_that_was_trained_and_not_pruned_is_told_of():
    model = kprune.prune(two_layers())
    model.compile("sgd", "mse")
    kprune.strip(model)  # nothing has happened yet, which is no reason to warn
    x, y = np.ones((4, *model.input_shape[1:])), np.ones((4, *model.output_shape[1:]))
    model.train_on_batch(x, y)

    with pytest.warns(UserWarning, match="for 1 steps with masks, and no weight is re"):
        kprune.strip(model)


def test_tf_keras_model_is_refused():
    pytest.importorskip("tf_keras")
    done = run_script(
        """
        import kprune, tf_keras
        model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
        kprune.prune(model)
        """
    )

    assert "TypeError: The model is a tf_keras (Keras 2) model; kprune works" in (
        done.stderr
    )


def test_other_backend_is_refused(monkeypatch):
    model = two_layers()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")

    for function in (kprune.prune, kprune.PruningWrapper):
        with pytest.raises(ValueError, match="on the 'jax' backend; kprune needs Tens"):
            function(model)


def test_model_of_a_mirrored_strategy_stays_mirrored():
    done = run_script(
        """
        import numpy as np, tensorflow as tf, keras, kprune
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
        pruned = kprune.prune(model)
        stripped = kprune.strip(pruned)
        for new in (pruned, stripped):
            assert new.distribute_strategy is strategy
            for v in new.variables:
                assert len(strategy.experimental_local_results(v.value)) == 2, v
        print("mirrored")
        """
    )

    assert "mirrored" in done.stdout, done.stderr


@keras.saving.register_keras_serializable("kprune_tests")
class OwnSequential(keras.Sequential):
    """A Sequential that makes its layers itself."""

    def __init__(self, units=16, name=None):
        super().__init__(
            [keras.Input((8,)), layers.Dense(units), layers.Dense(3)], name=name
        )
        self.units = units

    def get_config(self):
        return {"units": self.units, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def test_weights_of_a_pruned_sequential_subclass_include_masks_and_clock():
    pruned = kprune.prune(OwnSequential())
    pruned.compile("sgd", "mse")
    before = pruned.get_weights()
    x, y = np.ones((32, 8), "float32"), np.ones((32, 3), "float32")

    pruned.fit(x, y, batch_size=8, verbose=0, callbacks=[kprune.PruningCallback(0.9)])
    pruned.set_weights(before)

    assert kprune.summary(pruned, print_fn=None).step == 0
    np.testing.assert_array_equal(pruned(x), kprune.strip(pruned)(x))


def test_name_of_the_whole_model_selects_nothing():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(4, name="block_1"),
            layers.Dense(3, name="head"),
        ],
        name="block_net",
    )

    only = kprune.prune(model, only="block_*")
    skip = kprune.prune(model, skip="block_*")
    wide = kprune.prune(model, only=lambda layer: layer.units > 3)

    def wrapped(pruned):
        return [x.name for x in pruned.layers if isinstance(x, kprune.PruningWrapper)]

    assert wrapped(only) == wrapped(wide) == ["block_1"]
    assert wrapped(skip) == ["head"]


def test_a_layer_itself_can_be_skipped():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.Dense(3)])

    pruned = kprune.prune(model, skip=[model.layers[-1]])

    kinds = [isinstance(layer, kprune.PruningWrapper) for layer in pruned.layers]
    assert kinds == [True, False]


def test_a_model_pruned_in_place_can_be_pruned_again():
    model = bare()
    with pytest.warns(UserWarning, match="pruned in place"):
        kprune.prune(model)

    assert kprune.prune(model) is model
    assert len(model.kprune_store.entries) == 1
