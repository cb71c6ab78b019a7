"""Two proofs that a quantized TFLite file is the model that it was made from.

A rounded file may not be compared at 1e-4. But each of its constants has to lie
within half a step of a constant of the float file, which no wrong scale, lost
zero, saturated bias or flipped bit passes. What the operators make of them is
judged by the spread of the answers: rounding moves them by a few per cent of it.
"""

import numpy as np

from kprune import litefile
from kprune.export import interpreter
from kprune.export.base import ExportError
from kprune.export.conversion import computing_in_float32
from kprune.export.representative import cut_batches

# Relative to the spread of an output. Right files of twelve models were off by at
# most 0.0007 in float16, 0.01 with dynamic range, 0.009 in int16x8 and 0.035 in
# int8, and by 0.04 to 0.25 in int4. Attention with a mask, which int8 spoils, is off
# by 0.25, and files that use kernels LiteRT lacks by more than 1.
LARGEST_ERROR = {
    "float16": 0.05,
    "dynamic_range": 0.25,
    "int8": 0.15,
    "int16x8": 0.15,
    "int4": 0.75,
}
_CUT_OFF_NOTE = (
    "{cut_off:,} values of {name} are beyond the range that representative_data "
    "reaches and were cut off; rows that use more of the vocabulary mend that"
)
_COARSE_NOTE = (
    "output {name!r} has {steps:.2g} steps of int8 or int16 from its smallest value to "
    "its largest, {low:.2g} to {high:.2g}, which is too few to tell rows apart: export "
    "the logits that come before a sigmoid or softmax, or use 'float16'"
)
_FEW_ROWS_NOTE = (
    "calibrated and compared on {rows} different rows of representative_data, which "
    "proves little: values beyond their range are cut off; a few hundred rows of the "
    "training data mend that"
)
_COMPARED_ROWS = 32
_FEWEST_ROWS = 16
_FEWEST_STEPS = 16
_HALF_STEP = 0.5 + 1e-3
_FLOAT16_ROUNDING = 2.0**-11
_SMALLEST_FLOAT16 = 2.0**-24
_LARGEST_FLOAT16 = 65504.0
_FLOAT32_ROUNDING = 1e-6


def check_constants(contents, reference):
    """Compares the constants of a quantized file with those of the float file.

    A table that is looked up in (`Embedding`) gets its range from the rows that
    calibration saw. Values beyond it are cut off, which is noted, not refused.

    Args:
        contents: `kprune.litefile.Contents` of the quantized file.
        reference: `Contents` of the float32 file of the same model.

    Returns:
        List of strings, what the reader of the report should know.

    Raises:
        ExportError: If a constant is further than half a quantization step from
            every float constant of its shape.
    """
    by_shape = {}
    for constant in reference.constants:
        if constant.dtype == "float32":
            by_shape.setdefault(constant.shape, []).append(constant.values())
    wrong, notes = [], []
    for constant in filter(_is_rounded, contents.constants):
        # The converter's own constants are of shapes that the float file lacks.
        candidates = by_shape.get(constant.shape)
        cut_off = _fewest_cut_off(constant, candidates) if candidates else 0
        if cut_off is None:
            wrong.append(f"{constant.name} {constant.shape} {constant.dtype}")
        elif cut_off:
            notes.append(_CUT_OFF_NOTE.format(cut_off=cut_off, name=constant.name))
    if wrong:
        raise ExportError(
            "The converter wrote a file whose constants are not the model's, rounded: "
            f"{', '.join(wrong)}. Such a file gives wrong answers. Look for weights "
            "that are huge or all close to zero, or use another quantization."
        )
    return notes


def _is_rounded(constant):
    return constant.dtype == "float16" or constant.scales.size


def _fewest_cut_off(constant, candidates):
    """Returns how many values of a constant are cut off, `None` if it is wrong."""
    if constant.dtype == "float16" and constant.shape == ():
        # Masks add the lowest float32, which float16 cannot hold and need not.
        candidates = np.clip(candidates, -_LARGEST_FLOAT16, _LARGEST_FLOAT16)
    values, counts = constant.real_values(), []
    for exact in candidates:
        is_off = np.abs(values - exact) > _allowed(constant, exact)
        cut_off = is_off & _is_at_end(constant, values < exact)
        if np.array_equal(is_off, cut_off):
            counts.append(int(cut_off.sum()))
    return min(counts, default=None)


