"""Missed objects in a table of answers: rows without a query, with a point where nothing had been proposed.

Each is grown from its point (``candidates/growing.py``); the ledger records the grown mask as the annotator's drawing.
Knows the newest round's segmentation and probability, and the table; must not import torch.
"""

from __future__ import annotations

import math
from functools import cached_property

from twostream.base.errors import InputError
from twostream.candidates.growing import Seed, grow
from twostream.candidates.table import read_table
from twostream.project.answer_sheet import AnswerSheet, Row
from twostream.project.project import Project
from twostream.project.records import Answer
from twostream.project.tables import latest_round
from twostream.task.answers import AnswerKind
from twostream.volume import Volume, open_volume


class MissedRows:
    """Reads the rows of missed objects.

    Args:
        project: the project.
        sheet: the table, with the columns z, y, x (voxels of the image) or z_nm, y_nm, x_nm, and optionally radius_nm
            and, for polarity, a point on each side: pre_z ... post_x, or each with _nm.
        annotator: name of the person who answered.
        known: missed objects that are recorded already.

    Attributes:
        notes: what was grown, one line for each row.
    """

    def __init__(self, project: Project, sheet: AnswerSheet, annotator: str, known: list[Answer]) -> None:
        self.project, self.sheet, self.annotator, self.known = project, sheet, annotator, known
        self.notes: list[str] = []

    @cached_property
    def _segmentation(self) -> Volume:
        round_number = latest_round(self.project, "propose")
        return open_volume(str(self.project.path(round_number, "segmentation.zarr")))

    @cached_property
    def _probability(self) -> Volume | None:
        path = self.project.path(latest_round(self.project, "propose"), "probability.zarr")
        return open_volume(str(path)) if path.exists() else None

    def answer(self, row: Row, seconds: float) -> Answer | None:
        """The answer for the object of a row; None if the point lies in a missed object that is recorded already.

        Raises:
            InputError: the row has no point, or the point lies where nothing can be missed.
        """
        center = self._point(row, "")
        if center is None:
            raise self.sheet.error(
                row, "z", "missed needs the object's place: z, y, x (voxels of the image) or z_nm, y_nm, x_nm"
            )
        radius = self.sheet.number(row, "radius_nm") if row.cells.get("radius_nm") else None
        if radius is not None and radius <= 0:
            raise self.sheet.error(row, "radius_nm", "expected a radius above 0 nm")
        seed = Seed(center, radius, self._point(row, "pre_"), self._point(row, "post_"))
        if (seed.pre_zyx is None) != (seed.post_zyx is None):
            raise self.sheet.error(row, "pre_z", "the direction of a synapse needs a point on both sides")
        if self._is_known(row, seed):
            return None
        self._check_place(row, seed)
        try:
            grown = grow(seed, self.project.task, self._segmentation, self._probability)
        except InputError as error:
            raise self._refusal(row, seed, str(error)) from None
        size = self._segmentation.voxel_size_nm
        self.notes.append(f"row {row.number}: missed object of {grown.describe(size)}")
        answer = Answer(
            None,
            AnswerKind.MISSED,
            self.annotator,
            reason=row.cells.get("reason", ""),
            drawing=(grown.box, grown.mask),
            seconds=seconds,
        )
        self.known.append(answer)
        return answer

    def _is_known(self, row: Row, seed: Seed) -> bool:
        """Whether the point lies in a missed object that is recorded, or stands in an earlier row of the table."""
        for known in self.known:
            assert known.drawing is not None  # the ledger demands it
            box, mask = known.drawing
            if box.contains(seed.voxel) and mask[seed.voxel.relative_to(box).offset_zyx]:
                if not known.id or known.annotator != self.annotator:
                    whose = f"that {known.annotator} has marked" if known.id else "of an earlier row"
                    self.notes.append(f"row {row.number}: the point lies in the missed object {whose}: passed over")
                return True
        return False

    def _point(self, row: Row, prefix: str) -> tuple[float, float, float] | None:
        """A point in voxels of the image, from ``{prefix}z, y, x`` or ``{prefix}z_nm, y_nm, x_nm``, or None."""
        given = []
        for unit, size in (("", (1.0, 1.0, 1.0)), ("_nm", self._segmentation.voxel_size_nm)):
            names = [f"{prefix}{axis}{unit}" for axis in "zyx"]
            if any(row.cells.get(name) for name in names):
                z, y, x = (self.sheet.number(row, name) / n for name, n in zip(names, size, strict=True))
                given.append((z, y, x))
        if len(given) == 2 and math.dist(*given) > 1:
            raise self.sheet.error(row, f"{prefix}z_nm", f"the place in voxels is {given[0]}, which is another one")
        return given[0] if given else None

    def _check_place(self, row: Row, seed: Seed) -> None:
        """Refuse a point where nothing can be missed: what is labelled, tested, or proposed already."""
        project, place = self.project, seed.voxel
        labelled = [(box, "a labels box, where S learns from the labels") for box in project.boxes.labels]
        guarded = [(project.guarded_box, "the test box or its guard, from which nothing may be learned")]
        for box, what in [*labelled, *guarded]:
            if box is not None and box.contains(place):
                raise self._refusal(row, seed, f"the point lies in {what}; remove this row")
        if not self._segmentation.box.contains(place):
            return  # ``grow`` says so
        value = int(self._segmentation.read(place).item())
        if value:
            label = project.task.instance_of(value)
            path = project.path(latest_round(project, "propose"), "candidates.parquet")
            table = read_table(path, ["id", "label"]).to_pydict()
            identity = dict(zip(table["label"], table["id"], strict=True))[label]
            raise self._refusal(
                row, seed, f"the point lies in candidate {identity}, so the object was not missed; remove this row"
            )

    def _refusal(self, row: Row, seed: Seed, why: str) -> InputError:
        """The error for a missed object that cannot be recorded."""
        z, y, x = seed.center_zyx
        return InputError(
            f"{self.sheet.path}, row {row.number}: missed object at z, y, x = {z:g}, {y:g}, {x:g} (voxels): {why}."
        )
