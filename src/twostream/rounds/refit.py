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
from twostream.rounds.judging import IS_OBJECT, Evidence, blended
from twostream.rounds.pool import RoundPool, pool_of
from twostream.rounds.predict import probability_of
from twostream.rounds.propagation import propagated
from twostream.rounds.teaching import LessonCrops, Taught, collect, lessons_of, replay_of, validation_of
from twostream.rounds.train import detail_without_s, save_training
from twostream.rounds.windows import window_lessons

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
        refitting = _Refitting(project, round_number, taught)
        detail = refitting.judged(path) if project.config.refit.judged else refitting.plain(path)
    stream_losses = fine_tune_on_answers(project, round_number)
    return {"num_lessons": len(taught.lessons), "active_clustering_steps": len(stream_losses)} | detail


class _Refitting:
    """The refit of one round.

    Args:
        project: the project.
        round_number: the round of the new S.
        taught: what the answers of all earlier rounds teach.
    """

    def __init__(self, project: Project, round_number: int, taught: Taught) -> None:
        self._project, self._round, self._taught = project, round_number, taught
        self._settings = project.config.refit
        self._previous_path = project.path(round_number - 1, "checkpoint.ckpt")
        self._previous_probability = probability_of(project, round_number - 1)
        self._replay = replay_of(project, round_number - 1)
        self._pool = teaching_pool(project, round_number - 1)

    def plain(self, path: Path) -> Detail:
        """Train on all answers, and take the result."""
        every = np.ones(len(self._taught.lessons), bool)
        segmenter, training, num_expected = self._train(every, path.with_suffix(".resume"), "crops")
        return save_training(segmenter, training, path) | {"num_propagated": num_expected}

    def judged(self, path: Path) -> Detail:
        """Train on each half of the newest answers, and take, blend or leave the mean of the two."""
        newest = self._newest_halves()
        weights, losses, numbers = [], [], []
        for name, held_out in zip("ab", newest, strict=True):
            learned = np.ones(len(self._taught.lessons), bool)
            learned[held_out] = False
            resume = path.with_suffix(f".{name}.resume")
            segmenter, training, num_expected = self._train(learned, resume, f"crops {name}")
            weights.append(segmenter.network.state_dict())
            losses.append(training.losses)
            numbers.append(num_expected)
        new = blended(weights[0], weights[1], 0.5)
        previous = Segmenter.load(self._previous_path)
        evidence = evidence_of(self._project, previous, self._taught.lessons, newest, self._replay)
        choice = evidence.judge(previous, weights, new)
        previous.network.load_state_dict(blended(previous.network.state_dict(), new, choice.share))
        detail = save_training(previous, Training(losses[0] + losses[1], [], {}), path)
        for name in "ab":
            path.with_suffix(f".{name}.resume").unlink(missing_ok=True)
        progress.say(f"  the refitted S is {choice.outcome} (share {choice.share:g})")
        return detail | {"num_propagated": round(float(np.mean(numbers))), "judged": choice.detail()}

    def _train(self, learned: np.ndarray, resume_path: Path, purpose: str) -> tuple[Segmenter, Training, int]:
        """Train one S on some of the answers.

        Args:
            learned: (L,) bool, the lessons from which it may learn.
            resume_path: state from which an interrupted training goes on.
            purpose: of the seed.

        Returns:
            S, its training, and how many lessons came from the scorer.
        """
        project, start = self._project, self._settings.start
        segmenter = Segmenter.load(project.path(0, "checkpoint.ckpt") if start == "first" else self._previous_path)
        lessons, asked_in = all_lessons(project, self._taught, self._pool, learned)
        training = refit(
            segmenter,
            lessons_of(project, segmenter, lessons, self._previous_probability, self._replay),
            asked_in,
            project.config.segmentation,
            self._settings,
            seed=project.seed(self._round, purpose),
            resume_path=resume_path,
            validation=validation_of(project, segmenter) if start == "scratch" else None,
        )
        return segmenter, training, int((asked_in == NOBODY).sum())

    def _newest_halves(self) -> list[np.ndarray]:
        """Rows of the newest lessons that can be tested, in two halves with about the same mixture of kinds."""
        lessons, newest = self._taught.lessons, self._taught.asked_in == self._round - 1
        rows = np.flatnonzero(newest & testable(self._taught)).tolist() if self._settings.use_answers else []
        order = np.random.default_rng(self._project.seed(self._round, "halves")).permutation(len(rows))
        mixed = sorted((rows[i] for i in order), key=lambda row: lessons[row].teaches)
        return [np.array(mixed[half::2], np.int64) for half in (0, 1)]


def evidence_of(
    project: Project,
    segmenter: Segmenter,
    lessons: Sequence[Lesson],
    groups: Sequence[np.ndarray],
    replay: Sequence[Box],
) -> Evidence:
    """The validation box and answers, by which S is judged.

    Args:
        project: the project.
        segmenter: gives normalisation and shape of the crops.
        lessons: of all answers.
        groups: rows of the lessons on which each model is tested (``Evidence.halves``).
        replay: see ``replay_of``.
    """
    num_objects = 0
    if project.config.labels is not None:
        num_objects = len(np.unique(project.task.instances(project.labels.read(project.boxes.validation)))) - 1
    binary = [i for i, name in enumerate(project.task.channels) if name not in ("distance", "contour")]
    return Evidence(
        lessons_of(project, segmenter, lessons, replay=replay),
        [rows.tolist() for rows in groups],
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
