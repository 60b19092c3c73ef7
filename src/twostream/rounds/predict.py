"""The step `predict`: the probability of the whole image, by S or by the source that replaces S.

Knows S and sources; must not know candidates, answers or strategies.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from twostream.base import progress
from twostream.base.atomic import write_folder
from twostream.candidates.sources import write_probability
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import Segmenter
from twostream.project.project import Detail, Project
from twostream.volume import Volume, create_volume, open_volume

PROBABILITY_NAME = "probability.zarr"


def predict_step(project: Project, round_number: int) -> Detail:
    """Write ``probability.zarr``, (C, Z, Y, X) uint8, 255 = 1.

    Raises:
        InputError: ``checkpoint.ckpt`` of the round is missing or damaged, or the source cannot be read.
    """
    source = project.source
    segmenter = None if source else Segmenter.load(project.path(round_number, "checkpoint.ckpt"))

    def fill(path: Path) -> None:
        output = create_volume(
            str(path),
            shape_zyx=project.image.shape_zyx,
            dtype=np.uint8,
            voxel_size_nm=project.image.voxel_size_nm,
            num_channels=len(project.task.channels),
            offset_nm=project.image.offset_nm,
        )
        if segmenter:
            predict(segmenter, project.image, output, project.config.segmentation)
        elif source:
            write_probability(source, project.image, project.task, output)

    write_folder(project.path(round_number, PROBABILITY_NAME), fill)
    return {"num_voxels": project.image.box.num_voxels}


def probability_of(project: Project, round_number: int) -> Volume:
    """The probability of a round, (C, Z, Y, X) uint8; if it is gone, it is predicted again, with the same result.

    Only the newest round keeps it, and a fork has it only if it was made while its origin was in round 0.

    Raises:
        InputError: as ``predict_step``.
    """
    path = project.path(round_number, PROBABILITY_NAME)
    if not path.exists():
        progress.say(f"  {path} is not there: predicted again")
        predict_step(project, round_number)
    return open_volume(str(path))
