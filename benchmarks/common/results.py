"""Result rows: one JSON object per measured number, with all that is needed to measure it again.

A row has these keys:

    name        benchmark and measure, such as "query_speed.seconds"
    number      the measured value; null where only its range is known
    unit        "s", "F1", "MB"; "F1 difference" for a paired difference; "of 20" for a count out of 20
    spread      [low, high] or null
    spread_is   what the spread is, such as "95 percent, Student's t over 20 seeds"; null without spread
    data        file of a real set, or how generated data are called
    data_hash   sha256 of that file, or the call (with its seed) that generates the data
    commit      of this repository, ending in "+" if files were changed since
    machine     processor, number of cores, GPU
    date        of the measurement
    command     that measured it
    group       experiment, and name of the table that shows the row
    settings    what distinguishes the row from others of its group
    source      "measured"; "LOG" for figures that LOG.md reported before there were rows (what it did not say is null)
"""

from __future__ import annotations

import argparse
import datetime
import functools
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

KEYS = (
    "name", "number", "unit", "spread", "spread_is", "data", "data_hash", "commit", "machine", "date", "command",
    "group", "settings", "source",
)  # fmt: skip
FOLDER = Path(__file__).parent.parent / "results"
ROOT = FOLDER.parent.parent
SIGNIFICANT_DIGITS = 5
"""Of a stored number: inertias are compared to a hundredth of a percent."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """A data set and what identifies it.

    Attributes:
        name: file name of a real set, or how generated data are called.
        hash: sha256 of the file, or the call that generates the data.
    """

    name: str
    hash: str


def file_data(path: Path) -> Data:
    """A real set, by the content of its file."""
    return Data(path.name, "sha256:" + _sha256(path))


def together(sets: Iterable[Data]) -> Data:
    """Several sets that one result was measured on, such as tissues of several seeds."""
    sets = list(dict.fromkeys(sets))
    return Data(" and ".join(dict.fromkeys(d.name for d in sets)), " and ".join(d.hash for d in sets))


@functools.cache
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit() -> str | None:
    """Short commit of this checkout, with a "+" if tracked files were changed; None outside a repository."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> str:
    """Processor, cores and, if torch is loaded and sees one, GPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    text = f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        text += f", {torch.cuda.get_device_name()}"
    return text


def command() -> str:
    """The running command, with every path outside the repository written as its last part."""
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python", str(shown), *words])


class Results:
    """Prints each result as a JSON row and appends it to a file if one was asked for.

    Args:
        name: of the benchmark.
        options: as ``options.parse`` returns them.
        group: of the rows; None: the benchmark's name, with " (quick)" unless --full was given.
    """

    def __init__(self, name: str, options: argparse.Namespace, group: str | None = None) -> None:
        self.name, self.path = name, options.rows
        self.group = group or options.group or name + ("" if options.full else " (quick)")
        self._shared = {
            "commit": commit(), "machine": machine(), "date": datetime.date.today().isoformat(), "command": command(),
        }  # fmt: skip
        self._before = list(read(self.path)) if self.path and self.path.exists() else []

    def add(
        self,
        measure: str,
        number: float | None,
        unit: str,
        *,
        data: Data,
        spread: Sequence[float] | None = None,
        spread_is: str | None = None,
        **settings: Any,
    ) -> Row:
        """One result.

        Args:
            measure: what was measured; the row's name is "<benchmark>.<measure>".
            number: its value; NaN becomes null.
            unit: see the module.
            data: what it was measured on.
            spread: low and high end.
            spread_is: what the spread is; given if and only if there is one.
            settings: what distinguishes the row.
        """
        if (spread is None) != (spread_is is None):
            raise ValueError(f"spread is {spread} and spread_is is {spread_is!r}; give both or neither.")
        row = {
            "name": f"{self.name}.{measure}", "number": rounded(number), "unit": unit,
            "spread": None if spread is None else [rounded(v) for v in spread], "spread_is": spread_is,
            "data": data.name, "data_hash": data.hash, "group": self.group, "settings": settings, "source": "measured",
        } | self._shared  # fmt: skip
        row = {key: row[key] for key in KEYS}
        line = json.dumps(row)
        print(line, flush=True)
        if self.path:
            with self.path.open("a") as file:
                file.write(line + "\n")
        self._before.append(row)
        return row

    def differences(
        self, measure: str, better: Sequence[float], base: Sequence[float], unit: str, *, data: Data, **settings: Any
    ) -> None:
        """Mean paired difference with its interval over seeds, and how many seeds gained."""
        difference = np.asarray(better, float) - np.asarray(base, float)
        mean, low, high = mean_interval(difference)
        enough = len(difference) > 1
        self.add(
            f"{measure}_gain", mean, f"{unit} difference", data=data, spread=[low, high] if enough else None,
            spread_is=f"95 percent, Student's t over {len(difference)} seeds" if enough else None, **settings,
        )  # fmt: skip
        self.add(f"{measure}_seeds_better", int((difference > 0).sum()), f"of {len(difference)}", data=data, **settings)

    def find(self, measure: str, **settings: Any) -> list[Row]:
        """Rows of this group, in the file or of this run, that have these settings."""
        return [
            row
            for row in self._before
            if row["name"] == f"{self.name}.{measure}"
            and row["group"] == self.group
            and all(row["settings"].get(key) == value for key, value in settings.items())
        ]


def read(path: Path) -> Iterator[Row]:
    """Rows of a file, one JSON object a line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def rounded(number: float | None) -> float | int | None:
    """``number`` to ``SIGNIFICANT_DIGITS``; whole numbers as they are; None for None and NaN."""
    if number is None or number != number:
        return None
    if isinstance(number, int | np.integer):
        return int(number)
    short = float(f"{number:.{SIGNIFICANT_DIGITS}g}")
    return int(short) if short.is_integer() else short


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 percent interval (Student's t); the interval is NaN for a single value."""
    values = np.asarray(values, float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every key."""
    return {key: float(np.mean([v[key] for v in values])) for key in values[0]}
