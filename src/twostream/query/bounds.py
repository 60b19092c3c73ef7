"""Checks of settings, made when a strategy is created and not in the middle of a round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from twostream.base.errors import InputError


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """``value``, a whole number of at least ``least``, or InputError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name} is {value!r}; expected a whole number of at least {least}.")
    return int(value)


def seed(name: str, value: Any) -> int:
    """``value``, a seed that numpy and scikit-learn take, or InputError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**32:
        raise InputError(f"{name} is {value!r}; expected a whole number from 0 to {2**32 - 1}.")
    return int(value)


def mapping(name: str, value: Any) -> dict[str, Any]:
    """``value`` as a mapping, None as an empty one, or InputError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {value!r}; expected a mapping of names to values.")
    return {str(key): item for key, item in value.items()}


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
    known = (int, float, np.integer, np.floating)
    return isinstance(value, known) and not isinstance(value, bool) and math.isfinite(value)
