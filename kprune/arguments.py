"""Checks of numbers that constructors take."""

import numpy as np


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
    is_number = isinstance(value, (int, float, np.number)) and value is not True
    if not is_number or not 0 <= value < 1:
        hint = ""
        if is_number and 1 < value < 100:
            hint = f"; {value:g} % is written {value / 100:g}"
        raise ValueError(
            f"{name}={value} must be a number in [0, 1), the fraction of zeros{hint}."
        )
    return float(value)


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
