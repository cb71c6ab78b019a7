import keras
import numpy as np
import pytest

from kprune.export import TFLite
from kprune.export.conversion import computing_in_float32
from kprune.export.forward import Forward
from tests.export import models


def test_half_precision_layers_compute_in_float32_for_a_while():
    model = models.mixed_float16()
    x = np.random.default_rng(0).normal(size=(2, 6, 8)).astype("float32")
    half = np.asarray(model(x))

    with computing_in_float32(model):
        inside = {layer.compute_dtype for layer in model._flatten_layers()}
        single = np.asarray(model(x))

    assert inside == {"float32"}
    assert 0 < np.abs(single - half).max() < 1e-2
    np.testing.assert_array_equal(model(x), half)
    assert Forward(model).compute_dtype == "float16"


@pytest.mark.parametrize("wanted", [1, np.True_])
@pytest.mark.parametrize(
    "options", [{"quantization": "int4"}, {"quantization": "dynamic_range"}]
)
def test_whatever_equals_true_insists_on_a_sparse_file(wanted, options):
    with pytest.raises(ValueError, match="sparse=True with quantization"):
        TFLite(**options, sparse=wanted)
    assert TFLite(sparse=wanted) == TFLite(sparse=True)


def test_policies_come_back_after_an_error():
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(2, dtype="mixed_bfloat16")]
    )

    with pytest.raises(KeyError), computing_in_float32(model):
        raise KeyError

    assert model.layers[0].dtype_policy.name == "mixed_bfloat16"
