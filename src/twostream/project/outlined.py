"""What is outlined where somebody looks for missed objects: what was proposed, and what people were asked about.

Whoever searches a window marks only what has no outline. Knows the ledger and the table of candidates; must not know
how anything is drawn, and must not import torch.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.table import BOX_COLUMNS, faint_rows, from_table, read_table
from twostream.project.project import Project


class Outlined:
    """Candidates of a round, without the faint ones that nobody was asked about, and all that was asked up to it.

    Args:
        project: the project.
        round_number: the round, which has proposed its candidates.

    Attributes:
        round: the round.
    """

    def __init__(self, project: Project, round_number: int) -> None:
        self.round, self._ledger = round_number, project.ledger
        table = read_table(project.path(round_number, "candidates.parquet"))
        asked = project.ledger.newest_queries(round_number + 1)
        self._table = table.filter(pa.array(~faint_rows(table) | np.isin(table["id"].to_numpy(), list(asked))))
        self._corners = np.stack([self._table[name].to_numpy() for name in BOX_COLUMNS], axis=1)
        there = set(self._table["id"].to_pylist())
        gone = [query for identity, query in asked.items() if identity not in there]
        boxes = [(*query.candidate.box.offset_zyx, *query.candidate.box.stop_zyx) for query in gone]
        self._gone = [query.id for query in gone]
        self._gone_corners = np.array(boxes, int).reshape(-1, 6)

    def near(self, box: Box) -> list[Candidate]:
        """Those whose boxes share a voxel with ``box``."""
        rows, gone = _near(self._corners, box), _near(self._gone_corners, box)
        asked = [self._ledger.query(self._gone[i]).candidate for i in gone]
        return [*from_table(self._table.take(pa.array(rows))), *asked]


def _near(corners: np.ndarray, box: Box) -> np.ndarray:
    """Rows of the boxes with these corners, (N, 6): z0, y0, x0, z1, y1, x1, that share a voxel with ``box``."""
    start, stop = np.array(box.offset_zyx), np.array(box.stop_zyx)
    return np.flatnonzero(((corners[:, :3] < stop) & (corners[:, 3:] > start)).all(axis=1))
