"""How much memory this process holds, and sizes as text.

Knows the operating system; must not know what the memory is for.
"""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from twostream.base.errors import InputError

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
CLEAR_PEAK = "5"
"""Written there, it sets the peak back to what is held now (proc(5))."""


def parse_size(text: str, name: str) -> int:
    """Bytes of a text such as "4GB" (10^9 each) or "4GiB" (2^30 each).

    Args:
        text: a number and its unit.
        name: of the option, for the error.

    Raises:
        InputError: it is no size, or less than a byte.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text, re.IGNORECASE)
    unit = found and UNITS.get(found[2].upper())
    if found is None or unit is None or (size := int(float(found[1]) * unit)) < 1:
        raise InputError(f"{name} is {text!r}; expected a number with its unit, for example 4GB or 500MB.")
    return size


def size_text(num_bytes: float) -> str:
    """Bytes in the unit that suits them, in two digits or more: "1.3 GB"."""
    power = next((power for power in range(4) if num_bytes < 1000 ** (power + 1)), 4)
    number, unit = num_bytes / 1000**power, ("B", "KB", "MB", "GB", "TB")[power]
    return f"{number:.0f} {unit}" if number >= 10 or not power else f"{number:.1f} {unit}"


def resident() -> int:
    """Bytes that this process holds now; where there is no /proc, the most that it has held."""
    return _status("VmRSS")


def peak_of(function: Callable[[], Any]) -> int:
    """The most bytes that this process holds while ``function`` runs.

    Where there is no /proc, or it does not let the peak be set back, the most that the process has held at all.
    """
    with suppress(OSError):
        CLEAR.write_text(CLEAR_PEAK)
    function()
    return _status("VmHWM")


def _status(name: str) -> int:
    try:
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
        return int(fields[name].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
