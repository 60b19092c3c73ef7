"""The labels box as the labels have it: the part of the curated data set that was drawn by hand from the start.

Knows the labels, their ignore mask and the labels box; must not know candidates or answers.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from twostream.base.geometry import Box, grid
from twostream.project.dataset.objects import LABELS
from twostream.project.project import Project
from twostream.task.metrics import hidden_voxels

BLOCK_ZYX = (32, 512, 512)
"""Voxels of the labels in memory at once, while their values are listed."""


class HandLabels:
    """The labelled objects of a project's labels box, the validation box included.

    A voxel is *known* if it lies in the labels box and the ignore mask does not hide it. Known voxels are what the
    labels say, background too. Everywhere else the labels say nothing.

    Args:
        project: with or without labels.
        first_id: id of the first object; the others follow in the order of their labels.
    """

    def __init__(self, project: Project, first_id: int) -> None:
        self._project, self._first_id = project, first_id
        self.boxes = project.boxes.labels

    @cached_property
    def labels(self) -> np.ndarray:
        """(L,) uint64, the instance labels that occur, ascending."""
        found: set[int] = set()
        for box in self.boxes:
            for block in grid(box, BLOCK_ZYX):
                found |= set(np.unique(self._project.task.instances(self._values(block.write_box))).tolist())
        return np.array(sorted(found - {0}), np.uint64)

    @property
    def next_id(self) -> int:
        """The first id above all objects."""
        return self._first_id + len(self.labels)

    def touches(self, box: Box) -> bool:
        """Whether ``box`` and the labels box have a voxel in common."""
        return any(box.intersects(mine) for mine in self.boxes)

    def read(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """What the labels say in a box of the image.

        Returns:
            (Z, Y, X) uint64 label values in the task's convention, by the ids of the data set, 0 where nothing is
            known; and (Z, Y, X) bool, which voxels are known.
        """
        values, known = np.zeros(box.shape_zyx, np.uint64), np.zeros(box.shape_zyx, bool)
        for mine in self.boxes:
            part = box.intersection(mine)
            if part.num_voxels == 0:
                continue
            at = part.relative_to(box).slices
            labels, ignore = self._values(part), self._project.labels_ignore
            hidden = hidden_voxels(None if ignore is None else ignore.read(part), labels)
            known[at] = True if hidden is None else ~hidden
            values[at] = self._renamed(labels)
        return values, known

    def rows(self) -> list[dict[str, Any]]:
        """Rows of ``objects.csv``, one per object, without box and size."""
        same = {"project": self._project.id, "task": self._project.config.task, "origin": LABELS}
        return [same | {"id": self._first_id + i, "label": label} for i, label in enumerate(self.labels.tolist())]

    def _values(self, box: Box) -> np.ndarray:
        return self._project.labels.read(box).astype(np.uint64)

    def _renamed(self, labels: np.ndarray) -> np.ndarray:
        """(Z, Y, X) uint64 label values with the data set's ids in place of the instance labels."""
        task = self._project.task
        instance = task.instances(labels)
        ids = np.uint64(self._first_id) + np.searchsorted(self.labels, instance).astype(np.uint64)
        renamed = ids if task.num_sides == 1 else np.uint64(2) * ids - labels % np.uint64(2)
        return np.where(instance > 0, renamed, np.uint64(0))
