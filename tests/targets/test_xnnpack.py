import re

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.targets import check_xnnpack, sparse_risk
from tests.targets import models
from tests.targets.files import to_tflite

# Each was seen to engage the sparse kernels of LiteRT 2.3.0 on x86 with AVX hidden, and
# to give the numbers of the dense file.
QUALIFYING = {
    "as it is": {},
    "squeeze and excitation": {"middle": models.squeeze},
    "squeeze and excitation through a reshape": {"middle": models.squeeze_and_reshape},
    "hard_silu": {"activation": "hard_silu"},
    "gelu": {"activation": "gelu"},
    "clipped relu": {"middle": layers.ReLU(max_value=4)},
    "leaky relu": {"middle": layers.LeakyReLU(0.1)},
    "an operation": {"middle": keras.ops.abs},
    "bilinear upsampling": {
        "middle": layers.UpSampling2D(2, interpolation="bilinear"),
    },
    "a pool that keeps dimensions": {
        "head": lambda x: layers.Flatten()(
            layers.GlobalAveragePooling2D(keepdims=True)(x)
        )
    },
    "features of the pool": {"returned": "pool"},
    "open sizes": {"size": None},
}


@pytest.mark.parametrize("changes", QUALIFYING.values(), ids=QUALIFYING.keys())
def test_a_net_that_meets_all_conditions_passes(changes):
    check = check_xnnpack(models.mobile(**changes))

    assert check, str(check)
    assert check.sparsity == pytest.approx(0.75, abs=0.01)
    assert not check.is_cut
    assert "meets XNNPACK's conditions" in str(check)


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    models.BREAKAGES.values(),
    ids=models.BREAKAGES.keys(),
)
def test_each_single_breakage_is_found_and_named(changes, where, words):
    check = check_xnnpack(models.mobile(**changes))

    assert not check
    # Keras numbers the names of operations, which nobody has named.
    found = [f for f in check.findings if re.fullmatch(where + r"(_\d+)?", f.where)]
    assert any(words in finding.problem for finding in found)
    assert all(finding.remedy for finding in found)
    assert where in str(check)


@pytest.mark.parametrize(("size", "where"), [(19, "stem"), (18, "dw_2")])
def test_odd_sizes_are_found_since_tflite_writes_same_padding(size, where):
    model = models.mobile(size=size)

    check = check_xnnpack(model)

    assert [finding.where for finding in check.obstacles] == [where]
    assert "at odd sizes TFLite writes padding" in check.obstacles[0].problem
    written = [operator.name for operator in to_tflite(model)[0].operators]
    assert written.count("PAD") == 1  # of the two that the model has


def test_too_few_zeros_are_to_be_reached_by_training():
    check = check_xnnpack(models.mobile(sparsity=0))

    assert check.obstacles == ()
    (finding,) = check.to_be_trained
    # pw_1 is 8 x 8 and pw_2 8 x 16.
    assert "0 of 192 weights" in finding.problem
    assert "to be reached by training" in finding.remedy


@pytest.mark.parametrize(("zeros", "enough"), [(128, False), (129, True)])
def test_more_than_two_thirds_of_the_zeros_are_asked_for(zeros, enough):
    model = models.mobile(sparsity=0)
    kernels = [model.get_layer(name).kernel for name in ("pw_1", "pw_2")]
    values = np.ones(192)
    values[:zeros] = 0
    kernels[0].assign(values[:64].reshape(kernels[0].shape))
    kernels[1].assign(values[64:].reshape(kernels[1].shape))

    check = check_xnnpack(model)

    assert bool(check) is enough
    assert check.kernels == (("pw_1", 64, 64), ("pw_2", zeros - 64, 128))


def test_rewriting_is_the_remedy_only_where_it_helps():
    same = {"stem_padding": 0, "stem": {"padding": "same"}}
    valid = {"stem_padding": 0}

    remedies = [
        check_xnnpack(models.mobile(**changes)).findings[0].remedy
        for changes in (same, valid)
    ]

    assert "kprune.rewrite_padding" in remedies[0]
    assert remedies[1] == "ZeroPadding2D(1) in front of it, and padding='valid'"


