import keras
import ml_dtypes
import numpy as np
import pytest

from kprune import weight_access
from kprune.weight_access import as_array, write_masked, zeroed


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", ml_dtypes.bfloat16])
def test_zeroed_is_where_with_plus_zero(dtype):
    rng = np.random.default_rng(0)
    value = rng.normal(size=(7, 9)).astype(dtype)
    value[:3, :3] = [[np.nan, np.inf, -0.0]] * 3
    mask = rng.random((7, 9)) < 0.5
    mask[0, :3], mask[1, :3] = False, True

    result = zeroed(value, mask)

    expected = np.where(mask, value, np.zeros((), value.dtype))
    assert result.dtype == value.dtype
    assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("largest_small", [1 << 20, 0])
def test_small_and_large_variables_are_masked(monkeypatch, dtype, largest_small):
    monkeypatch.setattr(weight_access, "_SMALL", largest_small)
    variable = keras.Variable(np.arange(1.0, 7.0), dtype=dtype)
    mask = np.array([1, 0, 1, 0, 0, 1], bool)

    write_masked(variable, as_array(variable), mask)

    assert as_array(variable).astype("float32").tolist() == [1, 0, 3, 0, 0, 6]
