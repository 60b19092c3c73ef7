"""Which candidates of a round may be asked about, as `propose` decided.

Knows candidate tables and boxes; must not know answers, streams or strategies.
"""

from __future__ import annotations

import numpy as np

from twostream.candidates.stored import StoredCandidates, touch
from twostream.project.project import Project


def may_be_asked(project: Project, candidates: StoredCandidates) -> np.ndarray:
    """(N,) bool, which candidates of a round belong to the pool, as `propose` decided.

    Raises:
        InputError: the table cannot be read.
    """
    if not candidates.has("in_pool"):  # written by an older version, which knew boxes only
        return outside_boxes(project, candidates.corners)
    return candidates.column("in_pool").astype(bool)


def outside_boxes(project: Project, corners: np.ndarray) -> np.ndarray:
    """(N,) bool, which bounding boxes, (N, 6) int64, touch neither a labels box nor the guarded test box."""
    guarded = project.guarded_box
    outside = np.ones(len(corners), bool)
    for box in [*project.boxes.labels, *([] if guarded is None else [guarded])]:
        outside &= ~touch(corners, box)
    return outside
