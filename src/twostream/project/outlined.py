"""What is outlined where somebody looks for missed objects: what was proposed, and what people were asked about.

Whoever searches a window marks only what has no outline. Knows the ledger and the table of candidates; must not know
how anything is drawn, and must not import torch.
"""

from __future__ import annotations

import numpy as np

from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.stored import touch
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
        candidates, asked = project.candidates(round_number), project.ledger.newest_queries(round_number + 1)
        self._candidates = candidates.take(~candidates.faint | np.isin(candidates.ids, list(asked)))
        there = set(self._candidates.ids.tolist())
        gone = [query for identity, query in asked.items() if identity not in there]
        boxes = [(*query.candidate.box.offset_zyx, *query.candidate.box.stop_zyx) for query in gone]
        self._gone = [query.id for query in gone]
        self._gone_corners = np.array(boxes, int).reshape(-1, 6)

    def near(self, box: Box) -> list[Candidate]:
        """Those whose boxes share a voxel with ``box``."""
        asked = [self._ledger.query(self._gone[i]).candidate for i in np.flatnonzero(touch(self._gone_corners, box))]
        return [*self._candidates.touching(box), *asked]
