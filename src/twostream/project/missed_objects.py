"""Missed objects: points where nothing had been proposed, as rows of a table of answers or as clicks.

Each is grown from its point (``candidates/growing.py``); the ledger records the grown mask as the annotator's drawing.
Knows the newest round's segmentation and probability, and the table; must not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property

import numpy as np

from twostream.base.errors import InputError, NoSidesError
from twostream.base.geometry import Box
from twostream.candidates.candidate import Candidate
from twostream.candidates.growing import Grown, Seed, grow
from twostream.project.answer_sheet import AnswerSheet, Row
from twostream.project.project import Project
from twostream.project.records import Answer, Window
from twostream.project.tables import latest_round
from twostream.task.answers import AnswerKind
from twostream.volume import Volume, open_volume


class PlaceError(InputError):
    """Nothing can be missed at a point: it is labelled, tested, or proposed already."""


class MissedObjects:
    """Grows missed objects on what the newest round has proposed; its volumes are opened once.

    Args:
        project: the project, of which at least one round has proposed candidates.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.round_number = latest_round(project, "propose")

    @cached_property
    def segmentation(self) -> Volume:
        """(Z, Y, X) labels of the newest round's candidates."""
        return open_volume(str(self.project.path(self.round_number, "segmentation.zarr")))

    @cached_property
    def probability(self) -> Volume | None:
        """(C, Z, Y, X) uint8 probability of the newest round; None where instances came from elsewhere."""
        path = self.project.path(self.round_number, "probability.zarr")
        return open_volume(str(path)) if path.exists() else None

    def grow(self, seed: Seed) -> Grown:
        """The object at a point (``growing.grow``).

        Raises:
            PlaceError: nothing can be missed at the point.
            NoSidesError: the sides of a synapse cannot be told.
            InputError: the point lies outside the image.
        """
        self._check_place(seed)
        return grow(seed, self.project.task, self.segmentation, self.probability)

    def check_drawn(self, box: Box, mask: np.ndarray, cut_from: Candidate | None = None) -> None:
        """Check that an object that was drawn or grown may be recorded.

        Args:
            box, mask: the drawing.
            cut_from: the candidate from which it was cut off, inside which it may lie.

        Raises:
            PlaceError: it lies in a labels box or the guarded test box, mostly in a proposed candidate, or, if it was
                cut off one, not in it.
        """
        inside = mask > 0
        if cut_from is not None:
            window = cut_from.box.intersection(box)
            held = np.zeros(box.shape_zyx, bool)
            if window.num_voxels:
                part = cut_from.mask[window.relative_to(cut_from.box).slices] > 0
                held[window.relative_to(box).slices] = part
            if 2 * np.count_nonzero(held & inside) < np.count_nonzero(inside):
                raise PlaceError(f"the piece does not lie in candidate {cut_from.id}, from which it was cut off")
            return
        # The middle one of the drawn voxels; indices of all three axes would take 24 bytes a voxel.
        middle = np.unravel_index(np.flatnonzero(inside)[np.count_nonzero(inside) // 2], box.shape_zyx)
        z, y, x = (int(i) + o for i, o in zip(middle, box.offset_zyx, strict=True))
        self._check_place(Seed((z, y, x)))
        taken = self.segmentation.read(box) > 0
        if 2 * np.count_nonzero(taken & inside) > np.count_nonzero(inside):
            raise PlaceError("most of the object lies in proposed candidates, so it was not missed")

    def _check_place(self, seed: Seed) -> None:
        """Raise PlaceError at a point where nothing can be missed."""
        project, place = self.project, seed.voxel
        labelled = [(box, "a labels box, where S learns from the labels") for box in project.boxes.labels]
        guarded = [(project.guarded_box, "the test box or its guard, from which nothing may be learned")]
        for box, what in [*labelled, *guarded]:
            if box is not None and box.contains(place):
                raise PlaceError(f"the point lies in {what}")
        if not self.segmentation.box.contains(place):
            return  # ``grow`` says so
        value = int(self.segmentation.read(place).item())
        if value:
            label = project.task.instance_of(value)
            candidates = project.candidates(self.round_number)
            identity = int(candidates.ids[candidates.column("label") == label][0])
            raise PlaceError(f"the point lies in candidate {identity}, so the object was not missed")


def recorded_at(seed: Seed, known: Iterable[Answer]) -> Answer | None:
    """The first of ``known`` missed objects in which a point lies; None if it lies in none."""
    for answer in known:
        assert answer.drawing is not None  # the ledger demands it
        box, mask = answer.drawing
        if box.contains(seed.voxel) and mask[seed.voxel.relative_to(box).offset_zyx]:
            return answer
    return None


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
    def _objects(self) -> MissedObjects:
        return MissedObjects(self.project)

    def answer(self, row: Row, seconds: float, window: Window | None = None) -> Answer | None:
        """The answer for the object of a row; None if the point lies in a missed object that is recorded already.

        Args:
            row: the row.
            seconds: time that the answer took.
            window: the window in which the object was marked; None outside windows.

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
        if window is not None and not window.box.contains(seed.voxel):
            raise self._refusal(row, seed, f"the point lies outside window {window.id}, which holds {window.box}")
        if self._is_known(row, seed):
            return None
        try:
            grown = self._objects.grow(seed)
        except PlaceError as error:
            raise self._refusal(row, seed, f"{error}; remove this row") from None
        except NoSidesError as error:
            raise self._refusal(row, seed, f"{error}: pre_z, pre_y, pre_x, post_z, post_y, post_x") from None
        except InputError as error:
            raise self._refusal(row, seed, str(error)) from None
        size = self._objects.segmentation.voxel_size_nm
        remark = ""
        if window is not None and not window.holds(grown.box):
            remark = f"; its centre lies outside window {window.id}, which does not count it"
        self.notes.append(f"{self.sheet.unit} {row.number}: missed object of {grown.describe(size)}{remark}")
        answer = Answer(
            None,
            AnswerKind.MISSED,
            self.annotator,
            reason=row.cells.get("reason", ""),
            drawing=(grown.box, grown.mask),
            seconds=seconds,
            window=None if window is None else window.id,
        )
        self.known.append(answer)
        return answer

    def _is_known(self, row: Row, seed: Seed) -> bool:
        """Whether the point lies in a missed object that is recorded, or stands in an earlier row of the table."""
        known = recorded_at(seed, self.known)
        if known is not None and (not known.id or known.annotator != self.annotator):
            whose = f"that {known.annotator} has marked" if known.id else "of an earlier row"
            self.notes.append(
                f"{self.sheet.unit} {row.number}: the point lies in the missed object {whose}: passed over"
            )
        return known is not None

    def _point(self, row: Row, prefix: str) -> tuple[float, float, float] | None:
        """A point in voxels of the image, from ``{prefix}z, y, x`` or ``{prefix}z_nm, y_nm, x_nm``, or None."""
        given = []
        for unit, size in (("", (1.0, 1.0, 1.0)), ("_nm", self._objects.segmentation.voxel_size_nm)):
            names = [f"{prefix}{axis}{unit}" for axis in "zyx"]
            if any(row.cells.get(name) for name in names):
                z, y, x = (self.sheet.number(row, name) / n for name, n in zip(names, size, strict=True))
                given.append((z, y, x))
        if len(given) == 2 and math.dist(*given) > 1:
            raise self.sheet.error(row, f"{prefix}z_nm", f"the place in voxels is {given[0]}, which is another one")
        return given[0] if given else None

    def _refusal(self, row: Row, seed: Seed, why: str) -> InputError:
        """The error for a missed object that cannot be recorded."""
        z, y, x = seed.center_zyx
        where = f"{self.sheet.path}, {self.sheet.unit} {row.number}"
        return InputError(f"{where}: missed object at z, y, x = {z:g}, {y:g}, {x:g} (voxels): {why}.")
