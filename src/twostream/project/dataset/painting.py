"""Objects painted into a volume, block by block, and measured as they stand there.

Knows objects, hand labels and volumes; must not know which objects belong into a data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from twostream.base import progress
from twostream.base.geometry import Box
from twostream.project.dataset.hand_labels import HandLabels
from twostream.project.dataset.objects import CuratedObject
from twostream.task import Task
from twostream.volume import Volume
from twostream.volume.windows import whole_chunks


@dataclass(frozen=True)
class Extent:
    """What an object covers: the bounding box of its voxels, and their number."""

    box: Box
    num_voxels: int


class BoxIndex:
    """Which of many boxes a box meets.

    Args:
        boxes: N boxes.
    """

    def __init__(self, boxes: Iterable[Box]) -> None:
        corners = np.array([(box.offset_zyx, box.stop_zyx) for box in boxes], np.int64).reshape(-1, 2, 3)
        self._start, self._stop = corners[:, 0], corners[:, 1]

    def meeting(self, box: Box) -> list[int]:
        """Positions of the boxes that have a voxel in common with ``box``, ascending."""
        meets = (self._start < np.array(box.stop_zyx)) & (self._stop > np.array(box.offset_zyx))
        return [int(row) for row in np.flatnonzero(meets.all(1))]


def paint(
    volume: Volume, task: Task, objects: Sequence[CuratedObject], hand: HandLabels, shift: int = 0
) -> dict[int, Extent]:
    """Paint objects, later ones over earlier ones, and the hand labels over all of them where they are known.

    Args:
        volume: (Z, Y, X) uint64 to write; every chunk is written once.
        task: gives the label convention.
        objects: in the order of painting.
        hand: the labels box.
        shift: is added to every id.

    Returns:
        {id without ``shift``: its extent}, of all objects that have a voxel.
    """
    index = BoxIndex(one.box for one in objects)
    extents: dict[int, Extent] = {}
    blocks = list(whole_chunks(volume))
    with progress.task("paint objects", total=len(blocks)) as advance:
        for block in blocks:
            values = np.zeros(block.shape_zyx, np.uint64)
            for row in index.meeting(block):
                _paint_one(values, block, objects[row], task)
            if hand.touches(block):
                drawn, known = hand.read(block)
                values[known] = drawn[known]
            _measure(task.instances(values), block, extents)
            if shift:
                values[values > 0] += np.uint64(shift * task.num_sides)
            volume.write(block, values)
            advance(1)
    return extents


def _paint_one(values: np.ndarray, block: Box, one: CuratedObject, task: Task) -> None:
    """Paint the part of an object that lies in a block into ``values``, (Z, Y, X) uint64 over the block."""
    part = one.box.intersection(block)
    side = one.mask[part.relative_to(one.box).slices].astype(np.uint64)
    identity = np.uint64(one.paint_as or one.id)
    labels = identity if task.num_sides == 1 else np.uint64(2) * identity - (np.uint64(2) - side)
    window = values[part.relative_to(block).slices]
    window[...] = np.where(side > 0, labels, window)


def _measure(instances: np.ndarray, block: Box, extents: dict[int, Extent]) -> None:
    """Add the voxels of a block, (Z, Y, X) ids, to ``extents``."""
    where = np.flatnonzero(instances)
    if len(where) == 0:
        return
    where = where[np.argsort(instances.ravel()[where], kind="stable")]
    ids, first, counts = np.unique(instances.ravel()[where], return_index=True, return_counts=True)
    zyx = np.stack(np.unravel_index(where, instances.shape))
    start = np.minimum.reduceat(zyx, first, axis=1).T + block.offset_zyx
    stop = np.maximum.reduceat(zyx, first, axis=1).T + block.offset_zyx + 1
    for identity, low, high, count in zip(ids.tolist(), start.tolist(), stop.tolist(), counts.tolist(), strict=True):
        box, before = Box.from_corners(low, high), extents.get(identity)
        if before is not None:
            box, count = before.box.hull(box), before.num_voxels + count
        extents[identity] = Extent(box, count)
