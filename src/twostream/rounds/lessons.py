"""What S may learn from in a project: its labels and its answers, as crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twostream.base.geometry import Box, grid
from twostream.models.segmentation.config import RefitConfig, SegmentationConfig
from twostream.models.segmentation.lessons import Crop, Lesson, Lessons, hide_test_box, known_target
from twostream.models.segmentation.train import Segmenter, crop_shape
from twostream.project.ledger import Ledger
from twostream.project.project import Project
from twostream.task import IGNORE, Task
from twostream.volume import Volume, read_padded


def collect(ledger: Ledger, before_round: int) -> tuple[list[Lesson], np.ndarray]:
    """Lessons from all answers to queries asked before ``before_round``, audits excepted.

    Returns:
        The lessons, oldest first, and (L,) int64 rounds in which they were asked.
        Candidates whose annotators disagree, and answers that teach nothing about voxels (unsure, skipped), give
        none.
    """
    verdicts = ledger.verdicts()
    lessons: list[tuple[int, Lesson]] = []
    for identity, query in ledger.newest_queries(before_round).items():
        verdict = verdicts[identity]
        if query.is_audit:
            continue
        if not verdict.teaches:
            continue
        lesson = Lesson(query.candidate.box, query.candidate.mask, verdict.teaches)
        if verdict.teaches == "drawn":
            assert verdict.answer is not None and verdict.answer.drawing is not None
            lesson = Lesson.corrected(lesson.box, lesson.mask, *verdict.answer.drawing)
        lessons.append((query.round, lesson))
    for answer in ledger.current_answers():
        if answer.query is None and answer.drawing is not None and answer.round < before_round:
            lessons.append((answer.round, Lesson(*answer.drawing, "drawn")))
    lessons.sort(key=lambda item: item[0])
    return [lesson for _, lesson in lessons], np.array([asked_in for asked_in, _ in lessons], np.int64)


def lessons_of(
    project: Project,
    segmenter: Segmenter,
    lessons: Sequence[Lesson] = (),
    previous_probability: Volume | None = None,
) -> Lessons:
    """The training data of S in this project: labelled box, ``lessons``, and pseudo-labels from the previous S.

    Args:
        project: gives labels, boxes and settings.
        segmenter: gives the extent of a crop.
        lessons: answered masks, oldest first.
        previous_probability: (C, Z, Y, X) uint8, prediction of the previous round's S; None: no pseudo-labels.
    """
    labels_box, val_box = project.boxes.labelled
    hold = project.config.refit.hold
    return Lessons(
        project.image,
        project.labels,
        project.labels_ignore,
        project.task,
        labels_box=labels_box,
        val_box=val_box,
        test_box=project.boxes.test,
        guarded_box=project.guarded_box,
        crop_shape_zyx=crop_shape(segmenter, project.config.segmentation),
        lessons=lessons,
        rim_nm=project.config.refit.rim_nm,
        previous_probability=None if hold is None else previous_probability,
        min_confidence=hold or 0.5,
        emphasis=project.config.refit.emphasis,
        margin_nm=project.config.refit.margin_nm,
    )


def validation_crops(
    image: Volume,
    labels: Volume,
    ignore: Volume | None,
    task: Task,
    val_box: Box,
    test_box: Box | None,
    crop_shape_zyx: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """The validation box in crops: images (N, Z, Y, X) uint8 and levels (N, C, Z, Y, X) uint8.

    Crops that reach beyond the box show the tissue there and ignore its labels; the test box is hidden.
    """
    z, y, x = crop_shape_zyx
    known = known_target(labels, ignore, task, val_box)
    shown = hide_test_box(image, test_box, int(image.read(val_box).mean()))
    images, levels = [], []
    for block in grid(val_box, (z, y, x)):
        crop = Box(block.write_box.offset_zyx, (z, y, x))
        target = np.full((len(known), z, y, x), IGNORE, np.uint8)
        inside = crop.intersection(val_box)
        part = known[(slice(None), *inside.relative_to(val_box).slices)]
        target[(slice(None), *inside.relative_to(crop).slices)] = part
        images.append(read_padded(shown, crop))
        levels.append(target)
    return np.stack(images), np.stack(levels)


class LessonCrops:
    """Draws crops of which ``replay_share`` come from the labelled box and the rest from about an answer.

    Lessons of the newest round are drawn more often. Those that show an object and those that show none come as they
    fell: drawn equally often, a handful of *nothing* taught S to pass over what resembles them.
    """

    def __init__(
        self, lessons: Lessons, asked_in: np.ndarray, config: SegmentationConfig, settings: RefitConfig
    ) -> None:
        self._lessons, self._config, self._settings = lessons, config, settings
        # A lesson that teaches "ignore" only removes pseudo-labels: a crop around it would have nothing to learn.
        self._rows = np.array([i for i, one in enumerate(lessons.lessons) if one.teaches != "ignore"], np.int64)
        asked_in = asked_in[self._rows]
        self._newest = self._rows[asked_in == asked_in.max()] if len(self._rows) else self._rows

    def __call__(self, rng: np.random.Generator) -> Crop:
        """One crop."""
        if len(self._rows) == 0 or rng.random() < self._settings.replay_share:
            return self._lessons.labelled_crop(rng, self._config)
        recent = rng.random() < self._settings.recent_share
        return self._lessons.answer_crop(rng, int(rng.choice(self._newest if recent else self._rows)))


@dataclass(frozen=True)
class LabelledCrops:
    """Draws crops of the labelled box."""

    lessons: Lessons
    config: SegmentationConfig

    def __call__(self, rng: np.random.Generator) -> Crop:
        """One crop."""
        return self.lessons.labelled_crop(rng, self.config)


def _validation(project: Project, segmenter: Segmenter) -> tuple[np.ndarray, np.ndarray] | None:
    """Crops of the validation box, if they are to be looked at while S is trained."""
    if not project.config.segmentation.watch.every_steps:
        return None
    val_box, test_box = project.boxes.labelled[1], project.boxes.test
    return validation_crops(
        project.image,
        project.labels,
        project.labels_ignore,
        project.task,
        val_box,
        test_box,
        crop_shape(segmenter, project.config.segmentation),
    )
