import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune.channels.rules import rule_of
from kprune.channels.tracing import trace
from kprune.registry import keys, lookup
from kprune.shrinking.removal import without
from tests.channels.exactness import (
    assert_exact,
    assert_saved,
    choose,
    outputs_of,
    random_inputs,
    randomised,
    zeroed,
)
from tests.channels.layer_rule_cases import (
    CASES,
    KEEPING,
    STEPS,
    chain,
    find,
    finished,
)


def shapes_of(layer):
    """Returns the shapes of a layer's weights, by their paths within it."""
    prefix = f"{layer.path}/"
    return {v.path.removeprefix(prefix): tuple(v.shape) for v in layer.variables}


def kinds_of_reasons(model, layer):
    """Returns the kinds of the reasons why the channels of a layer stay."""
    tracing = trace(model)
    (ids,) = tracing.weights[id(layer.bias)].value.along(0)
    groups, reasons = tracing.channels.groups(), tracing.channels.reasons()
    return {r.kind for group in groups[ids] for r in reasons[int(group)]}


def small_of(model, tracing, fraction):
    removed = choose(tracing, fraction, seed=1)
    return without(model, tracing, removed), removed


def parameters(is_slow):
    """Returns all cases, some of which are for `pytest -m slow`."""
    marks = [[pytest.mark.slow] if is_slow(case) else [] for case in CASES]
    return [
        pytest.param(case, marks=mark, id=case.name)
        for case, mark in zip(CASES, marks, strict=True)
    ]


def alike(case):
    """Returns what is equal for cases that prove much the same."""
    if case.weights:
        return re.sub("[123]D", "", case.name)
    return lookup("channel_rules", case.kind), len(case.output)


def is_one_more(case):
    """Tells whether an earlier case proves much the same."""
    before = [alike(other) for other in CASES[: CASES.index(case)]]
    return alike(case) in before


def is_plain(case):
    return not case.weights or is_one_more(case)


@pytest.fixture(scope="module", params=parameters(is_one_more))
def halved(request):
    model = randomised(request.param.build())
    tracing = trace(model)
    return request.param, model, tracing, *small_of(model, tracing, 0.5)


def test_every_layer_type_with_a_rule_has_a_case():
    ours = [k for k in keys("channel_rules") if k.__module__.startswith("keras.")]
    types = {kind for kind in ours if issubclass(kind, keras.Layer)}

    assert types <= {case.kind for case in CASES}


def test_a_model_without_half_the_channels_answers_as_one_with_zeros(halved):
    _, model, tracing, small, removed = halved
    before = [np.array(v) for v in model.variables]

    assert_exact(model, small, tracing, removed)

    assert removed.any()
    for variable, array in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, array)


def test_a_silent_tensor_is_zero_where_what_makes_its_channels_is(halved):
    _, model, tracing, _, removed = halved
    call = next(c for c in tracing.graph.calls if c.operation.name == "subject")
    part = keras.Model(model.input, call.node.output_tensors)

    with zeroed(model, tracing, removed, only_made=True):
        arrays = outputs_of(part, random_inputs(model))

    for array, number in zip(arrays, call.outputs, strict=True):
        value = tracing.values[number]
        kept = value.kept(removed).items() if value.silent else ()
        for axis, places in kept:
            assert not np.compress(~places, array, axis).any()


@pytest.mark.slow
def test_a_model_without_a_third_of_the_channels_answers_as_one_with_zeros(halved):
    _, model, tracing, _, _ = halved

    small, removed = small_of(model, tracing, 0.3)

    assert removed.any()
    assert_exact(model, small, tracing, removed)


def test_half_the_channels_of_a_layer_go(halved):
    case, model, _, small, _ = halved

    subject = find(small)

    assert keras.tree.flatten(subject.output)[0].shape == case.output
    shapes = shapes_of(subject)
    assert {path: shapes.get(path) for path in case.weights} == case.weights
    assert [x.name for x in small.layers] == [x.name for x in model.layers]


@pytest.mark.parametrize("halved", parameters(is_plain), indirect=True)
def test_a_model_without_channels_is_assert_saved(halved, tmp_path):
    *_, small, _ = halved

    assert_saved(small, tmp_path)


