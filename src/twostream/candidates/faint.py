"""Faint candidates: instances below the threshold of the candidates, of which some may be asked about.

S proposes nothing where it is unsure, so nobody is asked about what it overlooks. A second, lower threshold shows some
of it. Knows arrays and decoding; must not know projects, rounds or who is asked.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from twostream.candidates.candidate import Candidate, clean, extract
from twostream.task import Task

FAINT_SHARE = 0.5
"""The lower threshold, as a share of that of the candidates; the same by which missed objects are grown."""


def faint_candidates(
    probability: np.ndarray, segmentation: np.ndarray, task: Task, threshold: float, min_voxels: int
) -> list[Candidate]:
    """Instances at ``FAINT_SHARE`` of the threshold that share no voxel with a candidate.

    Args:
        probability: (C, Z, Y, X) uint8 over the whole image, 255 = 1.
        segmentation: (Z, Y, X) uint32, the candidates in the task's label convention, numbered 1, 2, ...
        task: gives decoding and convention.
        threshold: of the candidates, in (0, 1).
        min_voxels: smaller instances are dropped.

    Returns:
        In raster order, without ids. Their labels continue those of the candidates, and stand in no segmentation.
    """
    found = clean(task.decode(probability, threshold * FAINT_SHARE), task, min_voxels)
    instance = task.instances(found)
    taken = set(np.unique(instance[segmentation > 0]).tolist())
    first = int(task.instances(segmentation).max(initial=0)) + 1
    alone = [c for c in extract(found, probability[task.foreground], task, (0, 0, 0)) if c.label not in taken]
    return [replace(c, label=first + number) for number, c in enumerate(alone)]
