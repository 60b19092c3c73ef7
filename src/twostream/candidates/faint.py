"""Faint candidates: instances below the threshold of the candidates, of which some may be asked about.

S proposes nothing where it is unsure, so nobody is asked about what it overlooks. A second, lower threshold shows some
of it. Knows candidates and decoding; must not know projects, rounds or who is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from twostream.base.geometry import overlapping
from twostream.candidates.candidate import Candidate, corners, shared_voxels
from twostream.candidates.found import Found
from twostream.candidates.proposing import propose
from twostream.task import Task
from twostream.volume import Volume
from twostream.volume.stage import Stage

FAINT_SHARE = 0.5
"""The lower threshold, as a share of that of the candidates; the same by which missed objects are grown."""


def faint_candidates(
    probability: Volume,
    candidates: Sequence[Candidate],
    task: Task,
    threshold: float,
    min_voxels: int,
    stage: Stage | None = None,
) -> Found:
    """Instances at ``FAINT_SHARE`` of the threshold that share no voxel with a candidate.

    Args:
        probability: (C, Z, Y, X) uint8 over the whole image, 255 = 1.
        candidates: labelled 1, 2, ...
        task: gives decoding and convention.
        threshold: of the candidates, in (0, 1).
        min_voxels: smaller instances are dropped.
        stage: as for ``propose``.

    Returns:
        In the order of ``propose``, without ids. Their labels continue those of the candidates, and stand in no
        segmentation.
    """
    found = propose(probability, task, threshold * FAINT_SHARE, min_voxels, stage=stage)
    is_alone = np.ones(len(found), bool)
    for row, other in overlapping(found.corners, corners(candidates)).tolist():
        is_alone[row] &= shared_voxels(found[row], candidates[other])[1] == 0
    return found.where(is_alone, first_label=len(candidates) + 1)
