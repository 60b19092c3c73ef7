"""Candidates that were just found, as many as there are: their masks wait in an unnamed file, if they are many.

The masks of ten million candidates fit no memory; their boxes do. Knows candidates and files; must not know how they
were found, or what becomes of them.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterable
from typing import IO

import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate, ManyCandidates

ORDER_CELL_ZYX = (64, 512, 512)
"""Voxels of a cell. Candidates are numbered cell by cell, so that neighbours lie near each other in every table, and
what a block of the image needs is read from few places."""
MAX_BYTES_IN_MEMORY = 1 << 26
"""Of compressed masks; more of them lie in an unnamed file, in the system's folder for such (``TMPDIR``)."""
LEVEL = 1
"""Of the compression: masks lie there for minutes."""


class Gathering:
    """Takes candidates in, in any order, until all are there."""

    def __init__(self) -> None:
        # It is gone with the last ``Found`` that reads it. It does not lie beside the unfinished work: on a network
        # drive an open file without a name keeps its folder from being removed.
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(MAX_BYTES_IN_MEMORY)  # noqa: SIM115
        self._size = 0
        self._corners, self._firsts = [np.zeros((0, 6), np.int64)], [np.zeros((0, 3), np.int64)]
        self._scores, self._places = [np.zeros(0)], [np.zeros((0, 2), np.int64)]

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Keep candidates; their ids and labels are forgotten."""
        corners, firsts, scores, places = [], [], [], []
        for one in candidates:
            packed = zlib.compress(one.mask.astype(np.uint8).tobytes(), LEVEL)
            self._file.write(packed)
            places.append((self._size, len(packed)))
            self._size += len(packed)
            corners.append((*one.box.offset_zyx, *one.box.stop_zyx))
            first = np.unravel_index(int(np.argmax(one.mask > 0)), one.mask.shape)
            firsts.append([int(i) + o for i, o in zip(first, one.box.offset_zyx, strict=True)])
            scores.append(one.score)
        self._corners.append(np.array(corners, np.int64).reshape(-1, 6))
        self._firsts.append(np.array(firsts, np.int64).reshape(-1, 3))
        self._scores.append(np.array(scores, np.float64))
        self._places.append(np.array(places, np.int64).reshape(-1, 2))

    def found(self) -> Found:
        """All of them, labelled 1, 2, ... by cell and, in a cell, in raster order of their first voxels."""
        first = np.concatenate(self._firsts)
        order = np.lexsort((*first.T[::-1], *(first // ORDER_CELL_ZYX).T[::-1]))
        corners, scores, places = (np.concatenate(a)[order] for a in (self._corners, self._scores, self._places))
        return Found(self._file, corners, scores, places)


class Found(ManyCandidates):
    """Candidates without ids, whose masks are read when they are asked for.

    Args:
        file: the compressed masks.
        corners: (N, 6) int64, of their boxes.
        scores: (N,) float64.
        places: (N, 2) int64, offset and length of each mask in the file.
        first_label: of the first of them; the others follow.
    """

    def __init__(
        self, file: IO[bytes], corners: np.ndarray, scores: np.ndarray, places: np.ndarray, first_label: int = 1
    ) -> None:
        self._file, self._corners, self._scores, self._places = file, corners, scores, places
        self._first_label = first_label

    def __len__(self) -> int:
        return len(self._corners)

    def _one(self, row: int) -> Candidate:
        corners = self._corners[row].tolist()
        offset, length = self._places[row].tolist()
        box = Box.from_corners(corners[:3], corners[3:])
        self._file.seek(offset)
        mask = np.frombuffer(zlib.decompress(self._file.read(length)), np.uint8).reshape(box.shape_zyx)
        return Candidate(0, self._first_label + row, box, mask, float(self._scores[row]))

    @property
    def corners(self) -> np.ndarray:
        return self._corners

    @property
    def scores(self) -> np.ndarray:
        """(N,) float64."""
        return self._scores

    def where(self, kept: np.ndarray, first_label: int = 1) -> Found:
        """Those for which ``kept``, (N,) bool, is true, labelled anew from ``first_label``."""
        return Found(self._file, self._corners[kept], self._scores[kept], self._places[kept], first_label)