@pytest.mark.parametrize("kind, layer, shape, kwargs", KEEPING)
def test_a_layer_that_keeps_channels_gives_its_reason(kind, layer, shape, kwargs):
    model = kept_by(layer, shape, kwargs)

    assert kind in kinds_of_reasons(model, find(model, "before"))


@pytest.mark.parametrize("layer", [layers.Conv1D(4, 2), layers.MaxPooling1D()])
def test_channels_along_places_stay(layer):
    inputs = keras.Input(STEPS)
    before = layers.Dense(8, name="before")
    x = layer(layers.Permute((2, 1))(before(inputs)))
    model = finished(inputs, x)

    assert kinds_of_reasons(model, before) == {"mixed"}


@pytest.mark.filterwarnings("ignore:.*destroy the mask")
def test_channels_that_say_which_steps_are_left_out_stay():
    model = kept_by(layers.Masking, STEPS, {})

    assert kinds_of_reasons(model, find(model, "before")) == {"statistics"}


STATISTICS = [row for row in KEEPING if row[0] == "statistics"]


@pytest.mark.parametrize("kind, layer, shape, kwargs", STATISTICS[:2])
def test_statistics_keep_no_channels_if_the_result_need_not_be_exact(
    kind, layer, shape, kwargs
):
    model = kept_by(layer, shape, kwargs)
    tracing = trace(model, exact=False)

    small, _ = small_of(model, tracing, 0.5)

    subject = find(small)
    assert subject.gamma.shape == subject.beta.shape == (4,)
    assert np.isfinite(outputs_of(small, random_inputs(small))).all()


@pytest.mark.parametrize(
    "function",
    [ops.softmax, layers.Softmax(), lambda x: x / ops.mean(x, -1, keepdims=True)],
    ids=["operation", "layer", "mean"],
)
def test_softmax_and_means_keep_no_channels_if_the_result_need_not_be_exact(function):
    inputs = keras.Input((5,))
    x = layers.Dense(8, activation="softplus", name="wide")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(function(x)))

    small = kprune.shrink(model, sparsity=0.5, exact=False)

    assert small.get_layer("wide").units == 4
    assert outputs_of(small, random_inputs(small))[0].shape == (3, 3)
    with pytest.raises(kprune.ShrinkError, match="all of them|taken over them"):
        kprune.shrink(model, sparsity=0.5)


def test_inexact_group_normalization_leaves_all_groups_of_one_size():
    kwargs = {"groups": 4}
    model = kept_by(layers.GroupNormalization, (6, 6, 3), kwargs)
    tracing = trace(model, exact=False)

    small, removed = small_of(model, tracing, 0.5)

    subject = find(small)
    assert (subject.groups, subject.gamma.shape) == (4, (4,))
    gone = removed[tracing.weights[id(find(model).gamma)].value.along(0)[0]]
    assert gone.reshape(4, 2).sum(1).tolist() == [1, 1, 1, 1]


def test_group_normalization_loses_whole_groups():
    model = kept_by(layers.GroupNormalization, (6, 6, 3), {"groups": 4})
    tracing = trace(model)

    small, removed = small_of(model, tracing, 0.5)

    assert (find(small).groups, find(small).gamma.shape) == (2, (4,))
    gone = removed[tracing.weights[id(find(model).gamma)].value.along(0)[0]]
    assert sorted(gone.reshape(4, 2).sum(1).tolist()) == [0, 0, 2, 2]


@keras.saving.register_keras_serializable("kprune_tests")
class OwnCell(layers.LSTMCell):
    def call(self, inputs, states, training=False):
        return super().call(2 * inputs, states, training)


class OwnAttention(layers.MultiHeadAttention):
    def _compute_attention(self, query, key, value, *args, **kwargs):
        return super()._compute_attention(query, 2 * key, value, *args, **kwargs)


def attend(layer):
    return lambda x: layer(x, x)


