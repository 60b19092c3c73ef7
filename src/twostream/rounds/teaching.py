"""Training data of S in a project: crops of the labels boxes, crops around answers, and the validation crops.

Knows projects, the ledger's answers and how crops are made of them; must not know how S is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twostream.base.geometry import Box, grid
from twostream.models.segmentation.config import RefitConfig, SegmentationConfig
from twostream.models.segmentation.labelled import known_target
from twostream.models.segmentation.lessons import Crop, Lesson, Lessons, hide_test_box
from twostream.models.segmentation.train import Segmenter, crop_shape
from twostream.project.ledger import Ledger
from twostream.project.project import Project
from twostream.task import IGNORE, Task
from twostream.volume import Volume, read_padded

NUM_REPLAY = 200
"""Places of replay where there are no labels: as many as the crops of a few hundred steps can show."""


@dataclass(frozen=True)
class Taught:
    """What answers teach.

    Attributes:
        lessons: L lessons, oldest first.
        asked_in: (L,) int64, the round in which each was asked.
        candidates: (L,) int64, id of the candidate; 0 for objects that were missed, and for windows.
    """

    lessons: list[Lesson]
    asked_in: np.ndarray
    candidates: np.ndarray


def collect(ledger: Ledger, before_round: int, beside: Sequence[tuple[int, Lesson]] = ()) -> Taught:
    """Lessons from the answers to queries of earlier rounds, and from objects that were missed there.

    Audits give none. Nor do candidates about whose ``y`` annotators disagree, and answers that say nothing about voxels
    (*unsure*, *skipped*).

    Args:
        ledger: the ledger.
        before_round: only queries of rounds before this one.
        beside: further lessons, each with its round; of one round they come first, so that answers overwrite them.
    """
    verdicts = ledger.verdicts()
    lessons: list[tuple[int, int, Lesson]] = [(asked_in, 0, lesson) for asked_in, lesson in beside]
    for identity, query in ledger.newest_queries(before_round).items():
        verdict = verdicts[identity]
        if query.is_audit or not verdict.teaches:
            continue
        lesson = Lesson(query.candidate.box, query.candidate.mask, verdict.teaches)
        if verdict.teaches == "drawn":
            assert verdict.answer is not None and verdict.answer.drawing is not None
            lesson = Lesson.corrected(lesson.box, lesson.mask, *verdict.answer.drawing)
        lessons.append((query.round, identity, lesson))
    for answer in ledger.current_answers():
        if answer.query is None and answer.drawing is not None and answer.round < before_round:
            lessons.append((answer.round, 0, Lesson(*answer.drawing, "drawn")))
    lessons.sort(key=lambda item: item[0])
    asked_in, candidates = (np.array([item[k] for item in lessons], np.int64) for k in (0, 1))
    return Taught([item[2] for item in lessons], asked_in, candidates)


def lessons_of(
    project: Project,
    segmenter: Segmenter,
    lessons: Sequence[Lesson] = (),
    previous_probability: Volume | None = None,
    replay: Sequence[Box] = (),
) -> Lessons:
    """The training data of S in this project: the labels boxes, ``lessons``, and pseudo-labels by the previous S.

    Args:
        project: gives labels, boxes and settings.
        segmenter: gives the shape of a crop.
        lessons: answered masks, oldest first.
        previous_probability: (C, Z, Y, X) uint8, 255 = 1, by the S of the previous round; None gives no pseudo-labels.
        replay: see ``replay_of``.
    """
    hold = project.config.refit.hold
    return Lessons(
        project.image,
        project.labels if project.config.labels else None,
        project.labels_ignore,
        project.task,
        labels_boxes=project.boxes.labels,
        val_box=project.boxes.val,
        test_box=project.boxes.test,
        guarded_box=project.guarded_box,
        crop_shape_zyx=crop_shape(segmenter, project.config.segmentation),
        lessons=lessons,
        rim_nm=project.config.refit.rim_nm,
        previous_probability=None if hold is None else previous_probability,
        min_confidence=hold or 0.5,
        emphasis=project.config.refit.emphasis,
        margin_nm=project.config.refit.margin_nm,
        replay=replay,
    )


def replay_of(project: Project, round_number: int) -> list[Box]:
    """Places that stand in for labels where a project has none (``Lessons``); empty where it has labels.

    A share ``segmentation.foreground_share`` of ``NUM_REPLAY`` are candidates, or fewer where there are fewer; the
    others are single voxels anywhere. None touches the guarded test box.

    Args:
        project: the project.
        round_number: round whose candidates are taken.
    """
    if project.config.labels is not None:
        return []
    rng = np.random.default_rng(project.seed(round_number, "replay"))
    corners = project.candidates(round_number).proposed().corners.tolist()
    objects = [Box.from_corners(corner[:3], corner[3:]) for corner in corners]
    voxels = rng.integers(project.image.shape_zyx, size=(NUM_REPLAY, 3)).tolist()
    anywhere = [Box(tuple(voxel), (1, 1, 1)) for voxel in voxels]
    guarded = project.guarded_box
    if guarded is not None:
        objects, anywhere = ([b for b in boxes if not b.intersects(guarded)] for boxes in (objects, anywhere))
    num_objects = round(NUM_REPLAY * project.config.segmentation.foreground_share)
    chosen = rng.permutation(len(objects))[:num_objects].tolist()
    return [objects[row] for row in chosen] + anywhere[: max(1, NUM_REPLAY - num_objects)]


def validation_of(project: Project, segmenter: Segmenter) -> tuple[np.ndarray, np.ndarray] | None:
    """Crops of the validation box, see ``validation_crops``; None without labels."""
    if project.config.labels is None:
        return None
    return validation_crops(
        project.image,
        project.labels,
        project.labels_ignore,
        project.task,
        project.boxes.validation,
        project.boxes.test,
        crop_shape(segmenter, project.config.segmentation),
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
    """The validation box in crops.

    A crop that reaches beyond the validation box shows the tissue there, but its target is ``IGNORE``. The test box is
    hidden.

    Args:
        image: (Z, Y, X) uint8.
        labels: (Z, Y, X) in the task's label convention.
        ignore: non-zero where labels count neither as object nor as background, or None.
        task: makes targets of labels.
        val_box: the validation box.
        test_box: the test box, or None.
        crop_shape_zyx: shape of a crop in voxels.

    Returns:
        Images (N, Z, Y, X) uint8 and targets (N, C, Z, Y, X) uint8 levels.
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
    """Draws training crops of a refit: a share ``replay_share`` from the labels boxes, the rest around answers.

    Of the crops around masks, at most a share ``propagate`` is drawn around candidates that nobody answered: that share
    times their mean surprise. Each is drawn as often as its weight and its surprise say. The rest is drawn around
    answers. Answers of the newest round are drawn more often. Objects and
    *nothing* are drawn as often as they were answered: drawn equally often, a handful of *nothing* taught S to miss the
    objects that resemble them.

    Args:
        lessons: the labels boxes and L lessons.
        asked_in: (L,) int64, the round in which each lesson was asked; -1 where nobody was.
        config: says which crops of the labels boxes are drawn again.
        settings: gives the shares.
    """

    def __init__(
        self, lessons: Lessons, asked_in: np.ndarray, config: SegmentationConfig, settings: RefitConfig
    ) -> None:
        self._lessons, self._config, self._settings = lessons, config, settings
        # A lesson that teaches "ignore" only removes pseudo-labels: a crop around it would have nothing to learn.
        teaching = np.array([one.teaches != "ignore" for one in lessons.lessons], bool)
        self._expected = np.flatnonzero(asked_in < 0)
        weight, surprise = (
            np.array([getattr(lessons.lessons[row], name) for row in self._expected]) for name in ("weight", "surprise")
        )
        drawn = weight * surprise
        self._chance = drawn / drawn.sum() if drawn.any() else drawn
        self._share = settings.propagate * drawn.sum() / weight.sum() if drawn.any() else 0.0
        self._rows = np.flatnonzero(teaching & (asked_in >= 0))
        asked_in = asked_in[self._rows]
        self._newest = self._rows[asked_in == asked_in.max()] if len(self._rows) else self._rows

    def __call__(self, rng: np.random.Generator) -> Crop:
        """One crop, drawn with ``rng``."""
        has_expected = self._share > 0
        if not (len(self._rows) or has_expected) or rng.random() < self._settings.replay_share:
            return self._lessons.labelled_crop(rng, self._config)
        if has_expected and (len(self._rows) == 0 or rng.random() < self._share):
            return self._lessons.answer_crop(rng, int(rng.choice(self._expected, p=self._chance)))
        recent = rng.random() < self._settings.recent_share
        return self._lessons.answer_crop(rng, int(rng.choice(self._newest if recent else self._rows)))


@dataclass(frozen=True)
class LabelledCrops:
    """Draws training crops of the labels boxes.

    Attributes:
        lessons: the labels boxes; its lessons are not used.
        config: says which crops are drawn again.
    """

    lessons: Lessons
    config: SegmentationConfig

    def __call__(self, rng: np.random.Generator) -> Crop:
        """One crop, drawn with ``rng``."""
        return self.lessons.labelled_crop(rng, self.config)
