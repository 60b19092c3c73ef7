"""Answers become lessons: S is fine-tuned on them beside a replay of the labelled box.

Knows the ledger's answers and S's training; must not know strategies or the order of steps.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from twostream.base import progress
from twostream.models.segmentation.config import RefitConfig, SegmentationConfig
from twostream.models.segmentation.lessons import Lessons
from twostream.models.segmentation.train import Segmenter, Training, train
from twostream.project.project import Detail, Project
from twostream.rounds.embed import learn_from_answers
from twostream.rounds.lessons import LessonCrops, _validation, collect, lessons_of
from twostream.rounds.train import _no_s, _store
from twostream.volume import open_volume


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
    """Fit S in place to answers and replay.

    Args:
        segmenter: S of the round before.
        lessons: labelled box and answers.
        asked_in: (L,) round of each lesson.
        config, settings: of S and of refitting.
        validation: crops that are looked at, see ``SegmentationModule``.

    Returns:
        The losses of the training.
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


def refit_step(project: Project, round_number: int) -> Detail:
    """Round r > 0: S and the unsupervised stream learn from the answers -> both checkpoints."""
    path = project.path(round_number, "checkpoint.ckpt")
    found, asked_in = collect(project.ledger, before_round=round_number)
    detail: Detail = {}
    if project.config.source:
        who = "the streams learn" if project.config.streams.learn_from_answers else "what learns is the scorer"
        progress.say(f"  no S to refit, a {project.config.source.name} stands in its place; {who}")
        detail = _no_s(project)
    elif not path.exists():
        segmenter = Segmenter.load(project.path(round_number - 1, "checkpoint.ckpt"))
        previous_probability = open_volume(str(project.path(round_number - 1, "probability.zarr")))
        training = refit(
            segmenter,
            lessons_of(project, segmenter, found, previous_probability),
            asked_in,
            project.config.segmentation,
            project.config.refit,
            seed=project.seed(round_number, "crops"),
            resume_path=path.with_suffix(".resume"),
            validation=_validation(project, segmenter),
        )
        detail = _store(segmenter, training, path)
    stream_losses = learn_from_answers(project, round_number)
    return {"num_lessons": len(found), "active_clustering_steps": len(stream_losses)} | detail