@pytest.mark.parametrize(
    "call, name",
    [
        (layers.RNN(OwnCell(4)), "the rule for RNN can't follow this call"),
        (
            layers.Bidirectional(layers.RNN(OwnCell(4))),
            "the rule for Bidirectional can't follow this call",
        ),
        (
            layers.Bidirectional(
                layers.LSTM(4),
                backward_layer=layers.RNN(OwnCell(4), go_backwards=True),
            ),
            "the rule for Bidirectional can't follow this call",
        ),
        (
            layers.TimeDistributed(layers.Flatten()),
            "the rule for TimeDistributed can't follow the Flatten within",
        ),
        (
            layers.TimeDistributed(layers.UnitNormalization()),
            "the rule for TimeDistributed can't follow the UnitNormalization within",
        ),
        (
            layers.SpectralNormalization(layers.EinsumDense("abc,cd->abd", (6, 4))),
            "the rule for SpectralNormalization can't follow the EinsumDense within",
        ),
        (
            attend(OwnAttention(2, 4)),
            "no rule for the layer OwnAttention, which defines '_compute_attention'",
        ),
    ],
)
def test_what_a_layer_does_with_another_that_is_not_known_stops_removal(call, name):
    inputs = keras.Input(STEPS)
    before = layers.Dense(8, name="before")
    model = finished(inputs, call(before(inputs)))

    tracing = trace(model)

    assert {id(w.layer) for w in tracing.weights.values()} == {
        id(layer) for layer in model.layers if isinstance(layer, layers.Dense)
    }
    reasons = tracing.channels.reasons().values()
    assert name in str([str(r) for g in reasons for r in g])


def test_a_diagonal_stops_removal():
    inputs = keras.Input((8, 3))
    before = layers.Dense(8)
    subject = layers.EinsumDense("abb,bc->ac", 4)
    model = keras.Model(inputs, layers.Dense(3)(subject(before(inputs))))

    assert kinds_of_reasons(model, before) == {"unknown"}


def test_a_function_of_several_units_keeps_them():
    inputs = keras.Input(STEPS)
    subject = layers.LSTM(10, activation="softmax", name="subject")
    model = keras.Model(inputs, layers.Dense(3)(subject(inputs)))
    tracing = trace(model)

    reasons = {str(r) for group in tracing.channels.reasons().values() for r in group}

    assert "subject: softmax is taken over them" in reasons


@pytest.mark.parametrize("activation", [layers.PReLU(), lambda x: x * 2])
def test_an_activation_that_is_not_known_keeps_channels(activation):
    inputs = keras.Input(STEPS)
    before = layers.Dense(8, activation)
    model = finished(inputs, before(inputs))

    assert kinds_of_reasons(model, before) == {"unknown"}


def test_states_that_are_inputs_of_the_model_keep_units():
    inputs, state = keras.Input(STEPS), keras.Input((10,))
    x = layers.GRU(10, name="subject")(inputs, initial_state=state)
    model = keras.Model([inputs, state], layers.Dense(3)(x))

    reasons = trace(model).channels.reasons().values()

    assert "partner" in {r.kind for group in reasons for r in group}


def test_masked_filters_of_each_colour_go():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(12, 3, groups=3, name="subject")(inputs)
    model = randomised(finished(inputs, x))
    pruned = kprune.prune(model, granularity="channel", only="subject")
    kprune.Pruner(pruned, kprune.ConstantSchedule(0.5)).step()

    small = kprune.shrink(pruned)

    assert (find(small).filters, find(small).groups) == (6, 3)
    expected, actual = (outputs_of(m, random_inputs(model)) for m in (pruned, small))
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5, atol=1e-5)


def test_queries_make_up_for_fewer_places():
    inputs = keras.Input(STEPS)
    subject = layers.MultiHeadAttention(2, 8, name="subject")
    model = randomised(finished(inputs, subject(inputs, inputs)))
    tracing = trace(model)
    kernel = subject.query_dense.kernel
    places = tracing.weights[id(kernel)].value.along(2)[0]
    removed = np.isin(np.arange(tracing.channels.groups().size), places[:6])

    small = without(model, tracing, removed)

    # Two places of eight are left: 1 / sqrt(2) is twice 1 / sqrt(8).
    narrow = find(small)
    assert (narrow.key_dim, narrow.num_heads) == (2, 2)
    np.testing.assert_allclose(
        narrow.query_dense.kernel, np.array(kernel)[..., 6:] / 2, rtol=1e-6
    )


def scaled_again(x):
    subject = layers.RMSNormalization(name="subject")
    return subject(x) * subject.scale


def shifted_by_queries(x):
    subject = layers.MultiHeadAttention(2, 4, name="subject")
    heads = ops.reshape(subject(x, x), (-1, 6, 2, 4))
    return ops.reshape(heads + subject.query_dense.bias, (-1, 6, 8))


