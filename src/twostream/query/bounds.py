"""Settings of strategies are checked when the strategy is made, not in the middle of a round."""

from __future__ import annotations

import math
from typing import Any

from twostream.errors import InputError


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """``value``, a whole number of at least ``least``, or InputError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; expected a whole number of at least {least}.")
    return value


def positive(name: str, value: Any) -> float:
    """``value``, a finite number above 0, or InputError."""
    if not _is_number(value) or value <= 0:
        raise InputError(f"{name} is {value!r}; expected a number above 0.")
    return float(value)


def share(name: str, value: Any) -> float:
    """``value``, a number from 0 to 1, or InputError."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise InputError(f"{name} is {value!r}; expected a number from 0 to 1.")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
