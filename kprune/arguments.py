"""Checks of numbers that constructors take."""

import numbers

import numpy as np


def check_number(name, value, fits, expected):
    """Returns a number, if it is one and in its range.

    Args:
        name: String, how the error shall call it.
        value: What was given.
        fits: Function of a number that tells whether it is in range.
        expected: String, the range in words, as in `"in (0, 1]"`.

    Returns:
        The number; one of NumPy's becomes one of Python's, which json can write.

    Raises:
        ValueError: If it is no number, or out of range.

    Example:
    >>> check_number("density", 1.5, lambda n: 0 < n <= 1, "in (0, 1]")
    Traceback (most recent call last):
    ...
    ValueError: density=1.5 must be in (0, 1].
    """
    if not _is_number(value) or not fits(value):
        raise ValueError(f"{name}={value!r} must be {expected}.")
    return value.item() if isinstance(value, np.generic) else value


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_sparsity(name, value):
    """Returns `value` as a float, if it is a sparsity.

    Args:
        name: String, how the error shall call it.
        value: Number to check.

    Returns:
        Float in [0, 1).

    Raises:
        ValueError: If it is no number in [0, 1).

    Example:
    >>> check_sparsity("final_sparsity", 90)
    Traceback (most recent call last):
    ...
    ValueError: final_sparsity=90 must be a number in [0, 1), the fraction of zeros; \
90 % is written 0.9.
    """
    hint = ""
    if _is_number(value) and 1 < value < 100:
        hint = f"; {value:g} % is written {value / 100:g}"
    expected = f"a number in [0, 1), the fraction of zeros{hint}"
    return float(check_number(name, value, lambda n: 0 <= n < 1, expected))


def check_whole(name, value, at_least, unit="optimizer steps"):
    """Returns `value` as an int, if it is a whole number.

    Args:
        name: String, how the error shall call it.
        value: Number to check.
        at_least: Int, the lowest that is allowed.
        unit: String, what is counted. Defaults to `"optimizer steps"`.

    Returns:
        Int.

    Raises:
        ValueError: If it is no whole number, or too low.
    """
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < at_least:
        raise ValueError(
            f"{name}={value!r} must be a whole number of {at_least} or more ({unit})."
        )
    return int(value)
