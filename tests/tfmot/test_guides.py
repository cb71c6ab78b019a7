"""The steps of TFMOT's guides, in their order, with kprune.tfmot in TFMOT's place.

What differs is what Keras 3 itself asks for: weights are saved as `.weights.h5`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kprune.tfmot as tfmot
from tests.checks import assert_equal, assert_plain, entries
from tests.tfmot.guide_steps import WIDTH, X, Y, compiled, set_up_model, zipped_size

pytestmark = [
    pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`"),
    pytest.mark.filterwarnings("ignore:Argument `input_shape` is deprecated"),
    pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated"),
]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The path of trained weights, as both comprehensive guides begin."""
    with pytest.warns(UserWarning, match="input_shape"):
        model = compiled(set_up_model())
    model.fit(X, Y, verbose=0)
    path = tmp_path_factory.mktemp("guides") / "pretrained.weights.h5"
    model.save_weights(path)
    return path


@pytest.fixture
def base_model(pretrained):
    model = set_up_model()
    model.load_weights(pretrained)
    return model


# Pruning in Keras example


def accuracy_of(tflite_model, images, labels):
    interpreter = tf.lite.Interpreter(model_content=tflite_model)
    interpreter.allocate_tensors()
    (inputs,), (outputs,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    hits = 0
    for image, label in zip(images, labels, strict=True):
        interpreter.set_tensor(inputs["index"], image[None].astype(np.float32))
        interpreter.invoke()
        hits += np.argmax(interpreter.tensor(outputs["index"])()[0]) == label
    return hits / len(labels)


def test_example_trains_prunes_strips_and_converts(digits, tmp_path):
    (images, labels), (test_images, test_labels) = digits
    images, labels, test_images = (
        images[:800, ..., 0],
        labels[:800],
        test_images[..., 0],
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = keras.Sequential(
        [
            keras.layers.InputLayer(input_shape=(8, 8)),
            keras.layers.Reshape(target_shape=(8, 8, 1)),
            keras.layers.Conv2D(filters=12, kernel_size=(3, 3), activation="relu"),
            keras.layers.MaxPooling2D(pool_size=(2, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(0.01), loss=loss, metrics=["accuracy"]
    )
    model.fit(images, labels, epochs=4, validation_split=0.1, batch_size=16, verbose=0)
    _, baseline = model.evaluate(test_images, test_labels, verbose=0)
    keras.models.save_model(model, tmp_path / "baseline.h5", include_optimizer=False)

    batch_size, epochs, validation_split = 16, 4, 0.1
    number = images.shape[0] * (1 - validation_split)
    end_step = np.ceil(number / batch_size).astype(np.int32) * epochs
    pruned = tfmot.sparsity.keras.prune_low_magnitude(
        model,
        pruning_schedule=tfmot.sparsity.keras.PolynomialDecay(
            initial_sparsity=0.50, final_sparsity=0.80, begin_step=0, end_step=end_step
        ),
    )
    pruned.compile(
        optimizer=keras.optimizers.Adam(0.01), loss=loss, metrics=["accuracy"]
    )
    logs = tmp_path / "logs"
    history = pruned.fit(
        images,
        labels,
        batch_size=batch_size,
        epochs=epochs,
        validation_split=validation_split,
        verbose=0,
        callbacks=[
            tfmot.sparsity.keras.UpdatePruningStep(),
            tfmot.sparsity.keras.PruningSummaries(log_dir=str(logs)),
        ],
    )
    _, accuracy = pruned.evaluate(test_images, test_labels, verbose=0)
    export = tfmot.sparsity.keras.strip_pruning(pruned)
    keras.models.save_model(export, tmp_path / "pruned.h5", include_optimizer=False)
    converter = tf.lite.TFLiteConverter.from_keras_model(export)
    (tmp_path / "pruned.tflite").write_bytes(converter.convert())
    converter = tf.lite.TFLiteConverter.from_keras_model(export)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    quantized = converter.convert()
    (tmp_path / "quantized.tflite").write_bytes(quantized)

    names = ("baseline.h5", "pruned.h5", "pruned.tflite", "quantized.tflite")
    sizes = [zipped_size(tmp_path / name) for name in names]
    assert history.history["sparsity"][-1] == pytest.approx(0.8, abs=0.001)
    for layer in (export.layers[1], export.layers[4]):
        assert np.mean(layer.kernel.numpy() == 0) == pytest.approx(0.8, abs=0.005)
    assert_plain(export)
    assert list(logs.rglob("events*"))
    assert baseline > accuracy > 0.7
    assert accuracy_of(quantized, test_images, test_labels) > accuracy - 0.02
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < sizes[0] / 2


# Pruning comprehensive guide


def test_guide_prunes_a_whole_model(base_model):
    model = tfmot.sparsity.keras.prune_low_magnitude(base_model)

    assert [entry.path for entry in entries(model)] == ["kernel"]
    assert_equal(model(X), base_model(X))


def test_guide_prunes_some_layers(base_model):
    def prune_dense(layer):
        if isinstance(layer, keras.layers.Dense):
            return tfmot.sparsity.keras.prune_low_magnitude(layer)
        return layer

    model = keras.models.clone_model(base_model, clone_function=prune_dense)

    assert isinstance(model.layers[0], tfmot.PruneLowMagnitude)
    assert_equal(model(X), base_model(X))


def test_guide_prunes_layers_of_a_functional_model_and_of_a_sequential():
    prune = tfmot.sparsity.keras.prune_low_magnitude
    inputs = keras.Input(shape=(WIDTH,))
    outputs = keras.layers.Flatten()(prune(keras.layers.Dense(10))(inputs))

    functional = keras.Model(inputs=inputs, outputs=outputs)
    sequential = keras.Sequential(
        [
            prune(keras.layers.Dense(WIDTH, input_shape=[WIDTH])),
            keras.layers.Flatten(),
        ]
    )

    for model, size in ((functional, 200), (sequential, 400)):
        assert [entry.mask.numpy().size for entry in entries(model)] == [size]


class MyDenseLayer(keras.layers.Dense, tfmot.sparsity.keras.PrunableLayer):
    def get_prunable_weights(self):
        return [self.kernel, self.bias]


def test_guide_prunes_the_bias_of_a_custom_layer():
    layer = MyDenseLayer(WIDTH, input_shape=[WIDTH])

    model = keras.Sequential(
        [
            tfmot.sparsity.keras.prune_low_magnitude(layer),
            keras.layers.Flatten(),
        ]
    )

    assert [entry.path for entry in entries(model)] == ["kernel", "bias"]


def test_guide_trains_by_fit(base_model, tmp_path):
    model = compiled(tfmot.sparsity.keras.prune_low_magnitude(base_model))

    model.fit(
        X,
        Y,
        callbacks=[
            tfmot.sparsity.keras.UpdatePruningStep(),
            tfmot.sparsity.keras.PruningSummaries(log_dir=str(tmp_path)),
        ],
        epochs=2,
        verbose=0,
    )

    assert np.mean(model.layers[0].kernel.numpy() == 0) == 0.5
    assert list((tmp_path / "metrics").iterdir())


def test_guide_trains_by_a_loop_of_its_own(base_model, tmp_path):
    model = tfmot.sparsity.keras.prune_low_magnitude(base_model)
    optimizer = keras.optimizers.Adam()
    model.optimizer = optimizer
    step = tfmot.sparsity.keras.UpdatePruningStep()
    step.set_model(model)
    summaries = tfmot.sparsity.keras.PruningSummaries(log_dir=str(tmp_path))
    summaries.set_model(model)
    unused = -1

    step.on_train_begin()
    for _ in range(2):
        summaries.on_epoch_begin(epoch=unused)
        step.on_train_batch_begin(batch=unused)
        with tf.GradientTape() as tape:
            outputs = model(X, training=True)
            loss = keras.losses.categorical_crossentropy(Y, outputs)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        step.on_epoch_end(batch=unused)

    assert np.mean(model.layers[0].kernel.numpy() == 0) == 0.5
    assert np.mean(entries(model)[0].mask.numpy()) == 0.5


def test_guide_saves_and_loads_a_pruned_model(base_model, tmp_path):
    model = tfmot.sparsity.keras.prune_low_magnitude(base_model)
    path = tmp_path / "pruned.h5"

    model.save(path, include_optimizer=True)
    with tfmot.sparsity.keras.prune_scope():
        loaded = keras.models.load_model(path)

    assert_equal(loaded(X), model(X))
    assert isinstance(loaded.layers[0], tfmot.PruneLowMagnitude)


def test_guide_writes_a_smaller_file_of_the_stripped_model(base_model, tmp_path):
    model = tfmot.sparsity.keras.prune_low_magnitude(base_model)

    stripped = tfmot.sparsity.keras.strip_pruning(model)
    for name, each in (("pruned.h5", model), ("stripped.h5", stripped)):
        each.save(tmp_path / name, include_optimizer=False)

    assert_plain(stripped)
    assert zipped_size(tmp_path / "stripped.h5") < zipped_size(tmp_path / "pruned.h5")


def test_guide_prunes_in_blocks():
    model = tfmot.sparsity.keras.prune_low_magnitude(
        set_up_model(), **{"block_size": [1, 16]}
    )

    assert model.layers[0].block_size == (1, 16)
    assert (model.layers[0].granularity.rows, model.layers[0].granularity.columns) == (
        1,
        16,
    )


# Structural pruning M by N


@pytest.mark.slow
def test_guide_mixes_patterns_with_single_weights(digits):
    (images, labels), _ = digits
    prune = tfmot.sparsity.keras.prune_low_magnitude
    at_once = tfmot.sparsity.keras.ConstantSparsity(
        target_sparsity=0.5, begin_step=0, frequency=100
    )
    model = keras.Sequential(
        [
            prune(
                keras.layers.Conv2D(8, 3, input_shape=(8, 8, 1), name="unstructured"),
                pruning_schedule=at_once,
            ),
            prune(keras.layers.Conv2D(12, 3, name="pattern"), sparsity_m_by_n=(2, 4)),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            prune(keras.layers.Dense(16, name="dense"), sparsity_m_by_n=(2, 4)),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy())

    model.fit(
        images[:64],
        labels[:64],
        verbose=0,
        callbacks=tfmot.sparsity.keras.UpdatePruningStep(),
    )
    model = tfmot.sparsity.keras.strip_pruning(model)

    for name in ("pattern", "dense"):
        kernel = np.moveaxis(model.get_layer(name).kernel.numpy(), -2, -1)
        assert ((kernel.reshape(-1, 4) == 0).sum(1) == 2).all()
    assert np.mean(model.get_layer("unstructured").kernel.numpy() == 0) == 0.5
    assert model.layers[-1].kernel.numpy().all()
