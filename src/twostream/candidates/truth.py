"""The truth rule for candidates: what a volume of true labels says of the mask that a candidate carries."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from twostream.base.geometry import Box, grid
from twostream.candidates.candidate import Candidate
from twostream.task import NOTHING_SHARE, Judgement, Task
from twostream.task.metrics import Overlaps
from twostream.volume import Volume

SLAB_ZYX = (32, 512, 512)


class Truth:
    """A truth volume with the sizes of its objects, counted once, block by block.

    Args:
        labels: (Z, Y, X) integers in the task's label convention.
        ignore: non-zero where a voxel counts neither as object nor as background, or None.
        task: gives the rule.
    """

    def __init__(self, labels: Volume, ignore: Volume | None, task: Task) -> None:
        self.labels, self.ignore, self.task = labels, ignore, task
        self.sizes: dict[int, int] = {}
        for block in grid(labels.box, SLAB_ZYX):
            values, counts = np.unique(labels.read(block.write_box), return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                if value:
                    self.sizes[value] = self.sizes.get(value, 0) + count
        task.check_values(set(self.sizes), labels.uri)

    def judge(self, candidate: Candidate) -> Judgement:
        """The truth rule for one candidate, by the mask that it carries."""
        values = candidate.mask.astype(np.uint64)  # instance 1: polarity 1 = pre, 2 = post
        truth = self.labels.read(candidate.box)
        ignore = None if self.ignore is None else self.ignore.read(candidate.box)
        inside = Overlaps.of(values, np.where(values > 0, truth, 0), ignore)
        rest = []
        for value in np.unique(inside.truth[inside.truth > 0]).tolist():
            rest.append((value, self.sizes[value] - int(inside.count[inside.truth == value].sum())))
        outside = [(value, count) for value, count in rest if count > 0]
        table = Overlaps(
            np.zeros(len(outside), np.uint64),
            np.array([v for v, _ in outside], np.uint64),
            np.array([c for _, c in outside], np.int64),
            {},
        )
        # The other side of a touched synapse may lie wholly outside: its voxels count in the union all the same.
        return self.task.judge(inside.merged(table).merged(self._other_sides(inside)))[1]

    def drawing(self, candidate: Candidate) -> tuple[Box, np.ndarray]:
        """What should stand in the place of a candidate that overlaps the truth: every object that holds a tenth of it
        (if none does: the largest part), whole. Where the candidate lies on another object, or on what the truth does
        not know, it stays as it is: only what is surely none is taken away.

        Returns:
            Box and mask (Z, Y, X) uint8, as a candidate's.
        """
        two_sided = self.task.num_sides == 2
        inside = self.task.instances(self.labels.read(candidate.box))[candidate.mask > 0]
        names, counts = np.unique(inside[inside > 0], return_counts=True)
        objects = names[counts >= min(NOTHING_SHARE * candidate.num_voxels, counts.max())]
        values = [v for n in objects.tolist() for v in ((2 * n - 1, 2 * n) if two_sided else (n,))]
        num_voxels = sum(self.sizes.get(v, 0) for v in values)
        box = candidate.box
        while True:
            labels = self.labels.read(box)
            wanted = np.isin(labels, values)
            if np.count_nonzero(wanted) == num_voxels:
                break
            # An object goes on beyond the box: look farther, until all of its voxels are in sight.
            box = box.grown([max(s // 4, 1) for s in box.shape_zyx]).intersection(self.labels.box)
        mask = np.where(wanted, 2 - labels % 2 if two_sided else 1, 0).astype(np.uint8)
        place = candidate.box.relative_to(box).slices
        stays = labels[place] > 0
        if self.ignore is not None:
            stays |= self.ignore.read(candidate.box) > 0
        np.copyto(mask[place], candidate.mask, where=stays & (mask[place] == 0))
        tight = ndimage.find_objects((mask > 0).astype(np.uint8))[0]
        return Box(tuple(s.start for s in tight), mask[tight].shape).shifted(box.offset_zyx), mask[tight]

    def _other_sides(self, inside: Overlaps) -> Overlaps:
        touched = set(inside.truth[inside.truth > 0].tolist())
        others = []
        if self.task.num_sides == 2:
            others = [v for v in {t + 1 if t % 2 else t - 1 for t in touched} - touched if v in self.sizes]
        counts = np.array([self.sizes[v] for v in others], np.int64)
        return Overlaps(np.zeros(len(others), np.uint64), np.array(others, np.uint64), counts, {})
