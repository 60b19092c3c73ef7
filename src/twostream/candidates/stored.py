"""The candidates of a table, read from its file as they are needed.

Ten million masks fit no memory, so a step that looks at a few of them, or at one after the other, reads those. Columns
of numbers are read whole. Knows candidate tables; must not know projects, rounds or where the table lies.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, ManyCandidates, corners
from twostream.candidates.table import BOX_COLUMNS, unpack_mask, unreadable

UNREADABLE = (OSError, pa.ArrowInvalid, KeyError)
"""What pyarrow raises of a file that is damaged, no table, or lacks a column."""
KEPT_GROUPS = 8
"""Groups of rows whose packed masks are kept in memory; candidates are read mostly in an order close to theirs."""


class StoredCandidates(ManyCandidates):
    """Candidates of a table, in the order of its rows or in another one.

    A candidate is made when it is asked for. Its mask is read together with those of its group of rows
    (``table.GROUP_ROWS``).

    Args:
        file: the table.
        rows: (N,) int64, the rows of the table that these are.
    """

    def __init__(self, file: _TableFile, rows: np.ndarray) -> None:
        self._file, self._rows = file, rows
        self._corners: np.ndarray | None = None  # of ``touching``, which is asked for many boxes

    @classmethod
    def open(cls, path: Path) -> StoredCandidates:
        """All candidates of a table, faint ones too.

        Raises:
            InputError: the file does not exist or is not a Parquet table.
        """
        try:
            file = _TableFile(path)
        except UNREADABLE as error:
            raise unreadable(path, error) from None
        return cls(file, np.arange(file.num_rows))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...

    @overload
    def __getitem__(self, index: slice) -> StoredCandidates: ...

    def __getitem__(self, index: int | slice) -> Candidate | StoredCandidates:
        if isinstance(index, slice):
            return StoredCandidates(self._file, self._rows[index])
        return super().__getitem__(index)

    def _one(self, row: int) -> Candidate:
        return self._file.candidate(int(self._rows[row]))

    def take(self, rows: np.ndarray | Sequence[int]) -> StoredCandidates:
        """Some of them.

        Args:
            rows: (M,) int, in any order, or (N,) bool.
        """
        chosen = np.asarray(rows)
        return StoredCandidates(self._file, self._rows[chosen if len(chosen) else np.zeros(0, np.int64)])

    def has(self, name: str) -> bool:
        """Whether the table has a column."""
        return name in self._file.names

    def column(self, name: str) -> np.ndarray:
        """(N,) values of a column.

        Raises:
            InputError: the table cannot be read.
        """
        return self._file.column(name)[self._rows]

    @property
    def ids(self) -> np.ndarray:
        """(N,) int64."""
        return self.column("id")

    @property
    def corners(self) -> np.ndarray:
        return np.stack([self.column(name) for name in BOX_COLUMNS], axis=1)

    def touching(self, box: Box) -> StoredCandidates:
        """Those whose boxes share a voxel with ``box``."""
        if self._corners is None:
            self._corners = self.corners
        return self.take(touch(self._corners, box))

    def shapes(self) -> list[tuple[Box, np.ndarray]]:
        """(box, mask) of each."""
        return [(candidate.box, candidate.mask) for candidate in self]

    @property
    def faint(self) -> np.ndarray:
        """(N,) bool, which are faint candidates (``candidates/faint.py``)."""
        return self.column("faint").astype(bool) if self.has("faint") else np.zeros(len(self), bool)

    def proposed(self) -> StoredCandidates:
        """Those that are not faint."""
        return self.take(~self.faint)


def touch(corners: np.ndarray, box: Box) -> np.ndarray:
    """(N,) bool, which boxes share a voxel with ``box``; (N, 6) int64 as ``StoredCandidates.corners``."""
    start, stop = np.array(box.offset_zyx), np.array(box.stop_zyx)
    return np.asarray(((corners[:, :3] < stop) & (corners[:, 3:] > start)).all(axis=1))


class Joined(ManyCandidates):
    """Candidates of several sources, one after the other.

    Args:
        parts: of any kind.
    """

    def __init__(self, parts: Sequence[Sequence[Candidate]]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def _one(self, row: int) -> Candidate:
        number = int(np.searchsorted(self._ends, row, side="right"))
        part = self._parts[number]
        return part[row - int(self._ends[number]) + len(part)]

    @property
    def corners(self) -> np.ndarray:
        return np.concatenate([np.zeros((0, 6), np.int64), *map(corners, self._parts)])

    def where(self, kept: np.ndarray) -> Joined:
        """Those for which ``kept``, (N,) bool, is true."""
        chosen = np.split(kept, self._ends[:-1])
        return Joined([_where(part, mine) for part, mine in zip(self._parts, chosen, strict=True)])


def _where(part: Sequence[Candidate], kept: np.ndarray) -> Sequence[Candidate]:
    if isinstance(part, StoredCandidates):
        return part.take(kept)
    return [candidate for candidate, keep in zip(part, kept.tolist(), strict=True) if keep]


@dataclass(frozen=True)
class _Group:
    """Rows of a table that are read together.

    Attributes:
        ids, labels: (G,) int64.
        corners: (G, 6) int64.
        scores: (G,) float64.
        parents: G lists of ids.
        masks: G packed masks.
    """

    ids: np.ndarray
    labels: np.ndarray
    corners: np.ndarray
    scores: np.ndarray
    parents: pa.ChunkedArray
    masks: pa.ChunkedArray


class _TableFile:
    """A Parquet file of candidates. Several threads may read it.

    Args:
        path: of the file, which stays open.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, pq.ParquetFile(path)
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.num_rows: int = metadata.num_rows
        self.names = set(self._file.schema_arrow.names)
        self._kept: OrderedDict[int, _Group] = OrderedDict()
        self._lock = threading.Lock()

    def column(self, name: str) -> np.ndarray:
        """(R,) values of all rows."""
        try:
            with self._lock:
                values: np.ndarray = self._file.read(columns=[name]).column(name).to_numpy()
        except UNREADABLE as error:
            raise unreadable(self._path, error) from None
        return values

    def candidate(self, row: int) -> Candidate:
        """The candidate of a row."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            group, i = self._group(number), row - int(self._starts[number])
        corners = group.corners[i].tolist()
        box = Box.from_corners(corners[:3], corners[3:])
        mask = unpack_mask(group.masks[i].as_py(), box)
        parents = tuple(group.parents[i].as_py())
        return Candidate(int(group.ids[i]), int(group.labels[i]), box, mask, float(group.scores[i]), parents)

    def _group(self, number: int) -> _Group:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        columns = ["id", "label", "parent_ids", *BOX_COLUMNS, "score", "mask"]
        try:
            table = self._file.read_row_group(number, columns=columns)
        except UNREADABLE as error:
            raise unreadable(self._path, error) from None
        corners = np.stack([table.column(name).to_numpy() for name in BOX_COLUMNS], axis=1)
        ids, labels, scores = (table.column(name).to_numpy() for name in ("id", "label", "score"))
        self._kept[number] = _Group(ids, labels, corners, scores, table.column("parent_ids"), table.column("mask"))
        if len(self._kept) > KEPT_GROUPS:
            self._kept.popitem(last=False)
        return self._kept[number]