@pytest.mark.parametrize("body", [scaled_again, shifted_by_queries])
def test_weights_that_a_rule_rescales_keep_channels_if_they_are_read_elsewhere(body):
    inputs = keras.Input(STEPS)
    x = layers.Dense(8, name="before")(inputs)
    model = randomised(finished(inputs, body(x)))
    tracing = trace(model)

    small, removed = small_of(model, tracing, 0.5)

    assert removed.any()  # of the layer behind, at least
    assert_exact(model, small, tracing, removed)
    reasons = {str(r) for group in tracing.channels.reasons().values() for r in group}
    text = "reads a weight that its layer rescales where channels go"
    assert any(reason.endswith(text) for reason in reasons)


def taken_up(scores):
    return layers.Dense(3)(layers.Flatten()(scores))


@pytest.mark.parametrize(
    "shape, heads, consume", [((5, 3), 2, taken_up), ((4, 5, 3), 4, ops.mean)]
)
def test_scores_lose_heads_if_their_axes_are_known(shape, heads, consume):
    inputs = keras.Input(shape)
    axes = (len(shape) - 1,)
    subject = layers.MultiHeadAttention(4, 6, attention_axes=axes, name="subject")
    x, scores = subject(inputs, inputs, return_attention_scores=True)
    outputs = [finished(inputs, x).output, consume(scores)]
    model = randomised(keras.Model(inputs, outputs))
    tracing = trace(model)

    small, removed = small_of(model, tracing, 0.5)

    assert find(small).num_heads == heads
    assert_exact(model, small, tracing, removed)


def test_a_layer_with_other_matrices_beside_its_kernel_has_no_rule():
    model = kept_by(layers.Dense, (3,), {"units": 4})
    find(model).enable_lora(2)

    reasons = trace(model).channels.reasons().values()

    text = "no rule for the layer Dense with matrices of LoRA beside its kernel"
    assert f"subject: {text}: shrink first" in {str(r) for g in reasons for r in g}


class StandardizedConv(layers.Conv1D):
    """Normalizes its kernel over the channels that go in."""

    def convolution_op(self, inputs, kernel):
        kernel = kernel - ops.mean(kernel, axis=(0, 1), keepdims=True)
        return super().convolution_op(inputs, kernel)


class UnitDense(layers.Dense):
    """Has a kernel with columns of length 1."""

    @property
    def kernel(self):
        return self._kernel / ops.norm(self._kernel, axis=0, keepdims=True)


class RunningSum(layers.ReLU):
    """Adds up channels, in a class between it and the known one."""

    def __call__(self, inputs):
        return ops.cumsum(super().__call__(inputs), axis=-1)


class LateSum(RunningSum):
    pass


@pytest.mark.parametrize(
    "kind, kwargs, name, known",
    [
        (
            StandardizedConv,
            {"filters": 4, "kernel_size": 3},
            "convolution_op",
            "Conv1D",
        ),
        (UnitDense, {"units": 4}, "kernel", "Dense"),
        (LateSum, {}, "__call__", "ReLU"),
    ],
)
def test_a_subclass_that_defines_anything_anew_has_no_rule(kind, kwargs, name, known):
    model = kept_by(kind, STEPS, kwargs)

    reasons = trace(model).channels.reasons().values()

    text = f"{kind.__name__}, which defines '{name}' in another way than {known}"
    found = {str(r) for g in reasons for r in g if r.layer == "subject"}
    assert found == {f"subject: no rule for the layer {text}"}


@keras.saving.register_keras_serializable("kprune_tests")
class NamedDense(layers.Dense):
    """A dense layer under another name, with a constructor of its own."""

    def __init__(self, units, label="none", **kwargs):
        super().__init__(units, **kwargs)
        self.label = label

    def get_config(self):
        return {**super().get_config(), "label": self.label}

    def compute_output_shape(self, shape):
        return super().compute_output_shape(shape)

    def describe(self):
        return self.label


def test_a_subclass_that_computes_the_same_has_the_rule():
    assert isinstance(rule_of(NamedDense(3)), type(rule_of(layers.Dense(3))))


def kept_by(layer, shape, kwargs):
    return chain(lambda: layer(name="subject", **kwargs), shape)()
