"""The step `train` of round 0: S learns from the labels boxes alone.

Knows labels and the training of S; must not know answers, streams or strategies.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from twostream.base import progress
from twostream.base.errors import InputError, ProjectError
from twostream.models.segmentation.card import Model, sha256_of
from twostream.models.segmentation.describe import Description, describe
from twostream.models.segmentation.labelled import grey_values
from twostream.models.segmentation.train import Segmenter, Training, new_segmenter, train
from twostream.project.project import Detail, Project
from twostream.rounds.teaching import LabelledCrops, lessons_of, validation_of


def train_step(project: Project, round_number: int) -> Detail:
    """Train S and write ``checkpoint.ckpt``; nothing is trained where a source replaces S.

    Raises:
        TrainingError: the loss is no longer a finite number.
    """
    if project.config.source:
        progress.say(f"  no S is trained: a {project.config.source.name} stands in its place")
        return detail_without_s(project)
    if project.config.model:
        return _take_over(project, round_number)
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
        validation=validation_of(project, segmenter) if config.watch.every_steps else None,
        fingerprint={"lessons": lessons.digest},
    )
    if training.is_cut_short:
        progress.say(
            f"  the {config.num_steps} steps were spent before the validation box said that S is trained to its end; "
            f"more may make it better (segmentation.num_steps)"
        )
    return save_training(segmenter, training, path) | {"is_cut_short": training.is_cut_short}


def _take_over(project: Project, round_number: int) -> Detail:
    """S_0 is the finished model with which the project was made; nothing is trained.

    Raises:
        InputError: the model is gone, or another one lies in its place.
    """
    stored = project.config.model
    assert stored is not None
    model = Model(Path(project.locate("model", stored.uri)))
    path = model.file("checkpoint")
    if sha256_of(path) != stored.sha256:
        raise InputError(f"{path} is not the model with which {project.root} was made: its checksum differs.")
    Segmenter.load(path).save(project.path(round_number, "checkpoint.ckpt"))
    progress.say(f"  S is the finished model {model.path}; nothing is trained")
    return {"num_steps": 0, "final_loss": None, "best_step": None, "model": str(model.path)}


def new_s(project: Project) -> Segmenter:
    """The untrained S with which round 0 starts. It normalises by the grey values of the labels boxes."""
    grey = grey_values(project.image, project.boxes.labels)
    return new_segmenter(
        project.task,
        project.config.segmentation,
        voxel_size_nm=project.image.voxel_size_nm,
        num_sections=project.image.shape_zyx[0],
        grey=(float(grey.mean()), float(grey.std())),
        seed=project.seed(0, "S"),
    )


def describe_training(project: Project) -> Description:
    """The network, crops and memory of the training that `train` would do; nothing is trained.

    Raises:
        ProjectError: the project has a source in place of S, or began with a finished model.
    """
    if project.config.source:
        raise ProjectError(
            f"{project.root} has a {project.config.source.name} in place of S, so there is no training to describe. "
            f"Leave out --dry-run."
        )
    if project.config.model:
        raise ProjectError(f"S of {project.root} is a finished model, so there is no training to describe.")
    return describe(new_s(project), project.config.segmentation, project.image.voxel_size_nm)


def detail_without_s(project: Project) -> Detail:
    """What the ledger records of `train` or `refit` where a source replaces S."""
    assert project.config.source is not None
    return {"no_s": f"a {project.config.source.name} stands in place of S"}


def save_training(segmenter: Segmenter, training: Training, path: Path) -> Detail:
    """Save a trained S and delete the state for resuming its training.

    Args:
        segmenter: with the best weights, which go to ``path``.
        training: its last weights go to ``last.ckpt`` beside ``path`` if S ended with others.
        path: the checkpoint to write.

    Returns:
        What the ledger records of the training.
    """
    if training.validation_losses and training.last:
        segmenter.save(path.with_name("last.ckpt"), weights=training.last)
    segmenter.save(path, training)
    path.with_suffix(".resume").unlink(missing_ok=True)
    checks = training.validation_losses
    best = min(checks, key=lambda check: check[1])[0] if checks else None
    return {"num_steps": len(training.losses), "final_loss": _final_loss(training.losses), "best_step": best}


def _final_loss(losses: Sequence[float]) -> float | None:
    """Mean loss of the last tenth of the steps, because one step's loss depends mostly on its crops."""
    return round(float(np.mean(losses[-max(1, len(losses) // 10) :])), 4) if losses else None
