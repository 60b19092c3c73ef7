"""What S may learn: the labelled box and the answers, as crops of image and target with all else ignored.

Knows volumes, masks and the meaning of an answer for a target; must not know ledgers, people or networks.
Whatever a crop reaches into, voxels of the test box are blanked in the image and ignored in the target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from twostream.base.geometry import Box, to_voxels
from twostream.candidates.candidate import sides_swapped
from twostream.models.segmentation.config import SegmentationConfig
from twostream.task import CERTAIN, IGNORE, Task
from twostream.volume import Volume, read_padded

MAX_REDRAWS = 20
"""Where a box holds next to no foreground, drawing on would not end."""
MAX_REGION_BYTES = 1 << 29
"""Tissue about lessons that is kept; thousands of answers would fill any memory."""
ERASED = 255
"""Value of a drawn mask where the annotator took away what S had proposed."""


def known_target(labels: Volume, ignore: Volume | None, task: Task, box: Box) -> np.ndarray:
    """Target of a labelled box: (C, Z, Y, X) uint8 levels, ``IGNORE`` where nothing is known.

    A contour or a distance looks around a voxel: near a face of the box, or near what the labels do not know, an object
    may begin that nobody has labelled, so nothing is known of them there.

    Args:
        labels: (Z, Y, X) in the task's convention.
        ignore: non-zero where labels count neither as object nor as background, or None.
        task: makes targets of labels.
        box: where labels are known; its faces that are the volume's own hide nothing.
    """
    truth = labels.read(box)
    target = task.target(truth)
    hidden = np.zeros(box.shape_zyx, bool) if ignore is None else (ignore.read(box) > 0) & (truth == 0)
    target[:, hidden] = IGNORE
    looking = [name in ("contour", "distance") for name in task.channels]
    if any(looking):
        around = box.grown(task.reach_voxels).intersection(labels.box)
        unknown = np.ones(around.shape_zyx, bool)
        inside = box.relative_to(around).slices
        unknown[inside] = hidden
        near = ndimage.maximum_filter(unknown, [2 * r + 1 for r in task.reach_voxels])[inside]
        target[looking] = np.where(near, np.uint8(IGNORE), target[looking])
    return target


@dataclass(frozen=True)
class Lesson:
    """An answered mask and what it teaches.

    Attributes:
        box: where it is, voxels of the image.
        mask: (Z, Y, X) uint8 over ``box``: 1 inside; polarity: 1 pre, 2 post; ``ERASED`` where surely no object is.
        teaches: "mask", "background", "exchanged", "drawn" or "doubt" (see ``answers.Meaning``).
    """

    box: Box
    mask: np.ndarray
    teaches: str

    @classmethod
    def corrected(cls, candidate_box: Box, candidate_mask: np.ndarray, box: Box, mask: np.ndarray) -> Lesson:
        """What was drawn in place of a candidate: it is there, and the rest of the candidate is not.

        Args:
            candidate_box: voxels of the image; ``box`` likewise.
            candidate_mask: (Z, Y, X) uint8 over ``candidate_box``, as S proposed it.
            mask: (Z, Y, X) uint8 over ``box``, as it was drawn.
        """
        both = candidate_box.hull(box)
        joined = np.zeros(both.shape_zyx, np.uint8)
        joined[candidate_box.relative_to(both).slices][candidate_mask > 0] = ERASED
        np.copyto(joined[box.relative_to(both).slices], mask, where=mask > 0)
        return cls(both, joined, "drawn")


class _Blanked(Volume):
    """A volume whose voxels in one box read as a constant: what mirrors it, mirrors the constant."""

    def __init__(self, volume: Volume, hidden: Box, grey: int) -> None:
        self.uri, self.shape_zyx, self.num_channels = volume.uri, volume.shape_zyx, volume.num_channels
        self.voxel_size_nm, self.dtype = volume.voxel_size_nm, volume.dtype
        self.chunk_shape_zyx = volume.chunk_shape_zyx
        self._volume, self._hidden, self._grey = volume, hidden, grey

    def _read(self, box: Box) -> np.ndarray:
        array = self._volume.read(box)
        array[self._hidden.intersection(box).relative_to(box).slices] = self._grey
        return array


def hidden_behind(image: Volume, test_box: Box | None, grey: int) -> Volume:
    """``image`` with the test box, if any, painted over in ``grey``."""
    return image if test_box is None else _Blanked(image, test_box, grey)


class Crop(NamedTuple):
    """One training crop.

    Attributes:
        image: (Z, Y, X) uint8.
        target: (C, Z, Y, X) uint8 levels.
        weight: (Z, Y, X) uint8, what a voxel counts beside an ordinary one.
    """

    image: np.ndarray
    target: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class _Region:
    """All that crops about one place can reach.

    Attributes:
        box: voxels of the image; may reach outside of it.
        grey: (Z, Y, X) uint8.
        believed: (C, Z, Y, X) uint8 levels, or None.
        weight: (Z, Y, X) uint8.
        near: rows of the lessons that reach into it, oldest first.
    """

    box: Box
    grey: np.ndarray
    believed: np.ndarray | None
    weight: np.ndarray
    near: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return self.grey.nbytes + self.weight.nbytes + (0 if self.believed is None else self.believed.nbytes)


class Lessons:
    """Everything S may learn from, ready to be cropped.

    Args:
        image: (Z, Y, X) uint8.
        labels: (Z, Y, X) integers in the task's convention.
        ignore: non-zero where labels count neither as object nor as background, or None.
        task: makes targets of labels.
        labels_box: what may be learned of ``labels``.
        val_box: part of it that is never trained on.
        test_box: what must not be seen at all, or None.
        guarded_box: test box and guard: no target there, whoever drew it; or None.
        crop_shape_zyx: voxels of a training crop.
        lessons: answered masks, oldest first: where they overlap, the newer one holds.
        rim_nm: voxels this near the border of an answered foreground mask are ignored.
        belief: probability (C, Z, Y, X) uint8 of an earlier S: what is taken for true where nothing else is known and
            that S was sure; or None.
        sure: probability of either side from which it was.
        emphasis: what an answered voxel counts beside an ordinary one; so do those about it, where the object ends.
        margin_nm: voxels this near to an answered object are about it, in plane, and one section above and below. About
            a doubt nothing is believed.
    """

    def __init__(
        self,
        image: Volume,
        labels: Volume,
        ignore: Volume | None,
        task: Task,
        *,
        labels_box: Box,
        val_box: Box,
        test_box: Box | None,
        guarded_box: Box | None,
        crop_shape_zyx: tuple[int, int, int],
        lessons: Sequence[Lesson] = (),
        rim_nm: float = 0.0,
        belief: Volume | None = None,
        sure: float = 0.5,
        emphasis: int = 1,
        margin_nm: float = 0.0,
    ) -> None:
        self._task = task
        self._untaught = [box for box in (val_box, guarded_box, test_box) if box is not None]
        self._crop_shape = crop_shape_zyx
        self.lessons = list(lessons)
        self._rim = to_voxels(rim_nm, image.voxel_size_nm)
        self._labels_box = labels_box
        self._target = known_target(labels, ignore, task, labels_box)
        self._target[(slice(None), *val_box.relative_to(labels_box).slices)] = IGNORE
        self._image = hidden_behind(image, test_box, int(image.read(labels_box).mean()))
        self._foreground = np.argwhere(self._target[task.foreground] == CERTAIN)
        self._belief, self._sure = belief, sure
        self._emphasis = emphasis
        self._margin = (1, *to_voxels(margin_nm, image.voxel_size_nm)[1:]) if margin_nm else (0, 0, 0)
        self._regions: dict[int, _Region] = {}
        self._painted = [self._paint(lesson) for lesson in self.lessons]

    @property
    def digest(self) -> str:
        """Stands for all that may be learned: other labels, answers or settings give another one."""
        digest = hashlib.blake2b(digest_size=16)
        places = (self._labels_box, self._untaught, self._crop_shape)
        settings = (self._rim, self._margin, self._emphasis, self._sure, self._belief is None)
        digest.update(repr((places, settings)).encode())
        digest.update(self._target.tobytes())
        for lesson in self.lessons:
            digest.update(f"{lesson.box} {lesson.teaches}".encode() + lesson.mask.tobytes())
        return digest.hexdigest()

    def labelled_crop(self, rng: np.random.Generator, config: SegmentationConfig) -> Crop:
        """A crop of the labelled box.

        Crops with hardly any foreground are drawn anew, with the chance and below the number that ``config`` says.
        """
        crop = self._labelled(rng, config.foreground_share)
        for _ in range(MAX_REDRAWS):
            known = np.count_nonzero(crop.target[self._task.foreground] == CERTAIN)
            if known >= config.reject_below_voxels or rng.random() >= config.reject_chance:
                break
            crop = self._labelled(rng, config.foreground_share)
        return crop

    def _labelled(self, rng: np.random.Generator, foreground_share: float) -> Crop:
        if len(self._foreground) and rng.random() < foreground_share:
            voxel = self._foreground[rng.integers(len(self._foreground))]
        else:
            voxel = rng.integers(self._labels_box.shape_zyx)
        center = voxel + np.asarray(self._labels_box.offset_zyx)
        return self._crop(-1, self._labels_box, self._jittered(center, rng))

    def answer_crop(self, rng: np.random.Generator, row: int) -> Crop:
        """The same, about lesson ``row``."""
        box = self.lessons[row].box
        center = np.asarray(box.offset_zyx) + np.asarray(box.shape_zyx) // 2
        return self._crop(row, Box(tuple(center.tolist()), (1, 1, 1)), self._jittered(center, rng))

    def _jittered(self, center: np.ndarray, rng: np.random.Generator) -> Box:
        """A crop that holds ``center`` in its middle half."""
        shape = np.asarray(self._crop_shape)
        start = center - shape // 2 + rng.integers(-(shape // 4), shape // 4 + 1)
        # A stack thinner than the crop would be seen mirrored at other places each time: hold the crop to it.
        extent = np.asarray(self._image.shape_zyx)
        highest = np.maximum(extent - shape, 0)
        return Box(tuple(np.clip(start, 0, highest).tolist()), self._crop_shape)

    def _crop(self, key: int, about: Box, crop: Box) -> Crop:
        region = self._region(key, about)
        inside = crop.relative_to(region.box).slices
        if region.believed is None:
            target = np.full((len(self._task.channels), *crop.shape_zyx), IGNORE, np.uint8)
        else:
            target = region.believed[(slice(None), *inside)].copy()
        for row in region.near:
            lesson, painted = self.lessons[row], self._painted[row]
            common = crop.intersection(lesson.box)
            if common.num_voxels:
                part = target[(slice(None), *common.relative_to(crop).slices)]
                new = painted[(slice(None), *common.relative_to(lesson.box).slices)]
                part[...] = np.where(new != IGNORE, new, part)
        self._lay_labels_over(target, crop)
        for box in self._untaught:
            target[(slice(None), *crop.intersection(box).relative_to(crop).slices)] = IGNORE
        return Crop(region.grey[inside], target, region.weight[inside])

    def _lay_labels_over(self, target: np.ndarray, crop: Box) -> None:
        """The labelled box knows better than an answer about a mask that reaches into it."""
        common = crop.intersection(self._labels_box)
        if common.num_voxels:
            known = self._target[(slice(None), *common.relative_to(self._labels_box).slices)]
            part = target[(slice(None), *common.relative_to(crop).slices)]
            part[...] = np.where(known != IGNORE, known, part)

    def _region(self, key: int, about: Box) -> _Region:
        """What crops about one place can reach, read once as long as it fits into ``MAX_REGION_BYTES`` with others."""
        if key in self._regions:
            self._regions[key] = self._regions.pop(key)  # the last to go
            return self._regions[key]
        reach = np.asarray(self._crop_shape) * 3 // 4 + 1
        low, high = np.asarray(about.offset_zyx) - reach, np.asarray(about.stop_zyx) + reach
        # Crops are held to the image, so at its borders they reach farther inwards.
        extent, shape = np.asarray(self._image.shape_zyx), np.asarray(self._crop_shape)
        low = np.clip(np.minimum(low, extent - shape), 0, None)
        high = np.maximum(np.minimum(high, extent), shape)
        box = Box.from_corners(low.tolist(), high.tolist())
        near = tuple(i for i, one in enumerate(self.lessons) if one.box.grown(self._margin).intersects(box))
        about_it = self._about(box, [row for row in near if self.lessons[row].teaches != "doubt"])
        weight = np.where(about_it, np.uint8(self._emphasis), np.uint8(1))
        believed = None
        if self._belief is not None:
            believed = self._believed(read_padded(self._belief, box))
            believed[:, self._about(box, [row for row in near if self.lessons[row].teaches == "doubt"])] = IGNORE
        region = _Region(box, read_padded(self._image, box), believed, weight, near)
        self._regions[key] = region
        while len(self._regions) > 1 and sum(r.num_bytes for r in self._regions.values()) > MAX_REGION_BYTES:
            del self._regions[next(iter(self._regions))]
        return region

    def _believed(self, probability: np.ndarray) -> np.ndarray:
        """Probability (C, Z, Y, X) uint8 -> levels; ``IGNORE`` where S doubted a channel that is yes or no."""
        doubted = np.abs(probability.astype(np.int16) * 2 - 255) < 255 * (2 * self._sure - 1)
        doubted[[name == "distance" for name in self._task.channels]] = False
        return np.where(doubted.any(0), np.uint8(IGNORE), np.minimum(probability, CERTAIN))

    def _about(self, box: Box, rows: Sequence[int]) -> np.ndarray:
        """(Z, Y, X) bool over ``box``: the masks of these lessons and their margins."""
        about = np.zeros(box.shape_zyx, bool)
        for lesson in (self.lessons[row] for row in rows):
            grown = lesson.box.grown(self._margin)
            mask = np.pad(lesson.mask > 0, [(m, m) for m in self._margin])
            mask = ndimage.maximum_filter(mask, [2 * m + 1 for m in self._margin])
            common = grown.intersection(box)
            about[common.relative_to(box).slices] |= mask[common.relative_to(grown).slices]
        return about

    def _paint(self, lesson: Lesson) -> np.ndarray:
        """Target over the lesson's box: (C, Z, Y, X) uint8."""
        mask = lesson.mask
        if lesson.teaches == "doubt":
            return np.full((len(self._task.channels), *mask.shape), IGNORE, np.uint8)
        if lesson.teaches == "background":
            return np.where(mask[None] > 0, self._task.background[:, None, None, None], np.uint8(IGNORE))
        if lesson.teaches == "exchanged":
            mask = sides_swapped(mask)
        labels = np.where(mask == ERASED, 0, mask)
        if self._task.num_sides == 1:
            labels = (labels > 0).astype(np.uint8)
        sure = mask > 0
        if lesson.teaches != "drawn" and any(self._rim):
            # In plane only: sections are thick, and a rim along Z would swallow thin objects whole.
            size = (1, 2 * self._rim[1] + 1, 2 * self._rim[2] + 1)
            core = ndimage.binary_erosion(sure, np.ones(size, bool))
            sure = core if core.any() else sure
        # With background around: a mask that fills its box would have no border there, and no distance to one.
        margin = self._task.reach_voxels
        target = self._task.target(np.pad(labels, [(m, m) for m in margin]))
        inside = tuple(slice(m, n - m) for m, n in zip(margin, target.shape[1:], strict=True))
        target = target[(slice(None), *inside)]
        if lesson.teaches == "drawn":  # between the sides of a synapse lies its cleft
            sure |= target[self._task.foreground] == CERTAIN
        return np.where(sure[None], target, np.uint8(IGNORE))
