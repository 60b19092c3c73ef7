"""The step `refit` of later rounds: S and the unsupervised stream are fine-tuned on the answers.

S also sees crops of the labels boxes again (replay), so that it does not forget them, and what the scorer expects of
candidates that nobody was asked about (``propagation``). Whether it is taken is decided by answers and labels that it
has not learned from (``judging``).

Knows the ledger's answers and the training of S; must not know strategies or the order of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from twostream.base import progress
from twostream.base.geometry import Box
from twostream.models.segmentation.config import RefitConfig, SegmentationConfig
from twostream.models.segmentation.lessons import Lesson, Lessons
from twostream.models.segmentation.train import Segmenter, Training, train
from twostream.project.project import Detail, Project
from twostream.rounds.embed import fine_tune_on_answers
from twostream.rounds.judging import IS_OBJECT, Choice, Evidence, blended
from twostream.rounds.pool import RoundPool, pool_of
from twostream.rounds.predict import probability_of
from twostream.rounds.propagation import propagated
from twostream.rounds.teaching import LessonCrops, Taught, collect, lessons_of, replay_of, validation_of
from twostream.rounds.train import detail_without_s, save_training
from twostream.rounds.windows import window_lessons

HELD_OUT_SHARE = 0.2
"""Of the answered candidates that are an object or none: refits are judged by them, and do not learn from them."""
NOBODY = -1
"""Stands for the round of a lesson that nobody was asked about."""


def refit_step(project: Project, round_number: int) -> Detail:
    """Write ``checkpoint.ckpt`` and ``unsupervised.ckpt``, trained on the answers of all earlier rounds.

    Raises:
        TrainingError: the loss is no longer a finite number.
    """
    path = project.path(round_number, "checkpoint.ckpt")
    taught = collect(project.ledger, round_number, window_lessons(project, round_number))
    detail: Detail = {}
    if project.config.source:
        learner = "the streams learn" if project.config.streams.learn_from_answers else "only the scorer learns"
        progress.say(f"  no S to refit, a {project.config.source.name} stands in its place; {learner}")
        detail = detail_without_s(project)
    elif not path.exists():
        learned = ~held_out(project, taught)
        segmenter, training, asked_in = _train(project, round_number, taught, learned)
        num_propagated = int((asked_in == NOBODY).sum())
        detail = {"num_lessons": len(asked_in) - num_propagated, "num_propagated": num_propagated}
        if project.config.refit.judged:
            detail["judged"] = _judged(project, round_number, segmenter, taught, learned).detail()
        detail |= save_training(segmenter, training, path)
    stream_losses = fine_tune_on_answers(project, round_number)
    return {"num_lessons": len(taught.lessons), "active_clustering_steps": len(stream_losses)} | detail


def held_out(project: Project, taught: Taught) -> np.ndarray:
    """(L,) bool, the lessons that no refit learns from, because refits are judged by them.

    Whether a candidate belongs to them depends on its id alone, so that it does not change when others are answered or
    an answer is taken back. ``finish`` learns from all.
    """
    settings = project.config.refit
    if not (settings.judged and settings.use_answers):
        return np.zeros(len(taught.lessons), bool)
    seed = project.seed(0, "held out")
    drawn = [np.random.default_rng((seed, candidate)).random() for candidate in taught.candidates.tolist()]
    return testable(taught) & (taught.candidates > 0) & (np.array(drawn) < HELD_OUT_SHARE)


def _train(
    project: Project, round_number: int, taught: Taught, learned: np.ndarray
) -> tuple[Segmenter, Training, np.ndarray]:
    """Train the S of a round.

    Args:
        project: the project.
        round_number: the round of the new S.
        taught: L lessons of the answers of all earlier rounds.
        learned: (L,) bool, those from which it may learn.

    Returns:
        S, its training, and the round in which each of its lessons was asked; ``NOBODY`` where it is the scorer's.
    """
    settings, previous = project.config.refit, round_number - 1
    segmenter = Segmenter.load(project.path(0 if settings.start == "first" else previous, "checkpoint.ckpt"))
    lessons, asked_in = all_lessons(project, taught, teaching_pool(project, previous), learned)
    training = refit(
        segmenter,
        lessons_of(project, segmenter, lessons, probability_of(project, previous), replay_of(project, previous)),
        asked_in,
        project.config.segmentation,
        settings,
        seed=project.seed(round_number, "crops"),
        resume_path=project.path(round_number, "checkpoint.resume"),
        validation=validation_of(project, segmenter) if settings.start == "scratch" else None,
    )
    return segmenter, training, asked_in


def _judged(project: Project, round_number: int, segmenter: Segmenter, taught: Taught, learned: np.ndarray) -> Choice:
    """Take the refitted S, blend it with its predecessor, or put that one in its place.

    Args:
        project: the project.
        round_number: the round of the refitted S.
        segmenter: the refitted S; its weights become those that are taken.
        taught: L lessons.
        learned: (L,) bool, those from which it has learned.
    """
    previous = Segmenter.load(project.path(round_number - 1, "checkpoint.ckpt"))
    evidence = evidence_of(
        project, previous, taught.lessons, np.flatnonzero(~learned), replay_of(project, round_number - 1)
    )
    new = segmenter.network.state_dict()
    choice = evidence.judge(previous, new)
    segmenter.network.load_state_dict(blended(previous.network.state_dict(), new, choice.share))
    progress.say(f"  the refitted S is {choice.outcome} (share {choice.share:g})")
    return choice


def evidence_of(
    project: Project, segmenter: Segmenter, lessons: Sequence[Lesson], rows: np.ndarray, replay: Sequence[Box]
) -> Evidence:
    """The validation box and answers, by which S is judged.

    Args:
        project: the project.
        segmenter: gives normalisation and shape of the crops.
        lessons: of all answers.
        rows: of the lessons on which it is tested.
        replay: see ``replay_of``.
    """
    num_objects = 0
    if project.config.labels is not None:
        num_objects = len(np.unique(project.task.instances(project.labels.read(project.boxes.validation)))) - 1
    binary = [i for i, name in enumerate(project.task.channels) if name not in ("distance", "contour")]
    return Evidence(
        lessons_of(project, segmenter, lessons, replay=replay),
        rows.tolist(),
        validation_of(project, segmenter),
        max(num_objects, 0),
        binary,
        project.task.foreground,
    )


def testable(taught: Taught) -> np.ndarray:
    """(L,) bool, the lessons whose masks an S can rank: candidates that are an object or none."""
    kinds = np.array([one.teaches in IS_OBJECT for one in taught.lessons], bool)
    # A window in which nothing was missed is no candidate, and any S ranks it last.
    is_window = (taught.candidates == 0) & np.array([one.teaches == "background" for one in taught.lessons], bool)
    return kinds & ~is_window


def teaching_pool(project: Project, round_number: int) -> RoundPool | None:
    """The pool of a round after its batch was answered, if the scorer's expectations are to become lessons."""
    learns = project.config.refit.use_answers and project.config.refit.propagate
    return pool_of(project, round_number, answered=True) if learns else None


