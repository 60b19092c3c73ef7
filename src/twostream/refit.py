"""Answers become lessons: S is fine-tuned on them beside a replay of the labelled box.

Knows the ledger's answers and S's training; must not know strategies or the order of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from twostream.answers import MEANING
from twostream.ledger import Ledger
from twostream.project import Project
from twostream.segmentation.config import RefitConfig, SegmentationConfig
from twostream.segmentation.lessons import Lesson, Lessons
from twostream.segmentation.train import Crop, Segmenter, crop_shape, train


def collect(ledger: Ledger, before_round: int) -> tuple[list[Lesson], np.ndarray]:
    """Lessons from all answers to queries asked before ``before_round``, audits excepted.

    Returns:
        The lessons, oldest first, and (L,) int64 rounds in which they were asked.
        Candidates whose annotators disagree, and
        answers that teach nothing about voxels (shape, unsure, skipped), give none.
    """
    verdicts = ledger.pool()
    lessons: list[tuple[int, Lesson]] = []
    for identity, query in ledger.newest_queries(before_round).items():
        verdict = verdicts[identity]
        if query.is_audit:
            continue
        teaches = MEANING[verdict.kind].teaches if verdict.kind else ""
        if not teaches:
            continue
        box, mask = query.candidate.box, query.candidate.mask
        if teaches == "drawn":
            assert verdict.answer is not None and verdict.answer.drawing is not None
            box, mask = verdict.answer.drawing
        lessons.append((query.round, Lesson(box, mask, teaches)))
    for answer in ledger.current_answers():
        if answer.query is None and answer.drawing is not None and answer.round < before_round:
            lessons.append((answer.round, Lesson(*answer.drawing, "drawn")))
    lessons.sort(key=lambda item: item[0])
    return [lesson for _, lesson in lessons], np.array([asked_in for asked_in, _ in lessons], np.int64)


def lessons_of(project: Project, segmenter: Segmenter, lessons: Sequence[Lesson] = ()) -> Lessons:
    """What S may learn in this project: the labelled box and ``lessons``."""
    labels_box, val_box, test_box = project.boxes()
    return Lessons(
        project.image,
        project.labels,
        project.labels_ignore,
        project.task,
        labels_box=labels_box,
        val_box=val_box,
        test_box=test_box,
        guarded_box=project.guarded_box,
        crop_shape_zyx=crop_shape(segmenter, project.config.segmentation),
        lessons=lessons,
        rim_nm=project.config.refit.rim_nm,
    )


def refit(
    segmenter: Segmenter,
    lessons: Lessons,
    asked_in: np.ndarray,
    config: SegmentationConfig,
    settings: RefitConfig,
    *,
    seed: int,
    resume_path: Path,
) -> list[float]:
    """Fine-tune S in place on answers and replay.

    Args:
        segmenter: S of the round before.
        lessons: labelled box and answers.
        asked_in: (L,) round of each lesson.
        config, settings: of S and of refitting.

    Returns:
        The loss of every step.
    """
    return train(
        segmenter,
        draw_crop(lessons, asked_in, config, settings),
        config,
        num_steps=settings.num_steps,
        learning_rate=settings.learning_rate,
        seed=seed,
        resume_path=resume_path,
        description="refit S",
    )


def draw_crop(lessons: Lessons, asked_in: np.ndarray, config: SegmentationConfig, settings: RefitConfig) -> Crop:
    """Crops of which ``replay_share`` come from the labelled box and the rest from about an answer.

    Lessons of the newest round are drawn more often; those that show an object and those that show none equally
    often, however the answers fell: a round of mostly False would otherwise teach S to see nothing.
    """
    background = np.array([lesson.teaches == "background" for lesson in lessons.lessons], bool)
    newest = asked_in == asked_in.max() if len(asked_in) else np.zeros(0, bool)

    def crop(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if len(background) == 0 or rng.random() < settings.replay_share:
            return lessons.labelled_crop(rng, config.foreground_share)
        rows = np.arange(len(background))
        for keep in (newest if rng.random() < settings.recent_share else rows >= 0, background == (rng.random() < 0.5)):
            rows = rows[keep[rows]] if keep[rows].any() else rows
        return lessons.answer_crop(rng, int(rng.choice(rows)))

    return crop