def _is_at_end(constant, is_below):
    """Tells which values are the last that their type holds, towards the exact one.

    Kernels have a range for each channel, taken from themselves: none is cut off.
    """
    if constant.dtype != "int8" or constant.scales.size > 1:
        return False
    limits = np.iinfo("int8")
    return constant.values() == np.where(is_below, limits.max, limits.min)


def _allowed(constant, exact):
    if constant.dtype == "float16":
        return np.abs(exact) * _FLOAT16_ROUNDING + _SMALLEST_FLOAT16
    # One range for a whole tensor is moved until zero is a whole number of steps,
    # which may cut off another half at its ends.
    steps = _HALF_STEP * (2 if constant.scales.size == 1 else 1)
    return constant.steps() * steps + np.abs(exact) * _FLOAT32_ROUNDING


def check_answers(forward, content, rows, quantization):
    """Compares a quantized file's answers with the model's over many rows.

    The error is the root of the mean square of the difference, relative to the
    output's standard deviation over all rows and entries. Rounding to the output's
    own step is not counted, however large: it is no sign of anything being wrong, but
    may leave little of the output, which is noted.

    Args:
        forward: The model's `kprune.export.forward.Forward`.
        content: Bytes, the file.
        rows: Dict by input name of arrays of shape `(rows, ...)`.
        quantization: The mode, a key of `LARGEST_ERROR`.

    Returns:
        Float, the largest error of an output, and a list of strings, what the reader
        of the report should know.

    Raises:
        ExportError: If an error is larger than `LARGEST_ERROR` allows, or an output
            has no axis for rows.
    """
    most = max(_COMPARED_ROWS, forward.fixed_batch or 1)
    rows = {name: x[:most] for name, x in rows.items()}
    run, batch = interpreter.load(content)
    count = len(next(iter(rows.values())))
    outputs = _answers(run, rows, batch or count)
    with computing_in_float32(forward.model):
        expected = _answers(forward, rows, forward.fixed_batch or count)
    contents, largest, notes = litefile.read(content), 0.0, []
    for name, reference in expected.items():
        if reference.dtype.kind != "f":
            continue
        error, spread = _error(outputs[name], reference), _spread(reference)
        step = contents.step(name)
        if not error - step <= LARGEST_ERROR[quantization] * spread:
            raise _too_far(forward, name, error / spread, quantization)
        largest = max(largest, error / spread)
        notes += _coarse(name, reference, step)
    return largest, notes


def _coarse(name, reference, step):
    low, high = float(reference.min()), float(reference.max())
    if high - low < _FEWEST_STEPS * step:
        steps = (high - low) / step
        yield _COARSE_NOTE.format(name=name, steps=steps, low=low, high=high)


def few_rows(rows):
    """Says so if calibration has few different rows to go by.

    Args:
        rows: Dict by input name of arrays of shape `(rows, ...)`.

    Returns:
        List of at most one string, what the reader of the report should know.

    Example:
    >>> len(few_rows({"x": np.zeros((100, 3))})), few_rows({"x": np.eye(20)})
    (1, [])
    """
    count = len(next(iter(rows.values())))
    different = {tuple(x[i].tobytes() for x in rows.values()) for i in range(count)}
    if len(different) >= _FEWEST_ROWS:
        return []
    return [_FEW_ROWS_NOTE.format(rows=len(different))]


def joined(batches):
    """Joins batches, dicts of arrays by input name, into one."""
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


def _answers(run, rows, size):
    batches = [run(batch) for batch in cut_batches(rows, size)]
    without = [repr(name) for name, array in batches[0].items() if not array.ndim]
    if without:
        raise ExportError(
            f"The output {', '.join(without)} has no axis for rows, and rounded files "
            "are compared row by row. Let the model return a value for each row, or "
            "set the limit yourself with tolerance=, relative to the largest output."
        )
    return joined(batches)


def _error(outputs, reference):
    difference = outputs[: len(reference)].astype("float64") - reference
    return float(np.sqrt(np.mean(np.square(difference))))


def _spread(reference):
    return max(float(np.std(reference, dtype="float64")), 1e-12)


def _too_far(forward, name, error, quantization):
    return ExportError(
        f"Output {name!r} of model {forward.model.name!r} in a TFLite file with "
        f"quantization={quantization!r} is off by {error:.2g} of its spread, root mean "
        f"square; right files stay below {LARGEST_ERROR[quantization]:g}. Common "
        "causes are large negative numbers that mask attention, a few huge "
        "activations, and representative_data unlike the training data. Use a milder "
        "quantization ('dynamic_range', 'float16'), or set the limit yourself with "
        "tolerance=, relative to the largest output."
    )