def all_lessons(
    project: Project, taught: Taught, pool: RoundPool | None, learned: np.ndarray
) -> tuple[list[Lesson], np.ndarray]:
    """The scorer's lessons, then those of the answers that may be learned from; and in which round each was asked.

    Args:
        project: the project.
        taught: L lessons of the answers.
        pool: see ``teaching_pool``.
        learned: (L,) bool, the answers from which S may learn.
    """
    if not project.config.refit.use_answers:
        return [], np.zeros(0, np.int64)
    hidden = set(taught.candidates[~learned].tolist())
    expected = [] if pool is None else propagated(project, pool, hidden)
    answered = [lesson for lesson, may in zip(taught.lessons, learned, strict=True) if may]
    return expected + answered, np.concatenate([np.full(len(expected), NOBODY), taught.asked_in[learned]])


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
        segmenter: the S to start from; with ``settings.start`` "scratch" its weights are discarded first.
        lessons: the labels boxes and L lessons.
        asked_in: (L,) int64, the round in which each lesson was asked; -1 where nobody was.
        config: settings of S.
        settings: settings of refitting.
        seed: of the crops, and of new weights.
        resume_path: state from which an interrupted training goes on.
        validation: images and targets of ``validation_crops``; None trains without validation.

    Returns:
        The losses of the training, and its last weights.
    """
    fine_tuned = settings.start != "scratch"
    if not fine_tuned:
        segmenter.restart(seed)
    return train(
        segmenter,
        LessonCrops(lessons, asked_in, config, settings),
        config,
        num_steps=settings.num_steps if fine_tuned else config.num_steps,
        learning_rate=settings.learning_rate if fine_tuned else config.learning_rate,
        seed=seed,
        resume_path=resume_path,
        description=f"refit S ({settings.start})",
        validation=validation,
        freeze_norm=settings.freeze_norm and fine_tuned,
        fingerprint={
            "refit": settings.model_dump(mode="json"),
            "lessons": lessons.digest,
            "asked_in": asked_in.tolist(),
        },
    )
