"""What people draw, as it travels between browser and server, and missed objects that are grown from a click.

A drawing travels as runs: value, length, value, length, ... over its box in raster order. Nothing of it is trusted:
every bound is checked before memory is taken. Knows drawings and the project's missed objects; must not know requests
or pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictInt
from scipy import ndimage

from twostream.base.errors import InputError
from twostream.base.geometry import Box, to_voxels
from twostream.candidates.growing import REACH, Grown, Seed
from twostream.candidates.sources import RADIUS_NM
from twostream.project.missed_objects import MissedObjects, recorded_at
from twostream.project.project import Project
from twostream.project.records import Answer

MAX_VOXELS = 16_000_000
"""Voxels of the box of a drawing, and of the window in which an object is grown; mask.js has the same bound."""
MAX_RUNS = 400_000
"""Entries of ``runs``: a mask of 16 million voxels with 200,000 runs is not drawn by a person."""
MAX_INTEGER = 2**53 - 1
"""JavaScript holds whole numbers exactly up to here."""

Whole = Annotated[StrictInt, Field(ge=0, le=MAX_INTEGER)]
Vector = tuple[Whole, Whole, Whole]
Place = Annotated[float, Field(strict=True, ge=-MAX_INTEGER, le=MAX_INTEGER, allow_inf_nan=False)]
Point = tuple[Place, Place, Place]


class DrawingBody(BaseModel):
    """A drawn mask as it travels.

    Attributes:
        offset_zyx: first voxel of the box, in voxels of the image.
        shape_zyx: extent of the box.
        runs: value, length, value, length, ... over the box in raster order, Z slowest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    offset_zyx: Vector
    shape_zyx: Vector
    runs: Annotated[list[Whole], Field(max_length=MAX_RUNS)]


class MarkedBody(DrawingBody):
    """A missed object that was marked; ``window`` is the id of the window in which it was, or None."""

    window: int | None = None


class SeedBody(BaseModel):
    """A click on an object that was missed. Positions are z, y, x in voxels of the image; voxel i has its centre at i.

    Attributes:
        center_zyx: a point in the object.
        radius_nm: its approximate radius; None takes the task's.
        pre_zyx: polarity: a point on the presynaptic side; None together with ``post_zyx``.
        post_zyx: a point on the postsynaptic side.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    center_zyx: Point
    radius_nm: Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)] | None = None
    pre_zyx: Point | None = None
    post_zyx: Point | None = None


def mask_of(body: DrawingBody, image_box: Box, num_sides: int) -> tuple[Box, np.ndarray]:
    """The mask that was drawn, over its bounding box.

    Args:
        body: what came.
        image_box: the box of the image, inside which the drawing must lie.
        num_sides: largest value allowed: 2 in the polarity task (1 pre, 2 post), else 1.

    Returns:
        The bounding box of the drawn voxels, and the mask over it: (Z, Y, X) uint8.

    Raises:
        InputError: the runs do not describe the box exactly, or the drawing is too large, empty or outside the image.
    """
    box = Box(body.offset_zyx, body.shape_zyx)
    if box.num_voxels > MAX_VOXELS:
        raise InputError(f"the drawing has a box of {box.num_voxels} voxels; at most {MAX_VOXELS} are taken.")
    if not image_box.contains(box) or not box.num_voxels:
        raise InputError(f"the drawing lies at {box}; expected voxels inside the image, which holds {image_box}.")
    if len(body.runs) % 2:
        raise InputError(f"the drawing has {len(body.runs)} entries in runs; expected pairs of value and length.")
    value, length = np.asarray(body.runs, np.int64).reshape(-1, 2).T
    if ((length < 1) | (length > box.num_voxels)).any():  # first, so that the sum below cannot overflow
        raise InputError(f"the drawing has a run longer than its box of {box.num_voxels} voxels, or one of length 0.")
    if length.sum() != box.num_voxels:
        raise InputError(f"the runs of the drawing add up to {length.sum()} voxels; its box holds {box.num_voxels}.")
    if (value > num_sides).any():
        wanted = "1 inside" if num_sides == 1 else "1 presynaptic, 2 postsynaptic"
        raise InputError(f"the drawing holds the value {value.max()}; expected 0 outside and {wanted}.")
    if not value.any():
        raise InputError("the drawing is empty; draw at least one voxel.")
    mask = np.repeat(value.astype(np.uint8), length).reshape(box.shape_zyx)
    (tight,) = ndimage.find_objects((mask > 0).astype(np.uint8))
    return Box(tuple(s.start for s in tight), mask[tight].shape).shifted(box.offset_zyx), mask[tight]


def drawing_of(box: Box, mask: np.ndarray) -> DrawingBody:
    """A mask as it travels; ``mask_of`` reads it back.

    Args:
        box: where it lies, in voxels of the image.
        mask: (Z, Y, X) uint8 over ``box``.

    Raises:
        InputError: it has more runs than ``mask_of`` would take back.
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] ^ 1))
    if 2 * len(starts) > MAX_RUNS:
        raise InputError(f"the mask at {box} has {len(starts)} runs; at most {MAX_RUNS // 2} can be sent.")
    lengths = np.diff(starts, append=len(flat))
    runs = np.stack([flat[starts].astype(np.int64), lengths], axis=1).ravel().tolist()
    return DrawingBody(offset_zyx=box.offset_zyx, shape_zyx=box.shape_zyx, runs=runs)


def marked_in(box: Box, answers: Iterable[Answer]) -> list[MarkedBody]:
    """The drawings that share a voxel with a box, as they travel; one that is too large to travel is left out."""
    found = []
    for answer in answers:
        if answer.drawing is not None and answer.drawing[0].intersection(box).num_voxels:
            with suppress(InputError):
                found.append(MarkedBody(**drawing_of(*answer.drawing).model_dump(), window=answer.window))
    return found


def grow_missed(project: Project, body: SeedBody, known: Iterable[Answer] = ()) -> Grown:
    """The object that a person saw at a point, to be shown before it is kept.

    Args:
        project: the project.
        body: the point.
        known: missed objects that are recorded already.

    Raises:
        NoSidesError: the sides of a synapse cannot be told; points on both sides would tell them.
        InputError: nothing can be missed at the point, it lies outside the image, or the radius is too large.
    """
    if (body.pre_zyx is None) != (body.post_zyx is None):
        raise InputError("a point on one side came; the direction of a synapse needs a point on both sides.")
    seed, objects = Seed(**body.model_dump()), MissedObjects(project)
    segmentation = objects.segmentation
    radius_nm = seed.radius_nm or RADIUS_NM[project.task.name]
    window = seed.voxel.grown(to_voxels(REACH * radius_nm, segmentation.voxel_size_nm)).intersection(segmentation.box)
    if window.num_voxels > MAX_VOXELS:
        raise InputError(
            f"a radius of {radius_nm:g} nm makes a window of {window.num_voxels} voxels, in which the object would be "
            f"looked for; at most {MAX_VOXELS} are read. Take a smaller radius."
        )
    recorded = recorded_at(seed, known)
    if recorded is not None:
        raise InputError(f"the point lies in the missed object that {recorded.annotator} has marked.")
    return objects.grow(seed)
