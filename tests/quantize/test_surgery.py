import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.quantize import (
    QuantizationWrapper,
    dequantize,
    finish,
    quantize_aware,
    wrappers,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
Y = RNG.integers(0, 3, 32)
COMPILED = {"run_eagerly": False}


def model_of(*parts, shape=(6,)):
    return keras.Sequential([keras.Input(shape, name="features"), *parts])


def mlp(**options):
    return model_of(
        layers.Dense(8, activation="relu", name="first", **options),
        layers.Dense(3, activation="softmax", name="last", **options),
    )


def sparse(model, values=None):
    """Zeroes half of each kernel; with `values`, leaves so many others."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        kernel = np.asarray(layer.kernel)
        if values:
            kernel = np.ceil(np.abs(kernel) * values) * np.sign(kernel) / values
        layer.kernel.assign(kernel * (rng.random(kernel.shape) < 0.5))
    return model


def train(model, optimizer="sgd", **options):
    """Trains a model for four steps, eagerly by default: tracing takes longer."""
    options = {"run_eagerly": True, **options}
    model.compile(optimizer, "sparse_categorical_crossentropy", **options)
    model.fit(X, Y, batch_size=8, verbose=0)
    return model


def calibrated(model):
    """Lets a model see data, which is all that its ranges need."""
    model(X, training=True)
    return model


def kernels(model):
    return [np.asarray(layer.kernel) for layer in model.layers]


def ema():
    return keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.5)


@pytest.mark.parametrize(
    ("optimizer", "dtype", "options"),
    [
        (keras.optimizers.SGD, "float32", {"jit_compile": True, **COMPILED}),
        # Compiled as the one above, in half precision as the one below.
        pytest.param(
            keras.optimizers.Adam, "mixed_float16", COMPILED, marks=pytest.mark.slow
        ),
        (keras.optimizers.Adam, "mixed_bfloat16", {}),
        (ema, "float32", {}),
    ],
)
def test_zeros_and_clusters_survive_training(optimizer, dtype, options):
    model = sparse(mlp(dtype=dtype), values=2)
    before = kernels(model)

    aware = train(quantize_aware(model), optimizer(), **options)

    for old, new in zip(before, kernels(aware), strict=True):
        assert not np.array_equal(old, new)
        np.testing.assert_array_equal(old == 0, new == 0)
        for value in np.unique(old):
            assert len(np.unique(new[old == value])) == 1


@pytest.mark.parametrize(
    ("preserve", "zeros_stay", "clusters_stay"),
    [
        ([], False, False),
        ("sparsity", True, False),
        ("clusters", False, True),
        # What is preserved where nothing is asked for is in the test above.
        pytest.param(None, True, True, marks=pytest.mark.slow),
    ],
)
def test_only_what_was_asked_for_is_preserved(preserve, zeros_stay, clusters_stay):
    model = sparse(mlp(), values=2)

    aware = train(quantize_aware(model, preserve=preserve))

    for old, new in zip(kernels(model), kernels(aware), strict=True):
        assert np.array_equal(old == 0, new == 0) == zeros_stay
        assert (len(np.unique(new)) <= len(np.unique(old))) == clusters_stay


def test_kernel_of_zeros_only_learns_and_the_zeros_of_others_stay():
    model = sparse(mlp())
    last = model.get_layer("last")
    last.kernel.assign(np.zeros(last.kernel.shape))
    zeros = np.asarray(model.get_layer("first").kernel) == 0

    aware = train(quantize_aware(model))

    assert np.count_nonzero(aware.get_layer("last").kernel) >= 12
    np.testing.assert_array_equal(np.equal(aware.get_layer("first").kernel, 0), zeros)


def test_input_model_is_not_changed():
    model = sparse(mlp())
    before = [v.numpy() for v in model.variables]

    train(quantize_aware(model))

    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert not any(v.constraint for v in model.variables if hasattr(v, "constraint"))


def test_pruned_model_is_stripped_and_its_zeros_are_kept():
    model = kprune.prune(mlp())
    pruning = kprune.PruningCallback(0.5)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(X, Y, verbose=0, callbacks=[pruning])

    aware = quantize_aware(model)

    assert all(wrapper.masked for wrapper in wrappers(aware))
    assert not kprune.is_pruned(aware)
    assert [(kernel == 0).mean() for kernel in kernels(aware)] == [0.5, 0.5]


def test_names_paths_and_compile_arguments_are_those_of_the_model():
    model = mlp()
    model.compile("sgd", "mse")

    aware = quantize_aware(model)

    assert [x.name for x in aware.layers] == ["first", "last"]
    ours = [v.path for v in aware.trainable_variables]
    assert ours == [v.path for v in model.trainable_variables]
    assert len({v.path for v in aware.variables}) == len(aware.variables)
    assert aware.compiled
    assert aware.layers[0].units == 8


def test_saved_model_goes_on_where_it_stood(tmp_path):
    aware = train(quantize_aware(sparse(mlp(), values=2)))
    aware.save(tmp_path / "aware.keras")

    loaded = keras.models.load_model(tmp_path / "aware.keras")

    expected = aware.predict(X, verbose=0)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), expected)
    for model in (aware, loaded):
        keras.utils.set_random_seed(1)
        model.fit(X, Y, batch_size=8, verbose=0)
    for ours, theirs in zip(kernels(aware), kernels(loaded), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_finished_model_predicts_the_same_and_is_frozen(tmp_path):
    aware = calibrated(quantize_aware(sparse(mlp())))

    finished = finish(aware)

    expected = np.asarray(aware(X))
    np.testing.assert_array_equal(finished(X), expected)
    assert finished.trainable_variables == []
    finished.save(tmp_path / "finished.keras")
    loaded = keras.models.load_model(tmp_path / "finished.keras")
    np.testing.assert_array_equal(loaded(X), expected)


def test_dequantized_model_is_plain_and_holds_the_int8_kernels():
    aware = calibrated(quantize_aware(sparse(mlp())))

    plain = dequantize(aware)

    assert [type(x) for x in plain.layers] == [layers.Dense, layers.Dense]
    assert plain.layers[1].activation is keras.activations.softmax
    for layer, wrapper in zip(plain.layers, aware.layers, strict=True):
        integers = np.asarray(layer.kernel) / np.abs(wrapper.kernel).max() * 127
        np.testing.assert_allclose(integers, np.round(integers), atol=1e-3)
        np.testing.assert_array_equal(layer.bias, wrapper.bias)
        assert layer.kernel.constraint is None


def test_predictions_without_training_are_near_those_of_the_model():
    model = mlp()

    aware = quantize_aware(model)

    np.testing.assert_allclose(aware(X), model(X), atol=0.02)


def test_activity_regularizer_and_users_constraint_still_work():
    model = model_of(
        layers.Dense(
            3,
            activity_regularizer=keras.regularizers.L1(1.0),
            kernel_constraint=keras.constraints.NonNeg(),
        )
    )

    aware = train(quantize_aware(sparse(model)))

    assert (np.asarray(aware.layers[0].kernel) >= 0).all()
    aware(X, training=True)
    outputs = np.asarray(aware(X, training=True))
    np.testing.assert_allclose(
        sum(aware.losses), np.abs(outputs).sum() / len(X), rtol=1e-3
    )


@pytest.mark.parametrize("pruned", [False, True])
def test_layers_are_selected_by_name_or_as_objects(pruned):
    model = kprune.prune(mlp()) if pruned else mlp()

    for entry in ("last", model.layers[1]):
        aware = quantize_aware(model, skip=entry)
        assert isinstance(aware.layers[0], QuantizationWrapper)
        assert type(aware.layers[1]) is layers.Dense
        assert len(wrappers(quantize_aware(model, only=entry))) == 1


def test_layer_behind_one_left_in_float_rounds_its_inputs():
    model = model_of(layers.Dense(4, name="a"), layers.ELU(), layers.Dense(2, name="b"))

    aware = quantize_aware(model, skip=layers.ELU)

    assert [len(w.input_ranges) for w in wrappers(aware)] == [1, 1]
    assert all(w.input_ranges[0] is not None for w in wrappers(aware))


def test_convolution_and_its_relu_have_one_range_together():
    model = model_of(
        layers.Conv2D(2, 3), layers.BatchNormalization(), layers.ReLU(), shape=(6, 6, 1)
    )

    convolution, relu = wrappers(quantize_aware(model))

    assert convolution.output_range is None
    assert relu.output_range is not None
    assert relu.input_ranges == [None]


def test_convolution_whose_relu_stays_in_float_has_a_range():
    model = model_of(layers.Conv2D(2, 3), layers.ReLU(), shape=(6, 6, 1))

    (convolution,) = wrappers(quantize_aware(model, skip=layers.ReLU))

    assert convolution.output_range is not None


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def clustered_before_folding():
    model = model_of(layers.Dense(4), layers.BatchNormalization())
    model.layers[0].kernel.assign(np.tile([1.0, 2.0], (6, 2)))
    return model


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Subclassed, {}, "is subclassed.*Build it as a Functional model"),
        (lambda: keras.Sequential([layers.Dense(2)]), {}, "is not built"),
        (
            lambda: model_of(layers.ELU(name="e")),
            {},
            "can be quantized. 'e': ",
        ),
        (lambda: model_of(layers.BatchNormalization()), {}, "to be folded into"),
        (lambda: quantize_aware(mlp()), {}, "is quantization-aware already"),
        (clustered_before_folding, {}, "Call `model = kprune.fold_batch_norm"),
        (mlp, {"preserve": "zeros"}, "preserve got 'zeros'. Expected 'sparsity'"),
        (mlp, {"preserve": "sparsity"}, "asks for 'sparsity', but no kernel"),
        (mlp, {"preserve": "clusters"}, "asks for 'clusters', but no kernel"),
        (mlp, {"skip": "frist"}, "skip got 'frist', which matches no layer"),
        (mlp, {"skip": layers.Dense}, "`only` and `skip` leave nothing"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(make, options, message):
    with pytest.raises(ValueError, match=message):
        quantize_aware(make(), **options)


@pytest.mark.parametrize("function", [finish, dequantize])
def test_plain_model_cannot_be_finished(function):
    with pytest.raises(ValueError, match=r"Pass the model that `kprune.quantize_aware"):
        function(mlp())


def test_keras_own_quantization_is_refused():
    aware = quantize_aware(mlp())

    with pytest.raises(ValueError, match=r"would round the kernels a second time"):
        aware.quantize("int8", filters="first")

    assert {v.dtype for v in aware.trainable_variables} == {"float32"}


def test_model_that_has_seen_no_data_cannot_be_finished():
    with pytest.raises(ValueError, match=r"'first' has seen no data.*Train the model"):
        finish(quantize_aware(mlp()))


@pytest.mark.parametrize("nested", [False, True])
def test_layer_used_twice_has_ranges_that_hold_both_uses(nested, tmp_path):
    layer = layers.Dense(1, use_bias=False, kernel_initializer="ones", name="both")
    used = keras.Sequential([keras.Input((2,)), layer]) if nested else layer
    small, large = keras.Input((2,)), keras.Input((2,))
    aware = quantize_aware(keras.Model([small, large], [used(small), used(large)]))
    batch = [np.array([[0.0, 1.0]], "float32"), np.array([[2.0, 8.0]], "float32")]

    aware(batch, training=True)
    aware.save(tmp_path / "aware.keras")
    again = keras.saving.load_model(tmp_path / "aware.keras")
    again(batch, training=True)

    highs = [float(r.high) for r in wrappers(again)[0].ranges]
    np.testing.assert_allclose(highs, [8, 10], rtol=2e-3)
    np.testing.assert_allclose(finish(again)(batch), [[[1]], [[10]]], atol=0.03)


def test_steps_of_int8_are_no_clusters():
    plain = model_of(layers.Dense(128, name="only"))
    rounded = dequantize(calibrated(quantize_aware(plain)))

    aware = quantize_aware(rounded)

    assert len(np.unique(kernels(rounded)[0])) > 128
    assert not wrappers(aware)[0].clusters
    assert wrappers(quantize_aware(rounded, preserve="clusters"))[0].clusters


def test_clusters_of_a_dequantized_model_are_found_again():
    keras.utils.set_random_seed(0)
    shared = kprune.strip(kprune.share_weights(model_of(layers.Dense(64)), bits=5))
    rounded = dequantize(calibrated(quantize_aware(shared)))

    values = len(np.unique(kernels(rounded)[0]))

    assert wrappers(quantize_aware(rounded))[0].clusters == values


@pytest.mark.parametrize("value", ["ones", 0.25])
def test_constant_kernel_is_no_cluster(value):
    if isinstance(value, float):
        value = keras.initializers.Constant(value)

    aware = quantize_aware(model_of(layers.Dense(4, kernel_initializer=value)))

    assert not wrappers(aware)[0].clusters