def test_layers_in_front_of_the_stem_and_behind_the_pool_do_not_count():
    inner = models.mobile()
    inputs = keras.Input((16, 16, 3))
    x = layers.Normalization(mean=0.5, variance=0.2)(layers.Rescaling(1 / 255)(inputs))
    x = layers.LayerNormalization()(inner(x))
    model = keras.Model(inputs, layers.Dense(2, activation="softplus")(x))

    assert check_xnnpack(model)


def test_nested_models_are_opened_and_named():
    inner = models.mobile(activation="mish")
    model = keras.Sequential([keras.Input((16, 16, 3)), inner, layers.Dense(2)])

    check = check_xnnpack(model)

    assert [finding.where for finding in check.findings] == ["mobile/dw_1_act"]


def test_a_second_image_that_joins_behind_the_stem_is_found():
    left, right = keras.Input((8, 8, 3)), keras.Input((4, 4, 4))
    x = layers.Conv2D(4, 3, 2)(layers.ZeroPadding2D(1)(left))
    x = layers.Add(name="join")([x, right])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(x))
    model = models.set_zeros(keras.Model([left, right], x), 0.75)

    (finding,) = check_xnnpack(model).findings

    assert finding.where == "join"
    assert "does not come through the stem" in finding.problem


def test_masks_count_as_zeros_and_the_pruned_model_stays():
    model = models.mobile(width=16, sparsity=0)
    pruned = kprune.prune(model)
    pruned.compile("sgd", "mse")
    pruned.fit(
        np.ones((2, 16, 16, 3)),
        np.ones((2, 5)),
        verbose=0,
        callbacks=[kprune.PruningCallback(kprune.ConstantSchedule(0.75))],
    )

    check = check_xnnpack(pruned)

    assert check, str(check)
    assert check.sparsity == 0.75
    assert kprune.is_pruned(pruned)


def test_stock_mobilenet_fails_at_its_padding_alone():
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None)

    check = check_xnnpack(model)

    strided = [f"block_{i}_depthwise" for i in (1, 3, 6, 13)]
    assert [finding.where for finding in check.obstacles] == ["Conv1", *strided]
    assert "padding='same' with stride 2" in check.obstacles[0].problem
    for finding in check.obstacles[1:]:
        assert "top 0, bottom 1, left 0, right 1" in finding.problem
        assert "rewrite_padding" in finding.remedy
    assert not check.is_cut


def test_a_model_without_images_is_told_what_to_do():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(2)])

    (finding,) = check_xnnpack(model).findings

    assert "no convolution" in finding.problem
    assert "(4, 1) blocks" in finding.remedy


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="Own whose layers are called in code"):
        check_xnnpack(Own(name="own"))


def test_a_sequential_without_inputs_is_refused():
    with pytest.raises(ValueError, match="without input shape"):
        check_xnnpack(keras.Sequential([layers.Dense(2)]))


@pytest.mark.parametrize(
    ("changes", "is_cut"),
    [
        ({}, False),
        ({"middle": layers.MaxPooling2D(2)}, True),
        ({"stem_padding": ((0, 1), (0, 1))}, False),
    ],
    ids=["whole", "cut", "without an entry"],
)
def test_sparse_files_of_cut_clusters_are_a_risk(changes, is_cut):
    model = models.mobile(**changes)

    risk = sparse_risk(model, to_tflite(model, sparse=True, as_bytes=True))

    assert check_xnnpack(model).is_cut is is_cut
    assert bool(risk) is is_cut


def test_dense_files_are_no_risk():
    model = models.mobile(middle=layers.MaxPooling2D(2))

    assert sparse_risk(model, to_tflite(model, as_bytes=True)) == ""


def test_a_sparse_file_of_a_model_that_cannot_be_read_is_a_risk():
    class Own(keras.Model):
        def call(self, x):
            return x

    content = to_tflite(models.mobile(), sparse=True, as_bytes=True)

    assert "can't be checked" in sparse_risk(Own(name="own"), content)
