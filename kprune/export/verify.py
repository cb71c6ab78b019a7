"""Comparison of an exported file, run in its own runtime, with Keras."""

import ml_dtypes
import numpy as np

from kprune.export.base import ExportError


def verify(run, batch, samples, tolerance, label):
    """Runs a loaded file on samples and compares its outputs with Keras' own.

    Whole numbers, booleans and strings must be equal; real numbers must be
    within `tolerance` of the largest absolute value of the output over all
    samples, however small that is; NaN and infinities must stand where Keras has
    them. The one absolute allowance is what processors may flush to zero (float32
    below 1.2e-38), or the spacing of the output's type around zero (float16: 6e-8).

    Args:
        run: Function from a dict of input arrays to a dict of output arrays.
        batch: Int, the only batch size that `run` takes, or `None` for any.
        samples: List of pairs of dicts, inputs and outputs of the Keras model.
        tolerance: Float, see above.
        label: String, what errors call the file.

    Returns:
        Float, the largest absolute difference seen.

    Raises:
        ExportError: If the file does not run or differs, or if Keras' outputs
            had no finite value to compare with.

    Example:
    >>> samples = [({"x": np.ones((1, 2))}, {"y": np.ones((1, 2))})]
    >>> verify(lambda inputs: {"y": inputs["x"]}, None, samples, 1e-4, "identity")
    0.0
    """
    samples = [s for s in samples if batch is None or _batch_of(s) == batch]
    if not samples:
        raise ExportError(
            f"{label} takes batches of {batch} only, and no sample has that size. "
            "Build the model without a batch size, or with a batch size of 1."
        )
    largest = 0.0
    scales = _scales([expected for _, expected in samples])
    for inputs, expected in samples:
        try:
            outputs = run(inputs)
        except Exception as error:
            shapes = {name: x.shape for name, x in inputs.items()}
            raise ExportError(
                f"{label} was written but does not run on inputs {shapes}: {error}"
            ) from error
        if set(outputs) != set(expected):
            raise ExportError(
                f"{label} has the outputs {sorted(outputs)}, the Keras model "
                f"{sorted(expected)}."
            )
        for name, reference in expected.items():
            subject = f"Output {name!r} of {label}"
            allowed = max(tolerance * scales[name], _resolution(reference))
            difference = _compare(outputs[name], reference, allowed, subject)
            largest = max(largest, difference)
    _check_finite([expected for _, expected in samples], label)
    return largest


def _batch_of(sample):
    return len(next(iter(sample[0].values())))


def _scales(answers):
    """Returns the largest finite value of each output over all samples."""
    scales = {}
    for name in answers[0]:
        values = [np.ravel(x[name]) for x in answers if _is_real(x[name])]
        values = np.abs(np.concatenate([[0.0], *values]).astype("float64"))
        scales[name] = float(np.max(values[np.isfinite(values)]))
    return scales


def _resolution(array):
    if not _is_real(array):
        return 0.0
    spacing = float(ml_dtypes.finfo(array.dtype).smallest_subnormal)
    return max(spacing, float(np.finfo("float32").smallest_normal))


def largest_difference(outputs, reference):
    """Returns the largest absolute difference between two answers.

    Args:
        outputs: Dict of arrays by output name.
        reference: Dict of arrays of the same names and shapes.

    Returns:
        Float, over all entries of real outputs that are finite in both; 0 if there
        are none.

    Example:
    >>> largest_difference({"y": np.ones(2)}, {"y": np.array([1.0, 0.5])})
    0.5
    """
    largest = 0.0
    for name, expected in reference.items():
        if _is_real(expected):
            pair = np.stack([outputs[name], expected]).astype("float64")
            finite = pair[:, np.isfinite(pair).all(axis=0)]
            largest = max(largest, np.max(np.abs(np.diff(finite, axis=0)), initial=0))
    return float(largest)


def _compare(output, reference, allowed, subject):
    if output.shape != reference.shape:
        raise ExportError(
            f"{subject} has shape {output.shape}, Keras gives {reference.shape}."
        )
    if not _is_real(reference):
        differing = int(np.sum(output != reference))
        if differing:
            raise ExportError(
                f"{subject} differs from Keras in {differing} of {reference.size} "
                f"entries of type {reference.dtype}."
            )
        return 0.0
    output, reference = output.astype("float64"), reference.astype("float64")
    finite = np.isfinite(reference)
    wrong = np.sum(np.isfinite(output) != finite)
    wrong += np.sum(~np.isclose(output[~finite], reference[~finite], equal_nan=True))
    if wrong:
        raise ExportError(
            f"{subject} has {wrong} NaN or infinite entries where Keras has others."
        )
    if not finite.any():
        return 0.0
    output, reference = output[finite], reference[finite]
    difference = float(np.max(np.abs(output - reference)))
    if difference > allowed:
        raise ExportError(
            f"{subject} differs from Keras by {difference:.3g}, allowed are "
            f"{allowed:.3g}, the tolerance times the largest output. If the model "
            "draws random numbers at inference, it has no one right answer: export it "
            "without that layer. If rounding explains the difference, pass the format "
            "as an object with a larger tolerance."
        )
    return difference


def _is_real(array):
    return array.dtype.kind == "f" or array.dtype.name in ("bfloat16", "float16")


def _check_finite(answers, label):
    for name in answers[0]:
        values = [answer[name] for answer in answers]
        real = [x.astype("float64") for x in values if _is_real(x) and x.size]
        if real and not any(np.isfinite(x).any() for x in real):
            raise ExportError(
                f"Output {name!r} of the Keras model is NaN or infinite throughout, on "
                f"normal and on uniform inputs, so that {label} cannot be verified. "
                "Look for a division by zero or a logarithm of negative numbers."
            )
