import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune import registry
from kprune.shrinking import ChannelRule, ShrinkError, shrink
from kprune.shrinking.costs import costs_of
from kprune.weight_access import as_array
from tests.channels.exactness import randomised


def dense_model(activation="relu"):
    """Units 0, 2 of `a` have the largest weights, units 1, 2 of `b`."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(4, activation, name="a"),
            layers.Dense(3, activation, name="b"),
            layers.Dense(2, name="head"),
        ],
        name="tiny",
    )
    a, b, _ = model.layers
    a.set_weights([np.array([[5, 1, -6, 0], [5, 1, 6, 2.0]]), np.arange(4) / 4])
    b.set_weights([np.arange(12.0).reshape(4, 3) / 12, np.arange(3) / 3])
    return model


def residual_model():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    y = layers.Conv2D(12, 3, padding="same", use_bias=False, name="inner")(x)
    y = layers.ReLU()(layers.BatchNormalization(name="inner_norm")(y))
    y = layers.Conv2D(8, 1, name="outer")(y)
    x = layers.Flatten()(layers.MaxPooling2D(4)(layers.Add()([x, y])))
    x = layers.Dense(16, "relu", name="hidden")(x)
    outputs = layers.Dense(3, "softmax", name="head")(x)
    return randomised(keras.Model(inputs, outputs, name="residual"))


def widths(model):
    made = {layers.Conv2D: "filters", layers.Dense: "units"}
    return {x.name: getattr(x, made[type(x)]) for x in model.layers if type(x) in made}


def test_what_is_left_are_slices_of_the_weights():
    model = dense_model()

    small = shrink(model, {"a": 0.5, "b": 0.34})

    for layer, rows, columns in (
        ("a", [0, 1], [0, 2]),
        ("b", [0, 2], [1, 2]),
        ("head", [1, 2], [0, 1]),
    ):
        kernel, bias = map(np.asarray, model.get_layer(layer).weights)
        found, found_bias = map(np.asarray, small.get_layer(layer).weights)
        np.testing.assert_array_equal(found, kernel[np.ix_(rows, columns)])
        np.testing.assert_array_equal(found_bias, bias[columns])


def test_layers_that_are_not_named_get_the_default_of_the_scope():
    scope = kprune.PerLayer({"a": 0.25}, default=0.34)

    assert widths(shrink(dense_model(), scope=scope)) == {"a": 3, "b": 2, "head": 2}
    assert widths(shrink(dense_model(), scope=scope, skip="b"))["a"] == 3


def test_the_model_that_was_given_is_left_as_it_is():
    model = residual_model()
    before = [np.array(as_array(v)) for v in model.variables]
    config = model.get_config()

    shrink(model, 0.5, round_to=2)

    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(as_array(variable), value)
    assert model.get_config() == config


def test_half_of_the_channels_go_in_each_layer():
    small = shrink(residual_model(), sparsity=0.5)

    expected = {"stem": 4, "inner": 6, "outer": 4, "hidden": 8, "head": 3}
    assert widths(small) == expected


def test_the_result_is_a_plain_model_that_saves_and_trains(tmp_path):
    model = residual_model()
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")

    small = shrink(model, sparsity=0.5)

    assert not kprune.is_pruned(small) and type(small) is type(model)
    assert [x.name for x in small.layers] == [x.name for x in model.layers]
    assert float(small.optimizer.learning_rate) == pytest.approx(0.1)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 8, 8, 3)), random.integers(0, 3, 8)
    small.fit(x, y, verbose=0)
    small.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(loaded(x), small(x), rtol=1e-5)
    kprune.prune(small)


def test_a_small_model_can_be_made_smaller_in_steps():
    model = residual_model()

    for _ in range(2):
        model = shrink(model, sparsity=1 - 0.25**0.5)

    expected = {"stem": 2, "inner": 3, "outer": 2, "hidden": 4, "head": 3}
    assert widths(model) == expected


def test_the_report_tells_what_was_done():
    model = dense_model()

    small, report = shrink(model, {"a": 0.5}, return_report=True)

    a, b, head = report.layers
    assert (a.layer, a.widths, a.narrowed) == ("a", (4,), (2,))
    assert (a.parameters, a.macs) == ((12, 6), (8, 4))
    assert (b.parameters, b.macs) == ((15, 9), (12, 6))
    assert head.parameters == (8, 8)
    assert report.parameters == (model.count_params(), small.count_params())
    assert report.macs == (26, 16)
    assert report.sparsity == 2 / 7
    assert report.change < 1e-6
    assert [left.layers for left in report.left] == [["head"]]
    assert report.to_dict()["parameters"] == [35, 23]
    for text in ("28.6%", "35 -> 23 parameters", "4 -> 2", "the model returns them"):
        assert text in str(report)


def projections(x, number):
    return [layers.Dense(8, name=f"projection_{n}")(x) for n in range(number)]


def attention_by_hand(x):
    query, key, value = projections(x, 3)
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 1)))
    return ops.einsum("bij,bjd->bid", ops.softmax(scores), value)


def backwards(x):
    layer = layers.Dense(8, name="tied")
    return ops.einsum("btd,id->bti", layer(x), layer.kernel)


# Products of tensors, which have no weights; and a weight that is used twice.
WITHOUT_WEIGHTS = {
    "operations": attention_by_hand,
    "layer": lambda x: layers.Attention()(projections(x, 3)),
    "dot": lambda x: layers.Dot(2)(projections(x, 2)),
    "unknown": lambda x: layers.Lambda(lambda x: x * 2)(x),
    "tied": backwards,
}


@pytest.mark.parametrize("body", WITHOUT_WEIGHTS.values(), ids=WITHOUT_WEIGHTS)
def test_totals_of_the_report_are_the_costs_of_the_models(body):
    inputs = keras.Input((16, 4))
    x = layers.Dense(6, name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(body(layers.Dense(4)(x))))

    small, report = shrink(model, 0.5, return_report=True)

    before, after = map(costs_of, (model, small))
    assert report.macs == (before.known_macs, after.known_macs)
    assert report.parameters == (before.parameters, after.parameters)
    assert report.uncounted == list(before.uncounted)
    assert f"{before.known_macs:,} -> {after.known_macs:,} multiply-adds" in str(report)


@pytest.mark.parametrize("scope, part", [("layer_wise", 0.25), ("global", 0.8)])
def test_multiply_adds_are_brought_below_what_may_be_left(scope, part):
    model = residual_model()

    small = shrink(model, macs=part, scope=scope)

    before, after = (costs_of(m).macs for m in (model, small))
    assert 0.6 * part * before < after <= part * before


def test_no_more_is_removed_than_the_multiply_adds_ask_for():
    model = dense_model()  # 8 + 12 + 6 = 26 multiply-adds

    _, report = shrink(model, macs=0.7, scope="global", return_report=True)

    # One unit of `a` less makes 21, of `b` 20; with either 16.
    assert report.macs[1] == 16


def open_model():
    inputs = keras.Input((None, 4))
    x = layers.LSTM(8, name="reader")(inputs)
    x = layers.Dense(6, name="hidden")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x), name="open")


def test_multiply_adds_that_nobody_knows_are_not_taken_for_none():
    with pytest.raises(ValueError, match="macs=0.5 needs the .* 'reader', which are"):
        shrink(open_model(), macs=0.5)

    _, report = shrink(open_model(), 0.5, return_report=True)
    # The dense layers have 8 * 6 + 6 * 2 multiply-adds, and then 4 * 3 + 3 * 2.
    expected = "at least 60 -> 18 multiply-adds (not known: reader)"
    assert expected in str(report)
    assert report.to_dict()["uncounted"] == ["reader"]


def test_multiply_adds_of_what_stays_as_it_is_need_not_be_known():
    inputs = keras.Input((None, 4))
    x = layers.LSTM(8, name="reader")(inputs)
    x = keras.ops.cumsum(x, axis=-1)
    x = layers.Dense(6, name="hidden")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))

    small = shrink(model, macs=0.5)

    assert widths(small) == {"hidden": 3, "head": 2}  # 60 -> 8 * 3 + 3 * 2 = 30


def test_widths_are_round():
    small = shrink(residual_model(), sparsity=0.4, scope="global", round_to=4)

    found = widths(small)
    assert all(found[name] % 4 == 0 for name in ("stem", "inner", "outer", "hidden"))


def test_layers_keep_a_least_width():
    small = shrink(residual_model(), sparsity=0.3, scope="global", min_width=7)

    assert min(widths(small)[n] for n in ("stem", "inner", "outer", "hidden")) >= 7


def test_something_is_left_of_each_slice():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(6, name="made")])
    made = model.layers[0]
    made.kernel.assign(np.ones((3, 6)) * [1, 2, 9, 9, 9, 9])
    x = made.output
    outputs = [layers.Dense(2)(x), layers.Dense(2)(x[:, :2])]

    small = shrink(keras.Model(model.inputs, outputs), 0.5, criterion="l2")

    # Of the first two columns, the smallest there are, the larger one stays.
    assert np.asarray(small.get_layer("made").kernel)[0].tolist() == [2, 9, 9]


def test_protected_layers_keep_their_widths():
    model = residual_model()

    assert widths(shrink(model, 0.5, skip="inner"))["inner"] == 12
    assert widths(shrink(model, 0.5, only="inner")) == widths(model) | {"inner": 6}


def test_examples_decide_where_the_criterion_looks_at_them():
    model = dense_model()
    x = np.array([[1, 0], [1, 0], [-1, 0]], "float32")
    model.get_layer("a").bias.assign([0, -2, 0, 5])

    small = shrink(model, 0.5, criterion="apoz", calibration_data=x, only="a")

    # Units are above zero in 2, 0, 1 and 3 of the 3 examples.
    kept = np.asarray(model.get_layer("a").kernel)[:, [0, 3]]
    np.testing.assert_array_equal(small.get_layer("a").kernel, kept)


def test_scales_of_normalizations_decide():
    model = residual_model()
    model.get_layer("inner_norm").gamma.assign([3, 0, 0, 3] * 3)

    arguments = {"criterion": "batch_norm_scale", "normalize": None}
    small = shrink(model, scope=kprune.Threshold(1), only="inner", **arguments)

    kept = np.asarray(model.get_layer("inner").kernel)[..., [0, 3, 4, 7, 8, 11]]
    np.testing.assert_array_equal(small.get_layer("inner").kernel, kept)


def masked_model(activation="relu"):
    """A model pruned by half, with biases of zero."""
    model = dense_model(activation)
    for layer in model.layers:
        layer.bias.assign(np.zeros(layer.units))
    model.compile("sgd", "mse")
    pruned = kprune.prune(model, granularity=kprune.Channel(coupled=False))
    kprune.Pruner(pruned, kprune.ConstantSchedule(0.5)).step()
    return pruned


def test_masks_say_what_goes():
    pruned = masked_model()

    small, report = shrink(pruned, return_report=True)

    assert widths(small) == {"a": 2, "b": 1, "head": 2}
    assert not kprune.is_pruned(small)
    x = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    np.testing.assert_allclose(small(x), pruned(x), rtol=1e-5)
    assert report.change < 1e-6


def test_why_not_looks_behind_masks():
    pruned = masked_model()

    records = kprune.shrinking.why_not(pruned, skip=pruned.get_layer("a")).records

    assert [r.layers for r in records] == [["a"], ["head"]]


def test_masks_that_leave_something_to_feel_are_an_error():
    with pytest.raises(ShrinkError, match="Give a `sparsity`") as raised:
        shrink(masked_model("sigmoid"))

    rows = [line.split()[:3] for line in str(raised.value).splitlines()]
    assert ["a", "4", "2"] in rows
    assert ["b", "3", "2"] in rows


def test_what_is_felt_goes_if_that_is_wanted():
    small, report = shrink(masked_model("sigmoid"), exact=False, return_report=True)

    assert widths(small) == {"a": 2, "b": 1, "head": 2}
    assert report.change > 1e-3


def test_what_is_felt_goes_if_nobody_takes_it_up():
    model = masked_model("sigmoid")
    for layer, before in (("b", "a"), ("head", "b")):
        kernel = model.get_layer(layer).kernel
        mask = np.asarray(model.get_layer(before).masks["kernel"]).any(0)
        kernel.assign(np.asarray(kernel) * mask[:, None])

    assert widths(shrink(model)) == {"a": 2, "b": 1, "head": 2}


def test_a_pruned_model_goes_by_sparsity_too():
    pruned = masked_model()

    small = shrink(pruned, sparsity=0.25, skip=pruned.get_layer("b"))

    assert widths(small) == {"a": 3, "b": 3, "head": 2}


def test_weights_that_are_all_zero_leave_one_channel():
    model = dense_model()
    model.get_layer("a").set_weights([np.zeros((2, 4)), np.zeros(4)])

    assert widths(shrink(model)) == {"a": 1, "b": 3, "head": 2}


def test_without_zeros_it_must_be_said_how_much_goes():
    with pytest.raises(ShrinkError, match="Say how many shall go"):
        shrink(dense_model())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"sparsity": 50}, "50 % is written 0.5"),
        ({"sparsity": 1.0}, r"in \[0, 1\)"),
        ({"macs": 1}, r"macs=1 must be in \(0, 1\)"),
        ({"sparsity": 0.5, "macs": 0.5}, "Give one of the two"),
        ({"sparsity": 0.5, "min_width": 0}, "min_width=0 must be a whole number"),
        ({"sparsity": 0.5, "round_to": 2.5}, "round_to=2.5 must be a whole number"),
        ({"sparsity": 0.5, "scope": "all"}, "'all' is none of the registered scopes"),
        ({"sparsity": 0.5, "criterion": "l3"}, "'l3' is none of the registered"),
        ({"sparsity": 0.5, "scope": "output_wise"}, "ranks single weights"),
        ({"sparsity": {"a": 0.5}, "scope": "global"}, "leaves nothing for it"),
        ({"sparsity": {"c": 0.5}}, "'c', which matches nothing"),
        ({"sparsity": {}}, "sparsity={} names no layer"),
        ({"sparsity": {"head": 0.5}}, "none of them can go: .*the model returns them"),
        ({"sparsity": {"a": 5}}, "The sparsity of 'a'=5 must be"),
        ({"sparsity": 0.9}, "can't be reached"),
        ({"sparsity": 0.5, "scope": kprune.PerLayer({"a": 0.5})}, "Leave `sparsity`"),
        ({"macs": 0.5, "scope": kprune.PerLayer({"a": 0.5})}, "Leave `macs` out"),
        ({"sparsity": 0.3, "scope": kprune.Threshold(0.5)}, "Leave `sparsity` out"),
        ({"macs": 0.5, "scope": kprune.Threshold(0.5)}, "Leave `macs` out"),
        ({"sparsity": 0.5, "reduce": ["mean"]}, r"reduce=\['mean'\] must be one of"),
        ({"sparsity": 0.5, "normalize": {"mean"}}, "normalize={'mean'} must be one"),
        ({"sparsity": {layers.Dense: 0.5}}, r"the key .*Dense.*layer\.name: 0\.5"),
        ({"sparsity": 0.5, "round_to": 100}, "round_to=100 all widths stay"),
        ({"sparsity": 0.5, "min_width": 3}, "min_width=3, too"),
        ({"sparsity": 0.5, "only": "c"}, "only got 'c', which matches no layer"),
        ({"sparsity": 0.5, "criterion": "taylor"}, "calibration_data"),
    ],
)
def test_bad_arguments_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        shrink(dense_model(), **arguments)


def test_a_model_with_nothing_to_remove_is_an_error_with_the_reasons():
    with pytest.raises(ShrinkError, match=r"(?s)No channel.*'tiny'.*by `skip`"):
        shrink(dense_model(), 0.5, skip=["a", "b"])


def test_a_model_without_kernels_is_an_error_that_says_so():
    inputs = keras.Input((3,))

    with pytest.raises(ShrinkError, match="it has no layer with a kernel"):
        shrink(keras.Model(inputs, layers.ReLU()(inputs)), 0.5)


def in_int8(model):
    for layer in model.layers:
        layer.quantize("int8")
    return model


@pytest.mark.parametrize(
    "quantized, text",
    [
        (in_int8, r"the layer Dense with a kernel that is quantized \(int8\)"),
        (kprune.quantize_aware, "the layer QuantizationWrapper around 'a': shrink"),
    ],
)
def test_what_is_quantized_must_be_shrunk_before(quantized, text):
    with pytest.raises(ShrinkError, match=text):
        shrink(quantized(dense_model()), 0.5)


@pytest.mark.parametrize("criterion", ["apoz", "wanda"])
def test_criteria_that_can_not_look_into_a_loop_say_what_to_leave_out(criterion):
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")
    model = keras.Sequential([keras.Input((6, 3)), layers.LSTM(8, name="reader")])
    model.add(layers.Dense(6, name="hidden"))
    model.add(layers.Dense(2, name="head"))
    look = {"criterion": criterion, "calibration_data": x}

    name = model.layers[0].cell.name
    with pytest.raises(ValueError, match=f"^The .*skip='{name}'`, or") as error:
        shrink(model, 0.5, **look)
    assert "prune" not in str(error.value)
    assert widths(shrink(model, 0.5, skip=name, **look)) == {"hidden": 3, "head": 2}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


def test_subclassed_models_are_refused_with_the_way_out():
    model = Subclassed()
    model(np.zeros((1, 2), "float32"))

    with pytest.raises(TypeError, match="Build the same layers as a Functional model"):
        shrink(model, 0.5)


class OwnConstructor(keras.Model):
    """A graph, made by a constructor that `keras.Model` does not have."""

    def __init__(self, units):
        inputs = keras.Input((2,))
        x = layers.Dense(units, name="hidden")(inputs)
        super().__init__(inputs, layers.Dense(2, name="head")(x))


class OwnChain(keras.Sequential):
    def __init__(self, units):
        super().__init__([keras.Input((2,)), layers.Dense(units, name="hidden")])
        self.add(layers.Dense(2, name="head"))


class OwnCall(OwnConstructor):
    def call(self, inputs):
        return 2 * super().call(inputs)


@pytest.mark.parametrize("kind", [OwnConstructor, OwnChain])
def test_graphs_with_a_constructor_of_their_own_are_refused_with_the_way_out(kind):
    model = kind(8)

    with pytest.raises(TypeError, match=f"class {kind.__name__} .* has a constructor"):
        shrink(model, 0.5)

    small = shrink(keras.Model(model.inputs, model.outputs), 0.5)
    assert widths(small) == {"hidden": 4, "head": 2}


def test_graphs_with_a_call_of_their_own_are_subclassed_models():
    with pytest.raises(TypeError, match="can't be read off a graph"):
        shrink(OwnCall(8), 0.5)


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="has no weights yet"):
        shrink(keras.Sequential([layers.Dense(4), layers.Dense(2)]), 0.5)


class Shifted(layers.Layer):
    """Moves each channel to the place of the next one."""

    def call(self, inputs):
        return keras.ops.roll(inputs, 1, axis=-1)


class ShiftedRule(ChannelRule):
    """Takes it for a layer that leaves channels where they are."""

    def trace(self, layer, inputs, tracer):
        return inputs


def test_a_wrong_rule_is_noticed(monkeypatch):
    rules = registry._families["channel_rules"]
    monkeypatch.setitem(rules, Shifted, ShiftedRule)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="a")])
    model.add(Shifted())
    model.add(layers.Dense(2))

    with pytest.raises(ShrinkError, match="A rule for one of its layers must be wrong"):
        shrink(model, 0.5)


class OwnScale(layers.Layer):
    """Multiplies each channel by one number and adds another."""

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], name="scale")
        self.shift = self.add_weight(shape=shape[-1:], name="shift")

    def call(self, inputs):
        return inputs * self.scale + self.shift


class HalfAScaledRule(ChannelRule):
    """Forgets one of two weights."""

    def trace(self, layer, inputs, tracer):
        tracer.hold(layer.scale, {0: tracer.pin(inputs[0], -1)})
        return inputs


def test_a_rule_that_forgets_a_weight_is_named_with_it(monkeypatch):
    monkeypatch.setitem(registry._families["channel_rules"], OwnScale, HalfAScaledRule)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), OwnScale(name="own")])
    model.add(layers.Dense(2))

    with pytest.raises(ShrinkError) as error:
        shrink(model, 0.5)

    for text in (
        "'own' (OwnScale)",
        "'shift' of shape (4,)",
        "HalfAScaledRule leaves (8,)",
    ):
        assert text in str(error.value)
    assert "tracer.hold(layer.shift, " in str(error.value)


ENDS = {
    "layer": lambda x: layers.Softmax()(100 * x),
    "softmax": lambda x: keras.ops.softmax(100 * x),
    "sigmoid": lambda x: keras.ops.sigmoid(100 * (x - 50)),
    "argmax": lambda x: keras.ops.argmax(x + np.array([0, 1e6]), -1),
    "top_k": lambda x: keras.ops.top_k(x + np.array([0, 1e6]), 1)[1],
    "dead": lambda x: layers.ReLU()(x - 1e3),
    "nested": lambda x: keras.Sequential([layers.Activation("hard_sigmoid")])(x - 1e3),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_wrong_rule_is_noticed_behind_an_end_that_hides_it(end, monkeypatch):
    monkeypatch.setitem(registry._families["channel_rules"], Shifted, ShiftedRule)
    inputs = keras.Input((4,))
    x = layers.Dense(2)(Shifted()(layers.Dense(8, name="a")(inputs)))

    with pytest.raises(ShrinkError, match="A rule for one of its layers must be wrong"):
        shrink(keras.Model(inputs, ENDS[end](x)), 0.5)


@pytest.mark.parametrize("activation", ["softmax", "tanh", "relu"])
def test_a_wrong_rule_is_noticed_behind_a_saturated_activation(activation, monkeypatch):
    monkeypatch.setitem(registry._families["channel_rules"], Shifted, ShiftedRule)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="a"), Shifted()])
    model.add(layers.Dense(2, activation))
    bias = {"softmax": [0, 1e3], "tanh": [1e2, 1e2], "relu": [-1e3, -1e3]}[activation]
    model.layers[-1].bias.assign(bias)

    # Of these, float32 leaves enough to see.
    with pytest.raises(ShrinkError, match="A rule for one of its layers must be wrong"):
        shrink(model, 0.5)


@pytest.mark.parametrize(
    "last",
    [
        layers.LSTM(4),
        layers.SimpleRNN(4),
        layers.Bidirectional(layers.GRU(4, return_sequences=True)),
    ],
    ids=lambda layer: layer.name,
)
def test_a_model_may_end_in_a_recurrent_layer(last):
    model = keras.Sequential([keras.Input((5, 3)), layers.Dense(6, name="a"), last])

    assert shrink(model, 0.5).get_layer("a").units == 3


def long_kernels(inputs):
    x = layers.Conv1D(6, 400, strides=160, name="a")(inputs)
    return layers.GlobalMaxPooling1D()(x)


def few_positions(inputs):
    x = layers.Conv1D(6, 1, name="a")(inputs)
    places = keras.ops.cumsum(keras.ops.ones_like(inputs[..., 0], "int32"), 1) - 1
    x = x + layers.Embedding(20, 6, name="places")(places)
    return layers.GlobalMaxPooling1D()(x)


@pytest.mark.parametrize("body", [long_kernels, few_positions])
def test_open_sizes_are_tried_until_one_goes(body):
    inputs = keras.Input((None, 1))

    small = shrink(keras.Model(inputs, layers.Dense(2)(body(inputs))), 0.5)

    assert small.get_layer("a").filters == 3


def test_a_model_that_takes_no_random_numbers_asks_for_examples():
    inputs = keras.Input((None, 1))
    x = layers.Conv1D(6, 800, name="a")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))

    with pytest.raises(ShrinkError, match="can't be run on random numbers.*data=x"):
        shrink(model, 0.5)
    data = np.ones((2, 900, 1), "float32")
    assert shrink(model, 0.5, calibration_data=data).get_layer("a").filters == 3


def test_outputs_that_are_nan_are_told_from_a_wrong_rule():
    model = dense_model()
    with pytest.raises(ShrinkError, match="of the calibration data is NaN"):
        shrink(model, 0.5, calibration_data=np.full((4, 2), np.nan))

    model.get_layer("head").kernel.assign(np.full((3, 2), np.nan))
    with pytest.raises(ShrinkError, match="'tiny' computes of random numbers is NaN"):
        shrink(model, 0.5)


def test_inputs_of_every_kind_are_made_up():
    words = keras.Input((5,), dtype="int32", name="words")
    table = keras.Input((2,), name="table")
    flags = keras.Input((2,), dtype="bool", name="flags")
    x = layers.Flatten()(layers.Embedding(7, 6, name="embedding")(words))
    y = layers.Dense(8, name="dense")(table * keras.ops.cast(flags, "float32"))
    x = layers.Dense(4)(layers.Concatenate()([x, y]))
    model = keras.Model({"words": words, "table": table, "flags": flags}, {"y": x})

    small, report = shrink(model, 0.5, return_report=True)

    assert small.get_layer("embedding").output_dim == 3
    assert small.get_layer("dense").units == 4
    assert report.change < 1e-5


@pytest.mark.parametrize("shape, batch", [((None, None, 3), None), ((8, 8, 3), 3)])
def test_open_sizes_and_fixed_batches_are_no_obstacle(shape, batch):
    inputs = keras.Input(shape, batch_size=batch)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, name="a")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))

    small, report = shrink(model, 0.5, return_report=True)

    assert small.get_layer("a").filters == 3
    assert report.change < 1e-5


def test_a_model_of_half_precision_is_narrowed():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        small = shrink(residual_model(), 0.5)
    finally:
        keras.config.set_dtype_policy("float32")

    assert widths(small)["inner"] == 6


def centred(x):
    """Returns means of what has none: nothing but roundings."""
    z = x - ops.mean(x, axis=1, keepdims=True)
    return layers.GlobalAveragePooling1D()(z * ops.rsqrt(ops.mean(z * z) + 0.01))


NOISE = {
    "operations": lambda x: [layers.Dense(2)(x[:, 0]), centred(x)],
    "alone": centred,
    "behind a layer": lambda x: layers.Dense(2, use_bias=False)(centred(x)),
}


@pytest.mark.parametrize("end", NOISE)
def test_outputs_that_are_roundings_alone_are_no_difference(end):
    inputs = keras.Input((36, 4))
    x = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    model = randomised(keras.Model(inputs, NOISE[end](x)))

    _, report = shrink(model, 0.5, return_report=True)

    assert report.change <= 1e-4


def test_a_wrong_rule_is_noticed_beside_outputs_that_are_roundings(monkeypatch):
    monkeypatch.setitem(registry._families["channel_rules"], Shifted, ShiftedRule)
    inputs = keras.Input((36, 4))
    x = layers.Dense(8, name="hidden")(inputs)
    outputs = [centred(inputs), layers.Dense(2)(Shifted()(x))]

    with pytest.raises(ShrinkError, match="A rule for one of its layers must be wrong"):
        shrink(keras.Model(inputs, outputs), 0.5)


def test_states_of_the_model_are_not_touched_by_the_comparison():
    inputs = keras.Input((4, 3), batch_size=2)
    x = layers.Dense(6, name="a")(inputs)
    x = layers.GaussianDropout(0.5, name="noise")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    seed = model.get_layer("noise").seed_generator.state

    before = np.array(seed)
    small = shrink(model, 0.5)

    np.testing.assert_array_equal(seed, before)
    np.testing.assert_array_equal(small.get_layer("noise").seed_generator.state, before)


def test_the_optimizer_goes_on_if_that_is_asked_for():
    model = dense_model()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    random = np.random.default_rng(0)
    model.fit(random.normal(size=(8, 2)), random.normal(size=(8, 2)), verbose=0)
    model.get_layer("a").set_weights(dense_model().get_layer("a").get_weights())

    kept = shrink(model, {"a": 0.5}, keep_optimizer=True)
    fresh = shrink(model, {"a": 0.5})

    momentum = np.asarray(model.optimizer.momentums[0])
    np.testing.assert_array_equal(kept.optimizer.momentums[0], momentum[:, [0, 2]])
    assert int(kept.optimizer.iterations) == 1
    assert int(fresh.optimizer.iterations) == 0


def in_the_middle(*between, shape=(6, 3)):
    """A model with a dense layer of 8 units, and layers behind it."""
    inputs = keras.Input(shape)
    x = layers.Dense(8, name="a")(inputs)
    for layer in between:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


@pytest.mark.parametrize(
    "kind",
    [layers.Dropout, pytest.param(layers.AlphaDropout, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "given, left", [((None, 1, 8), (None, 1, 4)), ((None, 6, 1), (None, 6, 1))]
)
def test_what_drops_the_same_for_all_places_can_be_trained(kind, given, left):
    model = in_the_middle(kind(0.5, noise_shape=given, name="drop"))

    small = shrink(model, 0.5)

    assert tuple(small.get_layer("drop").noise_shape) == left
    small.compile("sgd", "mse")
    small.fit(np.ones((4, 6, 3)), np.ones((4, 2)), verbose=0)


def test_a_dropout_that_names_sizes_within_another_layer_keeps_them():
    drop = layers.Dropout(0.5, noise_shape=(None, 8))
    model = in_the_middle(layers.TimeDistributed(drop))

    reasons = kprune.shrinking.why_not(model).records[0].reasons
    assert "names their number" in str(reasons[0])


@pytest.mark.parametrize(
    "layer, kwargs, name",
    [
        (layers.Dense, {"units": 6}, "bias_initializer"),
        (layers.Embedding, {"input_dim": 6, "output_dim": 6}, "embeddings_initializer"),
    ],
)
def test_initializers_may_hold_arrays(layer, kwargs, name):
    matrix = np.random.default_rng(0).normal(size=(6, 6))
    value = matrix[0] if name == "bias_initializer" else matrix
    kwargs = {**kwargs, name: keras.initializers.Constant(value), "name": "a"}
    dtype = "int32" if layer is layers.Embedding else "float32"
    inputs = keras.Input((5,), dtype=dtype)
    model = keras.Model(inputs, layers.Dense(2)(layer(**kwargs)(inputs)))

    small = shrink(model, 0.5)

    assert small.get_layer("a").weights[-1].shape[-1] == 3
    assert isinstance(getattr(small.get_layer("a"), name), keras.initializers.Zeros)


def test_initializers_of_layers_within_others_may_hold_arrays():
    ones = keras.initializers.Constant(np.ones((8, 12)))
    cell = layers.LSTM(3, return_sequences=True, kernel_initializer=ones)
    model = in_the_middle(layers.Bidirectional(cell, name="both"))

    assert shrink(model, 0.34).get_layer("both").forward_layer.units == 2


class TiedHead(layers.Layer):
    """Compares with all rows of the table of another layer."""

    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def call(self, inputs):
        return inputs @ keras.ops.transpose(self.table.embeddings)

    def get_config(self):
        table = keras.saving.serialize_keras_object(self.table)
        return {**super().get_config(), "table": table}

    @classmethod
    def from_config(cls, config):
        table = keras.saving.deserialize_keras_object(config.pop("table"))
        return cls(table, **config)


def test_weights_that_an_unknown_layer_uses_too_are_left_alone():
    inputs = keras.Input((5,), dtype="int32")
    table = layers.Embedding(9, 6, name="table")
    x = layers.Dense(8, "relu", name="hidden")(table(inputs))
    x = layers.Dense(6, name="last")(x)
    model = keras.Model(inputs, TiedHead(table, name="tied")(x))

    small, report = shrink(model, 0.5, return_report=True)

    assert widths(small) == {"hidden": 4, "last": 6}
    assert small.get_layer("tied").table is small.get_layer("table")
    text = "tied: no rule for the layer TiedHead"
    (stuck,) = [left for left in report.left if "table" in left.layers]
    assert text in map(str, stuck.reasons)


@pytest.mark.parametrize(
    "combine, stay",
    [
        (lambda x, y: x / y, ["y"]),
        (lambda x, y: x / (y + 1e-3), []),
        (lambda x, y: x + keras.ops.log(keras.ops.abs(y)), ["x", "y"]),
        (lambda x, y: x + keras.ops.reciprocal(y), ["x", "y"]),
        (lambda x, y: x + keras.ops.power(y, -1.0), ["x", "y"]),
        (lambda x, y: x + keras.ops.log(keras.ops.exp(y)), []),
    ],
)
def test_channels_that_are_divided_by_stay(combine, stay):
    inputs = keras.Input((3,))
    x, y = (layers.Dense(8, name=name)(inputs) for name in "xy")
    x = layers.Dense(8, "relu", name="z")(combine(x, y))
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))

    small, report = shrink(randomised(model), 0.5, return_report=True)

    # What is divided goes with that which it is divided by.
    assert small.get_layer("z").units == 4
    assert small.get_layer("y").units == (8 if stay else 4)
    text = "what it computes of them is no number where they are zero"
    assert (text in str(report)) == bool(stay)


@keras.saving.register_keras_serializable("kprune_tests")
class Scaled:
    """A function that is equal to others, and so has no hash."""

    def __call__(self, x):
        return 2 * keras.ops.tanh(x)

    def __eq__(self, other):
        return isinstance(other, Scaled)

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls()


def test_activations_without_a_hash_are_unknown_ones():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(8, Scaled(), name="a")])
    model.add(layers.Dense(6, name="b"))
    model.add(layers.Dense(2, name="head"))

    small = shrink(model, 0.5)

    assert widths(small) == {"a": 8, "b": 3, "head": 2}


@pytest.mark.parametrize(
    "activation", [keras.ops.relu, keras.ops.silu, layers.LeakyReLU(), layers.ReLU()]
)
def test_functions_and_layers_serve_as_activations(activation):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(8, activation, name="a")])
    model.add(layers.Dense(2, name="head"))

    assert widths(shrink(model, 0.5)) == {"a": 4, "head": 2}


def test_activations_with_weights_are_named_with_the_way_out():
    prelu = layers.PReLU(alpha_initializer="ones")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(8, prelu, name="a")])
    model.add(layers.Dense(6, name="b"))
    model.add(layers.Dense(2, name="head"))

    assert widths(shrink(model, 0.5)) == {"a": 8, "b": 3, "head": 2}
    (reason,) = kprune.why_not(model).records[0].reasons
    assert reason.text == "PReLU as its activation: put it behind the layer instead"


def test_squeezing_leaves_a_channel_out_only_if_it_did_before():
    inputs = keras.Input((1, 3))
    x = keras.ops.squeeze(layers.Dense(2, name="a")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))

    small = shrink(model, 0.5)

    assert widths(small) == {"a": 1, "head": 2}
    assert small(np.ones((4, 1, 3))).shape == (4, 2)
