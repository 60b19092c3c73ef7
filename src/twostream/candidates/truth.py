"""The truth rule for a single candidate, by its own mask, against a volume of true labels.

``Task.judge`` judges all instances of a segmentation at once. A candidate may outlive the segmentation that it came
from; ``Truth`` judges it by its mask, with the same result. The simulated annotator and the scores use it. Knows
candidates, volumes and the task; must not know projects, rounds or the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from twostream.base.geometry import Box, grid
from twostream.candidates.candidate import Candidate
from twostream.task import NOTHING_SHARE, Judgement, Task
from twostream.task.metrics import Overlaps
from twostream.volume import Volume

BLOCK_ZYX = (32, 512, 512)
"""Voxels of the truth in memory at once, while the sizes of its objects are counted."""


class Truth:
    """A volume of true labels, with the sizes of its objects.

    Args:
        labels: (Z, Y, X) integers in the task's label convention.
        ignore: (Z, Y, X), non-zero where the truth is unknown, except in truth objects; None if it is known everywhere.
        task: gives the rule and the convention.

    Attributes:
        sizes: {label value: its voxels in the whole volume}.

    Raises:
        InputError: the volume holds values that are no labels of the task (``Task.check_values``).
    """

    def __init__(self, labels: Volume, ignore: Volume | None, task: Task) -> None:
        self.labels, self.ignore, self.task = labels, ignore, task
        self.sizes: dict[int, int] = {}
        for block in grid(labels.box, BLOCK_ZYX):
            values, counts = np.unique(labels.read(block.write_box), return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                if value:
                    self.sizes[value] = self.sizes.get(value, 0) + count
        task.check_values(set(self.sizes), labels.uri)

    def judge(self, candidate: Candidate) -> Judgement:
        """Apply the truth rule (``Task.judge``) to one candidate."""
        # The values of a mask are the label values of an instance 1: polarity 1 = pre, 2 = post.
        values = candidate.mask.astype(np.uint64)
        truth = self.labels.read(candidate.box)
        ignore = None if self.ignore is None else self.ignore.read(candidate.box)
        inside = Overlaps.of(values, np.where(values > 0, truth, 0), ignore)
        return self.task.judge(inside.merged(self._outside(inside)))[1]

    def _outside(self, inside: Overlaps) -> Overlaps:
        """Voxels of the touched truth objects outside the candidate, which count in the union of the IoU.

        Both sides of a touched synapse count, even if the candidate touches only one of them.
        """
        counted = inside.truth_sizes()
        touched = {self.task.instance_of(value) for value in counted}
        values = sorted(value for label in touched for value in self.task.values_of(label))
        outside = {value: self.sizes.get(value, 0) - counted.get(value, 0) for value in values}
        outside = {value: count for value, count in outside.items() if count}
        return Overlaps(
            np.zeros(len(outside), np.uint64),
            np.array(list(outside), np.uint64),
            np.array(list(outside.values()), np.int64),
            {},
        )

    def drawing(self, candidate: Candidate) -> tuple[Box, np.ndarray]:
        """The corrected mask that an annotator would draw in place of a candidate that overlaps the truth.

        It consists of every truth object that holds at least a tenth of the candidate (``NOTHING_SHARE``), or if there
        is none, of the truth object that holds most of it; each is drawn whole. Voxels of the candidate on another
        truth object, or where the ignore mask says that the truth is unknown, stay in the mask: only what is certainly
        background is removed.

        Args:
            candidate: must share a voxel with a truth object.

        Returns:
            Box in voxels of the image, and mask (Z, Y, X) uint8 over it, with values as in ``Candidate.mask``.
        """
        inside = self.task.instances(self.labels.read(candidate.box))[candidate.mask > 0]
        names, counts = np.unique(inside[inside > 0], return_counts=True)
        objects = names[counts >= min(NOTHING_SHARE * candidate.num_voxels, counts.max())]
        box, labels, mask = self._whole(objects.tolist(), candidate.box)
        place = candidate.box.relative_to(box).slices
        stays = labels[place] > 0
        if self.ignore is not None:
            stays |= self.ignore.read(candidate.box) > 0
        np.copyto(mask[place], candidate.mask, where=stays & (mask[place] == 0))
        return _tight(box, mask)

    def objects_in(self, box: Box) -> list[tuple[Box, np.ndarray]]:
        """The truth objects that belong to a box: the middle of their bounding box, and a voxel of theirs, lie in it.

        Args:
            box: inside the volume.

        Returns:
            Bounding box and mask of each, whole, with values as in ``Candidate.mask``; sorted by label.
        """
        names = np.unique(self.task.instances(self.labels.read(box)))
        whole = (_tight(*self._whole([label], box)[::2]) for label in names[names > 0].tolist())
        return [(where, mask) for where, mask in whole if box.contains(where.middle)]

    def _whole(self, objects: Sequence[int], box: Box) -> tuple[Box, np.ndarray, np.ndarray]:
        """Truth objects with all of their voxels.

        Args:
            objects: labels of instances that have voxels in ``box``.
            box: enlarged until it holds all voxels.

        Returns:
            The enlarged box; the labels in it; and the objects as a mask, (Z, Y, X) uint8 as in ``Candidate.mask``.
        """
        values = [v for label in objects for v in self.task.values_of(label) if v in self.sizes]
        num_voxels = sum(self.sizes[v] for v in values)
        while True:
            labels = self.labels.read(box)
            wanted = np.isin(labels, np.array(values, labels.dtype))  # other dtypes would be compared as floats
            if np.count_nonzero(wanted) == num_voxels:
                break
            box = box.grown([max(s // 4, 1) for s in box.shape_zyx]).intersection(self.labels.box)
        return box, labels, np.where(wanted, 2 - labels % 2 if self.task.num_sides == 2 else 1, 0).astype(np.uint8)


def _tight(box: Box, mask: np.ndarray) -> tuple[Box, np.ndarray]:
    """The bounding box of a mask over ``box``, and the mask over it."""
    tight = ndimage.find_objects((mask > 0).astype(np.uint8))[0]
    return Box(tuple(s.start for s in tight), mask[tight].shape).shifted(box.offset_zyx), mask[tight]
