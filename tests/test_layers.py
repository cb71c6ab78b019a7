import dataclasses
from collections import Counter

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune import whole_model
from tests import make_layer_table
from tests.checks import (
    assert_equal,
    assert_plain,
    assert_shares_nothing,
    entries,
    pruned_at_once,
    values,
    zeros_of,
)
from tests.layer_cases import CASES, LayerCase, find, normal
from tests.processes import run_script
from tests.training_helpers import build_optimizer

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
TARGET = 0.75
# Only the slow run trains and exports these: each has a sibling in `CASES` with the
# same kind of weights, and most ways to call attention are left with one of the two.
SIBLINGS = {
    "Conv1D",
    "Conv3D",
    "Conv2DTranspose",
    "Conv3DTranspose",
    "SeparableConv1D",
    "DepthwiseConv1D",
    "Embedding",
    "SimpleRNN",
    "GRU",
    "ConvLSTM1D",
    "ConvLSTM3D",
    "MultiHeadAttention with scores",
    "MultiHeadAttention with a mask",
    "GroupQueryAttention",
    "GroupQueryAttention with a mask",
    "GroupQueryAttention, causal",
    "RNN of stacked cells",
    "SpectralNormalization",
    "custom layer with weights",
    "custom layer with a Sequential",
    "custom layer without `build`",
}
# To a converter they are dense layers or loops as of others, once they are stripped.
ALIKE_TO_TFLITE = {
    "Bidirectional",
    "Embedding with mask_zero",
    "TimeDistributed",
    "custom layer with get_prunable_weights",
    "beside a Lambda",
}


def some_slow(cases, slow=SIBLINGS):
    """Lists the cases as parameters, some of them in the slow run."""
    return [
        pytest.param(c, id=c.name, marks=pytest.mark.slow if c.name in slow else ())
        for c in cases
    ]


def train(model, case, epochs, callbacks=(), steps=4):
    """Trains some optimizer steps an epoch."""
    x = case.inputs(8 * steps)
    y = np.random.default_rng(0).normal(size=(8 * steps, 3)).astype("float32")
    if not model.compiled:
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    build_optimizer(model)
    return model.fit(
        x, y, epochs=epochs, batch_size=8, verbose=0, callbacks=list(callbacks)
    )


def pruning():
    """Reaches the target at step 6, off the grid of its frequency."""
    schedule = kprune.PolynomialSchedule(TARGET, end_step=6, frequency=4)
    return kprune.PruningCallback(schedule)


def assert_masked(entry):
    np.testing.assert_array_equal(np.array(entry.variable)[~np.array(entry.mask)], 0)


@every_case
def test_layer_is_wrapped_and_predicts_the_same(case):
    model, x = case.build(), case.inputs(4)
    before, expected = values(model), model.predict_on_batch(x)

    pruned = kprune.prune(model, only=case.only)

    subject = find(pruned)
    assert isinstance(subject, kprune.PruningWrapper)
    assert tuple(subject.masks) == case.paths
    assert all(m.dtype == "bool" and not m.trainable for m in subject.masks.values())
    assert_equal(pruned.predict_on_batch(x), expected)
    assert_equal(pruned(x), model(x))
    assert [v.shape for v in pruned.trainable_variables] == [
        v.shape for v in model.trainable_variables
    ]
    assert_shares_nothing(pruned, model)
    assert_equal(values(model), before)


@pytest.mark.parametrize("case", some_slow(CASES))
def test_layer_trains_to_the_target_and_goes_on_after_loading(case, tmp_path):
    pruned = kprune.prune(case.build(), only=case.only)
    x = case.inputs(4)

    history = train(pruned, case, epochs=2, callbacks=[pruning()])
    pruned.save(tmp_path / "model.keras")
    safe = not any(type(x) is layers.Lambda for x in pruned._flatten_layers())
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=safe)

    for entry in (*entries(pruned), *entries(loaded)):
        kept = np.array(entry.mask)
        assert kept.size - kept.sum() == zeros_of(kept.size, TARGET)
        assert_masked(entry)
    sizes = [entry.mask.numpy().size for entry in entries(pruned)]
    assert history.history["sparsity"][-1] == pytest.approx(
        sum(zeros_of(size, TARGET) for size in sizes) / sum(sizes)
    )
    assert_equal(loaded(x), pruned(x))
    assert whole_model.clock_of(loaded) == 8
    masks = [np.array(entry.mask) for entry in entries(loaded)]
    before = [np.array(entry.variable) for entry in entries(loaded)]

    loaded.run_eagerly = True  # tracing once more would take longer
    train(loaded, case, epochs=1, steps=2)

    assert whole_model.clock_of(loaded) == 10
    assert_equal([np.array(entry.mask) for entry in entries(loaded)], masks)
    for entry, old in zip(entries(loaded), before, strict=True):
        assert_masked(entry)
        assert (np.array(entry.variable) != old).any(), entry.path


