"""The step `predict`: the probability of the whole image, by S or by the source that replaces S.

A prediction that is killed goes on where it was: until it is whole it lies in ``predict.partial``, with a list of the
blocks that are done.

Knows S and sources; must not know candidates, answers or strategies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from twostream.base import progress
from twostream.base.atomic import write_folder
from twostream.candidates.sources import write_probability
from twostream.models.segmentation.predict import predict
from twostream.models.segmentation.train import Segmenter
from twostream.project.fingerprint import fact_of
from twostream.project.project import Detail, Project
from twostream.volume import Volume, continue_volume, create_volume, open_volume
from twostream.volume.checks import check_all_chunks
from twostream.volume.stage import Journal, Stage, remove_work

PROBABILITY_NAME = "probability.zarr"
UNFINISHED_NAME, PROPOSE_UNFINISHED_NAME = "predict.partial", "propose.partial"
"""Folders of a round in which `predict` and `propose` keep what is done, until they are whole."""


def predict_step(project: Project, round_number: int) -> Detail:
    """Write ``probability.zarr``, (C, Z, Y, X) uint8, 255 = 1.

    Raises:
        InputError: ``checkpoint.ckpt`` of the round is missing or damaged, or the source cannot be read.
        BlocksError: S could not be applied to some blocks.
    """
    target = project.path(round_number, PROBABILITY_NAME)
    remove_work(project.path(round_number, PROPOSE_UNFINISHED_NAME))  # of another probability
    source = project.source
    if source:

        def fill(path: Path) -> None:
            write_probability(source, project.image, project.task, _create(project, path))

        write_folder(target, fill)
    else:
        _predict(project, round_number, target)
    return {"num_voxels": project.image.box.num_voxels}


def _predict(project: Project, round_number: int, target: Path) -> None:
    """Apply S to the image."""
    checkpoint = project.path(round_number, "checkpoint.ckpt")
    segmenter = Segmenter.load(checkpoint)
    with Journal(project.path(round_number, UNFINISHED_NAME), _work(project, checkpoint)) as journal:
        path = journal.folder / PROBABILITY_NAME
        if not path.exists():
            journal.restart()
            write_folder(path, lambda partial: _create(project, partial))
        output = continue_volume(str(path.absolute()))
        predict(
            segmenter,
            project.image,
            output,
            project.config.segmentation,
            Stage(project.executor, journal, project.memory_limit),
        )
        check_all_chunks(output)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(path, target)
        journal.discard()


def _work(project: Project, checkpoint: Path) -> dict[str, Any]:
    """All that the probability depends on."""
    image = project.image
    return {
        "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "image": [image.uri, project.ledger.fact(fact_of("image"))],
        "shape_zyx": image.shape_zyx,
        "voxel_size_nm": image.voxel_size_nm,
        "window": project.config.image.window,
        "segmentation": project.config.segmentation.model_dump(mode="json"),
    }


def _create(project: Project, path: Path) -> Volume:
    image = project.image
    return create_volume(
        str(path),
        shape_zyx=image.shape_zyx,
        dtype=np.uint8,
        voxel_size_nm=image.voxel_size_nm,
        num_channels=len(project.task.channels),
        offset_nm=image.offset_nm,
    )


def probability_of(project: Project, round_number: int) -> Volume:
    """The probability of a round, (C, Z, Y, X) uint8; if it is gone, it is predicted again, with the same result.

    Only the newest round keeps it, and a fork has it only if it was made while its origin was in round 0.

    Raises:
        InputError: as ``predict_step``.
        BlocksError: as ``predict_step``.
    """
    path = project.path(round_number, PROBABILITY_NAME)
    if not path.exists():
        progress.say(f"  {path} is not there: predicted again")
        predict_step(project, round_number)
    return open_volume(str(path.absolute()))
