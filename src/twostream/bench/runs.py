"""Runs of a benchmark in a file of rows, one JSON object a line, to which a killed benchmark goes on writing.

The lines of one run are written at once, so that a run is there whole or not at all. Knows files; must not know what a
run is made of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twostream import __version__
from twostream.base import progress
from twostream.base.errors import InputError

Row = dict[str, Any]


class RowsFile:
    """Rows that are kept.

    Args:
        path: the file; made when the first run is added.
        identity: names of the columns that tell runs apart.

    Attributes:
        path: the file.
        rows: all rows that are there.

    Raises:
        InputError: a line is no row of this benchmark.
    """

    def __init__(self, path: Path, identity: Iterable[str]) -> None:
        self.path, self._identity = path, tuple(identity)
        self.rows: list[Row] = []
        whole = path.read_bytes() if path.exists() else b""
        self._seen = len(whole)
        found: list[Row] = []
        ends: list[int] = []
        for number, line in enumerate(whole[: whole.rfind(b"\n") + 1].splitlines(keepends=True), 1):
            try:
                row = json.loads(line)
                row["of"] = int(row["of"])
                self.identity_of(row)
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"line {number} of {path} is {line[:60].decode(errors='replace').strip()!r}; expected a row of "
                    f"this benchmark. Name another file."
                ) from None
            found.append(row)
            ends.append(len(line) + (ends[-1] if ends else 0))
        # A killed process may leave the beginning of a run, which is the last one.
        while found and sum(self.identity_of(r) == self.identity_of(found[-1]) for r in found) != found[-1]["of"]:
            found.pop()
            ends.pop()
        self.rows, self._size = found, ends[-1] if ends else 0
        self._done = {self.identity_of(row) for row in found}

    def identity_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        """What tells the run of a row apart from others."""
        return tuple(row[name] for name in self._identity)

    def has(self, run: Mapping[str, Any]) -> bool:
        """Whether a run is there, whole."""
        return self.identity_of(run) in self._done

    def add(self, rows: list[Row]) -> None:
        """Write the rows of one run.

        Raises:
            InputError: somebody else has written to the file meanwhile.
        """
        made = [row | {"of": len(rows)} for row in rows]
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in made).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if (self.path.stat().st_size if self.path.exists() else 0) != self._seen:
            raise InputError(f"another process has written to {self.path}; give each a file of its own (--rows).")
        with self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.truncate(self._size)
            file.seek(self._size)
            file.write(text)
        self._size += len(text)
        self._seen = self._size
        self.rows += made
        self._done.add(self.identity_of(rows[0]))

    def add_missing(self, wanted: Sequence[tuple[Row, Callable[[], list[Row]]]], description: str) -> None:
        """Run what is not there yet, one run after the other, and write each when it is done.

        Args:
            wanted: identity of each run, and what makes its rows.
            description: for the progress bar.
        """
        missing = [(run, make) for run, make in wanted if not self.has(run)]
        if not missing:
            return
        with progress.task(f"{description}: runs", len(missing)) as advance:
            for run, make in missing:
                self.add([run | {"version": __version__} | _rounded(point) for point in make()])
                advance(1)


def _rounded(point: Row) -> Row:
    """Six digits: more say nothing, and the rows are kept."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in point.items()}