@dataclasses.dataclass
class Stripped:
    """The model of a case, pruned to the target, and stripped.

    Attributes:
        before: The values of the pruned model before it was stripped.
    """

    case: LayerCase
    model: keras.Model
    pruned: keras.Model
    before: list
    plain: keras.Model


@pytest.fixture(scope="module")
def stripped(request):
    keras.utils.set_random_seed(0)
    case = request.param
    model = case.build()
    pruned = pruned_at_once(model, TARGET, only=case.only)
    return Stripped(case, model, pruned, values(pruned), kprune.strip(pruned))


@pytest.mark.parametrize("stripped", some_slow(CASES, slow=()), indirect=True)
def test_layer_strips_to_plain_keras(stripped):
    case, model, pruned = stripped.case, stripped.model, stripped.pruned
    plain, x = stripped.plain, case.inputs(4)

    assert_plain(plain)
    assert_equal(plain(x), pruned(x))
    assert_equal(values(pruned), stripped.before)
    assert_shares_nothing(plain, pruned)
    assert [layer.name for layer in plain.layers] == [x.name for x in model.layers]
    assert Counter(map(type, plain._flatten_layers())) == Counter(
        map(type, model._flatten_layers())
    )
    assert [v.shape for v in plain.trainable_variables] == [
        v.shape for v in model.trainable_variables
    ]
    subject = find(plain)
    zeros = {w.path: w.variable for w in kprune.prunable.find_weights(subject)}
    for path in case.paths:
        value = np.array(zeros[path])
        assert value.size - np.count_nonzero(value) == zeros_of(value.size, TARGET)


EXPORTED = some_slow((c for c in CASES if c.tflite), SIBLINGS | ALIKE_TO_TFLITE)


@pytest.mark.parametrize("stripped", EXPORTED, indirect=True)
def test_stripped_layer_exports_to_tflite(stripped, tmp_path):
    report = kprune.export(stripped.plain, tmp_path / "out", formats=("tflite",))

    # The export has compared the file's outputs with the model's.
    assert (tmp_path / "out" / "model.tflite").stat().st_size > 0
    assert "model.tflite" in str(report)


def test_stripped_layers_load_where_kprune_is_not_installed(tmp_path):
    names = """Dense, Conv2D, SeparableConv2D, Conv1DTranspose, ReversibleEmbedding,
        Embedding with mask_zero, RNN of stacked cells, Bidirectional, ConvLSTM2D,
        TimeDistributed, MultiHeadAttention, GroupQueryAttention"""
    names = " ".join(names.split()).split(", ")
    expected = {}
    for i, case in enumerate(c for c in CASES if c.name in names):
        pruned = pruned_at_once(case.build(), TARGET, only=case.only)
        x = case.inputs(4)
        kprune.strip(pruned).save(tmp_path / f"{i}.keras")
        expected[f"x{i}"], expected[f"y{i}"] = x, np.array(pruned(x))
    np.savez(tmp_path / "expected.npz", **expected)
    script = """
        import sys
        sys.modules["kprune"] = None  # importing it is an error from here on
        import keras, numpy as np
        data = np.load("expected.npz")
        numbers = [name[1:] for name in data if name[0] == "x"]
        for i in numbers:
            model = keras.saving.load_model(f"{i}.keras")
            y = model(data[f"x{i}"])
            np.testing.assert_array_equal(y, data[f"y{i}"], err_msg=model.name)
        print("loaded", len(numbers))
    """

    done = run_script(script, folder=tmp_path)

    assert f"loaded {len(names)}" in done.stdout, done.stderr


