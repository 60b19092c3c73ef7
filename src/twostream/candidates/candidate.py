"""Candidates: instances proposed by S, as a table, and their identity from round to round.

Knows segmentations, tables and ids; must not know models, patches or answers. A candidate carries its own mask,
so that it can be compared, shown and learned from after the segmentation it came from is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np

from twostream.base.geometry import Box
from twostream.task import Task


@dataclass(frozen=True)
class Candidate:
    """One proposed instance.

    Attributes:
        id: permanent, 1..2^53-1; 0 before the ledger gave one.
        label: its value in this round's segmentation (instance label).
        box: its bounding box, voxels of the image.
        mask: (Z, Y, X) uint8 over ``box``: 1 inside; polarity: 1 pre, 2 post.
        score: mean foreground probability inside, in [0, 1].
        parent_ids: candidates of earlier rounds that it overlaps without being the same.
    """

    id: int
    label: int
    box: Box
    mask: np.ndarray
    score: float
    parent_ids: tuple[int, ...] = ()

    @property
    def num_voxels(self) -> int:
        return int(np.count_nonzero(self.mask))

    @property
    def center_zyx(self) -> np.ndarray:
        """(3,) float, centre of mass in voxels of the image."""
        return np.argwhere(self.mask).mean(0) + self.box.offset_zyx


def clean(segmentation: np.ndarray, task: Task, min_voxels: int) -> np.ndarray:
    """Drop instances below ``min_voxels`` and renumber the rest 1.. in raster order of their first voxels.

    Args:
        segmentation: (Z, Y, X) uint32 in the task's label convention.

    Returns:
        Same shape and convention.
    """
    instance = task.instances(segmentation)
    where = np.flatnonzero(instance)
    labels = instance.ravel()[where]
    if len(labels) == 0:
        return np.zeros_like(segmentation)
    size = np.bincount(labels)
    first = np.full(len(size), instance.size, np.int64)
    first[labels[::-1]] = where[::-1]  # the last assignment wins: the first voxel in raster order
    kept = np.flatnonzero(size >= max(min_voxels, 1))
    kept = kept[kept > 0]
    new = np.zeros(len(size), segmentation.dtype)
    new[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1)
    renamed = new[instance]
    if task.num_sides == 2:
        renamed = np.where(renamed > 0, 2 * renamed - segmentation % 2, 0).astype(segmentation.dtype)
    return renamed


def without_doubtful(segmentation: np.ndarray, probability: np.ndarray, task: Task, min_score: float) -> np.ndarray:
    """Only the instances that S believes in.

    Args:
        segmentation: (Z, Y, X) uint32 in the task's label convention.
        probability: (Z, Y, X) uint8 foreground probability.
        task: joins the sides of an instance.
        min_score: mean probability in [0, 1] that an instance needs; 0 keeps all.

    Returns:
        Same shape and convention; what is kept keeps its label.
    """
    instance = task.instances(segmentation).ravel()
    size = np.bincount(instance)
    total = np.bincount(instance, weights=probability.ravel())
    kept = total >= 255 * min_score * size
    return np.where(kept[instance].reshape(segmentation.shape), segmentation, segmentation.dtype.type(0))


def extract(
    segmentation: np.ndarray, probability: np.ndarray, task: Task, offset_zyx: Sequence[int]
) -> list[Candidate]:
    """Candidates of a cleaned segmentation, in order of their labels.

    Args:
        segmentation: (Z, Y, X) uint32, as ``clean`` leaves it.
        probability: (Z, Y, X) uint8 foreground probability.
        offset_zyx: voxel of the image at which the arrays begin.
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


def sides_swapped(mask: np.ndarray) -> np.ndarray:
    """(Z, Y, X) uint8 mask of a synapse with its presynaptic (1) and postsynaptic (2) sides exchanged."""
    return np.where(mask > 0, 3 - mask, 0).astype(np.uint8)


def mean_probability(probability: np.ndarray, mask: np.ndarray) -> float:
    """Of (Z, Y, X) uint8 inside a mask of the same shape; in [0, 1]."""
    return float(probability[mask > 0].mean(dtype=np.float64) / 255)
