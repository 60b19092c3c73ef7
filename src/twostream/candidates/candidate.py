"""A candidate, and the way from a segmentation to candidates.

A candidate is one proposed instance. It holds its own mask, so that it can be compared, shown and learned from after
the segmentation that it came from has been deleted. Knows segmentations and probabilities as arrays; must not know
models, patches, tables or answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import cc3d
import numpy as np

from twostream.base.geometry import Box, corners_of, grid, overlapping
from twostream.task import Task
from twostream.volume import Volume


@dataclass(frozen=True)
class Candidate:
    """One proposed instance.

    Attributes:
        id: permanent, 1..2^53-1 (docs/contracts.md, Ids and candidates); 0 as long as it has none.
        label: its instance label in the segmentation of its round.
        box: its bounding box, in voxels of the image.
        mask: (Z, Y, X) uint8 over ``box``: 1 inside; polarity: 1 on the presynaptic side, 2 on the postsynaptic side.
        score: mean foreground probability inside the mask, in [0, 1].
        parent_ids: ids of earlier candidates that it overlaps without being the same as any of them.
    """

    id: int
    label: int
    box: Box
    mask: np.ndarray
    score: float
    parent_ids: tuple[int, ...] = ()

    @property
    def num_voxels(self) -> int:
        """Voxels of the mask."""
        return int(np.count_nonzero(self.mask))

    @property
    def center_zyx(self) -> np.ndarray:
        """(3,) float z, y, x: centre of mass, in voxels of the image."""
        return np.argwhere(self.mask).mean(0) + self.box.offset_zyx


class ManyCandidates(Sequence[Candidate]):
    """Candidates that are made when they are asked for (``_one``); their boxes are known without that."""

    @overload
    def __getitem__(self, index: int) -> Candidate: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Candidate]: ...

    def __getitem__(self, index: int | slice) -> Candidate | Sequence[Candidate]:
        if isinstance(index, slice):
            return [self._one(row) for row in range(*index.indices(len(self)))]
        return self._one(range(len(self))[index])  # negative ones too, and IndexError

    def _one(self, row: int) -> Candidate:
        """The candidate of a row in [0, N)."""
        raise NotImplementedError

    @property
    def corners(self) -> np.ndarray:
        """(N, 6) int64: z0, y0, x0, z1, y1, x1 of the boxes, half-open, in voxels of the image."""
        raise NotImplementedError


def corners(candidates: Sequence[Candidate]) -> np.ndarray:
    """(N, 6) int64 as ``ManyCandidates.corners``, of any candidates."""
    return candidates.corners if isinstance(candidates, ManyCandidates) else corners_of(c.box for c in candidates)


def clean(segmentation: np.ndarray, task: Task, min_voxels: int) -> np.ndarray:
    """Drop small instances and renumber the others.

    Args:
        segmentation: (Z, Y, X) uint32 in the task's label convention.
        task: gives the convention.
        min_voxels: instances of fewer voxels are dropped.

    Returns:
        The same shape and convention, instances numbered 1, 2, ... in raster order of their first voxels.
    """
    instance = task.instances(segmentation)
    where = np.flatnonzero(instance)
    labels = instance.ravel()[where]
    if len(labels) == 0:
        return np.zeros_like(segmentation)
    size = np.bincount(labels)
    first = np.full(len(size), instance.size, np.int64)
    first[labels[::-1]] = where[::-1]  # of repeated indices the last assignment counts: the first voxel in raster order
    kept = np.flatnonzero(size >= max(min_voxels, 1))
    kept = kept[kept > 0]
    new = np.zeros(len(size), segmentation.dtype)
    new[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1)
    renamed = new[instance]
    if task.num_sides == 2:
        renamed = np.where(renamed > 0, 2 * renamed - segmentation % 2, 0).astype(segmentation.dtype)
    return renamed


def drop_low_scores(segmentation: np.ndarray, probability: np.ndarray, task: Task, min_score: float) -> np.ndarray:
    """Drop instances whose mean foreground probability is low.

    Args:
        segmentation: (Z, Y, X) uint32 in the task's label convention.
        probability: (Z, Y, X) uint8 foreground probability, 255 = 1.
        task: gives the convention; both sides of a synapse are one instance.
        min_score: mean probability that an instance needs, in [0, 1]; 0 keeps all.

    Returns:
        The same shape and convention; remaining instances keep their labels.
    """
    instance = task.instances(segmentation).ravel()
    size = np.bincount(instance)
    total = np.bincount(instance, weights=probability.ravel())
    kept = total >= 255 * min_score * size  # the mean is at least min_score, without a division by 0
    return np.where(kept[instance].reshape(segmentation.shape), segmentation, segmentation.dtype.type(0))


def extract(
    segmentation: np.ndarray, probability: np.ndarray, task: Task, offset_zyx: Sequence[int]
) -> list[Candidate]:
    """Make a candidate, without an id, of every instance.

    Args:
        segmentation: (Z, Y, X) uint32 in the task's label convention, instances numbered 1, 2, ... as by ``clean``.
        probability: (Z, Y, X) uint8 foreground probability, 255 = 1.
        task: gives the convention.
        offset_zyx: voxel of the image at which both arrays begin.

    Returns:
        Candidates in the order of their labels.
    """
    instance = np.ascontiguousarray(task.instances(segmentation))
    statistics = cc3d.statistics(instance, no_slice_conversion=False)
    result = []
    for label in range(1, len(statistics["voxel_counts"])):
        window = statistics["bounding_boxes"][label]
        mask = task.crop(segmentation[window], label)
        box = Box(tuple(s.start for s in window), mask.shape).shifted(offset_zyx)
        score = mean_probability(probability[window], mask)
        result.append(Candidate(0, label, box, mask, score))
    return result


def to_segmentation(candidates: Iterable[Candidate], box: Box, task: Task) -> np.ndarray:
    """The segmentation of a box that candidates stand for.

    Args:
        candidates: all that touch the box; others are overlooked.
        box: in voxels of the image.
        task: gives the convention.

    Returns:
        (Z, Y, X) uint32 over ``box``, in the task's label convention.
    """
    segmentation = np.zeros(box.shape_zyx, np.uint32)
    for candidate in candidates:
        part = candidate.box.intersection(box)
        mask, label = candidate.mask[part.relative_to(candidate.box).slices], np.uint32(candidate.label)
        inside = mask > 0
        values = label if task.num_sides == 1 else 2 * label - (2 - mask[inside].astype(np.uint32))
        segmentation[part.relative_to(box).slices][inside] = values
    return segmentation


BLOCK_ZYX = (64, 1024, 1024)
"""Voxels that are painted at once."""


def write_segmentation(candidates: Sequence[Candidate], output: Volume, task: Task) -> None:
    """Write the segmentation that candidates stand for into a volume of the image's extent.

    Args:
        candidates: all that are painted.
        output: (Z, Y, X) uint32.
        task: gives the convention.
    """
    blocks = [block.write_box for block in grid(output.box, BLOCK_ZYX)]
    pairs = overlapping(corners_of(blocks), corners(candidates))
    ends = np.searchsorted(pairs[:, 0], np.arange(len(blocks) + 1))
    for number, box in enumerate(blocks):
        touching = pairs[ends[number] : ends[number + 1], 1].tolist()
        output.write(box, to_segmentation((candidates[row] for row in touching), box, task))


def shared_voxels(a: Candidate, b: Candidate) -> tuple[int, int]:
    """Number of voxels that lie in both masks on the same side, and number that lie in both masks."""
    common = a.box.intersection(b.box)
    mask_a, mask_b = a.mask[common.relative_to(a.box).slices], b.mask[common.relative_to(b.box).slices]
    both = (mask_a > 0) & (mask_b > 0)
    return int((both & (mask_a == mask_b)).sum()), int(both.sum())


def sides_swapped(mask: np.ndarray) -> np.ndarray:
    """Exchange the presynaptic (1) and postsynaptic (2) sides of a (Z, Y, X) uint8 mask; returns a new mask."""
    return np.where(mask > 0, 3 - mask, 0).astype(np.uint8)


def mean_probability(probability: np.ndarray, mask: np.ndarray) -> float:
    """Mean of a (Z, Y, X) uint8 probability (255 = 1) where a mask of the same shape is above 0; in [0, 1]."""
    return float(probability[mask > 0].mean(dtype=np.float64) / 255)
