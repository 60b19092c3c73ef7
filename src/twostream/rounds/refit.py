"""The step `refit` of later rounds: S and the unsupervised stream are fine-tuned on the answers.

S also sees crops of the labels boxes again (replay), so that it does not forget them.

Knows the ledger's answers and the training of S; must not know strategies or the order of steps.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from twostream.base import progress
from twostream.models.segmentation.config import RefitConfig, SegmentationConfig
from twostream.models.segmentation.lessons import Lessons
from twostream.models.segmentation.train import Segmenter, Training, train
from twostream.project.project import Detail, Project
from twostream.rounds.embed import fine_tune_on_answers
from twostream.rounds.predict import probability_of
from twostream.rounds.teaching import LessonCrops, collect, lessons_of, validation_of
from twostream.rounds.train import detail_without_s, save_training
from twostream.rounds.windows import window_lessons


def refit_step(project: Project, round_number: int) -> Detail:
    """Write ``checkpoint.ckpt`` and ``unsupervised.ckpt``, trained on the answers of all earlier rounds.

    Raises:
        TrainingError: the loss is no longer a finite number.
    """
    path = project.path(round_number, "checkpoint.ckpt")
    found, asked_in = collect(project.ledger, round_number, window_lessons(project, round_number))
    detail: Detail = {}
    if project.config.source:
        learner = "the streams learn" if project.config.streams.learn_from_answers else "only the scorer learns"
        progress.say(f"  no S to refit, a {project.config.source.name} stands in its place; {learner}")
        detail = detail_without_s(project)
    elif not path.exists():
        segmenter = Segmenter.load(project.path(round_number - 1, "checkpoint.ckpt"))
        previous_probability = probability_of(project, round_number - 1)
        training = refit(
            segmenter,
            lessons_of(project, segmenter, found, previous_probability),
            asked_in,
            project.config.segmentation,
            project.config.refit,
            seed=project.seed(round_number, "crops"),
            resume_path=path.with_suffix(".resume"),
            validation=validation_of(project, segmenter),
        )
        detail = save_training(segmenter, training, path)
    stream_losses = fine_tune_on_answers(project, round_number)
    return {"num_lessons": len(found), "active_clustering_steps": len(stream_losses)} | detail


def refit(
    segmenter: Segmenter,
    lessons: Lessons,
    asked_in: np.ndarray,
    config: SegmentationConfig,
    settings: RefitConfig,
    *,
    seed: int,
    resume_path: Path,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
) -> Training:
    """Fit S in place to crops around answers and crops of the labels boxes.

    Args:
        segmenter: S of the previous round; with ``settings.start`` "scratch" its weights are discarded first.
        lessons: the labels boxes and L lessons.
        asked_in: (L,) int64, the round in which each lesson was asked.
        config: settings of S.
        settings: settings of refitting.
        seed: of the crops, and of new weights.
        resume_path: state from which an interrupted training goes on.
        validation: images and targets of ``validation_crops``; None trains without validation.

    Returns:
        The losses of the training, and its last weights.
    """
    warm = settings.start == "warm"
    if not warm:
        segmenter.restart(seed)
    return train(
        segmenter,
        LessonCrops(lessons, asked_in, config, settings),
        config,
        num_steps=settings.num_steps if warm else config.num_steps,
        learning_rate=settings.learning_rate if warm else config.learning_rate,
        seed=seed,
        resume_path=resume_path,
        description=f"refit S ({settings.start})",
        validation=validation,
        freeze_norm=settings.freeze_norm and warm,
        fingerprint={
            "refit": settings.model_dump(mode="json"),
            "lessons": lessons.digest,
            "asked_in": asked_in.tolist(),
        },
    )
