import ml_dtypes
import numpy as np
import pytest

from kprune.export.base import ExportError
from kprune.export.verify import largest_difference, verify


def check(output, reference, tolerance=1e-4, batch=None):
    output, reference = np.asarray(output), np.asarray(reference)
    samples = [({"x": np.zeros((len(reference), 1))}, {"y": reference})]
    return verify(lambda inputs: {"y": output}, batch, samples, tolerance, "the file")


def test_the_largest_absolute_difference_is_returned():
    assert check([1.0, 2.0, 4.0], [1.0, 2.0625, 4.0], tolerance=0.1) == 0.0625


def test_tolerance_is_relative_to_the_largest_output():
    assert check([1000.05, 0.0], [1000.0, 0.0]) == pytest.approx(0.05)

    with pytest.raises(
        ExportError, match="differs from Keras by 0.05, allowed are 1e-05"
    ):
        check([0.15, 0.0], [0.1, 0.0])


@pytest.mark.parametrize("size", [1e-6, 1e-12, 1e-30])
def test_garbage_is_garbage_however_small_the_outputs_are(size):
    assert check([1.00005 * size], [size]) > 0

    with pytest.raises(ExportError, match="differs from Keras by"):
        check([2 * size], [size])


@pytest.mark.parametrize(
    ("dtype", "nothing", "something"),
    [("float32", 1e-39, 1e-37), ("float16", 6e-8, 2e-7), ("bfloat16", 1e-38, 1e-37)],
)
def test_what_is_flushed_to_zero_is_no_difference(dtype, nothing, something):
    zeros = np.zeros(1, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)

    assert check(zeros, np.full_like(zeros, nothing)) >= 0

    with pytest.raises(ExportError, match="differs from Keras by"):
        check(zeros, np.full_like(zeros, something))


def test_largest_difference_leaves_out_what_is_not_finite():
    outputs = {"y": np.array([1.0, np.inf, np.nan]), "n": np.array([1])}
    reference = {"y": np.array([1.25, np.inf, 1.0]), "n": np.array([9])}

    assert largest_difference(outputs, reference) == 0.25


@pytest.mark.parametrize(
    "output", [[np.nan, 1.0], [np.inf, 1.0], [0.0, np.nan]], ids=str
)
def test_nan_or_infinity_where_keras_is_finite_is_an_error(output):
    with pytest.raises(ExportError, match="1 NaN or infinite entries"):
        check(output, [0.0, 1.0])


def test_equal_infinities_are_no_difference():
    assert check([np.inf, 1.0, np.nan], [np.inf, 1.5, np.nan], tolerance=0.5) == 0.5


@pytest.mark.parametrize("output", [[-np.inf, 1.0], [np.nan, 1.0], [0.0, 1.0]], ids=str)
def test_infinities_have_to_be_the_same(output):
    with pytest.raises(ExportError, match="NaN or infinite entries where Keras has"):
        check(output, [np.inf, 1.0])


def test_outputs_without_a_finite_value_prove_nothing():
    with pytest.raises(ExportError, match="'y' of the Keras model is NaN or infinite"):
        check([np.nan, np.nan], [np.nan, np.nan])


@pytest.mark.parametrize(
    ("output", "reference"),
    [
        ([1, 2, 3], [1, 2, 4]),
        ([True, False], [True, True]),
        (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object)),
    ],
)
def test_whole_numbers_booleans_and_strings_have_to_be_equal(output, reference):
    assert check(reference, reference) == 0.0

    with pytest.raises(ExportError, match="differs from Keras in 1 of"):
        check(output, reference)


def test_shapes_and_names_have_to_be_equal():
    with pytest.raises(ExportError, match=r"has shape \(2, 1\), Keras gives \(2,\)"):
        check([[1.0], [2.0]], [1.0, 2.0])
    with pytest.raises(ExportError, match=r"outputs \['z'\], the Keras model \['y'\]"):
        samples = [({"x": np.zeros((1, 1))}, {"y": np.zeros((1,))})]
        verify(lambda inputs: {"z": np.zeros((1,))}, None, samples, 1e-4, "the file")


def test_a_fixed_batch_sees_the_samples_of_its_size_only():
    seen = []
    samples = [({"x": np.zeros((n, 1))}, {"y": np.zeros((n,))}) for n in (1, 3, 1)]

    def run(inputs):
        seen.append(len(inputs["x"]))
        return {"y": np.zeros(len(inputs["x"]))}

    verify(run, 1, samples, 1e-4, "the file")

    assert seen == [1, 1]
    with pytest.raises(ExportError, match="batches of 7 only"):
        verify(run, 7, samples, 1e-4, "the file")


def test_a_file_that_does_not_run_is_an_error():
    def run(inputs):
        raise RuntimeError("node 3 failed to prepare")

    samples = [({"x": np.zeros((1, 1))}, {"y": np.zeros((1,))})]

    with pytest.raises(ExportError, match="does not run.*node 3 failed"):
        verify(run, None, samples, 1e-4, "the file")
