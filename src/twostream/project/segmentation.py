"""The segmentation of a round's candidates: written, and made again from the table of candidates where it is gone.

Only the newest round keeps it, and a fork has it only if it was made while its origin was in round 0.

Knows candidates and volumes; must not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from twostream.base.atomic import write_folder
from twostream.candidates.candidate import Candidate, write_segmentation
from twostream.project.project import Project
from twostream.volume import Volume, create_volume, open_volume

SEGMENTATION_NAME = "segmentation.zarr"


def write_candidates(project: Project, round_number: int, candidates: Sequence[Candidate]) -> None:
    """Write ``segmentation.zarr`` of a round, (Z, Y, X) uint32 labels, from its candidates without the faint ones."""

    def fill(path: Path) -> None:
        output = create_volume(
            str(path),
            shape_zyx=project.image.shape_zyx,
            dtype=np.uint32,
            voxel_size_nm=project.image.voxel_size_nm,
            offset_nm=project.image.offset_nm,
        )
        write_segmentation(candidates, output, project.task)

    write_folder(project.path(round_number, SEGMENTATION_NAME), fill)


def segmentation_of(project: Project, round_number: int) -> Volume:
    """The segmentation of a round, (Z, Y, X) uint32; if it is gone, it is written again from ``candidates.parquet``."""
    path = project.path(round_number, SEGMENTATION_NAME)
    if not path.exists():
        write_candidates(project, round_number, project.candidates(round_number).proposed())
    return open_volume(str(path))