def test_frozen_layer_is_left_alone_until_it_is_trained():
    case = next(c for c in CASES if c.name == "Dense")
    model = case.build()
    model.get_layer("subject").trainable = False
    pruned = kprune.prune(model)
    frozen = np.array(pruned.get_layer("subject").kernel)

    train(pruned, case, epochs=2, callbacks=[pruning()])

    subject, head = (pruned.get_layer(name) for name in ("subject", "head"))
    assert_equal(subject.kernel, frozen)
    assert np.array(subject.masks["kernel"]).all()
    assert (np.array(head.kernel) == 0).sum() == zeros_of(24, TARGET)
    records = {w.layer: w for w in kprune.summary(pruned, None).masked}
    assert records["subject"].reason == "frozen; pruned once it is trained"

    subject.trainable = True
    pruned.compile("adam", "mse")
    train(pruned, case, epochs=1, callbacks=[pruning()])

    assert (np.array(subject.kernel) == 0).sum() == zeros_of(80, TARGET)
    assert (np.array(kprune.strip(pruned).get_layer("subject").kernel) == 0).sum() == 60


def test_layer_used_twice_has_one_mask():
    case = next(c for c in CASES if c.name == "layer used twice")

    pruned = kprune.prune(case.build())

    assert len(entries(pruned)) == 2  # the shared kernel and the head's
    assert len(kprune.strip(pruned).trainable_variables) == 4


def test_tied_weights_stay_tied_through_a_file(tmp_path):
    case = next(c for c in CASES if c.name == "tied weights")
    pruned = pruned_at_once(case.build(), TARGET)
    pruned.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")
    stripped = kprune.strip(loaded)

    assert stripped.get_layer("tied").source is stripped.get_layer("subject")
    assert len(stripped.trainable_variables) == 5


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (layers.BatchNormalization, "the rule for BatchNormalization leaves it out"),
        (layers.LayerNormalization, "the rule for LayerNormalization leaves it out"),
        (
            lambda: layers.GroupNormalization(2),
            "the rule for GroupNormalization leaves it out",
        ),
        (layers.RMSNormalization, "the rule for RMSNormalization leaves it out"),
        (layers.PReLU, "the rule for PReLU leaves it out"),
    ],
)
def test_layer_without_kernels_stays_dense_with_a_reason(make, reason):
    inputs = keras.Input((4, 6))
    layer = make()
    model = keras.Model(inputs, layers.Dense(3, name="head")(layer(inputs)))

    pruned = kprune.prune(model)

    assert type(pruned.get_layer(layer.name)) is type(layer)
    reasons = {
        w.weight: w.reason
        for w in kprune.summary(pruned, None).dense
        if w.layer == layer.name
    }
    trained = [v.name for v in layer.trainable_variables]
    assert {reasons[name] for name in trained} <= {reason, "a bias"}
    assert reason in reasons.values()
    assert not any(reason == "" for reason in reasons.values())


@pytest.mark.parametrize("name", ["DepthwiseConv1D", "DepthwiseConv2D"])
def test_depthwise_kernel_is_dense_unless_asked_for(name):
    case = next(c for c in CASES if c.name == name)

    by_default = kprune.prune(case.build())
    by_exclusion = kprune.prune(case.build(), skip="flatten")

    for pruned in (by_default, by_exclusion):
        reasons = [w.reason for w in kprune.summary(pruned, None).weights]
        assert reasons[0] == "a depthwise kernel; name its layer in `only` to prune it"
        assert tuple(find(kprune.prune(pruned, only="subject")).masks) == case.paths


def test_inference_writes_no_weight():
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(6, "relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3),
        ]
    )
    pruned = pruned_at_once(model)
    pruned.compile("adam", "mse")
    x, y = normal(10)(16), normal(3)(16)
    before = values(pruned)

    pruned.predict(x, verbose=0)
    pruned.evaluate(x, y, verbose=0)
    pruned.predict_on_batch(x)
    pruned.test_on_batch(x, y)
    pruned(x)

    assert_equal(values(pruned), before)


def test_table_in_the_readme_is_up_to_date():
    readme = make_layer_table.README.read_text()

    assert readme == make_layer_table.updated(readme), (
        "run `python -m tests.make_layer_table`"
    )
