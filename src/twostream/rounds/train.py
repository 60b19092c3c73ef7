"""Round 0: S learns from the labelled box alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from twostream.base import progress
from twostream.base.errors import ProjectError
from twostream.models.segmentation.describe import Description, describe
from twostream.models.segmentation.train import Segmenter, Training, new_segmenter, train
from twostream.project.project import Detail, Project
from twostream.rounds.lessons import LabelledCrops, _validation, lessons_of


def new_s(project: Project) -> Segmenter:
    """S as round 0 begins it: untrained, its grey values those of the labelled box."""
    grey = project.image.read(project.boxes.labelled[0])
    return new_segmenter(
        project.task,
        project.config.segmentation,
        voxel_size_nm=project.image.voxel_size_nm,
        num_sections=project.image.shape_zyx[0],
        grey=(float(grey.mean()), float(grey.std())),
        seed=project.seed(0, "S"),
    )


def describe_training(project: Project) -> Description:
    """What `train` would do.

    Raises:
        ProjectError: nothing would be trained.
    """
    if project.config.source:
        raise ProjectError(f"no S is trained in {project.root}: a {project.config.source.name} stands in its place.")
    return describe(new_s(project), project.config.segmentation, project.image.voxel_size_nm)


def train_step(project: Project, round_number: int) -> Detail:
    """Round 0: S learns from the labelled box alone -> checkpoint.ckpt. Nothing to do where a source stands for S."""
    if project.config.source:
        progress.say(f"  no S is trained: a {project.config.source.name} stands in its place")
        return _no_s(project)
    config = project.config.segmentation
    segmenter = new_s(project)
    lessons = lessons_of(project, segmenter)
    path = project.path(round_number, "checkpoint.ckpt")
    training = train(
        segmenter,
        LabelledCrops(lessons, config),
        config,
        num_steps=config.num_steps,
        learning_rate=config.learning_rate,
        seed=project.seed(round_number, "crops"),
        resume_path=path.with_suffix(".resume"),
        description="train S",
        validation=_validation(project, segmenter),
        fingerprint={"lessons": lessons.digest},
    )
    return _store(segmenter, training, path)


def _no_s(project: Project) -> Detail:
    """What the ledger remembers of a step in which S would have been trained."""
    assert project.config.source is not None
    return {"no_s": f"a {project.config.source.name} stands in place of S"}


def _store(segmenter: Segmenter, training: Training, path: Path) -> Detail:
    """S beside what is left of its training: best weights in ``path``; the last ones in last.ckpt where they differ."""
    if training.validation_losses:
        segmenter.save(path.with_name("last.ckpt"), weights=training.last)
    segmenter.save(path, training)
    path.with_suffix(".resume").unlink(missing_ok=True)
    checks = training.validation_losses
    best = min(checks, key=lambda check: check[1])[0] if checks else None
    return {"num_steps": len(training.losses), "final_loss": _last(training.losses), "best_step": best}


def _last(losses: Sequence[float]) -> float | None:
    """Mean of the last tenth: a single step's loss is mostly its crop."""
    return round(float(np.mean(losses[-max(1, len(losses) // 10) :])), 4) if losses else None
